"""Clusters of candidates that a class's logit rests on in the same way, and what each has in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from .packed import PackedArrays
from .ranking import suspicion

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
    distances = squareform(pdist(vectors.astype(np.float64)))
    tree = linkage(vectors.astype(np.float64), "ward")
    for number in range(2, min(max_clusters, len(vectors) - 1) + 1):
        cut = fcluster(tree, number, "maxclust") - 1
        score = _silhouette(distances, cut)
        if score > best_score:
            best, best_score = cut, score
    return best


def _silhouette(distances: np.ndarray, clusters: np.ndarray) -> float:
    """The mean silhouette of clusters (n,) with distances (n, n).

    Every scan needs it, and nothing else in the core needs scikit-learn, which the tests compare it with.
    """
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


def describe_clusters(
    cluster: np.ndarray,
    labels: np.ndarray,
    *,
    shortcut_relevance: np.ndarray,
    masks: np.ndarray | PackedArrays,
    sufficient: np.ndarray,
    evidence: Mapping[str, np.ndarray] | None = None,
    num_typical: int = 8,
    num_neurons: int = 3,
) -> list[Cluster]:
    """What each cluster has in common, by cluster number.

    Args:
        cluster, labels: (n,) cluster and class of each candidate.
        shortcut_relevance: (n, C).
        masks: (n, H, W) bool.
        sufficient: (n,) bool, whether the masked image alone gets the class.
        evidence: name of a score → (n,), higher is more suspicious; may be empty.
        num_typical: most rows to name, of a cluster and of a neuron.
        num_neurons: most neurons to name.
    """
    evidence = evidence or {}
    ranks = suspicion(evidence) if evidence else None
    numbers, sizes = np.unique(cluster, return_counts=True)
    members = np.split(np.argsort(cluster, kind="stable"), sizes.cumsum()[:-1])
    of_class = Counter(labels.tolist())
    highest_in: dict[int, np.ndarray] = {}  # clusters share neurons
    found = []
    for number, rows in zip(numbers, members, strict=True):
        relevance = shortcut_relevance[rows]
        unit = relevance / np.maximum(np.linalg.norm(relevance, axis=1, keepdims=True), 1e-12)
        nearest = np.argsort(-(unit @ unit.mean(0)), kind="stable")[:num_typical]
        shares = relevance.sum(0) / max(float(relevance.sum()), 1e-12)
        strongest = np.argsort(-shares, kind="stable")[:num_neurons]
        for k in strongest.tolist():
            if k not in highest_in:
                highest_in[k] = _highest(shortcut_relevance[:, k], num_typical)
        label = int(labels[rows[0]])
        found.append(
            Cluster(
                cluster=int(number),
                label=label,
                size=len(rows),
                class_share=len(rows) / of_class[label],
                suspicion=None if ranks is None else float(ranks[rows].mean()),
                evidence={
                    **{name: float(score[rows].mean()) for name, score in evidence.items()},
                    "masked_alone": float(sufficient[rows].mean()),
                    "position": _mean_overlap(masks[rows]),
                },
                typical=tuple(rows[nearest].tolist()),
                neurons=tuple(
                    ClusterNeuron(k, float(shares[k]), tuple(highest_in[k].tolist())) for k in strongest.tolist()
                ),
            )
        )
    return found


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of `np.argsort(-values, kind="stable")`, without sorting all."""
    if len(values) <= count:
        return np.argsort(-values, kind="stable")
    rows = np.flatnonzero(values >= np.partition(values, -count)[-count])
    return rows[np.argsort(-values[rows], kind="stable")][:count]


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
