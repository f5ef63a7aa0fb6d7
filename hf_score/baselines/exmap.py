"""ExMap: clusters of explanations stand in for groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from ..attribution import Explainer
from ..errors import HFScoreError
from ..models import classifier_head
from .base import BaselineConfig
from .clustering import kmeans
from .last_layer import LastLayerTrainer, refit

__all__ = ["ExMapConfig", "ExMapTrainer", "spectral_clusters"]

#: Maps are seen at this size at most, as theirs are.
_SIZE = 112


@dataclass
class ExMapConfig(BaselineConfig):
    """Configuration of [`ExMapTrainer`].

    Parameters:
        exmap_neighbours: nearest neighbours that the graph of explanations joins.
        exmap_max_clusters: most clusters of a class.
        exmap_l2_to_start: weight of ‖W − W₀‖².
    """

    exmap_neighbours: int = field(default=10, metadata={"help": "Nearest neighbours that the graph joins."})
    exmap_max_clusters: int = field(default=4, metadata={"help": "Most clusters of a class."})
    exmap_l2_to_start: float = field(default=1e-3, metadata={"help": "Weight of the distance to the ERM head."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exmap_neighbours < 1 or self.exmap_max_clusters < 2 or self.exmap_l2_to_start < 0:
            raise HFScoreError(
                "exmap_neighbours must be at least 1, exmap_max_clusters at least 2, exmap_l2_to_start at least 0: "
                "correct them."
            )


class ExMapTrainer(LastLayerTrainer):
    """Last-layer retraining balanced over pseudo groups: in each class the clusters of LRP heatmaps, divided by their
    maximum, by spectral clustering with the number of clusters of the largest eigengap (Chakraborty et al., 2024; the
    clusters within classes are their L-ExMap).

    Supervision: class labels. On held-out training images, each explained for its class; theirs refits as DFR does on
    validation images. Ours: the optimum with an l2 penalty on the distance to the ERM head, weighted by group; the
    affinity is the graph of nearest neighbours.
    """

    name = "exmap"
    title = "ExMap"
    paper = "Chakraborty et al., 2024, arXiv 2403.13870"
    config_class = ExMapConfig
    args: ExMapConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "exmap_neighbours": [5, 10],
        "exmap_max_clusters": [2, 4],
        "exmap_l2_to_start": [1e-3, 1e-2],
    }
    wanted_gates: ClassVar[dict[str, str]] = {
        **LastLayerTrainer.wanted_gates,
        "clusters_per_class": ">= 2",
        "smallest_group": ">= 3",
    }

    def new_head(self) -> tuple[Tensor, Tensor]:
        _, features, labels = self.held_out()
        groups = self.pseudo_groups(labels)
        sizes = torch.bincount(groups).double()
        self._clusters, self._smallest = len(sizes) / len(labels.unique()), float(sizes.min())
        head = classifier_head(self.model)  # type: ignore[arg-type]
        return refit(head, features, labels, 1.0 / sizes[groups], l2_to_start=self.args.exmap_l2_to_start)

    def pseudo_groups(self, labels: Tensor) -> Tensor:
        """(N,): pairs of class and cluster of the held-out images, numbered without a gap."""
        maps = self._maps()
        clusters = torch.zeros(len(labels), dtype=torch.long)
        for label in labels.unique():
            clusters[labels == label] = spectral_clusters(
                maps[labels == label],
                neighbours=self.args.exmap_neighbours,
                most=self.args.exmap_max_clusters,
                seed=self.args.seed,
            )
        return (labels * self.args.exmap_max_clusters + clusters).unique(return_inverse=True)[1]

    def _maps(self) -> Tensor:
        """(N, P): the heatmaps of the held-out images, each over its maximum."""
        model: Any = self.model
        found = []
        with Explainer(model, batch_size=self.args.per_device_eval_batch_size) as explainer:
            for batch in self.batches(self.eval_dataset):
                relevance = explainer.explain(batch["pixel_values"], batch["labels"]).relevance
                assert relevance is not None
                size = (min(relevance.shape[1], _SIZE), min(relevance.shape[2], _SIZE))
                small = nn.functional.adaptive_avg_pool2d(relevance[:, None].float(), size).flatten(1)
                found.append((small / small.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)).cpu())
        return torch.cat(found)

    def gates(self) -> dict[str, float]:
        """The head's change, clusters a class on average, and the size of the smallest pseudo group."""
        return {
            **super().gates(),
            "clusters_per_class": self._clusters,
            "smallest_group": self._smallest,
        }


def spectral_clusters(points: Tensor, *, neighbours: int, most: int, seed: int) -> Tensor:
    """(N,) int64: spectral clustering of points (N, P) on the symmetric graph of nearest neighbours.

    There are so many clusters, from 2 to `most`, as eigenvalues of the normalised Laplacian before their largest gap
    (von Luxburg, 2007). Fewer than four points are one cluster.
    """
    count = len(points)
    if count < 4:
        return torch.zeros(count, dtype=torch.long)
    distances = cdist(points.numpy(), points.numpy())
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(neighbours, count - 1) + 1]
    graph = np.zeros((count, count))
    np.put_along_axis(graph, nearest, 1.0, axis=1)
    graph = (graph + graph.T) / 2
    scale = 1.0 / np.sqrt(graph.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(count) - scale[:, None] * graph * scale)
    most = min(most, count - 2)
    number = 2 + int(np.argmax(np.diff(values)[1:most]))
    rows = vectors[:, :number]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return kmeans(torch.as_tensor(rows), number, seed=seed)
