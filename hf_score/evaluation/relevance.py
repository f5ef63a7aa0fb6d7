"""How much of an explanation lies inside the region of the spurious attribute."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["relevance_in_region"]


def relevance_in_region(heatmaps: ArrayLike, regions: ArrayLike) -> np.ndarray:
    """The share of each heatmap's positive relevance that lies inside its region.

    Args:
        heatmaps: (B, H, W) relevance; negative values count as 0.
        regions: (B, H, W) membership from 0 to 1, or boolean.

    Returns:
        (B,) shares from 0 to 1, float64; nan where a heatmap has no positive relevance, or is not finite.
    """
    relevance = np.asarray(heatmaps, dtype=np.float64)
    inside = np.asarray(regions, dtype=np.float64)
    if relevance.ndim != 3 or relevance.shape != inside.shape:
        raise ValueError(f"Heatmaps {relevance.shape} and regions {inside.shape} must both be the same (B, H, W).")
    positive = np.maximum(relevance, 0)
    total = positive.sum(axis=(1, 2))
    usable = np.isfinite(relevance).all(axis=(1, 2)) & (total > 0)
    return np.divide((positive * inside).sum(axis=(1, 2)), total, out=np.full(len(total), np.nan), where=usable)
