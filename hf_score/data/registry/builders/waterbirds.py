"""Waterbirds, from the published tarball or made anew from CUB-200-2011 and Places.

Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, appendix "Dataset details", and
their `generate_waterbirds.py`: the background is cropped about its centre to the shape of the bird's photograph,
resized to it, and the bird is put over it where it was, by its segmentation.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import BuilderConfig
from PIL import Image as PILImage
from PIL import ImageOps

from ....errors import DataError
from .base import FolderBuilder, encoded, numbered, on_disk, open_image

__all__ = ["Waterbirds", "WaterbirdsConfig", "compose", "draw"]

SPLITS = ("train", "validation", "test")
#: Seabirds and waterfowl: a species is a water bird if its name has one of these in it.
WATER_BIRDS = (
    *("albatross", "auklet", "cormorant", "frigatebird", "fulmar", "gull", "jaeger", "kittiwake", "pelican", "puffin"),
    *("tern", "gadwall", "grebe", "mallard", "merganser", "guillemot", "pacific_loon"),
)
#: place 0 (land) and 1 (water), as Places365 calls them.
PLACES = (("bamboo_forest", "forest/broadleaf"), ("ocean", "lake/natural"))
#: Of CUB's training images, by class. One fifth of all was drawn for validation without a published seed; these are
#: the numbers that came out, so that a new draw has the group counts of the published sets.
TRAIN_IMAGES = (4615, 1379)
VALIDATION_IMAGES = {0.95: (933, 266), 1.0: (921, 278)}
PLACES_ROOTS = ("", "places365", "places365/data_large", "places365/data_256")


@dataclass
class WaterbirdsConfig(BuilderConfig):
    """How Waterbirds is made from CUB-200-2011 and Places; of no effect on a published tarball."""

    seed: int = field(default=0, metadata={"help": "Seed of the split, the places and their pictures."})
    correlation: float = field(
        default=0.95, metadata={"help": "Share of each class's training images on its own kind of background."}
    )


class Waterbirds(FolderBuilder):
    """Either of two layouts:

    - the published one: `metadata.csv` (img_id, img_filename, y, split, place, place_filename) and the images it
      names; CUB's `segmentations/`, here or in `CUB_200_2011/`, give the masks and may be absent;
    - the raw one: `CUB_200_2011/` (images.txt, train_test_split.txt, images/) with its `segmentations/`, inside or
      beside it, and Places' folders bamboo_forest, forest/broadleaf (land), ocean and lake/natural (water), here or
      in `places365/`, there perhaps in `data_large/` or `data_256/` and under their first letters.

    `bird_mask` is the bird; the region of the attribute is what is outside of it.
    """

    BUILDER_CONFIG_CLASS = WaterbirdsConfig
    config: WaterbirdsConfig
    class_names = ("landbird", "waterbird")
    mask_column = "bird_mask"
    columns = {"img_id": "int64", "img_filename": "string", "place_filename": "string"}  # noqa: RUF012

    @classmethod
    def folders(cls, folder: Path) -> list[Path]:
        if (folder / "metadata.csv").is_file():
            return [folder]
        # Places is large, and only four of its folders are read.
        return [folder / "CUB_200_2011", folder / "segmentations", *(_place(folder, p) for ps in PLACES for p in ps)]

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        if (self.folder / "metadata.csv").is_file():
            rows = list(self._published())
        elif (self.folder / "CUB_200_2011" / "images.txt").is_file():
            rows = self._drawn()
        else:
            raise DataError(
                f"'{self.folder}' has neither a metadata.csv (the published Waterbirds) nor CUB_200_2011/images.txt "
                "(to make it from CUB-200-2011 and Places); give the folder that has."
            )
        return {split: numbered([row for row in rows if row["split"] == i]) for i, split in enumerate(SPLITS)}

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["place_path"] is None:
            image: Any = on_disk(row["bird_path"])
        else:
            bird, mask = open_image(row["bird_path"], "RGB"), open_image(row["mask_path"], "L")
            if mask.size != bird.size:
                raise DataError(
                    f"The segmentation '{row['mask_path']}' has the size {mask.size}, its photograph {bird.size}; "
                    "make them equal."
                )
            # JPEG of the standard quality, as the published images.
            image = encoded(compose(bird, mask, open_image(row["place_path"], "RGB")), "JPEG")
        return {"image": image, "bird_mask": on_disk(row["mask_path"])}

    def _segmentations(self) -> dict[str, str]:
        """CUB's segmentations by the name of the photograph, without its ending."""
        homes = (self.folder / "segmentations", self.folder / "CUB_200_2011" / "segmentations")
        home = next((home for home in homes if home.is_dir()), None)
        if home is None:
            return {}
        return {str(path)[len(str(home)) + 1 : -len(".png")]: str(path) for path in home.rglob("*.png")}

    def _published(self) -> Iterator[dict[str, Any]]:
        folder, path, masks = str(self.folder), self.folder / "metadata.csv", self._segmentations()
        with open(path, newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                try:
                    label, place, split = int(row["y"]), int(row["place"]), int(row["split"])
                    img_id, name = int(row["img_id"]), row["img_filename"]
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(
                        f"Line {line} of '{path}' lacks a number or a name in one of img_id, img_filename, y, split, "
                        "place; correct it."
                    ) from error
                if name.startswith("/") or ".." in name.split("/"):
                    raise DataError(f"Line {line} of '{path}' names '{name}', outside of its folder; correct it.")
                if label not in (0, 1) or place not in (0, 1) or split not in (0, 1, 2):
                    raise DataError(
                        f"Line {line} of '{path}' has y {label}, place {place}, split {split}, but y and place are 0 "
                        "or 1 and split is 0, 1 or 2; correct it."
                    )
                yield {
                    "img_id": img_id,
                    "img_filename": name,
                    "name": name,
                    "label": label,
                    "spurious": place,
                    "split": split,
                    "place_filename": row.get("place_filename") or "",
                    "bird_path": f"{folder}/{name}",
                    "mask_path": masks.get(name.rsplit(".", 1)[0]),
                    "place_path": None,
                }

    def _drawn(self) -> list[dict[str, Any]]:
        """All birds of CUB, with split, place and background drawn anew."""
        cub = self.folder / "CUB_200_2011"
        masks, in_train = self._segmentations(), dict(_table(cub / "train_test_split.txt"))
        birds = []
        for img_id, name in _table(cub / "images.txt"):
            if (mask := masks.get(name.rsplit(".", 1)[0])) is None:
                raise DataError(
                    f"There is no segmentation of '{name}'; put CUB's segmentations/ into '{self.folder}'."
                )
            species = name.split("/")[0].split(".")[-1].lower()
            birds.append(
                {
                    "img_id": int(img_id),
                    "img_filename": name,
                    "name": name,
                    "label": int(any(bird in species for bird in WATER_BIRDS)),
                    "split": 0 if in_train[img_id] == "1" else 2,
                    "bird_path": f"{cub}/images/{name}",
                    "mask_path": mask,
                }
            )
        pictures = [
            [(f"/{name[0]}/{name}/{path.name}", str(path)) for name in names for path in _pictures(self.folder, name)]
            for names in PLACES
        ]
        return draw(birds, pictures, self.config.correlation, np.random.default_rng(self.config.seed))


def draw(
    birds: list[dict[str, Any]],
    pictures: list[list[tuple[str, str]]],
    correlation: float,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Which training birds are for validation, which birds are on water, and on which picture each is.

    Args:
        birds: rows with `label` and `split`, 0 for CUB's training images and 2 for its test images.
        pictures: name and file of the pictures of land and of water.
        correlation: share of each class's training images on its own kind of background; half elsewhere.
        rng: for all draws.

    Returns:
        The rows with `split`, `spurious`, `place_filename` and `place_path`.
    """
    if not 0 <= correlation <= 1:
        raise DataError(f"correlation is {correlation}: give a share from 0 to 1.")
    rows = [{**bird, "spurious": 0} for bird in birds]
    held = VALIDATION_IMAGES.get(correlation, VALIDATION_IMAGES[0.95])
    for label in (0, 1):
        train = [row for row in rows if row["label"] == label and row["split"] == 0]
        count = round(len(train) * held[label] / TRAIN_IMAGES[label])
        for place in rng.choice(len(train), count, replace=False):
            train[place]["split"] = 1
        for split in (0, 1, 2):
            own = [row for row in rows if row["label"] == label and row["split"] == split]
            on_water = 0.5
            if split == 0:
                on_water = correlation if label == 1 else 1 - correlation
            for place in rng.choice(len(own), round(on_water * len(own)), replace=False):
                own[place]["spurious"] = 1
    for spurious, names in enumerate(PLACES):
        own = [row for row in rows if row["spurious"] == spurious]
        if len(pictures[spurious]) < len(own):
            raise DataError(
                f"{len(own)} birds go on pictures of {' and '.join(names)}, but there are only "
                f"{len(pictures[spurious])} of those; add the Places folders whole."
            )
        for row, i in zip(own, rng.permutation(len(pictures[spurious])), strict=False):
            row["place_filename"], row["place_path"] = pictures[spurious][i]
    return rows


def compose(bird: PILImage.Image, mask: PILImage.Image, place: PILImage.Image) -> PILImage.Image:
    """The bird where it is, by its mask (mode L, soft edges count), over the place cropped and resized to its size."""
    return PILImage.composite(bird, ImageOps.fit(place, bird.size, PILImage.Resampling.LANCZOS), mask)


def _place(folder: Path, name: str) -> Path:
    """The folder of a Places category; where there is none, where it should be."""
    candidates = [folder / root / sub for root in PLACES_ROOTS for sub in (f"{name[0]}/{name}", name)]
    return next((path for path in candidates if path.is_dir()), candidates[0])


def _pictures(folder: Path, name: str) -> list[Path]:
    return sorted(_place(folder, name).glob("*.jpg"))


def _table(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise DataError(f"There is no file '{path}'; unpack CUB-200-2011 there.")
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
