"""FG-CCDB with MST: make the classes alike in what an overfitted model confuses."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer
from .second_model import fit_second, steps_of

__all__ = ["FGCCDBConfig", "FGCCDBTrainer", "cell_weights", "most_confident"]


@dataclass
class FGCCDBConfig(BaselineConfig):
    """Configuration of [`FGCCDBTrainer`].

    Parameters:
        fg_ccdb_first_share: share of the training images of each class that the first model of MST sees (theirs: 0.1).
        fg_ccdb_rounds: models of MST (theirs: 3).
        fg_ccdb_steps_share: steps of each, as a share of the run's (ours).
    """

    fg_ccdb_first_share: float = field(default=0.1, metadata={"help": "Share of the images of the first model."})
    fg_ccdb_rounds: int = field(default=3, metadata={"help": "Models trained one after the other."})
    fg_ccdb_steps_share: float = field(default=0.5, metadata={"help": "Steps of each, as a share of the run's."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fg_ccdb_first_share <= 1 or self.fg_ccdb_steps_share <= 0 or self.fg_ccdb_rounds < 1:
            raise HFScoreError(
                "fg_ccdb_first_share must be above 0 and at most 1, fg_ccdb_steps_share above 0, fg_ccdb_rounds at "
                "least 1: correct them."
            )


class FGCCDBTrainer(BaselineTrainer):
    """ERM on images drawn with weights q_i / (P_ij M_ij), i the class of an image and j what a biased model calls it,
    M the confusion matrix in images, P_ij = M_ij / Σ_i M_ij and q_i the share of class i (Zhao and Zhang, 2026).

    Supervision: class labels. The biased model is that of MST: trained on a tenth of the images, then anew on the half
    of each class of which it is most confident, three models in all. From a description, not from the authors' code:
    that q is the share of the class, and confidence the probability of the image's own class, is ours.
    """

    name = "fg_ccdb"
    title = "FG-CCDB (MST)"
    paper = "Zhao and Zhang, 2026, arXiv 2505.06831"
    config_class = FGCCDBConfig
    args: FGCCDBConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "fg_ccdb_first_share": [0.1, 0.3],
        "fg_ccdb_steps_share": [0.25, 0.5],
    }
    wanted_gates: ClassVar[dict[str, str]] = {
        "confused_share": ">= 0.005",
        "weight_ratio": ">= 2",
    }

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.predictions = self._biased_predictions()
        return super().train(*args, **kwargs)

    def _biased_predictions(self) -> Tensor:
        """(N,): what the last model of MST calls the training images."""
        labels = self.train_labels()
        generator = torch.Generator().manual_seed(self.args.seed)
        chosen = most_confident(torch.rand(len(labels), generator=generator), labels, self.args.fg_ccdb_first_share)
        steps = max(1, round(self.args.fg_ccdb_steps_share * steps_of(self)))
        logits = torch.empty(0)
        for _ in range(self.args.fg_ccdb_rounds):
            model: Any = copy.deepcopy(self.model)
            sizes = torch.bincount(labels[chosen], minlength=int(labels.max()) + 1).double()
            fit_second(self, model, steps=steps, weights=torch.where(chosen, 1.0 / sizes[labels], 0.0))
            logits = self.predict_logits(model, self.train_dataset)
            chosen = most_confident(logits.softmax(dim=1).gather(1, labels[:, None])[:, 0], labels, 0.5)
        return logits.argmax(dim=1)

    def sample_weights(self) -> Tensor:
        """(N,): q_i / (P_ij M_ij)."""
        labels = self.train_labels()
        weights = cell_weights(labels, self.predictions)
        self._spread = max(float(weights[labels == y].max() / weights[labels == y].min()) for y in labels.unique())
        return self.balanced(weights)

    def gates(self) -> dict[str, float]:
        """The share of images that the biased model gets wrong, and the largest ratio of weights in a class."""
        return {
            "confused_share": float((self.predictions != self.train_labels()).double().mean()),
            "weight_ratio": self._spread,
        }


def cell_weights(labels: Tensor, predictions: Tensor) -> Tensor:
    """(N,) float64: q_i / (P_ij M_ij) of the cell of the confusion matrix in which an image lies."""
    count = int(max(labels.max(), predictions.max())) + 1
    matrix = torch.bincount(labels * count + predictions, minlength=count * count).double().reshape(count, count)
    share = matrix / matrix.sum(dim=0, keepdim=True).clamp(min=1)
    classes = matrix.sum(dim=1) / matrix.sum()
    return classes[labels] / (share * matrix)[labels, predictions]


def most_confident(confidence: Tensor, labels: Tensor, share: float) -> Tensor:
    """(N,) bool: the given share of each class, and one image at least, with the highest confidence (N,)."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        order = confidence[rows].argsort(descending=True, stable=True)
        chosen[rows[order[: max(1, round(share * len(rows)))]]] = True
    return chosen
