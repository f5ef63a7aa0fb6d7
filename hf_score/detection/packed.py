"""Heatmaps, masks and pictures of candidates: packed, about a fifth of a mebibyte for each candidate of 224 pixels, on
disk until a row is asked for.

A heatmap is kept in half precision, in units of its largest value, and a mask as one bit for each pixel.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Array2D, Dataset, Features, Image
from datasets.arrow_writer import ArrowWriter
from PIL import Image as PILImage

__all__ = [
    "HEATMAP",
    "MASK",
    "PackedArrays",
    "Pictures",
    "RowWriter",
    "as_png",
    "maps_of",
    "packed",
    "picture_bytes",
    "pictures_of",
    "written",
]


@dataclass(frozen=True)
class Form:
    """How arrays (H, W) of a kind are packed.

    Attributes:
        dtype: of the arrays.
        pack: of an array, its bytes.
        unpack: of bytes and (H, W), the array.
        size: of (H, W), how many bytes.
    """

    dtype: type
    pack: Callable[[np.ndarray], bytes]
    unpack: Callable[[bytes, tuple[int, int]], np.ndarray]
    size: Callable[[tuple[int, int]], int]


def _pack_heatmap(heatmap: np.ndarray) -> bytes:
    heatmap = np.asarray(heatmap, np.float32)
    largest = np.abs(heatmap).max(initial=0.0)
    unit = np.float32(largest if np.isfinite(largest) and largest > 0 else 1.0)
    return unit.astype("<f4").tobytes() + (heatmap / unit).astype("<f2").tobytes()


def _unpack_heatmap(content: bytes, shape: tuple[int, int]) -> np.ndarray:
    unit = np.frombuffer(content, "<f4", count=1)
    return unit * np.frombuffer(content, "<f2", offset=4).astype(np.float32).reshape(shape)


def _unpack_mask(content: bytes, shape: tuple[int, int]) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=shape[0] * shape[1])
    return bits.astype(bool).reshape(shape)


HEATMAP = Form(np.float32, _pack_heatmap, _unpack_heatmap, lambda shape: 4 + 2 * shape[0] * shape[1])
MASK = Form(bool, lambda mask: np.packbits(mask).tobytes(), _unpack_mask, lambda shape: -(-shape[0] * shape[1] // 8))


class PackedArrays:
    """n arrays that are read like one array (n, H, W), of which each is unpacked when it is asked for.

    Args:
        rows: n of them packed, or, in folders of before, as they are.
        form: `HEATMAP` or `MASK`.
        shape: (H, W).
    """

    def __init__(self, rows: Sequence[Any], form: Form, shape: tuple[int, int]) -> None:
        self._rows, self._form = rows, form
        self.shape = (len(rows), *shape)
        self.dtype = np.dtype(form.dtype)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        if isinstance(chosen, int | np.integer):
            return self._row(range(len(self))[int(chosen)])
        rows = [self._row(int(row)) for row in np.arange(len(self))[chosen]]
        return np.stack(rows) if rows else np.zeros((0, *self.shape[1:]), self.dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._row, range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self[:]
        return found if dtype is None else found.astype(dtype)

    def at(self, rows: Sequence[int] | np.ndarray) -> PackedArrays:
        """Those of these rows, still packed."""
        return PackedArrays(_Taken(self._rows, rows), self._form, self.shape[1:])

    def packed(self, row: int) -> bytes:
        """One of them as its bytes."""
        content = self._rows[row]
        return content if isinstance(content, bytes) else self._form.pack(np.asarray(content))

    def _row(self, row: int) -> np.ndarray:
        content = self._rows[row]
        if isinstance(content, bytes):
            return self._form.unpack(content, self.shape[1:])
        return np.asarray(content, self.dtype)


def packed(arrays: np.ndarray | PackedArrays, row: int, form: Form) -> bytes:
    """One row of arrays (n, H, W) as its bytes."""
    return arrays.packed(row) if isinstance(arrays, PackedArrays) else form.pack(arrays[row])


class Pictures(Sequence[PILImage.Image | None]):
    """n pictures in RGB, each decoded when it is asked for; None where there is none.

    Args:
        rows: n encoded pictures, as bytes or as `datasets.Image(decode=False)` has them. One that is only named is
            none of ours, and could name any file.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        content = self.packed(int(row))
        return None if content is None else PILImage.open(io.BytesIO(content))

    def at(self, rows: Sequence[int] | np.ndarray) -> Pictures:
        """Those of these rows, still encoded."""
        return Pictures(_Taken(self._rows, rows))

    def packed(self, row: int) -> bytes | None:
        """One of them as the content of its file."""
        content = self._rows[row]
        return content["bytes"] if isinstance(content, dict) else content


def picture_bytes(images: Sequence[Any] | None, row: int) -> bytes | None:
    """The content of a file with one of some pictures, without loss; None where there is none."""
    if isinstance(images, Pictures):
        return images.packed(row)
    image = None if images is None else images[row]
    return None if image is None else as_png(image)


def as_png(image: PILImage.Image | np.ndarray) -> bytes:
    """The content of a PNG file."""
    file = io.BytesIO()
    image = PILImage.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, "PNG")
    return file.getvalue()


class _Taken(Sequence[Any]):
    """Some rows of others, each read when it is asked for."""

    def __init__(self, rows: Sequence[Any], taken: Sequence[int] | np.ndarray) -> None:
        self._rows, self._taken = rows, taken

    def __len__(self) -> int:
        return len(self._taken)

    def __getitem__(self, row: Any) -> Any:
        return self._rows[int(self._taken[int(row)])]


class _Column(Sequence[Any]):
    """A column of a table, of which a row is read when it is asked for."""

    def __init__(self, table: Dataset, name: str) -> None:
        self._table, self._name = table.select_columns([name]), name

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: Any) -> Any:
        return self._table[int(row)][self._name]


@contextmanager
def written(rows: Iterable[dict[str, Any]], features: Features) -> Iterator[Dataset]:
    """A table of rows that are written to a temporary file one after the other; it is there within the context."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "rows.arrow")
        with RowWriter(file, features) as writer:
            for row in rows:
                writer.write(row)
        yield writer.table()


class RowWriter:
    """Writes rows to an Arrow file, a hundred at a time.

    Args:
        file: where.
        features: of the rows.
    """

    def __init__(self, file: str, features: Features) -> None:
        self.file, self._features, self._count = file, features, 0
        self._writer = ArrowWriter(features=features, path=file, writer_batch_size=100)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._count:
            self._writer.finalize()
        self._writer.close()

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._writer.write(row)
        self._count += 1

    def table(self) -> Dataset:
        """What was written, read from the file as it is asked for."""
        if not self._count:
            return Dataset.from_dict({name: [] for name in self._features}, features=self._features)
        return Dataset.from_file(self.file)


def maps_of(table: Dataset, shape: tuple[int, int] | None) -> tuple[PackedArrays, PackedArrays]:
    """Heatmaps and masks of a table of candidates.

    Args:
        table: with the columns `heatmaps` and `masks`, packed or, in folders of before, as arrays.
        shape: (H, W) of the packed ones; None says that they are arrays.

    Raises:
        ValueError: they are neither, or of another size.
    """
    found = []
    for name, form in (("heatmaps", HEATMAP), ("masks", MASK)):
        feature = table.features[name]
        if shape is None and isinstance(feature, Array2D):
            height, width = feature.shape
            found.append(PackedArrays(_Column(table.with_format("numpy"), name), form, (height, width)))
            continue
        sizes = set() if shape is None else set(pc.binary_length(table.data.column(name)).unique().to_pylist())
        if shape is None or sizes - {form.size(shape)}:
            raise ValueError(f"its {name} are no pictures")
        found.append(PackedArrays(_Column(table.with_format(None), name), form, shape))
    return found[0], found[1]


def pictures_of(table: Dataset) -> Pictures | None:
    """The pictures of a table of candidates; None where it has none."""
    if "image" not in table.column_names:
        return None
    plain = table.with_format(None)
    if isinstance(plain.features["image"], Image):
        plain = plain.select_columns(["image"]).cast_column("image", Image(decode=False))
    return Pictures(_Column(plain, "image"))
