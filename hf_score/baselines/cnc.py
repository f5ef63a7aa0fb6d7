"""CnC, correct-n-contrast: pull images of a class together that a spurious attribute keeps apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer

__all__ = ["CnCConfig", "CnCTrainer", "contrastive_loss"]


@dataclass
class CnCConfig(BaselineConfig):
    """Configuration of [`CnCTrainer`].

    Parameters:
        cnc_contrastive_weight: λ of λ·contrastive + (1 − λ)·cross-entropy (theirs: 0.75 on Waterbirds).
        cnc_temperature: τ of the similarities (theirs: 0.1 on Waterbirds).
    """

    cnc_contrastive_weight: float = field(default=0.75, metadata={"help": "Weight of the contrastive loss, 0 to 1."})
    cnc_temperature: float = field(default=0.1, metadata={"help": "Temperature of the similarities."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cnc_contrastive_weight <= 1 or self.cnc_temperature <= 0:
            raise HFScoreError("cnc_contrastive_weight must be from 0 to 1 and cnc_temperature above 0: correct them.")


class CnCTrainer(BaselineTrainer):
    """λ · supervised contrastive loss + (1 − λ) · cross-entropy (Zhang et al., 2022, equations 5 and 6).

    Positives of an anchor are images of its class that the first model calls something else; negatives are images of
    other classes that the first model calls the same. Supervision: class labels (the paper tunes on validation
    groups). The first model is ERM after one epoch: theirs is a strongly regularised ERM. Contrasts are within a
    batch, drawn so that every pair (class, prediction of the first model) is equally frequent; theirs have batches of
    their own for anchors, positives and negatives.
    """

    name = "cnc"
    title = "CnC"
    paper = "Zhang et al., 2022, arXiv 2203.01517"
    second_model = "early"
    config_class = CnCConfig
    args: CnCConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "cnc_contrastive_weight": [0.5, 0.75],
        "cnc_temperature": [0.05, 0.1],
    }
    wanted_gates: ClassVar[dict[str, str]] = {"contrasted_share": ">= 0.2"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._predictions: dict[int, int] | None = None
        self._contrasted: list[Tensor] = []

    def first_predictions(self) -> dict[int, int]:
        """idx → the first model's prediction, for every training image."""
        if self._predictions is None:
            assert self.reference_model is not None
            predicted = self.predict_logits(self.reference_model, self.train_dataset).argmax(1)
            self._predictions = dict(zip(self.train_idx().tolist(), predicted.tolist(), strict=True))
        return self._predictions

    def sample_weights(self) -> Tensor:
        """(N,): 1 / frequency of the pair (class, prediction of the first model)."""
        predicted = torch.as_tensor(list(self.first_predictions().values()))
        pairs = self.train_labels() * (int(predicted.max()) + 1) + predicted
        return 1.0 / torch.bincount(pairs).double()[pairs]

    def gates(self) -> dict[str, float]:
        """Share of the images of a batch that had something to be pulled to and something to be pushed from."""
        return {"contrasted_share": float(torch.stack(self._contrasted).mean())}

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs, features = self.forward_with_features(model, inputs["pixel_values"])
        labels = inputs["labels"]
        first = torch.as_tensor([self.first_predictions()[i] for i in idx.tolist()], device=labels.device)
        positives = (labels[:, None] == labels) & (first[:, None] != first)
        negatives = (labels[:, None] != labels) & (first[:, None] == first)
        self._contrasted.append((positives.any(1) & negatives.any(1)).float().mean())
        contrastive = contrastive_loss(
            features, positives=positives, negatives=negatives, temperature=self.args.cnc_temperature
        )
        cross_entropy = nn.functional.cross_entropy(outputs.logits.float(), labels)
        weight = self.args.cnc_contrastive_weight
        return weight * contrastive + (1 - weight) * cross_entropy, outputs


def contrastive_loss(features: Tensor, *, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Mean over anchors and their positives of −log(e^{s_p} / (e^{s_p} + Σ_n e^{s_n})); 0 without a positive.

    Args:
        features: (B, D), normalised here.
        positives: (B, B) bool, of each anchor (row).
        negatives: (B, B) bool.
        temperature: τ; s is the cosine similarity divided by it.
    """
    normal = nn.functional.normalize(features.float(), dim=1)
    similarity = normal @ normal.T / temperature
    of_negatives = similarity.masked_fill(~negatives, -torch.inf).logsumexp(dim=1, keepdim=True)
    losses = torch.logaddexp(similarity, of_negatives.expand_as(similarity)) - similarity
    losses = torch.where(positives, losses, 0.0)
    anchors = positives.any(dim=1)
    per_anchor = losses.sum(dim=1) / positives.sum(dim=1).clamp(min=1)
    return per_anchor.sum() / anchors.sum().clamp(min=1)
