"""How training images are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

__all__ = ["WeightedSampler"]


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
        yield from torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist()
