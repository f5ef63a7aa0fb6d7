"""Public sets that are read where the user has them: UrbanCars, MetaShift, bFFHQ, Spawrious, NICO++, CheXpert.

Layouts are those of the authors' own loaders. Where a set has no split of its own, it is drawn, per group or per
patient. None has masks.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import BuilderConfig

from ....errors import DataError
from .base import FolderBuilder, drawn_splits, numbered, on_disk, pictures

__all__ = [
    "BFFHQ",
    "NICO",
    "BFFHQConfig",
    "CheXpert",
    "CheXpertConfig",
    "DrawnConfig",
    "MetaShift",
    "PublicFolder",
    "Spawrious",
    "SpawriousConfig",
    "UrbanCars",
]

SPLITS = ("train", "validation", "test")


class PublicFolder(FolderBuilder):
    """Rows with `path`, the image as it is."""

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"image": on_disk(row["path"])}

    def _row(self, path: Path, label: int, spurious: int) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        return {"name": name, "label": label, "spurious": spurious, "path": str(path)}

    def _found(self, folder: Path, label: int, spurious: int) -> list[dict[str, Any]]:
        """The images of a folder.

        Raises:
            DataError: there are none.
        """
        rows = [self._row(path, label, spurious) for path in pictures(folder)]
        if not rows:
            raise DataError(f"There are no images in '{folder}'; complete the set, or give another folder.")
        return rows


@dataclass
class DrawnConfig(BuilderConfig):
    """How a set without splits is split."""

    seed: int = field(default=0, metadata={"help": "Seed of the splits."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of each group, or of the patients."})
    test_share: float = field(default=0.25, metadata={"help": "Share of each group, or of the patients."})


class _DrawnByGroup(PublicFolder):
    BUILDER_CONFIG_CLASS = DrawnConfig
    config: DrawnConfig

    def _groups(self) -> list[list[dict[str, Any]]]:
        raise NotImplementedError

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        recipe, rng = self.config, np.random.default_rng(self.config.seed)
        plan: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for rows in self._groups():
            drawn = drawn_splits(
                len(rows), rng, validation_share=recipe.validation_share, test_share=recipe.test_share
            )
            for split, places in drawn.items():
                plan[split] += [rows[place] for place in places]
        return {split: numbered(rows) for split, rows in plan.items() if rows}


class UrbanCars(PublicFolder):
    """`bg-0.95_co_occur_obj-0.95/train/` and `bg-0.5_co_occur_obj-0.5/val/` and `test/`, here or in
    `urbancars_images/`, each with the eight folders `obj-urban_bg-urban_co_occur_obj-urban/` and so on.

    The attribute is 2 * background + co-occurring object, each 0 for urban and 1 for country.
    """

    class_names = ("urban", "country")
    columns = {"background": "int64", "object": "int64"}  # noqa: RUF012

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        inner = self.folder / "urbancars_images"
        folder = inner if inner.is_dir() else self.folder
        parts = {"train": "bg-0.95_co_occur_obj-0.95/train", "validation": "bg-0.5_co_occur_obj-0.5/val"}
        plan = {}
        for split, part in {**parts, "test": "bg-0.5_co_occur_obj-0.5/test"}.items():
            rows: list[dict[str, Any]] = []
            for group in range(8):
                label, background, kind = group >> 2, group >> 1 & 1, group & 1
                car, place, thing = (self.class_names[i] for i in (label, background, kind))
                files = self._found(folder / part / f"obj-{car}_bg-{place}_co_occur_obj-{thing}", label, group % 4)
                rows += [{**row, "background": background, "object": kind} for row in files]
            plan[split] = numbered(rows)
        return plan


class MetaShift(_DrawnByGroup):
    """`MetaShift-Cat-Dog-indoor-outdoor/` or what is in it: `train/cat/cat(indoor)/`, `train/dog/dog(outdoor)/`,
    `test/cat/cat(outdoor)/`, `test/dog/dog(indoor)/`.

    All four are put together and split anew, as in SubpopBench (Yang et al., ICML 2023), whose draw depends on the
    order of a disk; ours is another one.
    """

    class_names = ("dog", "cat")

    def _groups(self) -> list[list[dict[str, Any]]]:
        inner = self.folder / "MetaShift-Cat-Dog-indoor-outdoor"
        folder = inner if inner.is_dir() else self.folder
        parts = ("test/cat/cat(outdoor)", "train/cat/cat(indoor)", "train/dog/dog(outdoor)", "test/dog/dog(indoor)")
        return [self._found(folder / part, int("cat" in part), int("indoor" in part)) for part in parts]


@dataclass
class BFFHQConfig(BuilderConfig):
    """Which of the published training sets."""

    ratio: str = field(default="0.5pct", metadata={"help": "Folder of the training set, named after its conflicts."})


class BFFHQ(PublicFolder):
    """`0.5pct/` (or another `--ratio`, or `train/`) with `align/0/`, `align/1/`, `conflict/0/` and `conflict/1/`, and
    `valid/` and `test/`, of files `<number>_<age>_<gender>.png`.

    Test images of both kinds are kept; some papers measure those of `conflict` alone.
    """

    BUILDER_CONFIG_CLASS = BFFHQConfig
    config: BFFHQConfig
    class_names = ("young", "old")

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        train = next((p for p in (self.folder / self.config.ratio, self.folder / "train") if p.is_dir()), None)
        if train is None:
            raise DataError(f"'{self.folder}' has neither '{self.config.ratio}/' nor 'train/'; give bFFHQ's folder.")
        folders = {
            "train": [train / kind / label for kind in ("align", "conflict") for label in ("0", "1")],
            "validation": [self.folder / "valid"],
            "test": [self.folder / "test"],
        }
        plan = {}
        for split, parts in folders.items():
            rows = [self._named(path) for part in parts for path in pictures(part)]
            if not rows:
                raise DataError(f"There are no images in '{parts[0]}'; complete the set, or give another folder.")
            plan[split] = numbered(rows)
        return plan

    def _named(self, path: Path) -> dict[str, Any]:
        words = path.stem.split("_")
        if len(words) < 3 or not {*words[-2:]} <= {"0", "1"}:
            raise DataError(f"'{path}' is not called <number>_<age>_<gender>, with 0 or 1 for both; rename it.")
        return self._row(path, int(words[-2]), int(words[-1]))


#: Backgrounds in training and in testing, by class, and the one that all share (Lynch et al., 2023).
ONE_TO_ONE = {
    "o2o_easy": (("desert", "snow", "jungle", "dirt"), ("dirt", "jungle", "snow", "desert"), "beach"),
    "o2o_medium": (("mountain", "jungle", "beach", "dirt"), ("jungle", "snow", "dirt", "beach"), "desert"),
    "o2o_hard": (("jungle", "desert", "mountain", "snow"), ("mountain", "jungle", "snow", "desert"), "beach"),
}
LOCATIONS = ("beach", "desert", "dirt", "jungle", "mountain", "snow")
#: Images of a class and background in each of the two environments, and how many of them are on the class's own.
ENVIRONMENT, OWN = 3168, (3072, 2756)


@dataclass
class SpawriousConfig(BuilderConfig):
    """Which of the one-to-one sets."""

    challenge: Literal["o2o_easy", "o2o_medium", "o2o_hard"] = field(
        default="o2o_easy", metadata={"help": "Which set."}
    )


class Spawrious(PublicFolder):
    """`spawrious224/` or what is in it: `0/` and `1/`, each with a folder for every background it has and, inside, for
    every breed.

    One-to-one: in the first environment 97 % and in the second 87 % of a breed are on its own background and the
    others on one that all share; in testing all are on another breed's. As in the published code, but that takes the
    first files in the order of the disk, and this in that of their names. No validation split.
    """

    BUILDER_CONFIG_CLASS = SpawriousConfig
    config: SpawriousConfig
    class_names = ("bulldog", "corgi", "dachshund", "labrador")

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        inner = self.folder / "spawrious224"
        folder = inner if inner.is_dir() else self.folder
        train, test, shared = ONE_TO_ONE[self.config.challenge]
        plan: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
        for environment, own in enumerate(OWN):
            for label, breed in enumerate(self.class_names):
                for split, place, count in (
                    ("train", train[label], own),
                    ("train", shared, ENVIRONMENT - own),
                    ("test", test[label], None),
                ):
                    path = folder / str(environment) / place / breed
                    plan[split] += self._found(path, label, LOCATIONS.index(place))[:count]
        return {split: numbered(rows) for split, rows in plan.items()}


class NICO(_DrawnByGroup):
    """NICO++'s common contexts: `public_dg_0416/train/`, here or in `track_1/`, or what is in it: `autumn/`, `dim/`,
    `grass/`, `outdoor/`, `rock/`, `water/`, each with a folder per class.

    Its test images have no public context, so splits are drawn from these.
    """

    contexts = ("autumn", "dim", "grass", "outdoor", "rock", "water")

    def _home(self) -> Path:
        homes = (self.folder / part / "public_dg_0416/train" for part in (".", "track_1"))
        return next((home for home in homes if home.is_dir()), self.folder)

    def classes(self) -> tuple[str, ...]:
        found = (
            path.name for context in self.contexts for path in (self._home() / context).glob("*") if path.is_dir()
        )
        return tuple(sorted(set(found)))

    def _groups(self) -> list[list[dict[str, Any]]]:
        home, names = self._home(), self.classes()
        if len(names) < 2:
            raise DataError(f"'{home}' has no folders of classes in {', '.join(self.contexts)}; give NICO++'s.")
        groups = [
            [self._row(path, label, number) for path in pictures(home / context / name)]
            for label, name in enumerate(names)
            for number, context in enumerate(self.contexts)
        ]
        return [rows for rows in groups if rows]


@dataclass
class CheXpertConfig(DrawnConfig):
    """Which finding, and what it goes with."""

    finding: str = field(default="Pneumothorax", metadata={"help": "Column of the class."})
    attribute: str = field(default="Support Devices", metadata={"help": "Column of the attribute."})


class CheXpert(PublicFolder):
    """`train.csv` and the images it names (`CheXpert-v1.0-small/train/patient.../study.../view1_frontal.jpg`), which
    are beside it in `train/`.

    Frontal views. A finding that is not mentioned is absent; rows where the finding or the attribute is uncertain are
    left out. Splits are drawn by patient; `valid.csv`, which has few positives, is not read.
    """

    BUILDER_CONFIG_CLASS = CheXpertConfig
    config: CheXpertConfig
    class_names = ("absent", "present")
    columns = {"patient": "string"}  # noqa: RUF012

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        recipe, rows = self.config, self._frontal()
        patients = sorted({row["patient"] for row in rows})
        drawn = drawn_splits(
            len(patients),
            np.random.default_rng(recipe.seed),
            validation_share=recipe.validation_share,
            test_share=recipe.test_share,
        )
        split_of = {patients[place]: split for split, places in drawn.items() for place in places}
        plan = {split: [row for row in rows if split_of[row["patient"]] == split] for split in SPLITS}
        return {split: numbered(found) for split, found in plan.items() if found}

    def _frontal(self) -> list[dict[str, Any]]:
        path = self.folder / "train.csv"
        if not path.is_file():
            raise DataError(f"'{self.folder}' has no train.csv; give CheXpert's folder.")
        rows = []
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for column in ("Path", "Frontal/Lateral", self.config.finding, self.config.attribute):
                if column not in (reader.fieldnames or []):
                    raise DataError(f"'{path}' has no column '{column}'; it has {reader.fieldnames}.")
            for line, row in enumerate(reader, start=2):
                values = [row[column].strip() for column in (self.config.finding, self.config.attribute)]
                if row["Frontal/Lateral"] != "Frontal" or any(value in ("-1", "-1.0") for value in values):
                    continue
                if not {*values} <= {"", "0", "0.0", "1", "1.0"}:
                    raise DataError(f"Line {line} of '{path}' has the values {values}; they are 1, 0, -1 or nothing.")
                label, spurious = (int(value in ("1", "1.0")) for value in values)
                parts = Path(row["Path"]).parts
                if "train" not in parts or ".." in parts:
                    raise DataError(
                        f"Line {line} of '{path}' names '{row['Path']}', which is not in train/; correct it."
                    )
                inside = Path(*parts[parts.index("train") :])
                rows.append({**self._row(self.folder / inside, label, spurious), "patient": inside.parts[1]})
        return rows
