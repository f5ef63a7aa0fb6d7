"""A multi-label classifier's other outputs, kept as they were while one of them is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..models import yes_no_head

__all__ = ["KeptOutputs"]


class KeptOutputs:
    """What the starting model says of the labels that are not trained, as targets.

    "Learning without Forgetting" (Li & Hoiem, ECCV 2016, arXiv 1606.09282): the loss of each other label is the binary
    cross-entropy with the starting model's probability on the same images, so that it needs no ground truth.

    Args:
        model: the starting model; it is copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self.start = copy.deepcopy(model).eval().requires_grad_(False)

    @classmethod
    def of(cls, model: nn.Module | None) -> KeptOutputs | None:
        """None for a model without outputs beside the one that is trained."""
        head = None if model is None else yes_no_head(model)
        return cls(model) if model is not None and head is not None and head.out_features > 1 else None

    @staticmethod
    @contextmanager
    def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
        """Within the context, the other outputs (B, L − 1) of each forward pass of `model`, if it has any."""
        seen: list[Tensor] = []
        head = yes_no_head(model)
        if head is None:
            yield seen
            return
        handle = head.register_forward_pre_hook(lambda module, args: seen.append(module.others(args[0])))
        try:
            yield seen
        finally:
            handle.remove()

    def loss(self, other_logits: Tensor, pixel_values: Tensor) -> Tensor:
        """Of these images (B, 3, H, W): summed over the labels, each of which counts as much as the one that is
        trained, and averaged over the images. ()"""
        self.start.to(pixel_values.device)
        with torch.no_grad(), self.recorded(self.start) as targets:
            self.start(pixel_values=pixel_values)
        per_label = nn.functional.binary_cross_entropy_with_logits(
            other_logits.float(), targets[0].float().sigmoid(), reduction="none"
        )
        return per_label.sum(1).mean()
