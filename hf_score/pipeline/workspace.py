"""What the steps of a run and the cells of a benchmark work on: data, views, the loaded model, the object finder."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from ..data import ImageCollator, ImageData, load_data, preprocess
from ..data.exchange import OtherClassPartners
from ..detection import ObjectFinder
from ..evaluation import ExplainedTestSet
from ..models import LoadedModel, load_model, own_class_names

__all__ = ["Workspace"]

#: Above this a split is read from its images again in every epoch.
IN_MEMORY_BYTES = 4 * 2**30


class Workspace:
    """Data and models of one run or benchmark job; each is made when it is first asked for.

    Args:
        data: keywords of `load_data`, or the loaded data.
        model: keywords of `load_model`, without the class names.
        object_model: keywords of `load_model` for the model that sees objects, for masks of everything except the
            object; None where masks are the model's own.
        seed: of a new head and of random weights.
        device: where to compute.
        batch_size: images per forward pass.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | ImageData,
        model: Mapping[str, Any],
        *,
        object_model: Mapping[str, Any] | None = None,
        seed: int,
        device: torch.device | str,
        batch_size: int = 32,
    ) -> None:
        self._data, self._model, self._object_model = data, dict(model), object_model
        self.seed, self.device, self.batch_size = seed, device, batch_size
        self._views: dict[str, Any] = {}

    def with_seed(self, seed: int) -> Workspace:
        """The same data and views, for a model of another seed."""
        _ = self.data  # loaded once for all
        other = copy.copy(self)
        other.seed = seed
        other.__dict__.pop("loaded", None)
        return other

    @cached_property
    def data(self) -> ImageData:
        """The data set, its label ids in the model's order; its training views carry no groups."""
        if isinstance(self._data, ImageData):
            return self._data
        # One output of several has its two classes from the data.
        names = None if self._model.get("label") else own_class_names(**self._model)
        return load_data(**self._data, model_classes=names)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model before any training, its processor, and whether it has a head for the classes."""
        set_seed(self.seed)
        return load_model(**self._model, class_names=self.data.class_names)

    @property
    def processor(self) -> Any:
        """The image processor that goes with the model."""
        return self.loaded.processor

    # ---- Images as a model sees them ----

    def view(self, split: str) -> Any:
        """`train`, `held_out`, `validation` or `test` as data loaders read it."""
        if split not in self._views:
            self._views[split] = self._make_view(split)
        return self._views[split]

    def _make_view(self, split: str) -> Any:
        """The split preprocessed in memory, or as it is where it would not fit: the collator reads both."""
        dataset = getattr(self.data, split)
        pixel_bytes = self.pixel_values(dataset, [0]).nbytes
        if len(dataset) * pixel_bytes > IN_MEMORY_BYTES:
            return dataset.select_columns(["idx", "image", "label"])
        return preprocess(dataset, self.processor)

    def pixel_values(self, view: Any, positions: Iterable[int]) -> Tensor:
        """(n, 3, H, W) of these items of a view."""
        return ImageCollator(self.processor)([view[int(position)] for position in positions])["pixel_values"]

    def partners(self, split: str) -> OtherClassPartners:
        """Images of a split to exchange regions with."""
        labels = getattr(self.data, split)["label"][:]
        return OtherClassPartners(self.view(split), labels, ImageCollator(self.processor), seed=self.seed)

    def regions(self, split: str, idx: Iterable[int]) -> list[Any]:
        """The regions of the attribute in these images, (H, W) from 0 to 1 as the model sees them, or None."""
        return self.data.regions(split).preprocessed(idx, self.processor)

    # ---- Explaining ----

    def explaining(
        self, *, layer: str | int, mask_share: float, mask_area: float, object_share: float | None = None
    ) -> dict[str, Any]:
        """How candidates are explained and masked: keywords of `find_candidates` and `explain_hits`."""
        return {
            "dataset_fingerprint": self.data.fingerprint,
            "processor": self.processor,
            "layer": layer,
            "mask_share": mask_share,
            "mask_area": mask_area,
            "find_object": None if object_share is None else self.object_finder(object_share),
            "batch_size": self.batch_size,
        }

    def object_finder(self, share: float) -> ObjectFinder | None:
        """Loaded anew each time, so that its model takes no memory while another one trains; None without one."""
        if self._object_model is None:
            return None
        model, processor, _ = load_model(**self._object_model, class_names=None)
        model.to(self.device)  # type: ignore[arg-type]
        return ObjectFinder(model, processor, share=share, batch_size=self.batch_size)

    @cached_property
    def explained_test_set(self) -> ExplainedTestSet:
        """The test images by which it is measured what models look at."""
        test = self.data.test
        return ExplainedTestSet(
            self.view("test"),
            idx=test["idx"][:],
            labels=test["label"][:],
            regions=self.data.regions("test"),
            processor=self.processor,
            device=self.device,
            batch_size=self.batch_size,
        )
