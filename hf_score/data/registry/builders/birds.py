"""Birds with the cue reversed: the same photographs, and each class mostly on the other's kind of background.

A set to confirm on what was found on another: whoever has learned "water birds are on water" by tuning learns nothing
here. The recipe is ours.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import BuilderConfig

from ....errors import DataError
from .base import FolderBuilder, drawn_splits, numbered, on_disk, refuse_share

__all__ = ["BirdsReversed", "BirdsReversedConfig"]

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
COLUMNS = ("file_name", "label", "spurious", "species", "bird_id")


@dataclass
class BirdsReversedConfig(BuilderConfig):
    """The recipe."""

    seed: int = field(default=0, metadata={"help": "Seed of the species of each split and of the rare backgrounds."})
    correlation: float = field(
        default=0.95, metadata={"help": "Share of each class's training birds on the other class's background."}
    )
    validation_share: float = field(default=0.1, metadata={"help": "Share of each class's species."})
    test_share: float = field(default=0.3, metadata={"help": "Share of each class's species."})


class BirdsReversed(FolderBuilder):
    """An image folder of birds pasted onto backgrounds, of which some are there on both kinds:

    - `train/`, `validation/` and `test/`, any of them, each with `metadata.csv`: `file_name`, `label` (1 = water
      bird), `spurious` (1 = water), `species`, `bird_id`, and `background_id` where it is known;
    - masks of the birds, `<split>/<bird_id>_bird.png` in `masks/`, or in `<folder>_masks/` beside it; may be absent.

    Of all splits the birds that are on both backgrounds are taken. `bird_mask` is the bird; the region of the
    attribute is what is outside of it.
    """

    BUILDER_CONFIG_CLASS = BirdsReversedConfig
    config: BirdsReversedConfig
    class_names = ("landbird", "waterbird")
    mask_column = "bird_mask"
    columns = {"minority": "int64", "species": "string", "bird_id": "string", "background_id": "string"}  # noqa: RUF012

    @classmethod
    def folders(cls, folder: Path) -> list[Path]:
        return [folder, _beside(folder)]

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        recipe = self.config
        refuse_share(correlation=recipe.correlation)
        birds = self._birds()
        rng = np.random.default_rng(recipe.seed)
        plan: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for label, name in enumerate(self.class_names):
            own = [bird for bird in birds if bird[0]["label"] == label]
            species = sorted({bird[0]["species"] for bird in own})
            drawn = drawn_splits(
                len(species), rng, validation_share=recipe.validation_share, test_share=recipe.test_share
            )
            for split, places in drawn.items():
                kept = {species[place] for place in places}
                here = [bird for bird in own if bird[0]["species"] in kept]
                if not here and split != "validation":
                    raise DataError(
                        f"'{self.folder}' has {len(species)} species of class '{name}' on both backgrounds, too few "
                        f"for a {split} split; add birds that are on both."
                    )
                if split == "train":
                    reversed_ = set(
                        rng.choice(len(here), round(recipe.correlation * len(here)), replace=False).tolist()
                    )
                    places_of = [1 - label if i in reversed_ else label for i in range(len(here))]
                    plan[split] += [bird[place] for bird, place in zip(here, places_of, strict=True)]
                else:
                    plan[split] += [row for bird in here for row in bird]
        return {split: numbered(rows) for split, rows in plan.items() if rows}

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"image": on_disk(row["path"]), "bird_mask": on_disk(row["mask"])}

    def _birds(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The birds that are on both backgrounds: their rows on land and on water."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for folder in self._split_folders():
            for row in self._rows(folder):
                found.setdefault(row["bird_id"], {}).setdefault(row["spurious"], row)
        for name, rows in found.items():
            if len({(row["label"], row["species"]) for row in rows.values()}) > 1:
                raise DataError(f"The bird '{name}' in '{self.folder}' has two labels or species; correct its rows.")
        pairs = [(rows[0], rows[1]) for _, rows in sorted(found.items()) if len(rows) == 2]
        if not pairs:
            raise DataError(
                f"No bird in '{self.folder}' is on both backgrounds (a `bird_id` with `spurious` 0 and 1); give a "
                "folder with such birds."
            )
        return pairs

    def _split_folders(self) -> list[Path]:
        folders = [self.folder / name for names in SPLITS.values() for name in names]
        return [folder for folder in folders if (folder / "metadata.csv").is_file()]

    def _rows(self, folder: Path) -> list[dict[str, Any]]:
        path = folder / "metadata.csv"
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if lacking := [column for column in COLUMNS if column not in (reader.fieldnames or [])]:
                raise DataError(f"'{path}' has no column '{lacking[0]}'; it needs {', '.join(COLUMNS)}.")
            return [self._row(folder, line, row) for line, row in enumerate(reader, start=2)]

    def _row(self, folder: Path, line: int, row: dict[str, str]) -> dict[str, Any]:
        if row["label"] not in ("0", "1") or row["spurious"] not in ("0", "1"):
            raise DataError(f"Line {line} of '{folder / 'metadata.csv'}' has a label or spurious that is not 0 or 1.")
        name, label, place = row["bird_id"], int(row["label"]), int(row["spurious"])
        homes = (self.folder / "masks", _beside(self.folder))
        masks = (home / folder.name / f"{name}_bird.png" for home in homes)
        return {
            "name": f"{name}_{('land', 'water')[place]}{Path(row['file_name']).suffix}",
            "label": label,
            "spurious": place,
            "minority": int(place == label),
            "species": row["species"],
            "bird_id": name,
            "background_id": row.get("background_id") or "",
            "path": str(folder / row["file_name"]),
            "mask": next((str(mask) for mask in masks if mask.is_file()), None),
        }


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}_masks")
