"""How training images are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

__all__ = ["WeightedSampler"]


#: Most weights that `torch.multinomial` takes.
_MULTINOMIAL = 2**24


class WeightedSampler(Sampler[int]):
    """Draws as many indices as there are weights, with replacement, in proportion to them.

    What is drawn depends on seed and epoch alone, so every process and a resumed run draw the same.
    """

    def __init__(self, weights: Tensor, *, seed: int) -> None:
        self.weights = weights
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.weights)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if len(self) <= _MULTINOMIAL:
            drawn = torch.multinomial(self.weights, len(self), replacement=True, generator=generator)
        else:
            drawn = _drawn(self.weights.double(), len(self), generator)
        for part in drawn.split(2**16):  # as Python's numbers they would take nine times the memory
            yield from part.tolist()


def _drawn(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,): indices, each by its share of the sum of weights."""
    ends = weights.cumsum(0)
    points = torch.rand(count, generator=generator, dtype=torch.float64) * ends[-1]
    last = int(weights.nonzero()[-1])  # a point at the very end, by rounding, is the last one's that can be drawn
    return torch.searchsorted(ends, points, right=True).clamp(max=last)
