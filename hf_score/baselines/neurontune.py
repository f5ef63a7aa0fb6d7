"""NeuronTune: refit the head without the dimensions that are active where the model errs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import HFScoreError
from ..models import classifier_head
from .base import BaselineConfig
from .last_layer import LastLayerTrainer, class_balance, refit

__all__ = ["NeuronTuneConfig", "NeuronTuneTrainer", "biased_dimensions"]


@dataclass
class NeuronTuneConfig(BaselineConfig):
    """Configuration of [`NeuronTuneTrainer`].

    Parameters:
        neurontune_margin: a dimension is biased where δ is above this many of its standard deviations (theirs: 0).
        neurontune_l2_to_start: weight of ‖W − W₀‖², W₀ the head without the biased dimensions.
    """

    neurontune_margin: float = field(default=0.0, metadata={"help": "δ above which a dimension is biased."})
    neurontune_l2_to_start: float = field(default=1e-3, metadata={"help": "Weight of the distance to the ERM head."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neurontune_l2_to_start < 0:
            raise HFScoreError(
                f"neurontune_l2_to_start is {self.neurontune_l2_to_start}: give a number of at least 0."
            )


class NeuronTuneTrainer(LastLayerTrainer):
    """Class-balanced last-layer retraining without the dimensions of the representation that are biased: δ = median
    over the images that the ERM model gets wrong − median over those it gets right is above 0 in every class (Zheng et
    al., 2025).

    Supervision: class labels. On held-out training images; theirs takes validation images. A biased dimension is 0 in
    the head, so the result is a model like any other. Ours: the optimum with an l2 penalty on the distance to the ERM
    head; theirs is trained by SGD and chosen by the worst class.
    """

    name = "neurontune"
    title = "NeuronTune"
    paper = "Zheng et al., 2025, arXiv 2505.24048"
    config_class = NeuronTuneConfig
    args: NeuronTuneConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "neurontune_margin": [0.0, 0.3],
        "neurontune_l2_to_start": [1e-4, 1e-3, 1e-2, 1e-1],
    }
    wanted_gates: ClassVar[dict[str, str]] = {
        **LastLayerTrainer.wanted_gates,
        "muted_share": ">= 0.01",
        "unmuted_share": ">= 0.1",
    }

    def new_head(self) -> tuple[Tensor, Tensor]:
        logits, features, labels = self.held_out()
        biased = biased_dimensions(features, labels, logits.argmax(dim=1), margin=self.args.neurontune_margin)
        self._muted = float(biased.double().mean())
        head = classifier_head(self.model)  # type: ignore[arg-type]
        weight, bias = refit(
            head, features * ~biased, labels, class_balance(labels), l2_to_start=self.args.neurontune_l2_to_start
        )
        return weight * ~biased, bias

    def gates(self) -> dict[str, float]:
        """The head's change, and the shares of dimensions."""
        return {
            **super().gates(),
            "muted_share": self._muted,
            "unmuted_share": 1 - self._muted,
        }


def biased_dimensions(features: Tensor, labels: Tensor, predictions: Tensor, *, margin: float = 0.0) -> Tensor:
    """(D,) bool: where median(wrong) − median(right) of the features (N, D) is above `margin` standard deviations in
    every class that has images of both kinds; nowhere without such a class."""
    wrong, deviation = predictions != labels, features.std(dim=0)
    deltas = [
        features[(labels == y) & wrong].median(dim=0).values - features[(labels == y) & ~wrong].median(dim=0).values
        for y in labels.unique()
        if wrong[labels == y].any() and not wrong[labels == y].all()
    ]
    if not deltas:
        return torch.zeros(features.shape[1], dtype=torch.bool)
    return (torch.stack(deltas) > margin * deviation).all(dim=0)
