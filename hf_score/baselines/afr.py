"""AFR, automatic feature reweighting: refit the head with more weight on what the ERM model is unsure of."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import HFScoreError
from ..models import classifier_head
from ..renamed import accepts_old_names
from .base import BaselineConfig
from .last_layer import LastLayerTrainer, class_balance, refit

__all__ = ["AFRConfig", "AFRTrainer"]


@accepts_old_names
@dataclass
class AFRConfig(BaselineConfig):
    """Configuration of [`AFRTrainer`].

    Parameters:
        afr_gamma: γ, how fast weights fall with the probability of the true class (theirs: 4 to 20 on Waterbirds).
        afr_l2_to_start: λ, weight of ‖W − W₀‖².
    """

    afr_gamma: float = field(default=4.0, metadata={"help": "How fast weights fall with p of the true class."})
    afr_l2_to_start: float = field(default=1e-3, metadata={"help": "Weight of the squared distance to the ERM head."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.afr_gamma < 0 or self.afr_l2_to_start < 0:
            raise HFScoreError("afr_gamma and afr_l2_to_start must be at least 0: correct them.")


class AFRTrainer(LastLayerTrainer):
    """min_W Σ μ_i · cross-entropy_i + λ‖W − W₀‖², with μ_i ∝ β_{y_i} · exp(−γ p̂_i), on held-out training images (Qiu
    et al., 2023, equations 3 and 4; p̂ the ERM model's probability of the true class, β balances the classes).

    Supervision: class labels. The paper chooses γ and λ on validation groups; here they are fixed. The optimum is
    found by L-BFGS; theirs by a number of gradient steps that is chosen too.
    """

    name = "afr"
    title = "AFR"
    paper = "Qiu et al., 2023, arXiv 2306.11074"
    config_class = AFRConfig
    args: AFRConfig  # type: ignore[assignment]

    def new_head(self) -> tuple[Tensor, Tensor]:
        logits, features, labels = self.held_out()
        head = classifier_head(self.model)  # type: ignore[arg-type]
        return refit(head, features, labels, self.weights(logits, labels), l2_to_start=self.args.afr_l2_to_start)

    def weights(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N,): μ."""
        probability = logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0]
        return class_balance(labels) * torch.exp(-self.args.afr_gamma * probability)
