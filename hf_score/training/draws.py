"""Which spurious-positive samples, and which partners, each micro-batch of training gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from ..data import ImageCollator, PixelDataset
from ..data.exchange import (
    DrawnAhead,
    ExchangedPairs,
    OtherClassPartners,
    Partners,
    SameClassPartners,
    beginning_of,
)
from ..data.reading import Workers
from ..data.views import StreamItems
from ..detection.samples import SpuriousSamples
from ..errors import DataError
from .columns import class_labels
from .score_config import SCOREConfig

__all__ = ["Draw", "Draws", "PartnerImages"]

#: Most bytes of samples that stay on the device.
_BYTES_ON_DEVICE = 2**30


@dataclass(frozen=True)
class Draw:
    """The samples of one micro-batch, drawn by the numbers of their draws alone.

    Attributes:
        all_samples: the samples to draw from, on any device.
        all_labels: their classes, in main memory: what is drawn by them waits for no GPU.
        partners: images of other classes to exchange regions with; None where no copies are made.
        indices: the numbers of the draws; perhaps none.
        seed: of the order of the samples.
        device: where the drawn samples go.
    """

    all_samples: SpuriousSamples
    all_labels: Tensor
    partners: Partners | None
    indices: range
    seed: int
    device: torch.device

    @cached_property
    def rows(self) -> Tensor:
        """(t,): which of the samples. Seeded permutations follow each other, so every sample is drawn as often."""
        rows = []
        for index in self.indices:
            shuffle, position = divmod(index, len(self.all_samples))
            rows.append(_shuffled(len(self.all_samples), self.seed + 7919 * shuffle)[position])
        return torch.stack(rows)

    @cached_property
    def labels(self) -> list[int]:
        """The classes of the t samples."""
        return self.all_labels[self.rows].tolist()

    @property
    def nothing(self) -> Tensor:
        """0, what no samples pay."""
        return torch.zeros((), device=self.device)

    @cached_property
    def samples(self) -> SpuriousSamples:
        """The t samples."""
        return self.all_samples[self.rows].to(self.device)

    @cached_property
    def pairs(self) -> ExchangedPairs:
        """The samples and a partner for each, with exchanged regions."""
        assert self.partners is not None
        return self.samples.exchanged_with(*self.partners.draw(self.labels, self.indices))


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


class Draws:
    """The draws of a training, step by step: the same however many micro-batches share those of a step.

    Args:
        samples: to draw from.
        partners: of the copies; None where no copies are made.
        args: how many samples a step has, the seed and the device.
        processes: how many take the micro-batches of a step in turns.
        micro_batches_of: of a step to come, how many micro-batches it will have, 0 after the last step. Where that
            turns out otherwise, partners were read in vain, and nothing else.
    """

    def __init__(
        self,
        samples: SpuriousSamples,
        partners: OtherClassPartners | None,
        args: SCOREConfig,
        *,
        processes: int,
        micro_batches_of: Callable[[int], int],
    ) -> None:
        self._labels = samples.labels.cpu()
        fits = samples.pixel_values.nbytes + samples.masks.nbytes <= _BYTES_ON_DEVICE
        #: The samples: on the device, where they are not too many for it.
        self.samples = samples.to(args.device) if fits else samples
        self._args, self._processes, self._micro_batches_of = args, processes, micro_batches_of
        self._partners = None if partners is None else partners.ahead(self._coming)
        self._now = (0, 0, 1)

    def __call__(self, step: int, micro_batch: int, *, of: int) -> Draw:
        """The share that micro-batch number `micro_batch` of the `of` of a step has in the step's draws; where these
        are fewer, some get none, and never the first."""
        self._now = (step, micro_batch, of)
        return self._draw(step, micro_batch, of)

    def close(self) -> None:
        """Let go who reads partners ahead."""
        if isinstance(self._partners, DrawnAhead):
            self._partners.close()

    def _draw(self, step: int, micro_batch: int, of: int) -> Draw:
        size = self._args.samples_per_step
        first, end = (step * size - (-size * part // of) for part in (micro_batch, micro_batch + 1))
        return Draw(
            self.samples,
            self._labels,
            self._partners,
            range(first, end),
            seed=self._args.seed,
            device=self._args.device,
        )

    def _coming(self) -> Iterator[tuple[list[int], range]]:
        """What this process will draw, from the last draw on."""
        step, micro_batch, of = self._now
        own = micro_batch % self._processes
        while of:
            for number in range(micro_batch, of, self._processes):
                if (draw := self._draw(step, number, of)).indices:
                    yield draw.labels, draw.indices
            step, micro_batch = step + 1, own
            of = self._micro_batches_of(step)


class PartnerImages:
    """Images of data sets to draw partners from.

    Args:
        data_collator: makes `{"pixel_values": (n, 3, H, W), "labels": (n,)}` of n items.
        args: the seed, and who reads images: beside the workers of the training images, as many as partners are beside
            images.
    """

    def __init__(self, data_collator: Callable, args: SCOREConfig) -> None:
        count = -(-args.dataloader_num_workers * args.samples_per_step // args.images_per_step["batch"])
        workers = Workers(
            min(count, args.dataloader_num_workers),
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            context=args.dataloader_multiprocessing_context,
        )
        self._collate, self._seed, self._workers = data_collator, args.seed, workers
        self._beginnings: dict[Any, PixelDataset] = {}

    def of_other_classes(self, dataset: Any) -> OtherClassPartners:
        """Those that an image exchanges regions with.

        Raises:
            DataError: a data set whose labels cannot be read.
        """
        return OtherClassPartners(*self._indexable(dataset), seed=self._seed, workers=self._workers)

    def of_same_class(self, dataset: Any) -> SameClassPartners:
        """Those that an image takes a region from; raises as `of_other_classes`."""
        return SameClassPartners(*self._indexable(dataset), seed=self._seed, workers=self._workers)

    def _indexable(self, dataset: Any) -> tuple[Any, Sequence[int], Callable]:
        """Images, their labels and collator; of a stream, those at its beginning."""
        if isinstance(dataset, StreamItems):
            if dataset not in self._beginnings:
                self._beginnings[dataset] = beginning_of(dataset, self._collate)
            beginning = self._beginnings[dataset]
            return beginning, beginning.labels.tolist(), ImageCollator()
        labels = class_labels(dataset)
        if labels is None:
            raise DataError(
                "exchanging regions with images of other classes needs a data set with a label column that can be "
                "indexed: give one, or use score_form='paper' without score_exchange_weight."
            )
        return dataset, labels, self._collate
