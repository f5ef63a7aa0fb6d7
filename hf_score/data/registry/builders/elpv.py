"""Solar cells in electroluminescence, functional or defective, with the kind of cell as a natural attribute.

ELPV (Deitsch et al., 2021) as the package `elpv-dataset` carries it. Nothing is painted: the correlation is made by
leaving training cells out. The recipe is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import BuilderConfig

from ....errors import DataError
from .base import FolderBuilder, numbered, on_disk, refuse_share

__all__ = ["ELPV", "ELPVConfig"]

KINDS = ("mono", "poly")


@dataclass
class ELPVConfig(BuilderConfig):
    """The recipe."""

    seed: int = field(default=0, metadata={"help": "Seed of all draws."})
    correlation: float = field(
        default=0.95,
        metadata={"help": "Share of functional training cells that are mono, of defective ones poly."},
    )
    doubtful: bool = field(default=False, metadata={"help": "Take cells with a probability of 1/3 and 2/3 too."})
    validation_share: float = field(default=0.1, metadata={"help": "Of the smallest group, for each group."})
    test_share: float = field(default=0.25, metadata={"help": "Of the smallest group, for each group."})


class ELPV(FolderBuilder):
    """The folder `elpv_dataset/data` of the package: `labels.csv` (image, probability of a defect, `mono` or `poly`,
    parted by blanks) and `images/`.

    Cells of a probability below one half are functional. No masks: the attribute is the whole cell. Cells of one
    module may be in two splits, as the package does not say which belong together.
    """

    BUILDER_CONFIG_CLASS = ELPVConfig
    config: ELPVConfig
    class_names = ("functional", "defective")
    columns = {"probability": "float64", "minority": "int64"}  # noqa: RUF012

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        recipe = self.config
        refuse_share(validation_share=recipe.validation_share, test_share=recipe.test_share)
        if not 0.5 <= recipe.correlation <= 1:
            raise DataError(f"correlation is {recipe.correlation}: give a share from 0.5 to 1.")
        cells = [cell for cell in self._cells() if recipe.doubtful or cell["probability"] in (0.0, 1.0)]
        groups = [[c for c in cells if (c["label"], c["spurious"]) == (g // 2, g % 2)] for g in range(4)]
        smallest = min(map(len, groups))
        test, validation = round(recipe.test_share * smallest), round(recipe.validation_share * smallest)
        if not test or test + validation >= smallest:
            raise DataError(
                f"The smallest group in '{self.folder}' has {smallest} cells, which cannot be {test} for testing, "
                f"{validation} for validation and some for training; change the shares."
            )
        rng = np.random.default_rng(recipe.seed)
        plan: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
        left: list[list[dict[str, Any]]] = []
        for group in groups:
            shuffled = [group[place] for place in rng.permutation(len(group))]
            plan["test"] += shuffled[:test]
            plan["validation"] += shuffled[test : test + validation]
            left.append(shuffled[test + validation :])
        for label in (0, 1):
            usual, rare = left[2 * label + label], left[2 * label + 1 - label]
            odds = (1 - recipe.correlation) / recipe.correlation
            # as many as there are of the rarer kind to keep the share
            count = min(len(usual), int(len(rare) / odds)) if odds else len(usual)
            plan["train"] += usual[:count] + rare[: round(odds * count)]
        return {split: numbered(sorted(rows, key=lambda row: row["name"])) for split, rows in plan.items() if rows}

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"image": on_disk(row["path"])}

    def _cells(self) -> list[dict[str, Any]]:
        path = self.folder / "labels.csv"
        if not path.is_file():
            raise DataError(f"'{self.folder}' has no labels.csv; give the folder elpv_dataset/data of the package.")
        cells = []
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not text.strip():
                continue
            words = text.split()
            try:
                name, probability, kind = words[0], float(words[1]), KINDS.index(words[2])
            except (IndexError, ValueError) as error:
                raise DataError(
                    f"Line {line} of '{path}' is '{text}': it has to be an image, a probability, and mono or poly."
                ) from error
            label = int(probability >= 0.5)
            cells.append(
                {
                    "name": name.removeprefix("images/"),
                    "path": str(self.folder / name),
                    "probability": probability,
                    "label": label,
                    "spurious": kind,
                    "minority": int(kind != label),
                }
            )
        return cells
