"""The oracle: core is what hardly shows the region; what is left over is not used, and no more is said of it."""

import dataclasses

import numpy as np

from hf_score.detection import Candidates, Selection, decide_by_cluster, decide_by_oracle


def twelve_candidates():
    """Of two classes in turn, with all relevance in a corner."""
    heatmaps = np.zeros((12, 8, 8), dtype=np.float32)
    heatmaps[:, :4, :4] = 1
    return Candidates(
        idx=np.arange(100, 112),
        position=np.arange(12),
        labels=np.arange(12) % 2,
        logits=np.ones(12),
        masked_margins=np.ones(12),
        heatmaps=heatmaps,
        masks=np.ones((12, 8, 8), dtype=bool),
        shortcut_relevance=np.ones((12, 4), dtype=np.float32),
        cluster=np.zeros(12, dtype=int),
        dataset_fingerprint="data",
        model_fingerprint="model",
        layer="layer4",
        class_names=("a", "b"),
    )


def test_what_fits_but_is_too_many_is_not_core(tmp_path):
    candidates = twelve_candidates()
    regions = []
    for share in (1.0, 0.75, 0.5, 0.1, 0.02, None) * 2:
        region = None if share is None else np.zeros((8, 8))
        if region is not None:
            region[:4, :4] = share
        regions.append(region)
    selection = decide_by_oracle(candidates, regions, num_keep=1, threshold=0.15)
    by_idx = {decision.idx: decision for decision in selection.decisions}
    best = {label: np.flatnonzero(candidates.labels == label) for label in (0, 1)}
    shares = [0 if region is None else region.max() for region in regions]
    for label, rows in best.items():
        kept = [row for row in rows if by_idx[candidates.idx[row]].verdict == "spurious"]
        assert kept == [max(rows, key=lambda row: (shares[row], -row))], label
    for row, share in enumerate(shares):
        decision = by_idx[candidates.idx[row]]
        if decision.verdict != "spurious":
            assert decision.verdict == ("core" if share < 0.05 else "unsure")
            assert ("not used: more than 1" in decision.note) == (share >= 0.15)
    assert Selection.load(selection.save(tmp_path / "selection.json")) == selection


def test_a_cluster_is_kept_or_not_as_a_whole():
    corner = np.zeros((8, 8))
    corner[:4, :4] = 1
    cluster = np.array([0, 2, 0, 2, 0, 2, 1, 3, 1, 3, 1, 3])  # of class 0: 0 and 1, of class 1: 2 and 3
    candidates = dataclasses.replace(twelve_candidates(), cluster=cluster)
    shows = {0, 2, 6, 9, 11}  # most of cluster 0 and of cluster 3, one of cluster 1
    selection = decide_by_cluster(candidates, [corner if row in shows else None for row in range(12)])
    verdicts = {d.idx - 100: d.verdict for d in selection.decisions}
    assert verdicts == {row: "spurious" if cluster[row] in (0, 3) else "core" for row in range(12)}
    assert selection.decided_by == "oracle"
    few = decide_by_cluster(candidates, [corner] * 12, num_keep=2)
    assert [d.idx - 100 for d in few.spurious] == [0, 1, 2, 3]
    assert {d.verdict for d in few.decisions} == {"spurious", "unsure"}
