"""Knee X-rays with an artificial marker. The recipe is ours: how the SCORE paper made its set is not public.

Kellgren-Lawrence grades 0 and 1 are class 0, grades 2 to 4 class 1. In training the marker is on most images of class
0 and on none of class 1. Validation and test show every image twice, without and with the marker, so that groups are
balanced within a class and pairs differ by the marker alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import BuilderConfig
from PIL import Image as PILImage
from PIL import ImageDraw

from ....errors import DataError
from .base import FolderBuilder, encoded, numbered, on_disk, open_image

__all__ = ["Knee", "KneeConfig", "marker_mask"]

SPLITS = {"train": "train", "validation": "val", "test": "test"}
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


@dataclass
class KneeConfig(BuilderConfig):
    """The recipe."""

    seed: int = field(default=0, metadata={"help": "Seed of the images that get a marker, and of its place."})
    shape: Literal["square", "disc", "cross"] = field(default="square", metadata={"help": "Shape of the marker."})
    size: float = field(default=0.1, metadata={"help": "Its side, as a share of the image's shorter side."})
    place: Literal["top_left", "top_right", "bottom_left", "bottom_right", "any_corner"] = field(
        default="top_left", metadata={"help": "Corner it is in."}
    )
    margin: float = field(default=0.04, metadata={"help": "Distance from the edges, as a share of the shorter side."})
    jitter: float = field(default=0.02, metadata={"help": "How much farther at most, at random, in either direction."})
    brightness: int = field(default=255, metadata={"help": "Grey value of the marker, 0 to 255."})
    share_healthy: float = field(default=0.95, metadata={"help": "Share of training images of class 0 with it."})
    share_diseased: float = field(default=0.0, metadata={"help": "Share of training images of class 1 with it."})
    first_diseased: int = field(default=2, metadata={"help": "The lowest grade of class 1."})
    drop_doubtful: bool = field(default=False, metadata={"help": "Leave grade 1 out."})


class Knee(FolderBuilder):
    """`train/`, `val/` and `test/`, each with the grades `0/` to `4/` of PNG files (Chen et al., 2019).

    Other folders, such as `auto_test/`, are not read. `mask` is the marker.
    """

    BUILDER_CONFIG_CLASS = KneeConfig
    config: KneeConfig
    class_names = ("KL 0-1", "KL 2-4")
    mask_column = "mask"
    columns = {"grade": "int64"}  # noqa: RUF012

    @classmethod
    def folders(cls, folder: Path) -> list[Path]:
        return [folder / name for name in SPLITS.values()]

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        recipe = self.config
        for name in ("share_healthy", "share_diseased"):
            if not 0 <= getattr(recipe, name) <= 1:
                raise DataError(f"{name} is {getattr(recipe, name)}: give a share from 0 to 1.")
        if recipe.size <= 0 or recipe.size + recipe.margin + recipe.jitter > 1:
            raise DataError(
                f"A marker of size {recipe.size} with margin {recipe.margin} and jitter {recipe.jitter} does not fit: "
                "give a size above 0, and no more than 1 together."
            )
        rng = np.random.default_rng(recipe.seed)
        plan: dict[str, list[dict[str, Any]]] = {}
        for split, name in SPLITS.items():
            rows = [row for grade in range(5) for row in self._grade(name, grade)]
            if not rows:
                raise DataError(f"'{self.folder}' has no PNG files in {name}/0 to {name}/4; give the folder that has.")
            if split == "train":
                for label, share in enumerate((recipe.share_healthy, recipe.share_diseased)):
                    own = [row for row in rows if row["label"] == label]
                    for place in rng.choice(len(own), round(share * len(own)), replace=False):
                        own[place]["spurious"] = 1
            else:
                marked = [
                    {**row, "name": f"{row['name'].removesuffix('.png')}_marker.png", "spurious": 1} for row in rows
                ]
                rows = [row for pair in zip(rows, marked, strict=True) for row in pair]
            plan[split] = numbered([{**row, "draw": (recipe.seed, len(plan), i)} for i, row in enumerate(rows)])
        return plan

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        if not row["spurious"]:
            return {"image": on_disk(row["path"]), "mask": None}
        image = open_image(row["path"], "L")
        mask = marker_mask(image.size, self.config, np.random.default_rng(row["draw"]))
        image.paste(self.config.brightness, mask=mask)
        return {"image": encoded(image), "mask": encoded(mask)}

    def _grade(self, split: str, grade: int) -> list[dict[str, Any]]:
        if grade == 1 and self.config.drop_doubtful:
            return []
        label = int(grade >= self.config.first_diseased)
        return [
            {"name": f"{grade}/{path.name}", "path": str(path), "grade": grade, "label": label, "spurious": 0}
            for path in sorted((self.folder / split / str(grade)).glob("*.png"))
        ]


def marker_mask(size: tuple[int, int], recipe: KneeConfig, rng: np.random.Generator) -> PILImage.Image:
    """Where the marker is: mode L, 255 inside, of `size` (width, height)."""
    short = min(size)
    side = max(1, round(recipe.size * short))
    corner = CORNERS[rng.integers(4)] if recipe.place == "any_corner" else recipe.place
    x, y = (round((recipe.margin + recipe.jitter * rng.random()) * short) for _ in range(2))
    if corner.endswith("right"):
        x = size[0] - x - side
    if corner.startswith("bottom"):
        y = size[1] - y - side
    mask = PILImage.new("L", size)
    draw = ImageDraw.Draw(mask)
    if recipe.shape == "disc":
        draw.ellipse((x, y, x + side - 1, y + side - 1), fill=255)
    elif recipe.shape == "cross":
        arm = max(1, side // 3)
        start = (side - arm) // 2
        draw.rectangle((x + start, y, x + start + arm - 1, y + side - 1), fill=255)
        draw.rectangle((x, y + start, x + side - 1, y + start + arm - 1), fill=255)
    else:
        draw.rectangle((x, y, x + side - 1, y + side - 1), fill=255)
    return mask
