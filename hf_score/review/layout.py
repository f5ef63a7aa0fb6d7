"""The maps of the review page: candidates and neurons in two dimensions, near each other where they are alike."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from datasets import Dataset

from ..files import write_json
from .table import CandidateTable

__all__ = ["lay_out"]

#: Fewer points have no neighbourhoods to preserve.
FEWEST = 8
#: More take minutes to lay out, and are too many to see one.
MOST = 20_000
MOST_NEURONS = 2048


def lay_out(table: CandidateTable) -> CandidateTable:
    """Lay out the candidates and the neurons of a run by UMAP (McInnes et al. 2018), once. → `map.json`

    Candidates lie near each other where the same neurons carry their shortcut relevance, neurons where they carry that
    of the same candidates (cosine distance). The same candidates give the same map.

    Returns:
        The table with its maps; as it was where umap-learn is not installed, or candidates are fewer than `FEWEST` or
        more than `MOST`.
    """
    if np.isfinite(table.embedding).any() or not FEWEST <= len(table) <= MOST:
        return table
    try:
        import umap  # noqa: F401
    except ImportError:
        return table
    print("Laying out the map of the candidates, once for this run ...", flush=True)
    rows = Dataset.load_from_disk(str(table.run / "candidates")).select_columns(["shortcut_relevance"])
    relevance = np.asarray(rows.with_format("numpy")["shortcut_relevance"][:], dtype=np.float32)
    points = _umap(relevance)
    write_json(
        table.run / "map.json",
        {"key": table.key, "candidates": points.tolist(), "neurons": _neurons(relevance, table.cluster)},
    )
    return CandidateTable.open(table.run)


def _neurons(relevance: np.ndarray, cluster: np.ndarray) -> dict[str, list[Any]] | None:
    total = relevance.sum(0)
    chosen = np.sort(np.argsort(-total, kind="stable")[: min(MOST_NEURONS, int((total > 0).sum()))])
    if len(chosen) < FEWEST:
        return None
    numbers = np.unique(cluster)
    means = np.stack([relevance[cluster == number][:, chosen].mean(0) for number in numbers])
    points = _umap(relevance[:, chosen].T)
    return {
        "neuron": chosen.tolist(),
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "cluster": numbers[means.argmax(0)].tolist(),
    }


def _umap(vectors: np.ndarray) -> np.ndarray:
    """(n, 2) of (n, d)."""
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fixed seed means one thread
        model = UMAP(n_neighbors=min(15, len(vectors) - 1), metric="cosine", random_state=0)
        return np.round(model.fit_transform(vectors), 3)
