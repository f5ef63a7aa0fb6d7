"""SELF: refit the head on the images about which an early model and the final one disagree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import HFScoreError
from ..models import classifier_head
from ..renamed import accepts_old_names
from .base import BaselineConfig
from .last_layer import LastLayerTrainer, class_balance, descend

__all__ = ["SELFConfig", "SELFTrainer", "disagreement"]


@accepts_old_names
@dataclass
class SELFConfig(BaselineConfig):
    """Configuration of [`SELFTrainer`].

    Parameters:
        self_share: share of the held-out images to refit on, those with the largest disagreement.
        self_l2_to_start: weight of ‖W − W₀‖² (theirs: 0).
        self_steps: steps of gradient descent (theirs: 250).
        self_learning_rate: of those steps (theirs: 0.0001 to 0.01).
    """

    self_share: float = field(default=0.25, metadata={"help": "Share of held-out images to refit on."})
    self_l2_to_start: float = field(default=0.0, metadata={"help": "Weight of the squared distance to the ERM head."})
    self_steps: int = field(default=250, metadata={"help": "Steps of gradient descent."})
    self_learning_rate: float = field(default=0.01, metadata={"help": "Learning rate of those steps."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.self_share <= 1 or self.self_l2_to_start < 0:
            raise HFScoreError(
                "self_share must be above 0 and at most 1, and self_l2_to_start at least 0: correct them."
            )
        if self.self_steps < 1 or self.self_learning_rate <= 0:
            raise HFScoreError("self_steps must be at least 1, and self_learning_rate above 0: correct them.")


class SELFTrainer(LastLayerTrainer):
    """Class-balanced last-layer retraining on the held-out images with the largest KL divergence between the
    early-stopped and the final ERM model (LaBonte et al., 2023, section 5, early-stop SELF).

    Supervision: class labels (theirs: only of those images; the rest of the held-out set needs none). The early model
    is ERM after one epoch. Theirs takes the 20 to 500 most disputed images, chosen on validation groups. Gradient
    descent over all of them, with the authors' number of steps and learning rate; theirs is in batches of 32.
    """

    name = "self"
    title = "SELF"
    paper = "LaBonte et al., 2023, arXiv 2309.08534"
    second_model = "early"
    config_class = SELFConfig
    args: SELFConfig  # type: ignore[assignment]
    version = 2
    grid: ClassVar[dict[str, list[Any]]] = {"self_share": [0.1, 0.25, 0.5, 1.0], "self_learning_rate": [1e-3, 1e-2]}
    wanted_gates: ClassVar[dict[str, str]] = {
        **LastLayerTrainer.wanted_gates,
        "disagreement_ratio": ">= 1.5",
    }

    def new_head(self) -> tuple[Tensor, Tensor]:
        assert self.reference_model is not None
        logits, features, labels = self.held_out()
        disputed = disagreement(self.predict_logits(self.reference_model, self.eval_dataset), logits)
        rows = disputed.argsort(descending=True)[: max(2, round(self.args.self_share * len(labels)))]
        self._disputed = float(disputed[rows].mean() / disputed.mean().clamp(min=1e-12))
        return descend(
            classifier_head(self.model),  # type: ignore[arg-type]
            features[rows],
            labels[rows],
            class_balance(labels[rows]),
            l2_to_start=self.args.self_l2_to_start,
            steps=self.args.self_steps,
            learning_rate=self.args.self_learning_rate,
        )

    def gates(self) -> dict[str, float]:
        """The head's change, and the mean disagreement about the chosen images over that about all."""
        return {**super().gates(), "disagreement_ratio": self._disputed}


def disagreement(early: Tensor, final: Tensor) -> Tensor:
    """(N,): KL(early ‖ final) of the predictions, from logits (N, K)."""
    early, final = early.double().log_softmax(dim=1), final.double().log_softmax(dim=1)
    return nn.functional.kl_div(final, early, reduction="none", log_target=True).sum(dim=1)
