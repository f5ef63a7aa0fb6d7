"""SPARE: draw the small clusters of an early model's outputs more often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer
from .clustering import kmeans, scikit_learn

__all__ = ["SPAREConfig", "SPARETrainer", "cluster_weights"]

#: Images of a class at most that say how many clusters it has.
_LOOKED_AT = 1000


@dataclass
class SPAREConfig(BaselineConfig):
    """Configuration of [`SPARETrainer`].

    Parameters:
        spare_power: images are drawn in proportion to 1 / size of their cluster, to this power (theirs: 1 to 3).
        spare_max_clusters: most clusters of a class.
    """

    spare_power: float = field(default=1.0, metadata={"help": "Power of 1 / size of the cluster."})
    spare_max_clusters: int = field(default=4, metadata={"help": "Most clusters of a class."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spare_power <= 0 or self.spare_max_clusters < 2:
            raise HFScoreError("spare_power must be above 0, and spare_max_clusters at least 2: correct them.")


class SPARETrainer(BaselineTrainer):
    """ERM on images drawn with probability ∝ (1 / |V|)^λ, V the cluster of the image among the outputs of an early
    model, by k-means in each class with the number of clusters of the highest silhouette (Yang et al., 2024).

    Supervision: class labels. The early model is ERM after its first epoch. The paper sets λ by the silhouette and
    tunes the epoch on validation groups; here both are fixed (ours). Training begins anew, as theirs does not: it goes
    on from the early model.
    """

    name = "spare"
    title = "SPARE"
    paper = "Yang et al., 2024, arXiv 2305.18761"
    second_model = "early"
    config_class = SPAREConfig
    args: SPAREConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "spare_power": [1.0, 2.0],
        "spare_max_clusters": [2, 4],
    }
    wanted_gates: ClassVar[dict[str, str]] = {"weight_ratio": ">= 2"}

    def clusters(self) -> Tensor:
        """(N,): the cluster of each training image inside its class, the largest 0."""
        assert self.reference_model is not None
        outputs = self.predict_logits(self.reference_model, self.train_dataset).softmax(dim=1)
        labels = self.train_labels()
        found = torch.zeros(len(labels), dtype=torch.long)
        for label in labels.unique():
            found[labels == label] = self._best(outputs[labels == label])
        return found

    def _best(self, outputs: Tensor) -> Tensor:
        silhouette = scikit_learn("metrics", self.title).silhouette_score
        best, highest = torch.zeros(len(outputs), dtype=torch.long), -1.0
        for count in range(2, min(self.args.spare_max_clusters, len(outputs) - 1) + 1):
            found = kmeans(outputs, count, seed=self.args.seed)
            sample = min(_LOOKED_AT, len(outputs))
            rows = torch.randperm(len(outputs), generator=torch.Generator().manual_seed(self.args.seed))[:sample]
            if not 1 < len(found[rows].unique()) < sample:
                continue
            score = silhouette(outputs[rows].numpy(), found[rows].numpy())
            if score > highest:
                best, highest = found, score
        return best

    def sample_weights(self) -> Tensor:
        """(N,): (1 / size of the cluster)^λ."""
        weights = cluster_weights(self.clusters(), self.train_labels(), power=self.args.spare_power)
        labels = self.train_labels()
        self._spread = max(float(weights[labels == y].max() / weights[labels == y].min()) for y in labels.unique())
        return self.balanced(weights)

    def gates(self) -> dict[str, float]:
        """How much more often than others an image of the same class is drawn, where that is most."""
        return {"weight_ratio": self._spread}


def cluster_weights(clusters: Tensor, labels: Tensor, *, power: float) -> Tensor:
    """(N,) float64: (1 / number of images of the same class and cluster)^power."""
    pairs = labels * (int(clusters.max()) + 1) + clusters
    return (1.0 / torch.bincount(pairs).double()[pairs]) ** power
