"""Spurious-positive samples as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..data.exchange import ExchangedPairs, exchange_regions

__all__ = ["SpuriousSamples"]


@dataclass(frozen=True)
class SpuriousSamples:
    """The samples S that are penalised.

    Attributes:
        pixel_values: (t, 3, H, W), the processed original images.
        masks: (t, H, W), bool; True on the most relevant region.
        labels: (t,), the class whose evidence is spurious.
        idx: (t,), the stable ids in the data set.
        weights: (t,), what λ is multiplied by for each sample: 1 by default, another where a shortcut among several is
            to be penalised more or less.
    """

    pixel_values: Tensor
    masks: Tensor
    labels: Tensor
    idx: Tensor
    weights: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.weights is None:
            object.__setattr__(self, "weights", torch.ones(len(self.labels), device=self.labels.device))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def masked(self) -> Tensor:
        """(t, 3, H, W): only the most relevant region is kept; the fill is 0, the processor's mean."""
        return self.pixel_values * self.masks[:, None]

    def __getitem__(self, chosen: Tensor | slice | Sequence[int]) -> SpuriousSamples:
        return SpuriousSamples(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def to(self, device: torch.device | str) -> SpuriousSamples:
        """The same samples on `device`."""
        return SpuriousSamples(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def joined(self, other: SpuriousSamples) -> SpuriousSamples:
        """These samples, then the others."""
        return SpuriousSamples(
            **{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        )

    def exchanged_with(self, partners: Tensor, partner_labels: Tensor) -> ExchangedPairs:
        """The samples and their partners (t, 3, H, W), of classes (t,), with exchanged regions."""
        device = self.labels.device
        moved = (tensor.to(device, non_blocking=tensor.is_pinned()) for tensor in (partners, partner_labels))
        partners, partner_labels = moved
        return exchange_regions(
            self.pixel_values, self.masks, self.labels, partners=partners, partner_labels=partner_labels
        )

    def move_masks(self, *, seed: int) -> SpuriousSamples:
        """Control: each mask moved to a random position, around the edges: it no longer shows what was found."""
        generator = torch.Generator().manual_seed(seed)
        height, width = self.masks.shape[1:]
        moved = [
            mask.roll((int(torch.randint(height, (1,), generator=generator)), int(column)), dims=(0, 1))
            for mask, column in zip(self.masks, torch.randint(width, (len(self),), generator=generator), strict=True)
        ]
        return replace(self, masks=torch.stack(moved))

    def split(self, *, held_out_share: float, seed: int) -> tuple[SpuriousSamples, SpuriousSamples]:
        """A seeded split, class by class, into samples to penalise and samples that only measure reliance.

        A class with one sample gives it to the penalty.
        """
        generator = torch.Generator().manual_seed(seed)
        penalised: list[int] = []
        held_out: list[int] = []
        for label in self.labels.unique().tolist():
            members = (self.labels == label).nonzero().flatten()
            members = members[torch.randperm(len(members), generator=generator)].tolist()
            cut = min(round(len(members) * held_out_share), len(members) - 1)
            held_out += members[:cut]
            penalised += members[cut:]
        return self[sorted(penalised)], self[sorted(held_out)]
