"""Clusters of images by what a model makes of them: k-means, and how many clusters there are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from ..errors import HFScoreError

__all__ = ["kmeans", "kmeans_within", "scikit_learn"]

_STARTS = 5


def kmeans(points: Tensor, count: int, *, seed: int) -> Tensor:
    """(N,) int64: clusters of points (N, D) by k-means++ and Lloyd's steps, the best of five starts.

    Numbered by size, the largest 0. Fewer than `count` clusters where fewer points differ.
    """
    values = points.double().numpy()
    count = min(count, len(np.unique(values, axis=0)))
    best, least = np.zeros(len(values), dtype=np.int64), np.inf
    for start in range(_STARTS if count > 1 else 0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cluster that became empty
            centres, found = kmeans2(values, count, iter=50, minit="++", seed=np.random.default_rng([seed, start]))
        within = float(((values - centres[found]) ** 2).sum())
        if within < least:
            best, least = found.astype(np.int64), within
    sizes = np.bincount(best, minlength=count)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    return torch.as_tensor(rank[best])


def kmeans_within(points: Tensor, labels: Tensor, count: int, *, seed: int) -> Tensor:
    """(N,) int64: `kmeans` inside each class, clusters of a class numbered from 0, its largest first."""
    clusters = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        clusters[labels == label] = kmeans(points[labels == label], count, seed=seed)
    return clusters


def scikit_learn(module: str, method: str) -> Any:
    """A module of scikit-learn.

    Raises:
        HFScoreError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise HFScoreError(f"{method} needs scikit-learn: pip install 'hf-score[bench]'.") from error
