"""How sure a figure is: 95 % intervals of shares, of the difference of paired shares, and of anything by bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

__all__ = ["Estimate", "bootstrap", "means_of_clusters", "paired_difference", "percentiles", "share"]

LEVEL = 0.95
RESAMPLES = 1000
#: Numbers in memory while resampling.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, and how many pictures it is of."""

    value: float
    low: float
    high: float
    count: int

    def described(self) -> dict[str, float | int]:
        """As `results.json` holds it."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "count": self.count,
        }


def share(hits: ArrayLike) -> Estimate:
    """The share of hits with Wilson's score interval (1927), which is no point where none or all are hits.

    Args:
        hits: (n,) bool, n ≥ 1, one for each independent picture; or for each the share of its hits, from 0 to 1, where
            the interval is on the safe side.
    """
    hits = np.asarray(hits, dtype=np.float64)
    n, p, z = len(hits), float(hits.mean()), float(norm.ppf(0.5 + LEVEL / 2))
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return Estimate(p, min(p, middle - reach), max(p, middle + reach), n)


def paired_difference(before: ArrayLike, after: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share after − share before on the same pictures, with the adjusted Wald interval of Bonett and Price (2012).

    It adds one picture to each kind that changed, so it is no point where none did.

    Args:
        before, after: (n,) bool, n ≥ 1, picture by picture.
        level: how often the interval holds the truth.
    """
    before, after = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    n, z = len(before), float(norm.ppf(0.5 + level / 2))
    gained, lost = ((after & ~before).sum() + 1) / (n + 2), ((before & ~after).sum() + 1) / (n + 2)
    reach = z * ((gained + lost - (gained - lost) ** 2) / (n + 2)) ** 0.5
    value, middle = float(after.mean() - before.mean()), float(gained - lost)
    low, high = max(-1.0, middle - reach), min(1.0, middle + reach)
    return Estimate(value, min(value, low), max(value, high), n)


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], count: int, *, seed: int = 0) -> np.ndarray:
    """(1000,): a statistic of pictures drawn anew, with replacement. The same seed and count draw the same, so that
    two models' figures can be subtracted one by one: a paired bootstrap.

    Args:
        statistic: from weights (b, count), how often each picture was drawn, to (b,).
        count: of independent pictures.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    parts, size = [], max(1, min(RESAMPLES, _AT_ONCE // max(1, count)))
    for start in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - start)
        weights = [np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(rows)]
        parts.append(statistic(np.stack(weights).astype(np.float64)))
    return np.concatenate(parts)


def percentiles(value: float, replicates: np.ndarray, count: int) -> Estimate:
    """A figure with the percentile interval of its bootstrap; resamples in which it is not defined are left out."""
    known = replicates[np.isfinite(replicates)]
    if not len(known):
        return Estimate(value, value, value, count)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, min(value, float(low)), max(value, float(high)), count)


def means_of_clusters(values: ArrayLike, clusters: ArrayLike) -> np.ndarray:
    """The mean of the values of each picture: they rise and fall together, so it counts once.

    Args:
        values: (n,).
        clusters: (n,), the picture that each value is of.
    """
    members = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.bincount(members, weights=np.asarray(values, dtype=np.float64)) / np.bincount(members)
