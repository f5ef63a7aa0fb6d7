"""DEDIER: more weight where an early layer is sure and wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..attribution import ProbeLayer, find_layer
from ..attribution.families import find_family, split_wrapper
from ..attribution.private_copy import unwrap
from ..errors import HFScoreError
from ..models import eval_mode
from .base import BaselineConfig, BaselineTrainer
from .last_layer import class_balance, refit

__all__ = ["DEDIERConfig", "DEDIERTrainer", "early_readout_weights"]


@dataclass
class DEDIERConfig(BaselineConfig):
    """Configuration of [`DEDIERTrainer`].

    Parameters:
        dedier_alpha: α, power of the margin.
        dedier_beta: β, of exp(β · margin^α).
        dedier_layer: layer that is read, as in `hf_score.attribution.find_layer`; None for the one a third up.
    """

    dedier_alpha: float = field(default=1.0, metadata={"help": "Power of the margin."})
    dedier_beta: float = field(default=3.0, metadata={"help": "Factor of the margin in the exponent."})
    dedier_layer: str | None = field(default=None, metadata={"help": "Layer that is read; none for a third up."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dedier_alpha <= 0 or self.dedier_beta < 0:
            raise HFScoreError("dedier_alpha must be above 0, and dedier_beta at least 0: correct them.")


class DEDIERTrainer(BaselineTrainer):
    """Σ w_i · cross-entropy_i / Σ w_i, with w_i = exp(β · margin_i^α) where a linear readout of an early layer is
    wrong and 1 elsewhere; the margin is between its two highest probabilities (Tiwari et al., 2024).

    Supervision: class labels. Theirs weighs the loss of distillation from a teacher, and trains the readout beside the
    student; here there is no teacher, and the readout is the class-balanced optimum on the mean over positions of the
    early model's layer (ours). The early model is ERM after its first epoch.
    """

    name = "dedier"
    title = "DEDIER, without a teacher"
    paper = "Tiwari et al., 2024, arXiv 2310.18590"
    second_model = "early"
    config_class = DEDIERConfig
    args: DEDIERConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "dedier_alpha": [0.5, 1.0],
        "dedier_beta": [1.0, 3.0],
    }
    wanted_gates: ClassVar[dict[str, str]] = {"upweighted_share": ">= 0.005", "largest_weight": ">= 1.5"}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        weights = early_readout_weights(
            self._readout(), self.train_labels(), alpha=self.args.dedier_alpha, beta=self.args.dedier_beta
        )
        self.weights = weights.float()
        self._weight_of = dict(zip(self.train_idx().tolist(), self.weights.tolist(), strict=True))
        return super().train(*args, **kwargs)

    @property
    def layer(self) -> ProbeLayer:
        """The layer of the early model that is read."""
        model: Any = self.reference_model
        if self.args.dedier_layer is not None:
            return find_layer(model, self.args.dedier_layer)
        _, core = split_wrapper(unwrap(model))
        return find_layer(model, max(0, -(-len(find_family(unwrap(model)).layers(core)) // 3) - 1))

    def _readout(self) -> Tensor:
        """(N, K): logits of the training images, read from the early layer."""
        model: Any = self.reference_model
        found = []
        with eval_mode(model), torch.no_grad():
            for batch in self.batches(self.train_dataset):
                with self.layer.capture() as captured:
                    model(pixel_values=batch["pixel_values"])
                found.append(captured.activation.float().mean(dim=1).cpu())
        features, labels = torch.cat(found), self.train_labels()
        features = (features - features.mean(dim=0)) / features.std(dim=0).clamp(min=1e-6)
        head = nn.Linear(features.shape[1], int(model.config.num_labels))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        weight, bias = refit(head, features, labels, class_balance(labels), l2_to_start=1e-2)
        return features.double() @ weight.T + bias

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs = model(pixel_values=inputs["pixel_values"])
        losses = nn.functional.cross_entropy(outputs.logits.float(), inputs["labels"], reduction="none")
        weights = torch.as_tensor([self._weight_of[i] for i in idx.tolist()], device=losses.device)
        return (weights * losses).sum() / weights.sum(), outputs

    def gates(self) -> dict[str, float]:
        """The share of training images with a weight above 1, and the largest weight."""
        return {
            "upweighted_share": float((self.weights > 1).float().mean()),
            "largest_weight": float(self.weights.max()),
        }


def early_readout_weights(logits: Tensor, labels: Tensor, *, alpha: float, beta: float) -> Tensor:
    """(N,): exp(β · margin^α) where the readout (N, K) is wrong, else 1."""
    highest = logits.softmax(dim=1).topk(2, dim=1).values
    margin = highest[:, 0] - highest[:, 1]
    return torch.where(logits.argmax(dim=1) != labels, (beta * margin**alpha).exp(), 1.0)
