"""From images to the tensors a model takes: colour modes, preprocessing in batches, collating, and masks alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from .classes import class_names_of
from .decode import open_image

__all__ = ["ImageCollator", "PixelDataset", "preprocess", "preprocess_mask", "to_model_size", "to_rgb", "to_uint8"]


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright in mode RGB, as `open_image` reads it.

    Raises:
        FormatError: its numbers cannot be scaled without a `value_range` (see `load_data`).
    """
    return open_image(image)


@dataclass(frozen=True)
class PixelDataset(torch.utils.data.Dataset):
    """Preprocessed images in memory.

    `pixel_values` (N, 3, H, W) float32, `labels` (N,) and `idx` (N,) int64. An item is a dict of the three.
    `class_names`, where known, are held against a model's.
    """

    pixel_values: torch.Tensor
    labels: torch.Tensor
    idx: torch.Tensor
    class_names: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.pixel_values[item], "labels": self.labels[item], "idx": self.idx[item]}


def preprocess(dataset: Dataset, processor: Any, *, batch_size: int = 64) -> PixelDataset:
    """Run every image of a data set (columns `idx`, `image`, `label`) through an image processor, once."""
    batches = []
    with tqdm(total=len(dataset), desc="Preparing images", leave=False) as bar:
        for start in range(0, len(dataset), batch_size):
            images = dataset[start : start + batch_size]["image"]
            batches.append(_pixels(images, processor))
            bar.update(len(images))
    return PixelDataset(
        pixel_values=torch.cat(batches),
        labels=torch.as_tensor(dataset["label"][:], dtype=torch.int64),
        idx=torch.as_tensor(dataset["idx"][:], dtype=torch.int64),
        class_names=tuple(names) if (names := class_names_of(dataset)) else None,
    )


@dataclass(frozen=True)
class ImageCollator:
    """Data collator for `Trainer`: items of `load_data`'s views or of a `PixelDataset` to a batch.

    The batch has `pixel_values` (B, 3, H, W) and `labels` (B,) where the items have them, `idx` (B,) if asked for, and
    nothing else: no group.
    """

    processor: Any = None
    with_idx: bool = False

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if "pixel_values" in items[0]:
            pixels = torch.stack([torch.as_tensor(item["pixel_values"]) for item in items])
        else:
            pixels = _pixels([item["image"] for item in items], self.processor)
        name = "labels" if "labels" in items[0] else "label"
        batch = {"pixel_values": pixels}
        if name in items[0]:
            batch["labels"] = torch.as_tensor([int(item[name]) for item in items])
        if self.with_idx:
            batch["idx"] = torch.as_tensor([int(item["idx"]) for item in items])
        return batch


def preprocess_mask(mask: Image.Image, processor: Any) -> torch.Tensor:
    """A region mask after the resizing and cropping that the processor gives to its image: (H, W), from 0 to 1.

    A processor is a black box of resizing, cropping and a scaling of the values. What it makes of an all-black and of
    an all-white image gives that scaling at each pixel, so it is undone whatever it was; padding, where the two agree,
    is outside the region.
    """
    mask = mask.convert("RGB")
    return _unscaled(_pixels([mask], processor), processor, mask.size)[0, 0]


def to_uint8(pixel_values: torch.Tensor, processor: Any) -> np.ndarray:
    """What the model sees, to look at: (B, H, W, 3) uint8 of the processed (B, 3, H, W).

    The processor's scaling of the values is undone as in `preprocess_mask`; without one the batch is stretched.
    """
    pixel_values = pixel_values.detach().cpu().float()
    if processor is None:
        low = pixel_values.min()
        shares = (pixel_values - low) / (pixel_values.max() - low).clamp(min=1e-6)
    else:
        shares = _unscaled(pixel_values, processor, (pixel_values.shape[3], pixel_values.shape[2]))
    return (shares * 255).round().byte().permute(0, 2, 3, 1).numpy()


def to_model_size(images: np.ndarray, processor: Any) -> torch.Tensor:
    """Whole images at a model's input size: (B, 3, S, S) of (B, H, W, 3) uint8.

    The processor's scaling of the values without its cropping, so that a place in the input is the same place in the
    image. `to_uint8` is the way back.
    """
    low, high = (_pixels([Image.new("RGB", (64, 64), colour)], processor) for colour in ("black", "white"))
    shares = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    shares = torch.nn.functional.interpolate(
        shares, low.shape[-2:], mode="bicubic", antialias=True, align_corners=False
    )
    return low + shares.clamp(0, 1) * (high - low)


def _unscaled(pixel_values: torch.Tensor, processor: Any, size: tuple[int, int]) -> torch.Tensor:
    """Processed values (B, 3, H, W) as shares of the way from black to white, for images of `size` (width, height)."""
    low, high = (_pixels([Image.new("RGB", size, colour)], processor) for colour in ("black", "white"))
    span = high - low
    return torch.where(span == 0, 0.0, (pixel_values - low) / torch.where(span == 0, 1.0, span)).clamp(0, 1)


def _pixels(images: Sequence[Image.Image], processor: Any) -> torch.Tensor:
    return processor(images=[to_rgb(image) for image in images], return_tensors="pt")["pixel_values"].float()
