"""What models look at in test images: relevance in the attribute's region, what inserting it does, and heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from ..attribution import Explainer
from ..data import ImageCollator, Regions
from ..data.exchange import OtherClassPartners
from ..detection import SpuriousSamples
from ..models import check_label_ids
from .insertion import insertion_effects
from .relevance import relevance_in_region

__all__ = ["ExplainedTestSet"]

#: Test images that are explained for a figure; more would narrow it by little.
MOST_EXPLAINED = 64


class ExplainedTestSet:
    """Test images that are explained for one model after the other: the one definition of what is measured by regions.

    Args:
        view: the test split, items as `ImageCollator` reads them.
        idx: (N,), the stable ids of its items.
        labels: (N,), their class ids.
        regions: the masks of the attribute's region.
        processor: of the models; None where items carry `pixel_values`, if there are no regions.
        device: where to compute.
        batch_size: images per backward pass.
    """

    def __init__(
        self,
        view: Any,
        *,
        idx: Sequence[int],
        labels: Sequence[int],
        regions: Regions,
        processor: Any,
        device: torch.device | str,
        batch_size: int = 32,
    ) -> None:
        self._view, self._regions, self._processor = view, regions, processor
        self._idx, self._labels = [int(i) for i in idx], [int(label) for label in labels]
        self._collate = ImageCollator(processor)
        self._device, self._batch_size = device, batch_size

    @cached_property
    def _with_region(self) -> list[int]:
        """Positions of the images that have a region."""
        return [position for position, idx in enumerate(self._idx) if idx in self._regions]

    @cached_property
    def _explained(self) -> SpuriousSamples | None:
        """At most `MOST_EXPLAINED` images with a region, evenly over the test set, with the region as mask."""
        known = self._with_region
        if not known:
            return None
        chosen = [known[i] for i in np.linspace(0, len(known) - 1, min(MOST_EXPLAINED, len(known))).astype(int)]
        ids = [self._idx[position] for position in chosen]
        return SpuriousSamples(
            pixel_values=self._pixel_values(chosen),
            masks=torch.as_tensor(self._masks(ids)) > 0.5,
            labels=torch.as_tensor([self._labels[position] for position in chosen]),
            idx=torch.as_tensor(ids),
        )

    def relevance_in_region(self, model: Any) -> float | None:
        """Mean share of positive relevance of each image's own class that lies in the attribute's region.

        Over at most 64 test images that have a region, of any class, evenly over the test set; None where no region
        is known.
        """
        if (some := self._explained) is None:
            return None
        heatmaps = self._explain(model, some.pixel_values, some.labels)
        return float(np.nanmean(relevance_in_region(heatmaps, self._masks(some.idx.tolist()))))

    def region_effects(self, model: Any) -> dict[str, float | None]:
        """`relevance_in_region`, and `insertion_effects` of the same images' regions in those without one.

        Where every image has a region (backgrounds), or those without are of one class, every image takes another's.
        """
        some = self._explained
        if some is None:
            return dict.fromkeys(("relevance_in_region", "insertion_effect", "insertion_flips"))
        bare = sorted(set(range(len(self._idx))) - set(self._with_region))
        if len({self._labels[position] for position in bare}) < 2:
            bare = list(range(len(self._idx)))
        labels = [self._labels[position] for position in bare]
        partners = OtherClassPartners(Subset(self._view, bare), labels, self._collate, seed=0)
        return {
            "relevance_in_region": self.relevance_in_region(model),
            **insertion_effects(model, some, partners, device=self._device),
        }

    def example_images(self, spurious_classes: Sequence[int]) -> list[tuple[int, int]]:
        """(position, class to explain) of 8 test images of the spurious classes and of another one, as many of each as
        there is room for, with a region where one is known. Explained is the image's own class where that is spurious,
        else the first spurious one."""
        members: dict[int, list[int]] = {}
        for position, label in enumerate(self._labels):
            members.setdefault(label, []).append(position)
        pools = {label: _evenly(positions, 200) for label, positions in members.items()}
        judged = [label for label in spurious_classes if label in pools]
        order = [*judged, *sorted(set(pools) - set(judged))]
        each = max(1, 8 // max(2, min(len(order), len(judged) + 1)))
        known = {label: [p for p in pools[label] if self._idx[p] in self._regions] for label in order[:8]}
        if any(known.values()):
            pools = known
        images = []
        for label in order[:8]:
            target = label if label in spurious_classes else spurious_classes[0]
            images += [(position, target) for position in _evenly(pools[label], each)]
        return images[:8]

    def heatmaps(self, model: Any, positions: Sequence[int], targets: Sequence[int]) -> tuple[np.ndarray, Tensor]:
        """Heatmaps (n, H, W) of the targets' logits in these images, and the images (n, 3, H, W)."""
        pixel_values = self._pixel_values(positions)
        return self._explain(model, pixel_values, torch.as_tensor(targets)), pixel_values

    def region_masks(self, positions: Sequence[int]) -> np.ndarray | None:
        """(n, H, W) from 0 to 1: the regions in these images, all 0 where an image has none; None without regions."""
        return self._masks([self._idx[position] for position in positions]) if self._with_region else None

    def _masks(self, ids: Sequence[int]) -> np.ndarray:
        found = self._regions.preprocessed(ids, self._processor)
        shape = next((mask.shape for mask in found if mask is not None), (1, 1))
        return np.stack([np.zeros(shape, np.float32) if mask is None else mask for mask in found])

    def _pixel_values(self, positions: Sequence[int]) -> Tensor:
        return self._collate([self._view[int(position)] for position in positions])["pixel_values"].cpu()

    def _explain(self, model: Any, pixel_values: Tensor, targets: Tensor) -> np.ndarray:
        check_label_ids(model, self._view, "the test set")
        model.to(self._device)
        heatmaps = []
        with Explainer(model, batch_size=self._batch_size) as explainer:
            for part in torch.arange(len(pixel_values)).split(self._batch_size):
                explained = explainer.explain(pixel_values[part].to(self._device), targets[part].to(self._device))
                assert explained.relevance is not None
                heatmaps.append(explained.relevance.float().cpu())
        return torch.cat(heatmaps).numpy()


def _evenly(items: Sequence[int], count: int) -> list[int]:
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]
