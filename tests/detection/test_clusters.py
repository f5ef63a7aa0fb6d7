"""Clusters: the known ones are found, and what they have in common is told."""

import numpy as np
import pytest

from hf_score.detection import Candidates, cluster_candidates
from hf_score.detection.clusters import _highest


def two_directions(count: int = 30, noise: float = 0.03):
    """Relevance along one of two directions, the second only in class 1."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], count)
    direction = np.where((labels == 1) & (np.arange(2 * count) % 3 == 0), 1, 0)
    relevance = np.eye(40)[direction] + noise * np.abs(generator.normal(size=(2 * count, 40)))
    return labels, direction, (relevance * generator.uniform(0.1, 10, (2 * count, 1))).astype(np.float32)


def test_directions_are_found_whatever_their_length():
    labels, direction, relevance = two_directions()
    found = cluster_candidates(labels, relevance)
    assert {(c, label, d) for c, label, d in zip(found, labels, direction, strict=True)} == {
        (0, 0, 0),
        (1, 1, 0),  # the larger one of class 1 comes first
        (2, 1, 1),
    }
    order = np.random.default_rng(1).permutation(len(labels))
    np.testing.assert_array_equal(cluster_candidates(labels[order], relevance[order]), found[order])


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_without_structure_a_class_is_one_cluster(count):
    relevance = np.random.default_rng(0).uniform(size=(count, 50)).astype(np.float32)
    assert (cluster_candidates(np.zeros(count, dtype=int), relevance) == 0).all()


def test_identical_candidates_are_one_cluster():
    assert (cluster_candidates(np.zeros(9, dtype=int), np.ones((9, 4))) == 0).all()
    assert (cluster_candidates(np.zeros(9, dtype=int), np.zeros((9, 4))) == 0).all()


def test_the_silhouette_is_the_usual_one():
    sklearn = pytest.importorskip("sklearn.metrics")
    from scipy.spatial.distance import pdist, squareform

    from hf_score.detection.clusters import _silhouette

    points = np.random.default_rng(0).normal(size=(30, 4))
    clusters = np.array([0] * 10 + [1] * 19 + [2])
    expected = sklearn.silhouette_score(points, clusters)
    assert _silhouette(squareform(pdist(points)), clusters) == pytest.approx(expected)


def test_a_cluster_is_described_by_what_its_candidates_share():
    labels, direction, relevance = two_directions()
    n = len(labels)
    masks = np.zeros((n, 8, 8), dtype=bool)
    masks[direction == 1, :2, :2] = True  # always the same place
    for row in np.flatnonzero(direction == 0):
        masks[row, row % 4 * 2 : row % 4 * 2 + 2, row % 3 * 2 : row % 3 * 2 + 2] = True
    candidates = Candidates(
        idx=np.arange(n),
        position=np.arange(n),
        labels=labels,
        logits=np.zeros(n, dtype=np.float32),
        masked_margins=np.where(direction == 1, 1.0, -1.0).astype(np.float32),
        heatmaps=masks.astype(np.float32),
        masks=masks,
        shortcut_relevance=relevance,
        cluster=cluster_candidates(labels, relevance),
        dataset_fingerprint="d",
        model_fingerprint="m",
        layer="last",
        evidence={"blue": 2.0 * direction},
    )
    other, common, square = candidates.describe_clusters()
    assert (square.label, square.size, square.class_share) == (1, 10, pytest.approx(1 / 3))
    assert square.evidence["position"] == 1.0 and common.evidence["position"] < 0.5
    assert square.evidence["masked_alone"] == 1.0 and other.evidence["masked_alone"] == 0.0
    assert square.evidence["blue"] == pytest.approx(2.0) and square.suspicion > common.suspicion
    assert square.neurons[0].neuron == 1 and square.neurons[0].share > 0.5
    assert all(direction[row] == 1 for row in (*square.typical, *square.neurons[0].rows))


@pytest.mark.parametrize("count", [1, 3, 8, 50])
def test_the_highest_are_the_first_of_a_stable_sort(count):
    """Ties too, which keep the order of the rows."""
    values = np.random.default_rng(0).integers(0, 6, 40).astype(np.float32)
    assert _highest(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()
