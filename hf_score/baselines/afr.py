"""AFR, automatic feature reweighting: refit the head with more weight on what the ERM model is unsure of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import HFScoreError
from ..models import classifier_head
from ..renamed import accepts_old_names
from .base import BaselineConfig
from .last_layer import LastLayerTrainer, class_balance, descend

__all__ = ["AFRConfig", "AFRTrainer"]


@accepts_old_names
@dataclass
class AFRConfig(BaselineConfig):
    """Configuration of [`AFRTrainer`].

    Parameters:
        afr_gamma: γ, how fast weights fall with the probability of the true class (theirs: 14 on Waterbirds, 1.8 on
            CelebA).
        afr_l2_to_start: λ, weight of ‖W − W₀‖² (theirs: 0.2 and 0).
        afr_steps: steps of gradient descent (theirs: 500 and 100).
        afr_learning_rate: of those steps (theirs: 0.02 and 0.01).
    """

    afr_gamma: float = field(default=4.0, metadata={"help": "How fast weights fall with p of the true class."})
    afr_l2_to_start: float = field(default=1e-3, metadata={"help": "Weight of the squared distance to the ERM head."})
    afr_steps: int = field(default=500, metadata={"help": "Steps of gradient descent."})
    afr_learning_rate: float = field(default=0.02, metadata={"help": "Learning rate of those steps."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.afr_gamma < 0 or self.afr_l2_to_start < 0:
            raise HFScoreError("afr_gamma and afr_l2_to_start must be at least 0: correct them.")
        if self.afr_steps < 1 or self.afr_learning_rate <= 0:
            raise HFScoreError("afr_steps must be at least 1, and afr_learning_rate above 0: correct them.")


class AFRTrainer(LastLayerTrainer):
    """min_W Σ μ_i · cross-entropy_i + λ‖W − W₀‖², with μ_i ∝ β_{y_i} · exp(−γ p̂_i), on held-out training images (Qiu
    et al., 2023, equations 3 and 4; p̂ the ERM model's probability of the true class, β balances the classes).

    Supervision: class labels. Gradient descent over all held-out images from the ERM head, with the authors' number of
    steps and learning rate: that it stops before the optimum is a part of the method. The paper chooses γ and λ on
    validation groups; here they are fixed.
    """

    name = "afr"
    title = "AFR"
    paper = "Qiu et al., 2023, arXiv 2306.11074"
    config_class = AFRConfig
    args: AFRConfig  # type: ignore[assignment]
    version = 2
    grid: ClassVar[dict[str, list[Any]]] = {"afr_gamma": [1.8, 4.0, 8.0, 14.0], "afr_l2_to_start": [0.0, 0.2]}
    wanted_gates: ClassVar[dict[str, str]] = {
        **LastLayerTrainer.wanted_gates,
        "effective_share": "<= 0.9",
        "effective_images": ">= 8",
    }

    def new_head(self) -> tuple[Tensor, Tensor]:
        logits, features, labels = self.held_out()
        head = classifier_head(self.model)  # type: ignore[arg-type]
        weights = self.weights(logits, labels)
        self._effective, self._count = float(weights.sum() ** 2 / weights.square().sum()), len(weights)
        return descend(
            head,
            features,
            labels,
            weights,
            l2_to_start=self.args.afr_l2_to_start,
            steps=self.args.afr_steps,
            learning_rate=self.args.afr_learning_rate,
        )

    def gates(self) -> dict[str, float]:
        """The head's change, and how many images the weights amount to: (Σ μ)² / Σ μ²."""
        return {
            **super().gates(),
            "effective_share": self._effective / self._count,
            "effective_images": self._effective,
        }

    def weights(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N,): μ."""
        probability = logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0]
        return class_balance(labels) * torch.exp(-self.args.afr_gamma * probability)
