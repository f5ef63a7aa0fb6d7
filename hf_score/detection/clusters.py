"""Clusters of candidates that a class's logit rests on in the same way, and what each has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

if TYPE_CHECKING:
    from .candidates import Candidates

__all__ = ["Cluster", "ClusterNeuron", "cluster_candidates", "describe_clusters"]

#: Below this mean silhouette a class is one cluster: the usual bound under which no structure is claimed
#: (Kaufman and Rousseeuw, "Finding Groups in Data", 1990).
NO_STRUCTURE = 0.25


def cluster_candidates(labels: np.ndarray, shortcut_relevance: np.ndarray, *, max_clusters: int = 6) -> np.ndarray:
    """Cluster the candidates of each class by the direction of their shortcut relevance.

    Ward's linkage, and the number of clusters with the highest mean silhouette (Rousseeuw 1987); one cluster where no
    number separates them.

    Args:
        labels: (n,) class ids.
        shortcut_relevance: (n, C).
        max_clusters: most clusters of one class.

    Returns:
        (n,) int64, numbered from 0 over all classes, a class's largest cluster first.
    """
    clusters = np.zeros(len(labels), dtype=np.int64)
    count = 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        length = np.linalg.norm(shortcut_relevance[rows], axis=1, keepdims=True)
        own = _best_cut(shortcut_relevance[rows] / np.maximum(length, 1e-12), max_clusters)
        order = np.argsort(-np.bincount(own), kind="stable")
        clusters[rows] = count + np.argsort(order)[own]
        count += len(order)
    return clusters


def _best_cut(vectors: np.ndarray, max_clusters: int) -> np.ndarray:
    best, best_score = np.zeros(len(vectors), dtype=np.int64), NO_STRUCTURE
    if len(vectors) < 3:
        return best
    distances = pdist(vectors.astype(np.float64))
    tree = linkage(vectors.astype(np.float64), "ward")
    for number in range(2, min(max_clusters, len(vectors) - 1) + 1):
        cut = fcluster(tree, number, "maxclust") - 1
        score = _silhouette(squareform(distances), cut)
        if score > best_score:
            best, best_score = cut, score
    return best


def _silhouette(distances: np.ndarray, clusters: np.ndarray) -> float:
    members = np.eye(clusters.max() + 1)[clusters]  # (n, k)
    sizes = members.sum(0)
    if len(sizes) < 2:
        return 0.0
    own = members.astype(bool)
    mean = distances @ members / np.where(own, np.maximum(sizes - 1, 1), sizes)
    inside = mean[own]
    outside = np.where(own, np.inf, mean).min(1)
    scores = (outside - inside) / np.maximum(np.maximum(inside, outside), 1e-12)
    return float(np.where(sizes[clusters] > 1, scores, 0).mean())


@dataclass(frozen=True)
class ClusterNeuron:
    """A neuron's share of a cluster's shortcut relevance, and the candidates of all classes that it is highest in."""

    neuron: int
    share: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Cluster:
    """What the candidates of a cluster have in common.

    Attributes:
        cluster, label, size: its number, class and number of candidates.
        class_share: its part of the class's candidates.
        suspicion: mean suspicion of its candidates, or None where there is no evidence.
        evidence: name to mean value: the candidates' own evidence; `masked_alone`, the share whose masked image alone
            keeps the class; and `position`, the mean overlap (intersection over union) of two candidates' masks.
        typical: rows of the candidates nearest to the cluster's centre, the nearest first.
        neurons: those with the largest share of its shortcut relevance.
    """

    cluster: int
    label: int
    size: int
    class_share: float
    suspicion: float | None
    evidence: dict[str, float]
    typical: tuple[int, ...]
    neurons: tuple[ClusterNeuron, ...]


def describe_clusters(candidates: Candidates, *, num_typical: int = 8, num_neurons: int = 3) -> list[Cluster]:
    """What each cluster has in common, by cluster number."""
    found, suspicion = [], candidates.suspicion
    for cluster in np.unique(candidates.cluster):
        rows = np.flatnonzero(candidates.cluster == cluster)
        relevance = candidates.shortcut_relevance[rows]
        unit = relevance / np.maximum(np.linalg.norm(relevance, axis=1, keepdims=True), 1e-12)
        nearest = np.argsort(-(unit @ unit.mean(0)), kind="stable")[:num_typical]
        shares = relevance.sum(0) / max(float(relevance.sum()), 1e-12)
        strongest = np.argsort(-shares, kind="stable")[:num_neurons]
        label = int(candidates.labels[rows[0]])
        found.append(
            Cluster(
                cluster=int(cluster),
                label=label,
                size=len(rows),
                class_share=len(rows) / int((candidates.labels == label).sum()),
                suspicion=None if suspicion is None else float(suspicion[rows].mean()),
                evidence={
                    **{name: float(score[rows].mean()) for name, score in candidates.evidence.items()},
                    "masked_alone": float(candidates.sufficient[rows].mean()),
                    "position": _mean_overlap(candidates.masks[rows]),
                },
                typical=tuple(rows[nearest].tolist()),
                neurons=tuple(
                    ClusterNeuron(
                        neuron=int(neuron),
                        share=float(shares[neuron]),
                        rows=tuple(
                            np.argsort(-candidates.shortcut_relevance[:, neuron], kind="stable")[:num_typical].tolist()
                        ),
                    )
                    for neuron in strongest
                ),
            )
        )
    return found


def _mean_overlap(masks: np.ndarray) -> float:
    """Mean intersection over union of all pairs of masks (n, H, W)."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    both = flat @ flat.T
    area = flat.sum(1)
    either = area[:, None] + area[None] - both
    pairs = np.triu_indices(len(masks), 1)
    if not len(pairs[0]):
        return 1.0
    return float(np.where(either[pairs] > 0, both[pairs] / np.maximum(either[pairs], 1), 0).mean())
