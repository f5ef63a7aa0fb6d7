"""What models look at in test images: the share of relevance in the attribute's region, heatmaps before and after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..attribution import Explainer
from ..data import ImageCollator, ImageData, to_uint8
from ..report import heatmap_pairs
from .relevance import relevance_in_region

__all__ = ["ExplainedTestSet"]


class ExplainedTestSet:
    """Test images that are explained for one model after the other.

    Args:
        data: the data set; regions are used where they are known.
        view: its test split, as `ImageCollator` reads it.
        processor: of the models.
        spurious_classes: class ids whose evidence is a spurious attribute.
        device: where to compute.
        batch_size: images per backward pass.
    """

    def __init__(
        self,
        data: ImageData,
        view: Any,
        processor: Any,
        *,
        spurious_classes: Iterable[int],
        device: torch.device | str,
        batch_size: int,
    ) -> None:
        self._data, self._view, self._processor = data, view, processor
        self._classes = sorted(set(spurious_classes))
        self._device, self._batch_size = device, batch_size
        self._labels: dict[int, int] = dict(zip(data.test["idx"][:], data.test["label"][:], strict=True))
        self._rows = {idx: row for row, idx in enumerate(self._labels)}

    def relevance_in_region(self, model: Any) -> float | None:
        """Mean share of positive relevance of a spurious class's logit that lies in the attribute's region.

        Of at most 64 images of these classes, evenly over the test set; None where no region is known.
        """
        known = self._known(idx for idx, label in self._labels.items() if label in self._classes)
        chosen = _evenly([idx for idx, region in known.items() if region is not None], 64)
        if not chosen:
            return None
        heatmaps, _ = self._explain(model, chosen, [self._labels[idx] for idx in chosen])
        regions = np.stack([region for idx in chosen if (region := known[idx]) is not None])
        return float(np.nanmean(relevance_in_region(heatmaps, regions)))

    @cached_property
    def shown(self) -> list[tuple[int, int]]:
        """(idx, explained class) of up to 4 test images of each class, 8 in all, with the attribute where known."""
        pool = _evenly(list(self._labels), 400)
        if self._data.has_regions:
            known = self._known(pool)
            pool = [idx for idx in pool if known[idx] is not None] or pool
        images = []
        for label in sorted(set(self._labels.values())):
            members = [idx for idx in pool if self._labels[idx] == label]
            target = label if label in self._classes else self._classes[0]
            images += [(idx, target) for idx in _evenly(members, 4)]
        return images[:8]

    def before_and_after(self, before: Any, after: Any) -> Image.Image:
        """The shown images with the heatmaps of two models side by side."""
        chosen, targets = zip(*self.shown, strict=True)
        heatmaps_before, pixel_values = self._explain(before, chosen, targets)
        heatmaps_after, _ = self._explain(after, chosen, targets)
        names = self._data.class_names
        captions = [f"{names[self._labels[idx]]}: evidence for {names[target]}" for idx, target in self.shown]
        regions = None
        if self._data.has_regions:
            nothing = np.zeros(heatmaps_before.shape[1:])
            regions = np.stack([nothing if r is None else r for r in self._known(chosen).values()]) > 0.5
        images = to_uint8(pixel_values, self._processor)
        return heatmap_pairs(images, heatmaps_before, heatmaps_after, captions=captions, regions=regions)

    def _known(self, indices: Iterable[int]) -> dict[int, np.ndarray | None]:
        indices = list(indices)
        return dict(zip(indices, self._data.regions("test").preprocessed(indices, self._processor), strict=True))

    def _explain(self, model: Any, chosen: Sequence[int], targets: Sequence[int]) -> tuple[np.ndarray, Tensor]:
        """Heatmaps (n, H, W) of the targets' logits, and the images (n, 3, H, W)."""
        collate = ImageCollator(self._processor)
        pixel_values = collate([self._view[self._rows[idx]] for idx in chosen])["pixel_values"].to(self._device)
        classes = torch.as_tensor(targets, device=self._device)
        model.to(self._device)
        heatmaps = []
        with Explainer(model, batch_size=self._batch_size) as explainer:
            for part in torch.arange(len(chosen)).split(self._batch_size):
                explained = explainer.explain(pixel_values[part], classes[part])
                assert explained.relevance is not None
                heatmaps.append(explained.relevance.float().cpu())
        return torch.cat(heatmaps).numpy(), pixel_values


def _evenly(items: list, count: int) -> list:
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]
