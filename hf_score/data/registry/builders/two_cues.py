"""Fashion garments with two shortcuts at once, in the manner of UrbanCars (Li et al., CVPR 2023).

Every image has a background, striped across or upright, and an object beside the garment, a red or a blue square. In
training each goes with the class in 95 % of its images, independently of the other. Validation and test show every
garment in all four ways. Made from the garments that are inside the package, so that it is there offline.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet
from datasets import BuilderConfig
from PIL import Image as PILImage
from scipy.ndimage import binary_fill_holes

from ....errors import DataError
from .base import FolderBuilder, encoded, numbered, refuse_share

__all__ = ["FashionTwoCues", "FashionTwoCuesConfig", "paint"]

#: Rows and columns of the object: where `fashion_patch` has its square, so that what was under that stays covered.
SQUARE = (slice(3, 8), slice(3, 8))
COLOURS = ((255, 40, 40), (40, 80, 255))
#: Grey of the stripes, each two pixels wide; a pixel of the garment is brighter than `DARK`.
STRIPE, DARK = 90, 16


@dataclass
class FashionTwoCuesConfig(BuilderConfig):
    """The recipe."""

    seed: int = field(default=0, metadata={"help": "Seed of the garments that have the other class's cues."})
    background_correlation: float = field(
        default=0.95, metadata={"help": "Share of each class's training images with its own background."}
    )
    object_correlation: float = field(
        default=0.95, metadata={"help": "Share of each class's training images with its own object."}
    )


class FashionTwoCues(FolderBuilder):
    """`train.parquet`, `validation.parquet` and `test.parquet` of `fashion_patch`, which are inside the package.

    The attribute is 2 * background + object: 0 across and red, 1 across and blue, 2 upright and red, 3 upright and
    blue. Pullovers go with across and red. `mask` is everything but the garment; the object is rows and columns 3
    to 7.
    """

    BUILDER_CONFIG_CLASS = FashionTwoCuesConfig
    config: FashionTwoCuesConfig
    class_names = ("pullover", "shirt")
    mask_column = "mask"
    columns = {"background": "int64", "object": "int64", "source_index": "int64"}  # noqa: RUF012

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        recipe = self.config
        shares = (recipe.background_correlation, recipe.object_correlation)
        refuse_share(background_correlation=shares[0], object_correlation=shares[1])
        rng = np.random.default_rng(recipe.seed)
        plan = {}
        for split in ("train", "validation", "test"):
            garments, rows = self._garments(split), []
            for label in (0, 1):
                own = [garment for garment in garments if garment["label"] == label]
                if split == "train":
                    rows += [_row(own[i], *cues) for i, cues in enumerate(_drawn_cues(len(own), label, shares, rng))]
                else:
                    rows += [_row(garment, b, o) for garment in own for b in (0, 1) for o in (0, 1)]
            plan[split] = numbered(rows)
        return plan

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        with PILImage.open(io.BytesIO(row["png"])) as file:
            image, mask = paint(np.asarray(file.convert("RGB")), row["background"], row["object"])
        return {"image": encoded(PILImage.fromarray(image)), "mask": encoded(PILImage.fromarray(mask))}

    def _garments(self, split: str) -> list[dict[str, Any]]:
        """Every garment of a split once."""
        path = self.folder / f"{split}.parquet"
        try:
            table = pyarrow.parquet.read_table(path, columns=["image", "label", "source_index"])
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
            raise DataError(
                f"Cannot read '{path}' ({type(error).__name__}); give the folder of fashion_patch."
            ) from error
        found: dict[int, dict[str, Any]] = {}
        for row in table.to_pylist():
            kept = {"label": row["label"], "source_index": row["source_index"], "png": row["image"]["bytes"]}
            found.setdefault(row["source_index"], kept)
        return [found[index] for index in sorted(found)]


def paint(garment: np.ndarray, background: int, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """The garment with its two cues.

    Args:
        garment: (32, 32, 3), uint8, an image of `fashion_patch`, with or without its square.
        background: stripes across (0) or upright (1).
        kind: of the object, red (0) or blue (1).

    Returns:
        The image (32, 32, 3) and the mask of everything but the garment (32, 32), 255 inside.
    """
    grey = garment[..., 1]
    outside = ~binary_fill_holes(grey > DARK)  # what is dark inside of the garment is garment
    outside[SQUARE] = True
    stripes = np.broadcast_to((np.arange(len(grey)) // 2 % 2 == 1), grey.shape)
    image = np.repeat(grey[..., None], 3, axis=2)
    image[outside] = 0
    image[outside & (stripes if background else stripes.T)] = STRIPE
    image[SQUARE] = COLOURS[kind]
    return image, np.where(outside, 255, 0).astype(np.uint8)


def _drawn_cues(
    count: int, label: int, shares: tuple[float, float], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Background and object of each of a class's training images: exact shares, and as if drawn independently."""
    background, both = round(shares[0] * count), round(shares[0] * shares[1] * count)
    own_object = min(max(round(shares[1] * count), both), count - background + both)
    order = rng.permutation(count)
    own = np.zeros((count, 2), dtype=bool)
    own[order[:background], 0] = True
    own[order[:both], 1] = True
    own[order[background : background + own_object - both], 1] = True
    return [(label if b else 1 - label, label if o else 1 - label) for b, o in own.tolist()]


def _row(garment: dict[str, Any], background: int, kind: int) -> dict[str, Any]:
    return {
        **garment,
        "name": f"{garment['source_index']:05d}_{background}{kind}.png",
        "spurious": 2 * background + kind,
        "background": background,
        "object": kind,
    }
