"""What SCORE fine-tunes on: all training images, the samples alone, or the samples with random ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data.views import is_stream
from ..detection.samples import SpuriousSamples
from ..errors import HFScoreError
from .columns import class_labels, column

__all__ = ["fine_tuning_set", "weights_within"]


def fine_tuning_set(dataset: Any, samples: SpuriousSamples, kind: str, *, seed: int) -> Tensor | None:
    """(N,), bool: the training images that the cross-entropy is of ("Shortcut Mitigation via Spurious-Positive
    Samples", arXiv 2605.13340, appendix A.1); None for all.

    Args:
        dataset: the training set.
        samples: the penalised samples.
        kind: `score_fine_tuning_set`. Random images are as many as the samples, and drawn without a look at labels.
        seed: of their draw.

    Raises:
        HFScoreError: a stream, a training set without `idx`, or one that holds none of the samples.
    """
    if kind == "all":
        return None
    ids = None if is_stream(dataset) else column(dataset, "idx")
    chosen = torch.zeros(0, dtype=torch.bool) if ids is None else torch.isin(torch.as_tensor(ids), samples.idx.cpu())
    if not chosen.any():
        raise HFScoreError(
            f"score_fine_tuning_set is {kind!r}, and the training set has no image with the idx of a sample: give the "
            "set that the samples are of, no stream, or leave the option at 'all'."
        )
    if kind == "samples_and_random":
        others = (~chosen).nonzero().flatten()
        shuffled = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
        chosen[others[shuffled[: int(chosen.sum())]]] = True
    return chosen


def weights_within(chosen: Tensor, dataset: Any, *, class_balanced: bool) -> Tensor:
    """(N,): how often each training image is drawn, in proportion; 0 for those that are not chosen."""
    if not class_balanced:
        return chosen.double()
    labels = torch.as_tensor(class_labels(dataset))
    counts = torch.bincount(labels[chosen], minlength=int(labels.max()) + 1).clamp(min=1)
    return torch.where(chosen, 1.0 / counts.double()[labels], 0.0)
