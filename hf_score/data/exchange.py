"""Pairs of images that exchange what is inside a mask, and the images to exchange it with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import HFScoreError
from .pixels import PixelDataset
from .reading import Workers, batches_at
from .views import StreamItems

__all__ = [
    "DrawnAhead",
    "ExchangedPairs",
    "OtherClassPartners",
    "Partners",
    "SameClassPartners",
    "beginning_of",
    "exchange_regions",
]

#: Most bytes of images that one data set's partners keep, to draw them again.
_KEPT_BYTES = 2**30


@dataclass(frozen=True)
class ExchangedPairs:
    """Images and their partners that have exchanged what is inside the mask, with and without the region.

    Attributes:
        with_region: (2t, 3, H, W), the images as they are, then the partners with the images' regions inserted.
        without_region: (2t, 3, H, W), the images with the partners' content in the region, then the partners as they
            are.
        labels: (2t,), the true class of each: that of what is outside the mask.
        shortcut_labels: (2t,), the class that the region is spurious evidence for.
    """

    with_region: Tensor
    without_region: Tensor
    labels: Tensor
    shortcut_labels: Tensor

    def counterfactuals(self, with_region: Tensor, without_region: Tensor) -> Tensor:
        """Of what belongs to `with_region` and `without_region` (images, logits), the (2t, ...) rows of the copies
        that were made: images without the region, then partners with it. Their classes are `labels`."""
        half = len(self.labels) // 2
        return torch.cat([without_region[:half], with_region[half:]])


def exchange_regions(
    pixel_values: Tensor, masks: Tensor, labels: Tensor, *, partners: Tensor, partner_labels: Tensor
) -> ExchangedPairs:
    """Exchange what is inside the mask between each image and its partner; both keep the label of what is outside.

    "This region should not be used for prediction", said with examples: partners get the spurious attribute and stay
    what they are, images lose it and stay what they are. Ours, not the paper's. Partners of the images' own class
    would say the opposite as often as the attribute is common in that class, so draw them from other classes:
    `OtherClassPartners`.

    Args:
        pixel_values: (t, 3, H, W), images whose region is spurious evidence for their class.
        masks: (t, H, W), bool.
        labels: (t,).
        partners: (t, 3, H, W).
        partner_labels: (t,).
    """
    inside = masks[:, None]
    return ExchangedPairs(
        with_region=torch.cat([pixel_values, torch.where(inside, pixel_values, partners)]),
        without_region=torch.cat([torch.where(inside, partners, pixel_values), partners]),
        labels=torch.cat([labels, partner_labels]),
        shortcut_labels=torch.cat([labels, labels]),
    )


def beginning_of(stream: StreamItems, data_collator: Callable, *, size: int = 256) -> PixelDataset:
    """The first images of a stream, of every class as many, in memory as the model sees them: partners for exchanges.

    Args:
        stream: read from its beginning, until every class is there or 20,000 images were looked at.
        data_collator: makes `{"pixel_values": (n, 3, H, W), "labels": (n,)}` of n items.
        size: about so many images in all, and at least one of every class.
    """
    # one by one: as they are in the stream, they may be large
    batches = [data_collator([item]) for item in stream.first_of_each_class(size)]
    labels = torch.cat([batch["labels"] for batch in batches])
    pixel_values = torch.cat([batch["pixel_values"] for batch in batches])
    return PixelDataset(pixel_values, labels, torch.arange(len(labels)))


class Partners(Protocol):
    """What images to exchange regions with are drawn from."""

    def draw(self, labels: Sequence[int], draw_indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A partner of another class for each of `labels`: images (t, 3, H, W) and classes (t,)."""
        ...


class OtherClassPartners:
    """Images of other classes than a sample's, from a data set, every other class equally often.

    What is drawn depends on the seed and the index of the draw alone, so it is the same for any batch size, for any
    number of processes and in a resumed run.

    Args:
        dataset: indexable.
        labels: class id of each item.
        data_collator: makes `{"pixel_values": (n, 3, H, W), "labels": (n,)}` of n items.
        seed: for the draws.
        workers: who reads what is kept, and what is drawn ahead.

    Raises:
        HFScoreError: all images have one class.
    """

    def __init__(
        self,
        dataset: Any,
        labels: Sequence[int],
        data_collator: Callable,
        *,
        seed: int,
        workers: Workers = Workers(),  # noqa: B008 (it does not change)
    ) -> None:
        self.classes = classes = torch.as_tensor(labels)
        self._members = {int(c): (classes == c).nonzero().flatten() for c in classes.unique()}
        if len(self._members) < 2:
            raise HFScoreError(
                "all images of the data set have one class, so no region can be exchanged with another class: "
                "give images of two classes or more."
            )
        self._dataset, self._collate, self._seed, self._workers = dataset, data_collator, seed, workers
        self._kept: dict[int, dict[str, Tensor]] = {}

    def draw(self, labels: Sequence[int], draw_indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A partner of another class for each of `labels`: images (t, 3, H, W) and classes (t,)."""
        return self._images(self.positions(labels, draw_indices))

    def draw_of(self, labels: Sequence[int], draw_indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """An image of each of the classes `labels`: images (t, 3, H, W) and classes (t,). Of a class that the data set
        lacks, one of another class."""
        return self._images(self.positions_of(labels, draw_indices))

    def positions(self, labels: Sequence[int], draw_indices: Sequence[int]) -> list[int]:
        """Where the images of `draw` are in the data set; `classes` says their classes."""
        chosen = []
        for label, draw_index in zip(labels, draw_indices, strict=True):
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + draw_index)
            others = [c for c in self._members if c != label]
            members = self._members[others[int(torch.randint(len(others), (1,), generator=generator))]]
            chosen.append(int(members[torch.randint(len(members), (1,), generator=generator)]))
        return chosen

    def positions_of(self, labels: Sequence[int], draw_indices: Sequence[int]) -> list[int]:
        """Where the images of `draw_of` are in the data set."""
        chosen = []
        for label, draw_index in zip(labels, draw_indices, strict=True):
            generator = torch.Generator().manual_seed(self._seed * 1_000_037 + draw_index)
            members = self._members.get(label, next(iter(self._members.values())))
            chosen.append(int(members[torch.randint(len(members), (1,), generator=generator)]))
        return chosen

    def keep(self, positions: Sequence[int]) -> None:
        """Read these images, and keep as many as 1 GiB holds: for what draws the same ones again and again."""
        if isinstance(self._dataset, PixelDataset):
            return
        wanted = [position for position in dict.fromkeys(positions) if position not in self._kept]
        if self._kept:
            wanted = wanted[: self._room()]
        places = [[position] for position in wanted]
        batches = batches_at(self._dataset, places, self._collate, workers=self._workers)
        for position, batch in zip(wanted, batches, strict=True):
            self._kept[position] = batch
            if not self._room():
                break

    def _room(self) -> int:
        """For how many images more there is room, by the size of the first."""
        size = next(iter(self._kept.values()))["pixel_values"].nbytes
        return max(0, _KEPT_BYTES // size - len(self._kept))

    def ahead(self, plan: Callable[[], Iterator[tuple[list[int], range]]]) -> Partners:
        """The same draws, read before they are asked for where there are workers to do so: see `DrawnAhead`."""
        if not self._workers.count or isinstance(self._dataset, PixelDataset):
            return self
        return DrawnAhead(self, plan)

    def read(self, places: Iterator[Sequence[int]]) -> Iterator[dict[str, Tensor]]:
        """The images at these positions, batch by batch, as the workers have them."""
        return batches_at(self._dataset, places, self._collate, workers=self._workers)

    def _images(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        if not self._kept:
            batch = self._collate([self._dataset[position] for position in positions])
            return batch["pixel_values"], batch["labels"]
        missing = [position for position in dict.fromkeys(positions) if position not in self._kept]
        found = {position: self._kept[position] for position in positions if position in self._kept}
        if missing:
            read = self._collate([self._dataset[position] for position in missing])
            parts = (read["pixel_values"].split(1), read["labels"].split(1))
            for position, pixel_values, labels in zip(missing, *parts, strict=True):
                found[position] = {"pixel_values": pixel_values, "labels": labels}
        pixel_values, labels = (
            torch.cat([found[position][name] for position in positions]) for name in ("pixel_values", "labels")
        )
        return pixel_values, labels


class DrawnAhead:
    """Draws of partners whose images worker processes read before they are asked for.

    What comes is foreseen and not promised: a draw that was not foreseen is read anew, and so are those after it.

    Args:
        partners: to draw from.
        plan: the draws from the present one on, classes and numbers of each.
    """

    def __init__(self, partners: OtherClassPartners, plan: Callable[[], Iterator[tuple[list[int], range]]]) -> None:
        self._partners, self._plan = partners, plan
        self._coming: deque[tuple[Sequence[int], Sequence[int]]] = deque()
        self._batches: Iterator[dict[str, Tensor]] = iter(())

    def draw(self, labels: Sequence[int], draw_indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A partner of another class for each of `labels`: images (t, 3, H, W) and classes (t,)."""
        wanted = (labels, draw_indices)
        if not self._coming or self._coming[0] != wanted:
            self.close()
            self._batches = self._partners.read(self._foreseen(self._coming))
        if not self._coming or self._coming[0] != wanted:
            return self._partners.draw(labels, draw_indices)
        self._coming.popleft()
        batch = next(self._batches)
        return batch["pixel_values"], batch["labels"]

    def close(self) -> None:
        """Let the workers go; the next draw starts others."""
        self._coming, self._batches = deque(), iter(())

    def _foreseen(self, coming: deque) -> Iterator[list[int]]:
        for draw in self._plan():
            coming.append(draw)  # in the order of the batches
            yield self._partners.positions(*draw)


class SameClassPartners:
    """Some images of every class, kept in memory, to exchange what is inside a mask with within a class.

    A copy with an exchanged region has an edge, and a model can learn to ignore the shortcut where there is an edge
    and nowhere else: right on the copies, wrong on images. Once every training image has such an edge, it tells them
    apart no more. What the images of a class have in common, shortcuts too, stays as common as it was. Ours.

    Args:
        dataset: indexable.
        labels: class id of each item.
        data_collator: makes `{"pixel_values": (n, 3, H, W), "labels": (n,)}` of n items.
        seed: for the draws.
        size: about so many images in all, and at least one of every class.
        workers: who reads them.
    """

    def __init__(
        self,
        dataset: Any,
        labels: Sequence[int],
        data_collator: Callable,
        *,
        seed: int,
        size: int = 256,
        workers: Workers = Workers(),  # noqa: B008 (it does not change)
    ) -> None:
        classes = torch.as_tensor(labels)
        present = classes.unique()
        shuffled = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
        share = max(1, size // max(1, len(present)))
        chosen = {int(c): shuffled[classes[shuffled] == c][:share].tolist() for c in present}
        # one by one: as they are in the data set, they may be large
        places = [[position] for positions in chosen.values() for position in positions]
        batches = batches_at(dataset, places, data_collator, workers=workers)
        self._seed = seed
        self._images = {
            c: torch.cat([next(batches)["pixel_values"] for _ in positions]) for c, positions in chosen.items()
        }

    def exchange(self, pixel_values: Tensor, labels: Tensor, masks: Tensor, *, draw_indices: Sequence[int]) -> Tensor:
        """(B, 3, H, W): the images, each with what is inside one of the masks taken from an image of its class.

        What is drawn depends on the seed and the index of the draw alone.

        Args:
            pixel_values: (B, 3, H, W).
            labels: (B,).
            masks: (t, H, W), bool.
            draw_indices: B numbers.
        """
        device = pixel_values.device
        if any(images.device != device for images in self._images.values()):  # once, and they stay there
            self._images = {c: images.to(device) for c, images in self._images.items()}
        rows, partners, which = [], [], []
        for row, (label, draw_index) in enumerate(zip(labels.tolist(), draw_indices, strict=True)):
            if (images := self._images.get(label)) is not None:
                generator = torch.Generator().manual_seed(self._seed * 1_000_033 + draw_index)
                rows.append(row)
                partners.append(images[int(torch.randint(len(images), (1,), generator=generator))])
                which.append(int(torch.randint(len(masks), (1,), generator=generator)))
        if not rows:
            return pixel_values
        inside = masks.to(device)[which][:, None]
        if len(rows) == len(pixel_values):
            return torch.where(inside, torch.stack(partners).to(pixel_values), pixel_values)
        exchanged = pixel_values.clone()
        exchanged[rows] = torch.where(inside, torch.stack(partners).to(pixel_values), pixel_values[rows])
        return exchanged
