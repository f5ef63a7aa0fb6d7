"""RRR, right for the right reasons: no input gradient where the annotation says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import DataError, HFScoreError
from .base import BaselineConfig, BaselineTrainer

__all__ = ["RRRConfig", "RRRTrainer", "RegionTrainer", "input_gradient", "input_gradient_penalty"]


class RegionTrainer(BaselineTrainer):
    """Cross-entropy + λ · P/P₀, P a mean over the batch's images whose region of the attribute is annotated and P₀ its
    value on the starting model, so that λ carries over between models (ours). `region_penalty` says what P is.

    It starts from the ERM model (ours): the papers train from the start, but P₀ of a model with a fresh head, which
    looks at nothing yet, is so small that the penalty would be all there is.
    """

    supervision_kinds = ("regions",)
    initial_model = "erm"
    #: Whether P is divided by P₀.
    scaled: ClassVar[bool] = True
    wanted_gates: ClassVar[dict[str, str]] = {"penalty_left": "<= 0.8"}
    #: At most so many images a step are penalised, and as many measure P₀ in each of four batches.
    batch_size = 16

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = {int(idx): self.supervision.regions(int(idx)) for idx in self.train_idx()}
        self._regions = {idx: torch.as_tensor(np.asarray(r)) for idx, r in known.items() if r is not None}
        if not self._regions:
            raise DataError(f"{self.title} penalises annotated regions, and no training image has one: add masks.")
        self._scale: float | None = None

    def strength(self) -> float:
        """λ."""
        raise NotImplementedError

    def region_penalty(self, model: nn.Module, pixel_values: Tensor, regions: Tensor, labels: Tensor) -> Tensor:
        """P of images (B, 3, H, W) with regions (B, H, W) bool, of classes (B,): a scalar with a graph."""
        raise NotImplementedError

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        loss, outputs = super().batch_loss(model, inputs, idx)
        chosen = [row for row, i in enumerate(idx.tolist()) if i in self._regions][: self.batch_size]
        if not chosen:
            return loss, outputs
        labels = inputs["labels"]
        core = self.accelerator.unwrap_model(self.model)
        if self._scale is None:
            self._scale = self._starting_penalty(core)
        regions = torch.stack([self._regions[int(idx[row])] for row in chosen]).to(loss.device)
        # Gradients of gradients need full precision.
        with torch.autocast(loss.device.type, enabled=False):
            penalty = self.region_penalty(core, inputs["pixel_values"][chosen].float(), regions, labels[chosen])
        self.note_penalty(penalty / self._scale)
        return loss + self.strength() * penalty / (self._scale if self.scaled else 1.0), outputs

    def gates(self) -> dict[str, float]:
        """P in the last steps, over P₀."""
        return {"penalty_left": self.penalty_left}

    def extra_state(self) -> dict[str, Tensor]:
        """P₀, which a resumed run cannot measure any more."""
        return {} if self._scale is None else {"scale": torch.tensor(self._scale, dtype=torch.double)}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        self._scale = float(tensors["scale"]) if "scale" in tensors else None

    def _starting_penalty(self, model: nn.Module) -> float:
        rows = [row for row, idx in enumerate(self.train_idx().tolist()) if idx in self._regions]
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(len(rows), 4 * self.batch_size)).astype(int)]
        values = []
        with torch.autocast(self.args.device.type, enabled=False):
            for start in range(0, len(rows), self.batch_size):
                part = rows[start : start + self.batch_size]
                batch = self.data_collator([self.train_dataset[row] for row in part])  # type: ignore[index]
                regions = torch.stack([self._regions[int(i)] for i in batch["idx"]]).to(self.args.device)
                images = batch["pixel_values"].to(self.args.device)
                penalty = self.region_penalty(model, images, regions, batch["labels"].to(self.args.device))
                values.append(float(penalty.detach()) * len(part))
        return max(sum(values) / len(rows), 1e-12)


@dataclass
class RRRConfig(BaselineConfig):
    """Configuration of [`RRRTrainer`].

    Parameters:
        rrr_lambda: λ; the penalty is 1 on the starting model.
    """

    rrr_lambda: float = field(default=1.0, metadata={"help": "Weight of the penalty, 1 on the starting model."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rrr_lambda < 0:
            raise HFScoreError(f"rrr_lambda is {self.rrr_lambda}: give a number of at least 0.")


class RRRTrainer(RegionTrainer):
    """Cross-entropy + λ Σ (A ∘ ∂/∂x Σ_k log p_k)² (Ross et al., 2017, equation 1), A the region of the attribute.

    Supervision: regions of the attribute in training images. Scaled to 1 on the starting model (ours).
    """

    name = "rrr"
    title = "RRR"
    paper = "Ross et al., 2017, arXiv 1703.03717"
    config_class = RRRConfig
    args: RRRConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "rrr_lambda": [0.3, 1.0, 10.0, 100.0]}

    def strength(self) -> float:
        return self.args.rrr_lambda

    def region_penalty(self, model: nn.Module, pixel_values: Tensor, regions: Tensor, labels: Tensor) -> Tensor:
        return input_gradient_penalty(model, pixel_values, regions).mean()


def input_gradient(
    model: nn.Module, pixel_values: Tensor, explained: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The images (B, 3, H, W), and the gradient at them of what is explained, with a graph.

    Args:
        model: a classifier with `.logits`.
        pixel_values: (B, 3, H, W).
        explained: logits (B, K) in float32 → a scalar.
    """
    images = pixel_values.detach().requires_grad_()
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # only the plain kernel can be differentiated twice
        logits = model(pixel_values=images).logits.float()
        (gradient,) = torch.autograd.grad(explained(logits), images, create_graph=True)
    return images, gradient


def input_gradient_penalty(model: nn.Module, pixel_values: Tensor, regions: Tensor) -> Tensor:
    """(B,): Σ over the region of (∂/∂x Σ_k log p_k)², with a graph.

    Args:
        model: a classifier with `.logits`.
        pixel_values: (B, 3, H, W).
        regions: (B, H, W) bool.
    """
    _, gradient = input_gradient(model, pixel_values, lambda logits: logits.log_softmax(dim=1).sum())
    return (gradient * regions[:, None]).square().sum(dim=(1, 2, 3))
