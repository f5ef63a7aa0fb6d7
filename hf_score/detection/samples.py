"""Spurious-positive samples as tensors, and the exchange of their regions with images of other classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import HFScoreError

__all__ = ["ExchangedRegions", "HostImages", "OwnClassImages", "SpuriousSamples", "exchange_regions"]


@dataclass(frozen=True)
class SpuriousSamples:
    """The samples S of METHOD step 5.

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

    def move_masks(self, *, seed: int) -> SpuriousSamples:
        """Control: each mask moved to a random place, around the edges: it no longer shows what was found."""
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


@dataclass(frozen=True)
class ExchangedRegions:
    """Samples and hosts that have exchanged what is inside the mask, as images with and without the region.

    Attributes:
        with_region: (2t, 3, H, W), the samples as they are, then the hosts with the samples' regions inserted.
        without_region: (2t, 3, H, W), the samples with the hosts' content in the region, then the hosts as they are.
        labels: (2t,), the true class of each pair: that of what is outside the mask.
        shortcut_labels: (2t,), the class that the region is spurious evidence for.
    """

    with_region: Tensor
    without_region: Tensor
    labels: Tensor
    shortcut_labels: Tensor

    def counterfactuals(self, with_region: Tensor, without_region: Tensor) -> Tensor:
        """Of what belongs to `with_region` and `without_region` (images, logits), the (2t, ...) rows of the copies
        that were made: samples without the region, then hosts with it. Their classes are `labels`."""
        half = len(self.labels) // 2
        return torch.cat([without_region[:half], with_region[half:]])


def exchange_regions(samples: SpuriousSamples, hosts: Tensor, host_labels: Tensor) -> ExchangedRegions:
    """Exchange what is inside the mask between each sample and its host; both keep the label of what is outside.

    "This region should not be used for prediction", said with examples: hosts get the spurious attribute and stay what
    they are, samples lose it and stay what they are. Ours, not the paper's. Hosts of the samples' own class would say
    the opposite as often as the attribute is common in that class, so draw them from other classes: `HostImages`.

    Args:
        samples: t spurious-positive samples.
        hosts: (t, 3, H, W).
        host_labels: (t,).
    """
    masks = samples.masks[:, None]
    return ExchangedRegions(
        with_region=torch.cat([samples.pixel_values, torch.where(masks, samples.pixel_values, hosts)]),
        without_region=torch.cat([torch.where(masks, hosts, samples.pixel_values), hosts]),
        labels=torch.cat([samples.labels, host_labels]),
        shortcut_labels=torch.cat([samples.labels, samples.labels]),
    )


class HostImages:
    """Images of other classes than a sample's, from a data set, every other class equally often.

    What is drawn depends on the seed and the number of the turn alone, so it is the same for any batch size, for any
    number of processes and in a resumed run.

    Args:
        dataset: indexable.
        labels: class id of each item.
        data_collator: makes `{"pixel_values": (n, 3, H, W), "labels": (n,)}` of n items.
        seed: for the draws.

    Raises:
        HFScoreError: all images have one class.
    """

    def __init__(self, dataset: Any, labels: Sequence[int], data_collator: Callable, *, seed: int) -> None:
        classes = torch.as_tensor(labels)
        self._members = {int(c): (classes == c).nonzero().flatten() for c in classes.unique()}
        if len(self._members) < 2:
            raise HFScoreError(
                "all images of the data set have one class, so no region can be exchanged with another class: "
                "give images of two classes or more."
            )
        self._dataset, self._collate, self._seed = dataset, data_collator, seed

    def draw(self, labels: Sequence[int], turns: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A host of another class for each of `labels`, in its turn: images (t, 3, H, W) and classes (t,)."""
        chosen = []
        for label, turn in zip(labels, turns, strict=True):
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + turn)
            others = [c for c in self._members if c != label]
            members = self._members[others[int(torch.randint(len(others), (1,), generator=generator))]]
            chosen.append(int(members[torch.randint(len(members), (1,), generator=generator)]))
        batch = self._collate([self._dataset[position] for position in chosen])
        return batch["pixel_values"], batch["labels"]


class OwnClassImages:
    """Some images of every class, kept in memory, to exchange what is inside a mask with within a class.

    A copy with an exchanged region has an edge, and a model can learn to ignore the shortcut where there is an edge
    and nowhere else: right on the copies, wrong on images. Once every training image has such an edge, it tells them
    apart no more. What the images of a class have in common, shortcuts too, stays as common as it was. Ours.

    Args:
        dataset: indexable.
        labels: class id of each item.
        data_collator: makes `{"pixel_values": (n, 3, H, W), "labels": (n,)}` of n items.
        seed: for the draws.
        size: at most so many images; with more classes than that, the images of the rest are left as they are.
    """

    def __init__(
        self, dataset: Any, labels: Sequence[int], data_collator: Callable, *, seed: int, size: int = 256
    ) -> None:
        classes = torch.as_tensor(labels)
        kept = classes.unique()[:size]
        shuffled = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
        self._seed, self._images = seed, {}
        for c in kept:
            chosen = shuffled[classes[shuffled] == c][: max(1, size // len(kept))]
            # one by one: as they are in the data set, they may be large
            images = [data_collator([dataset[position]])["pixel_values"] for position in chosen.tolist()]
            self._images[int(c)] = torch.cat(images)

    def exchange(self, pixel_values: Tensor, labels: Tensor, masks: Tensor, *, turns: Sequence[int]) -> Tensor:
        """(B, 3, H, W): the images, each with what is inside one of the masks taken from an image of its class.

        What is drawn depends on the seed and the number of the turn alone.

        Args:
            pixel_values: (B, 3, H, W).
            labels: (B,).
            masks: (t, H, W), bool.
            turns: B numbers.
        """
        rows, partners, which = [], [], []
        for row, (label, turn) in enumerate(zip(labels.tolist(), turns, strict=True)):
            if (images := self._images.get(label)) is not None:
                generator = torch.Generator().manual_seed(self._seed * 1_000_033 + turn)
                rows.append(row)
                partners.append(images[int(torch.randint(len(images), (1,), generator=generator))])
                which.append(int(torch.randint(len(masks), (1,), generator=generator)))
        if not rows:
            return pixel_values
        exchanged = pixel_values.clone()
        inside = masks[which][:, None].to(pixel_values.device)
        exchanged[rows] = torch.where(inside, torch.stack(partners).to(pixel_values), pixel_values[rows])
        return exchanged
