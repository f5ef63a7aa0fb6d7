"""Where the spurious attribute is: masks of its region, read lazily. Used to decide by oracle and to evaluate."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Image
from PIL import Image as PILImage
from PIL import ImageOps

from ..errors import DataError
from .decode import open_mask
from .folders import split_of
from .pixels import preprocess_mask

__all__ = ["Regions", "find_masks", "refuse_shared_masks"]

_ENDINGS = ("", "_patch", "_mask")


@dataclass(frozen=True)
class Regions:
    """Callable from an image's `idx` to the mask of its spurious region.

    The mask is a PIL image of mode 'L', as large as the image, 255 inside the region and 0 outside; None where the
    image has no mask.
    """

    sources: Mapping[int, str | bytes]  # idx to a mask file or its content
    invert: bool = False

    def __call__(self, idx: int) -> PILImage.Image | None:
        source = self.sources.get(int(idx))
        if source is None:
            return None
        mask = open_mask(source, name=f"of image {idx}" if isinstance(source, bytes) else source)
        return ImageOps.invert(mask) if self.invert else mask

    def __len__(self) -> int:
        return len(self.sources)

    def __contains__(self, idx: object) -> bool:
        return idx in self.sources

    def preprocessed(self, indices: Iterable[int], processor: Any) -> list[np.ndarray | None]:
        """The masks of these images as a model sees them, each (H, W) from 0 to 1; None where an image has none."""
        masks = (self(idx) for idx in indices)
        return [None if mask is None else preprocess_mask(mask, processor).numpy() for mask in masks]


def find_masks(rows: Dataset, masks: str, *, split: str, folder: Path | None) -> dict[int, str | bytes]:
    """The mask of each row of a split, by row number; rows without a mask are left out.

    `masks` is a column (of images, or of file names relative to `folder`), a folder, or a pattern with fields in
    braces; see `load_data`. `folder` is the folder of this split's images, None where they are not files.
    """
    if masks in rows.column_names:
        return _from_column(rows, masks, folder)
    if "{" in masks:
        return _from_pattern(rows, masks, split)
    if not Path(masks).is_dir():
        raise DataError(
            f"The masks '{masks}' are neither a column of the data set nor a folder; columns are {rows.column_names}."
        )
    return _from_folder(rows, Path(masks), split, folder)


def refuse_shared_masks(found: Mapping[str, Mapping[int, str | bytes]], masks: str) -> None:
    """Refuse masks that were given to a training image and, for its name alone, to another split's image too.

    A pattern that names the split or columns of the data says itself what it means.

    Raises:
        DataError: there is one.
    """
    if "{" in masks and ("{split}" in masks or "{stem}" not in masks):
        return
    of_train = set(found.get("train", {}).values())
    for split, of_split in found.items():
        shared = next((mask for mask in of_split.values() if split != "train" and mask in of_train), None)
        if shared is not None:
            raise DataError(
                f"The mask '{os.fsdecode(shared)}' has the name of a training image and of a {split} image; put the "
                f"masks into folders 'train/' and '{split}/'."
            )


def _from_column(rows: Dataset, column: str, folder: Path | None) -> dict[int, str | bytes]:
    if isinstance(rows.features[column], Image):
        values = rows.cast_column(column, Image(decode=False))[column]
        return {i: value["bytes"] or value["path"] for i, value in enumerate(values) if value is not None}
    found: dict[int, str | bytes] = {}
    for i, value in enumerate(rows[column]):
        if not value:
            continue
        path = Path(value) if folder is None else folder / value
        if not path.is_file():
            raise DataError(f"The mask file '{path}' named in column '{column}' does not exist; restore it.")
        found[i] = str(path)
    return found


def _from_pattern(rows: Dataset, pattern: str, split: str) -> dict[int, str | bytes]:
    found: dict[int, str | bytes] = {}
    others = rows.remove_columns("image")
    for i, (name, row) in enumerate(zip(_names(rows, None), others, strict=True)):
        fields: dict[str, Any] = {**row, "split": split, "stem": Path(name).name}
        try:
            path = Path(pattern.format(**fields))
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(
                f"The mask pattern '{pattern}' cannot be filled in; its fields can be {sorted(fields)}."
            ) from error
        if path.is_file():
            found[i] = str(path)
    return found


def _from_folder(rows: Dataset, masks: Path, split: str, folder: Path | None) -> dict[int, str | bytes]:
    names = _names(rows, folder)
    taken = set(names)
    own = next((child for child in sorted(masks.iterdir()) if child.is_dir() and split_of(child.name) == split), None)
    by_split = any(child.is_dir() and split_of(child.name) for child in masks.iterdir())
    if own is None and by_split:
        return {}  # the masks of other splits are none of this one's
    home = own or masks
    present = {path.relative_to(home).as_posix(): str(path) for path in home.rglob("*.png")}
    found: dict[int, str | bytes] = {}
    for i, name in enumerate(names):
        for ending in _ENDINGS:
            # `x_patch.png` is the mask of the image x_patch where there is one, not of the image x.
            if f"{name}{ending}.png" in present and (not ending or name + ending not in taken):
                found[i] = present[f"{name}{ending}.png"]
                break
    return found


def _names(rows: Dataset, folder: Path | None) -> list[str]:
    """Each image's path inside its split's folder, without the extension."""
    names = []
    for image in rows.cast_column("image", Image(decode=False))["image"]:
        path = Path(image["path"] or "")
        inside = path.relative_to(folder) if folder and path.is_relative_to(folder) else Path(path.name)
        names.append(inside.with_suffix("").as_posix())
    return names
