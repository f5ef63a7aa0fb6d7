"""Deciding which candidates are spurious-positive without a person at the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .candidates import Candidates
from .selection import Selection

__all__ = [
    "decide_at_random",
    "decide_by_cluster",
    "decide_by_file",
    "decide_by_oracle",
    "decide_by_proposal",
    "region_shares",
]

#: A mask with less of its relevance in the known region does not show it.
HARDLY = 0.05


def decide_by_file(candidates: Candidates, path: str | Path) -> Selection:
    """Read a selection file and check that it is about these candidates.

    Raises:
        SelectionError: unreadable, or about another data set or model.
    """
    return Selection.load(
        path,
        dataset_fingerprint=candidates.dataset_fingerprint,
        model_fingerprint=candidates.model_fingerprint,
    )


def region_shares(candidates: Candidates, regions: Sequence[np.ndarray | None]) -> np.ndarray:
    """Share of the positive relevance inside the mask that lies in the region of the spurious attribute.

    Inside the mask, because that is what a person would see.

    Args:
        regions: n entries, (H, W) in [0, 1], or None where the image has no such region.

    Returns:
        (n,), in [0, 1]; 0 without a region or without positive relevance.
    """
    shares = np.zeros(len(candidates))
    for row, region in enumerate(regions):
        seen = np.clip(candidates.heatmaps[row], 0, None) * candidates.masks[row]
        if region is not None and seen.sum() > 0:
            shares[row] = float((seen * region).sum() / seen.sum())
    return shares


def decide_by_oracle(
    candidates: Candidates,
    regions: Sequence[np.ndarray | None],
    *,
    num_keep: int = 40,
    threshold: float = 0.15,
) -> Selection:
    """Keep per class the candidates whose masks show the known region of the spurious attribute most.

    Stands in for a person in benchmarks and is always reported as `oracle`. It sees regions, never groups. Whether the
    masked image alone still gets the class (`Candidates.sufficient`) is not asked: a small attribute on an empty image
    often does not, and exchanging such a region is useful all the same. Core are those whose masks hardly show the
    region; what lies between, and what fits but is more than `num_keep`, stays unsure and is not used.

    Args:
        regions: see `region_shares`.
        num_keep: t, at most so many per class.
        threshold: smallest share that clearly shows the attribute.
    """
    shares = region_shares(candidates, regions)
    keep: set[int] = set()
    for label in np.unique(candidates.labels):
        fits = (candidates.labels == label) & (shares >= threshold)
        order = np.argsort(-shares, kind="stable")
        keep.update(int(row) for row in order[fits[order]][:num_keep])
    notes = [f"{share:.2f} of the relevance in the mask lies in the region" for share in shares]
    for row in np.flatnonzero(shares >= threshold):
        if row not in keep:
            notes[row] += f"; not used: more than {num_keep} of the class show it"
    selection = candidates.select(sorted(keep), by="oracle", others="unsure", notes=notes)
    core = {int(idx) for idx in candidates.idx[shares < min(HARDLY, threshold)]}
    decisions = (replace(d, verdict="core") if d.idx in core else d for d in selection.decisions)
    return replace(selection, decisions=tuple(decisions))


def decide_by_cluster(
    candidates: Candidates,
    regions: Sequence[np.ndarray | None],
    *,
    num_keep: int = 40,
    threshold: float = 0.15,
) -> Selection:
    """One verdict for each cluster: it is kept where most of its candidates show the known region, else core.

    Stands in for a person who looks at clusters and not at each picture.

    Args:
        regions: see `region_shares`.
        num_keep: at most so many per class, in the order of the scan; the rest of kept clusters stays unsure.
        threshold: smallest share with which a candidate shows the region.
    """
    shows = region_shares(candidates, regions) >= threshold
    most = {
        cluster for cluster in set(candidates.cluster.tolist()) if shows[candidates.cluster == cluster].mean() > 0.5
    }
    fits = np.isin(candidates.cluster, sorted(most))
    keep: list[int] = []
    for label in np.unique(candidates.labels):
        keep += np.flatnonzero(fits & (candidates.labels == label))[:num_keep].tolist()
    selection = candidates.select(sorted(keep), by="oracle", others="unsure")
    core = {int(idx) for idx in candidates.idx[~fits]}
    decisions = (replace(d, verdict="core") if d.idx in core else d for d in selection.decisions)
    return replace(selection, decisions=tuple(decisions))


def decide_by_proposal(
    candidates: Candidates,
    suspicion: np.ndarray,
    *,
    num_keep: int = 40,
    threshold: float = 0.7,
    evidence: Mapping[str, np.ndarray] | None = None,
) -> Selection:
    """Propose per class the most suspicious candidates; all others stay unsure, since no evidence clears them.

    A proposal, for a person to confirm: `suspicion` compares candidates with each other, so some are proposed even
    where a model has learned no shortcut.

    Args:
        suspicion: (n,), in [0, 1]: see `Candidates.suspicion`.
        num_keep: at most so many per class.
        threshold: smallest suspicion to propose.
        evidence: name of a score → (n,), what the suspicion was made from, for the notes.
    """
    keep: set[int] = set()
    order = np.argsort(-suspicion, kind="stable")
    for label in np.unique(candidates.labels):
        fits = (candidates.labels == label) & (suspicion >= threshold)
        keep.update(int(row) for row in order[fits[order]][:num_keep])
    scores = {"suspicion": suspicion, **(evidence or {})}
    notes = [", ".join(f"{name} {score[row]:.2f}" for name, score in scores.items()) for row in range(len(candidates))]
    return candidates.select(sorted(keep), by="proposal", others="unsure", notes=notes)


def decide_at_random(candidates: Candidates) -> Selection:
    """Control: call all of these candidates spurious. The caller has drawn them at random."""
    return candidates.select(range(len(candidates)), by="random")
