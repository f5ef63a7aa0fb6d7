"""The margin of a class over the others, and what a region contributes to it."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import ModelError

__all__ = ["margin", "margin_difference"]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,): the logit of the class minus the strongest of the others.

    Args:
        logits: (B, K), K ≥ 2.
        labels: (B,).

    Raises:
        ModelError: one logit, which has no other.
    """
    if logits.shape[1] < 2:
        raise ModelError(
            "A model with one logit has no margin; load it with `hf_score.load_model` and the two class names."
        )
    logits = logits.float()
    of_class = logits.gather(1, labels[:, None])[:, 0]
    return of_class - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)


def margin_difference(with_region: Tensor, without_region: Tensor, labels: Tensor) -> Tensor:
    """|margin with the region − margin without it|: what the region contributes to the decision, for or against.

    Ours. LRP's shortcut relevance sees positive evidence only; a region that inhibits another class, or whose absence
    counts, has none, and training moves the shortcut there. Exchanging the region measures all of it.

    Args:
        with_region: (B, K), logits of images that show the region.
        without_region: (B, K), logits of the same images without it.
        labels: (B,), the class that the region is spurious evidence for.

    Returns:
        (B,), ≥ 0, in logits.
    """
    return (margin(with_region, labels) - margin(without_region, labels)).abs()
