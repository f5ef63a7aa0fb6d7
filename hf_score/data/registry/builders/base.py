"""What all builders share: one raw public folder in, the rows of `train`, `validation` and `test` out."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import (
    ClassLabel,
    DatasetInfo,
    Features,
    GeneratorBasedBuilder,
    Image,
    SplitGenerator,
    Value,
    Version,
)
from PIL import Image as PILImage
from PIL import ImageOps

from ....errors import DataError

__all__ = ["FolderBuilder", "drawn_splits", "encoded", "numbered", "on_disk", "open_image", "pictures", "refuse_share"]

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
#: Rows of one shard of a stream.
SHARD_SIZE = 1024


class FolderBuilder(GeneratorBasedBuilder):
    """A `datasets` builder over a raw folder, without a loading script.

    A subclass says what the rows are (`plan`, no image is opened) and makes the image of one (`example`). Every row
    has `idx` (its place in the split), `name` (its file in a built folder), `label` and `spurious`, the attribute; the
    columns of a subclass come on top. All draws depend on the configuration's seed alone.

    Args:
        data_dir: the raw folder.
        options: fields of the configuration class, `BUILDER_CONFIG_CLASS`.
    """

    VERSION = Version("1.0.0")
    #: Empty where they are the folder's own: then `classes` finds them.
    class_names: ClassVar[tuple[str, ...]] = ()
    #: Column of the masks, or None.
    mask_column: ClassVar[str | None] = None
    #: Further columns and their types.
    columns: ClassVar[dict[str, str]] = {}

    def __init__(self, data_dir: str | os.PathLike[str], **options: Any) -> None:
        folder = Path(data_dir).resolve()
        if not folder.is_dir():
            raise DataError(f"There is no folder '{data_dir}' with the raw files; give an existing one.")
        # `hash` names the folder in the cache of `datasets`: other files must not be taken for these.
        super().__init__(data_dir=str(folder), hash=_state(self.folders(folder)), **options)

    @property
    def folder(self) -> Path:
        """The raw folder."""
        return Path(self.config.data_dir)  # type: ignore[arg-type]

    @classmethod
    def folders(cls, folder: Path) -> list[Path]:
        """The parts of the raw folder that are read."""
        return [folder]

    def classes(self) -> tuple[str, ...]:
        """What the labels stand for."""
        return self.class_names

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each split; one that would be empty is left out.

        Raises:
            DataError: the folder is not of the layout that the subclass reads.
        """
        raise NotImplementedError

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        """The image of a row, and its mask where there is one, as `{"bytes": ..., "path": ...}`."""
        raise NotImplementedError

    def _info(self) -> DatasetInfo:
        features: dict[str, Any] = {"idx": Value("int64"), "name": Value("string"), "image": Image()}
        features |= {"label": ClassLabel(names=list(self.classes())), "spurious": Value("int64")}
        if self.mask_column:
            features[self.mask_column] = Image()
        return DatasetInfo(features=Features(features | {name: Value(kind) for name, kind in self.columns.items()}))

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        return [
            SplitGenerator(
                name=split,
                # A list: each of its elements is a shard of the stream.
                gen_kwargs={"shards": [rows[start : start + SHARD_SIZE] for start in range(0, len(rows), SHARD_SIZE)]},
            )
            for split, rows in self.plan().items()
        ]

    def _generate_examples(self, shards: list[list[dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for rows in shards:
            for row in rows:
                made = {**row, **self.example(row)}
                yield row["idx"], {column: made[column] for column in self.info.features}


def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their places as `idx`."""
    return [{"idx": i, **row} for i, row in enumerate(rows)]


def pictures(folder: Path) -> list[Path]:
    """The image files of a folder, by their endings, sorted by name; none where there is no folder."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.is_file())


def refuse_share(**shares: float) -> None:
    """Refuse what is no share.

    Raises:
        DataError: one is below 0 or above 1.
    """
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise DataError(f"{name} is {share}: give a share from 0 to 1.")


def drawn_splits(
    count: int, rng: np.random.Generator, *, validation_share: float, test_share: float
) -> dict[str, list[int]]:
    """`count` places drawn for `test`, `validation` and `train`, what is left; each sorted.

    Raises:
        DataError: the shares are none, or leave nothing to train on.
    """
    refuse_share(validation_share=validation_share, test_share=test_share)
    if validation_share + test_share >= 1:
        raise DataError(
            f"validation_share {validation_share} and test_share {test_share} leave nothing to train on; reduce them."
        )
    order = rng.permutation(count)
    test, validation = round(test_share * count), round(validation_share * count)
    parts = {"train": order[test + validation :], "validation": order[test : test + validation], "test": order[:test]}
    return {split: sorted(part.tolist()) for split, part in parts.items()}


def open_image(path: str | Path, mode: str, *, upright: bool = False) -> PILImage.Image:
    """The image in `mode`, turned as its EXIF orientation says if it is to be `upright`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with PILImage.open(path) as file:
            return (ImageOps.exif_transpose(file) if upright else file).convert(mode)
    except Exception as error:  # decoders raise whatever they like on a broken file
        raise DataError(f"Cannot read the image '{path}' ({type(error).__name__}); replace it.") from error


def encoded(image: PILImage.Image, kind: str = "PNG") -> dict[str, Any]:
    """The image as a row of an `Image` column."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return {"bytes": buffer.getvalue(), "path": None}


def on_disk(path: str | Path | None) -> dict[str, Any] | None:
    """A file as a row of an `Image` column; None stays None."""
    return None if path is None else {"bytes": None, "path": str(path)}


def _state(folders: list[Path]) -> str:
    """SHA-256 over the names, sizes and times of all files."""
    digest = hashlib.sha256()
    for folder in folders:
        for root, names, files in os.walk(folder, followlinks=True):
            names.sort()
            for file in sorted(files):
                status = os.stat(os.path.join(root, file))
                digest.update(f"{os.path.join(root, file)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
