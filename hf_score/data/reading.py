"""Items of a data set at given positions, streams too: undecoded as they are stored, decoded, and as pixel tensors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Image, IterableDataset
from PIL import Image as PILImage

from .pixels import ImageCollator

__all__ = ["FILE", "collated", "decoded", "fetch", "pixels_of", "undecoded"]

#: In a stream, the position of an image is that of its file times this, plus its place in the file.
FILE = 2**32


def fetch(dataset: Any, positions: Sequence[int]) -> list[Any]:
    """The items at these positions of a scanned data set, streams too, images not decoded."""
    if not isinstance(dataset, IterableDataset):
        rows = undecoded(dataset)
        return [rows[int(position)] for position in positions]
    wanted = {int(position) for position in positions}
    found = {}
    for file in sorted({position // FILE for position in wanted}):
        last = max(position % FILE for position in wanted if position // FILE == file)
        for place, item in enumerate(undecoded(dataset).shard(num_shards=dataset.num_shards, index=file)):
            if file * FILE + place in wanted:
                found[file * FILE + place] = item
            if place == last:
                break
    return [found[int(position)] for position in positions]


def undecoded(dataset: Any) -> Any:
    """`dataset` with its first column of images, under the name `image`, as encoded bytes."""
    features = getattr(dataset, "features", None) or {}
    columns = [name for name, feature in features.items() if isinstance(feature, Image)]
    if not columns:
        return dataset
    name = "image" if "image" in columns else columns[0]
    dataset = dataset.cast_column(name, Image(decode=False))
    return dataset if name == "image" else dataset.rename_column(name, "image")


def pixels_of(items: Sequence[Any], processor: Any) -> torch.Tensor:
    """What `fetch` has brought, as (B, 3, H, W) for the model."""
    return collated([decoded(item) for item in items], processor)


def collated(items: Sequence[Any], processor: Any) -> torch.Tensor:
    return ImageCollator(processor)([{**item, "label": 0} for item in items])["pixel_values"]


def decoded(item: Any) -> Any:
    """The item's image, decoded and loaded, or its `pixel_values`."""
    if "pixel_values" in item:
        return {"pixel_values": item["pixel_values"]}
    image = item.get("image")
    if image is None:
        raise ValueError("there is no image")
    if not isinstance(image, PILImage.Image):
        image = PILImage.open(io.BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"])
    image.load()
    return {"image": image}
