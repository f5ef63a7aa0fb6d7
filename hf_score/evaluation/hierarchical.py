"""How sure a worst group is over seeds *and* test images: hierarchical bootstrap, tests, Holm's correction.

Two things would differ if it were all done again: the seeds, and which images the test set has. Both are drawn anew.
The same draws serve every method, so that differences are paired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from .intervals import LEVEL, Estimate

__all__ = ["Draws", "Mean", "holm", "mean_over_seeds"]

RESAMPLES = 2000


class Draws:
    """A test set drawn anew, with replacement, source by source: what was made of one image comes and goes together.

    Args:
        groups: (N,) group ids.
        sources: (N,), the image that each was made from, of any kind that can be sorted.
        resamples: how often.
        seed: of the draws. The same seed and number of sources draw the same.
    """

    def __init__(self, groups: ArrayLike, sources: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._groups = np.unique(np.asarray(groups), return_inverse=True)[1]
        self._sources = np.unique(np.asarray(sources), return_inverse=True)[1]
        count = int(self._sources.max()) + 1
        generator = np.random.default_rng(seed)
        counts = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
        self._counts = counts.astype(np.float32)  # exact: whole numbers
        self.resamples = resamples

    def worst_group(self, right: ArrayLike) -> np.ndarray:
        """The worst group of each run in each resample. A group that was not drawn counts in none.

        Args:
            right: (S, N) bool, whether each of S runs is right on each image.

        Returns:
            (resamples, S).
        """
        right = np.asarray(right, dtype=np.float32)
        shape = (int(self._groups.max()) + 1, self._counts.shape[1])
        hits = np.zeros((*shape, len(right)), dtype=np.float32)
        np.add.at(hits, (self._groups, self._sources), right.T)
        sizes = np.zeros(shape, dtype=np.float32)
        np.add.at(sizes, (self._groups, self._sources), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = (self._counts @ hits) / (sizes @ self._counts.T)[:, :, None]  # (groups, resamples, S)
        return np.fmin.reduce(accuracy.astype(np.float64), axis=0)


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, or a mean difference, with its standard error.

    Attributes:
        value: the mean.
        error: standard error over seeds and images; of a single seed, over images alone.
        seeds: how many.
        freedom: degrees of freedom of the error, those of the seeds or more.
    """

    value: float
    error: float
    seeds: int
    freedom: float

    def interval(self, *, lowest: float = 0.0, level: float = LEVEL) -> Estimate:
        """Student's t, within `lowest` and 1. Of a single seed it says nothing of others."""
        reach = self.error * float(student.ppf(0.5 + level / 2, self.freedom))
        return Estimate(self.value, max(lowest, self.value - reach), min(1.0, self.value + reach), self.seeds)

    def p_better(self, margin: float = 0.0) -> float:
        """Of the hypothesis that the true value is `margin` or less: twice the one-sided p.

        Twice, so that to have declared a direction buys nothing.
        """
        return min(1.0, 2 * self._p_above(margin))

    def p_equivalent(self, margin: float) -> float:
        """Of the hypothesis that the true value lies `margin` or more from 0: two one-sided tests, the larger p.

        Schuirmann (1987); at 5 % it is to say that the 90 % interval lies within ± `margin`.
        """
        below = replace(self, value=-self.value)
        return max(self._p_above(-margin), below._p_above(-margin))

    def _p_above(self, bound: float) -> float:
        if self.seeds < 2:
            raise ValueError("one seed says nothing of others: give at least 2.")
        distance = self.value - bound
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(student.sf(distance / self.error, self.freedom))


def mean_over_seeds(values: ArrayLike, replicates: np.ndarray, *, seed: int = 0) -> Mean:
    """The mean of values of S seeds with the standard error of a bootstrap over seeds and images.

    Seeds and images are drawn independently, as every seed is measured on the same images (Owen, 2007, *The pigeonhole
    bootstrap*: never too small on average). Of S seeds S − 1 are drawn, or the variance between them would come out
    (S − 1)/S of what it is. The error is used with Student's t rather than the bootstrap's percentiles, which are too
    narrow with few seeds and, of a minimum, off to one side. The images' part of the variance has many degrees of
    freedom and the seeds' S − 1; together they have Satterthwaite's (1946).

    Args:
        values: (S,), of the test set as it is.
        replicates: (b, S), of its resamples (`Draws.worst_group`), or differences of such.
        seed: of the draws.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    of_images = float(replicates.mean(axis=1).var(ddof=1))
    if count == 1:
        return Mean(float(values[0]), of_images**0.5, count, np.inf)
    generator = np.random.default_rng([seed, count])  # apart from the draws of images
    weights = generator.multinomial(count - 1, np.full(count, 1 / count), size=len(replicates)) / (count - 1)
    both = float((weights * replicates).sum(axis=1).var(ddof=1))
    of_seeds = both - of_images
    freedom = (count - 1) * (both / of_seeds) ** 2 if of_seeds > 0 else np.inf
    return Mean(float(values.mean()), max(both, of_images) ** 0.5, count, max(count - 1.0, freedom))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p of tests that were declared together (Holm, 1979): one wrong rejection among all in 5 % of cases.

    Args:
        p_values: (m,).
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    scaled = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted
