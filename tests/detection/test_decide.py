"""The oracle: core is what hardly shows the region; what is left over is not used, and no more is said of it."""

import numpy as np

from hf_score.detection import Candidates, Selection, decide_by_oracle


def test_what_fits_but_is_too_many_is_not_core(tmp_path):
    heatmaps = np.zeros((12, 8, 8), dtype=np.float32)
    heatmaps[:, :4, :4] = 1
    candidates = Candidates(
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
    regions = []
    for share in (1.0, 0.75, 0.5, 0.1, 0.02, None) * 2:
        region = None if share is None else np.zeros(heatmaps.shape[1:])
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
