"""LfF, learning from failure: a biased model says which images the other one should learn from."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer

__all__ = ["LfFConfig", "LfFTrainer", "generalised_cross_entropy"]


@dataclass
class LfFConfig(BaselineConfig):
    """Configuration of [`LfFTrainer`].

    Parameters:
        lff_q: q of the generalised cross-entropy of the biased model.
        lff_momentum: of the running mean of each image's loss.
        class_balanced: as in [`BaseConfig`], here on by default, as the other methods are run.
    """

    lff_q: float = field(default=0.7, metadata={"help": "q of the generalised cross-entropy."})
    lff_momentum: float = field(default=0.7, metadata={"help": "Momentum of the running losses."})
    class_balanced: bool | None = field(default=True, metadata={"help": "Draw classes equally often."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.lff_q <= 1 or not 0 <= self.lff_momentum < 1:
            raise HFScoreError(
                "lff_q must be above 0 and at most 1, and lff_momentum from 0 to below 1: correct them."
            )


class LfFTrainer(BaselineTrainer):
    """Two models side by side: one is made biased by generalised cross-entropy, the other learns each image with the
    relative difficulty W(x) = L_b / (L_b + L_d) as its weight (Nam et al., 2020, equations 1 to 3).

    Supervision: class labels. As in their code the losses in W are running means, divided by the largest of their
    class. The biased model has an optimizer of its own with the same settings and a constant learning rate, and takes
    a step with every micro-batch, so 8×1 and 4×2 differ. One process only. It cannot be resumed exactly: the biased
    model starts anew.
    """

    name = "lff"
    title = "LfF"
    paper = "Nam et al., 2020, arXiv 2007.02561"
    config_class = LfFConfig
    args: LfFConfig  # type: ignore[assignment]
    version = 2
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "lff_q": [0.5, 0.7],
        "lff_momentum": [0.5, 0.7],
    }
    wanted_gates: ClassVar[dict[str, str]] = {"weight_spread": ">= 0.1"}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if self.accelerator.num_processes > 1:
            raise HFScoreError("LfF trains a second model that several processes would not share: run one process.")
        self.biased_model = copy.deepcopy(self.model).to(self.args.device)  # type: ignore[union-attr]
        self._biased_optimizer = torch.optim.AdamW(
            self.biased_model.parameters(), lr=self.args.learning_rate, weight_decay=self.args.weight_decay
        )
        self._row_of = {int(i): row for row, i in enumerate(self.train_idx())}
        self._labels = self.train_labels()
        #: (2, N): running losses of the biased and of the other model; nan before an image was seen.
        self._losses = torch.full((2, len(self._labels)), torch.nan)
        return super().train(*args, **kwargs)

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        labels = inputs["labels"]
        self.biased_model.train()
        self.prepare_for_training(self.biased_model)
        biased = self.biased_model(pixel_values=inputs["pixel_values"]).logits.float()
        outputs = model(pixel_values=inputs["pixel_values"])
        logits = outputs.logits.float()
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        biased_losses = nn.functional.cross_entropy(biased.detach(), labels, reduction="none")
        weights = self._difficulty(idx, torch.stack([biased_losses, losses.detach()]).cpu()).to(losses.device)
        self._biased_optimizer.zero_grad()
        generalised_cross_entropy(biased, labels, q=self.args.lff_q).mean().backward()
        self._biased_optimizer.step()
        return (weights * losses).mean(), outputs

    def gates(self) -> dict[str, float]:
        """Standard deviation of W over the training images that were seen, at the end."""
        return {"weight_spread": float(self._weights((~self._losses[0].isnan()).nonzero()[:, 0]).std())}

    def _difficulty(self, idx: Tensor, losses: Tensor) -> Tensor:
        """(B,): W of the batch's images, after their running losses were brought up to date with `losses` (2, B)."""
        rows = torch.as_tensor([self._row_of[i] for i in idx.tolist()])
        before, momentum = self._losses[:, rows], self.args.lff_momentum
        self._losses[:, rows] = torch.where(before.isnan(), losses, momentum * before + (1 - momentum) * losses)
        return self._weights(rows)

    def _weights(self, rows: Tensor) -> Tensor:
        """(n,): W of these rows of the training set, from the running losses as they are."""
        now = self._losses[:, rows].clone()
        for label in self._labels[rows].unique():
            seen = self._losses[:, self._labels == label].nan_to_num(0.0).amax(dim=1, keepdim=True)
            members = self._labels[rows] == label
            now[:, members] /= seen.clamp(min=1e-8)
        return now[0] / (now.sum(dim=0) + 1e-8)


def generalised_cross_entropy(logits: Tensor, labels: Tensor, *, q: float) -> Tensor:
    """(B,): cross-entropy with gradient scaled by q·p_y^q, as in their code; (1 − p_y^q)/q has this gradient up to q.

    Args:
        logits: (B, K).
        labels: (B,).
        q: above 0; small is near cross-entropy, 1 near the mean absolute error.
    """
    probability = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0].detach()
    return nn.functional.cross_entropy(logits, labels, reduction="none") * q * probability**q
