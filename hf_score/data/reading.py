"""Items of a data set at given positions, streams too: undecoded as they are stored, decoded, as pixel tensors, and in
batches that worker processes read."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, IterableDataset
from datasets.fingerprint import get_temporary_cache_files_directory
from torch.utils.data import DataLoader

from .decode import needs_conversion, open_image
from .pixels import ImageCollator, PixelDataset

__all__ = ["FILE", "Workers", "batches_at", "collated", "converted", "decoded", "fetch", "pixels_of", "undecoded"]

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


@dataclass(frozen=True)
class Workers:
    """The processes that read images; without any, an image is read where it is asked for.

    Attributes:
        count: how many.
        pin_memory: whether what they read goes to page-locked memory, from where a GPU takes it without waiting.
        context: how they are started, as for a `DataLoader`.
    """

    count: int = 0
    pin_memory: bool = False
    context: Any = None


def batches_at(
    dataset: Any, places: Iterable[Sequence[int]], data_collator: Callable, *, workers: Workers
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of a data set's items, one after the other.

    Args:
        dataset: indexable. Of one in memory no worker is asked.
        places: of each batch, the positions of its items; taken as early as the workers can begin with them.
        data_collator: makes `{"pixel_values": (n, 3, H, W), "labels": (n,)}` of n items.
        workers: where the items are read and collated.
    """
    if not workers.count or isinstance(dataset, PixelDataset):
        return (data_collator([dataset[int(place)] for place in some]) for some in places)
    loader = DataLoader(
        dataset,
        batch_sampler=places,  # type: ignore[arg-type]
        collate_fn=data_collator,
        num_workers=workers.count,
        pin_memory=workers.pin_memory,
        multiprocessing_context=workers.context,
        generator=torch.Generator().manual_seed(0),  # or it would take a number of those that training goes by
    )
    return iter(loader)


def undecoded(dataset: Any) -> Any:
    """`dataset` with its first column of images, under the name `image`, as encoded bytes.

    As it is where a transform makes its items: that takes images.
    """
    transformed = isinstance(dataset, Dataset) and dataset.format["type"] == "custom"
    features = {} if transformed else getattr(dataset, "features", None) or {}
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
    """The item's image in RGB, or its `pixel_values`."""
    if "pixel_values" in item:
        return {"pixel_values": item["pixel_values"]}
    image = item.get("image")
    if image is None:
        raise ValueError("there is no image")
    return {"image": open_image(image)}


def converted(rows: Dataset, *, value_range: Sequence[float] | None = None, broken: Collection[int] = ()) -> Dataset:
    """`rows` (column `image` undecoded) with every image that `datasets` would read wrongly, or not, in 8 bits.

    DICOM, HEIC and images of more than 8 bits become PNM: raw values, the same bytes on every machine. So whatever
    comes after, training and the user's own `data.train[0]["image"]` included, sees what `open_image` makes of them.
    The rows in `broken` stay as they are.
    """

    def convert(row: dict[str, Any], place: int) -> dict[str, Any]:
        image = row["image"]
        if place not in chosen:
            return {"image": image}
        rgb = open_image(image, value_range=value_range)
        grey = len({band.tobytes() for band in rgb.split()}) == 1
        buffer = io.BytesIO()
        (rgb.getchannel(0) if grey else rgb).save(buffer, "PPM")
        return {"image": {"bytes": buffer.getvalue(), "path": image["path"]}}

    chosen: set[int] = set()
    images = rows.select_columns(["image"])
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), 512):  # in portions, so that memory stays small
            portion = images[start : start + 512]["image"]
            chosen.update(start + i for i, odd in enumerate(pool.map(_is_odd, portion)) if odd)
    chosen -= set(broken)
    if not chosen:
        return rows
    place = None  # beside the file that the rows are read from
    if not rows.cache_files:  # they are in memory, where the images may not fit
        place = str(Path(get_temporary_cache_files_directory()) / f"{uuid.uuid4().hex}.arrow")
    return rows.map(
        convert,
        with_indices=True,
        features=rows.features,
        cache_file_name=place,
        load_from_cache_file=False,  # it would not notice a file that was replaced
        desc="Converting images",
    )


def _is_odd(image: dict[str, Any] | None) -> bool:
    return image is not None and needs_conversion(image)
