"""How often a finding is chance: paired tests, and what share of all findings is expected to be wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, false_discovery_control

__all__ = ["LEVEL", "expected_wrong", "false_discovery_rates", "sign_test"]

#: The share of wrong ones among all findings that is put up with.
LEVEL = 0.05


def sign_test(differences: ArrayLike, *, alternative: str = "greater") -> float:
    """p of as many positive differences, or more, if either sign were as likely; those that are 0 say nothing.

    Of paired answers (1 where the change alone is a hit, −1 where its placebo alone is one) it is
    McNemar's exact test.

    Args:
        differences: (n,), of independent pictures.
        alternative: "greater", or "two-sided".
    """
    differences = np.asarray(differences, dtype=np.float64)
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    return 1.0 if above + below == 0 else float(binomtest(above, above + below, 0.5, alternative=alternative).pvalue)


def false_discovery_rates(p_values: ArrayLike) -> np.ndarray:
    """(n,): the false discovery rate at which each test would just be a finding (Benjamini and Hochberg, 1995)."""
    p_values = np.asarray(p_values, dtype=np.float64)
    return false_discovery_control(p_values, method="bh") if len(p_values) else p_values


def expected_wrong(level: float = LEVEL) -> str:
    """The level in words: "1 in 20"."""
    return f"1 in {round(1 / level)}"
