"""Any class folders with a mark: a small textured square, or a watermark as in ImageNet-W (Li et al., CVPR 2023).

The mark is on a share of one class's training images, 20 % by default, and on few or none of the others: a shortcut
that most images of the class do without, as real ones often are. Validation and test show every image twice, without
and with it. The recipe is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import BuilderConfig
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from ....errors import DataError
from .base import FolderBuilder, drawn_splits, encoded, numbered, on_disk, open_image, pictures, refuse_share

__all__ = ["Mark", "MarkConfig", "texture", "watermark"]

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
#: Cells of the texture along a side, and its greys.
CELLS, GREYS = 8, (64, 192)
#: How much of a watermark's white is mixed in, of 255.
OPACITY = 160


@dataclass
class MarkConfig(BuilderConfig):
    """The recipe."""

    seed: int = field(default=0, metadata={"help": "Seed of the texture, the marked images and the places."})
    kind: Literal["texture", "watermark"] = field(default="texture", metadata={"help": "What is inserted."})
    marked_class: str = field(default="", metadata={"help": "Name of the class with the mark; default the first."})
    share: float = field(default=0.2, metadata={"help": "Share of that class's training images with the mark."})
    share_elsewhere: float = field(default=0.0, metadata={"help": "Share of every other class's with it."})
    size: float = field(default=0.15, metadata={"help": "Side of the square, as a share of the shorter side."})
    text: str = field(default="SAMPLE", metadata={"help": "Text of the watermark."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of each class, where no split is given."})
    test_share: float = field(default=0.2, metadata={"help": "Share of each class, where no split is given."})


class Mark(FolderBuilder):
    """Images in class folders, `<class>/<image>`, at the top (splits are drawn) or inside `train/`, `test/` and
    perhaps `validation/`.

    The square is anywhere in the image, and covers what is there. The watermark is across the middle. `mask` is what
    has been painted.
    """

    BUILDER_CONFIG_CLASS = MarkConfig
    config: MarkConfig
    mask_column = "mask"
    columns = {"source": "string"}  # noqa: RUF012

    def classes(self) -> tuple[str, ...]:
        folders = self._split_folders()
        names = [path.name for path in (folders["train"] if folders else self.folder).iterdir() if path.is_dir()]
        if all(name.isdigit() for name in names):  # as the loader sorts them
            return tuple(sorted(names, key=int))
        return tuple(sorted(names))

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        recipe = self.config
        refuse_share(share=recipe.share, share_elsewhere=recipe.share_elsewhere)
        if not 0 < recipe.size <= 1:
            raise DataError(f"size is {recipe.size}: give a share of the shorter side, above 0 and at most 1.")
        names = self.classes()
        if len(names) < 2:
            raise DataError(f"'{self.folder}' has {len(names)} class folders; give one with two or more.")
        marked = recipe.marked_class or names[0]
        if marked not in names:
            raise DataError(f"'{self.folder}' has no class '{marked}' to mark; it has {list(names)}.")
        rng = np.random.default_rng(recipe.seed)
        plan: dict[str, list[dict[str, Any]]] = {}
        for split, rows in self._rows(names, rng).items():
            if split == "train":
                for label, name in enumerate(names):
                    own = [i for i, row in enumerate(rows) if row["label"] == label]
                    share = recipe.share if name == marked else recipe.share_elsewhere
                    for place in rng.choice(len(own), round(share * len(own)), replace=False):
                        rows[own[place]] = _marked(rows[own[place]])
            else:
                rows = [both for row in rows for both in (row, _marked(row))]
            plan[split] = numbered([{**row, "draw": (recipe.seed, len(plan), i)} for i, row in enumerate(rows)])
        return plan

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        if not row["spurious"]:
            return {"image": on_disk(row["path"]), "mask": None}
        image = open_image(row["path"], "RGB", upright=True)
        if self.config.kind == "watermark":
            image, mask = watermark(image, self.config.text)
        else:
            square = texture(max(2, round(self.config.size * min(image.size))), self.config.seed)
            rng = np.random.default_rng(row["draw"])
            x, y = (int(rng.integers(side - square.width + 1)) for side in image.size)
            mask = PILImage.new("L", image.size)
            mask.paste(255, (x, y, x + square.width, y + square.height))
            image.paste(square.convert("RGB"), (x, y))
        return {"image": encoded(image), "mask": encoded(mask)}

    def _split_folders(self) -> dict[str, Path]:
        found = {
            split: self.folder / name
            for split, names in SPLITS.items()
            for name in names
            if (self.folder / name).is_dir()
        }
        if not found:
            return {}
        if lacking := [split for split in ("train", "test") if split not in found]:
            raise DataError(f"'{self.folder}' has {sorted(found)} but no folder '{lacking[0]}/'; add it.")
        return found

    def _rows(self, names: tuple[str, ...], rng: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
        """The rows of each split, without marks."""
        folders, recipe = self._split_folders(), self.config
        rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS if not folders or split in folders}
        for label, name in enumerate(names):
            if folders:
                files = {split: pictures(folder / name) for split, folder in folders.items()}
            else:
                every = pictures(self.folder / name)
                drawn = drawn_splits(
                    len(every), rng, validation_share=recipe.validation_share, test_share=recipe.test_share
                )
                files = {split: [every[place] for place in places] for split, places in drawn.items()}
            for split, found in files.items():
                if not found and split != "validation":
                    raise DataError(f"Class '{name}' in '{self.folder}' has no image for the {split} split; add some.")
                stems = [path.stem for path in found]
                if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
                    raise DataError(
                        f"Two images of class '{name}' in '{self.folder}' are called '{twice}'; rename one."
                    )
                rows[split] += [
                    {
                        "name": f"{name}/{path.name}",
                        "label": label,
                        "spurious": 0,
                        "source": path.relative_to(self.folder).as_posix(),
                        "path": str(path),
                    }
                    for path in found
                ]
        return {split: found for split, found in rows.items() if found}


def texture(side: int, seed: int) -> PILImage.Image:
    """The square: mode L, (side, side), cells of random greys, the same for all images of a set."""
    greys = np.random.default_rng((seed, CELLS)).integers(*GREYS, (CELLS, CELLS), dtype=np.uint8)
    return PILImage.fromarray(greys).resize((side, side), PILImage.Resampling.NEAREST)


def watermark(image: PILImage.Image, text: str) -> tuple[PILImage.Image, PILImage.Image]:
    """The image (mode RGB) with translucent white letters across its middle, and the mask of the letters.

    Raises:
        DataError: the text draws nothing.
    """
    trial = ImageFont.load_default(100)
    left, top, right, bottom = trial.getbbox(text)
    if right <= left or bottom <= top:
        raise DataError(f"The text '{text}' draws nothing; give letters.")
    scale = min(0.9 * image.width / (right - left), 0.5 * image.height / (bottom - top))
    mask = PILImage.new("L", image.size)
    centre = (image.width / 2, image.height / 2)
    ImageDraw.Draw(mask).text(centre, text, fill=255, font=ImageFont.load_default(max(1.0, 100 * scale)), anchor="mm")
    mask = mask.point(lambda value: 255 * (value > 127))
    made = image.copy()
    made.paste((255, 255, 255), mask=mask.point(lambda value: OPACITY * (value > 127)))
    return made, mask


def _marked(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "name": f"{Path(row['name']).with_suffix('')}_mark.png", "spurious": 1}
