"""Which candidates to look at first: one order from several scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

__all__ = ["suspicion"]


def suspicion(evidence: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean rank of each candidate over the scores, in [0, 1]; 1 is the most suspicious in all of them.

    Ranks say who comes first, across all classes, and not whether there is a shortcut at all: somebody is always at
    the top.

    Args:
        evidence: name of a score → (n,), higher is more suspicious.

    Returns:
        (n,).
    """
    ranks = [(rankdata(score) - 1) / max(1, len(score) - 1) for score in evidence.values()]
    return np.mean(ranks, axis=0)
