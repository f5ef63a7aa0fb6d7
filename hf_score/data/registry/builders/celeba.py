"""CelebA: blond or not, with the sex that was annotated as the attribute (Liu et al., ICCV 2015)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ....errors import DataError
from .base import FolderBuilder, numbered, on_disk

__all__ = ["CelebA"]

SPLITS = ("train", "validation", "test")


class CelebA(FolderBuilder):
    """`img_align_celeba/` (once more inside itself, as some copies have it), `list_attr_celeba` and
    `list_eval_partition`, as .csv or as the original .txt. No masks are known.
    """

    class_names = ("not blond", "blond")

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        attributes = self._table("list_attr_celeba")
        images = self.folder / "img_align_celeba"
        if (images / "img_align_celeba").is_dir():
            images = images / "img_align_celeba"
        rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for name, partition in self._table("list_eval_partition").items():
            if name not in attributes:
                raise DataError(f"'{name}' is in list_eval_partition but not in list_attr_celeba; complete that file.")
            try:
                split = SPLITS[int(partition["partition"])]
                label, spurious = (int(int(attributes[name][column]) > 0) for column in ("Blond_Hair", "Male"))
            except (KeyError, IndexError, ValueError) as error:
                raise DataError(
                    f"The lists in '{self.folder}' have no 0, 1 or 2 as the partition of '{name}', or no number as "
                    "its Blond_Hair or Male; take CelebA's own lists."
                ) from error
            rows[split].append({"name": name, "label": label, "spurious": spurious, "path": str(images / name)})
        return {split: numbered(found) for split, found in rows.items()}

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"image": on_disk(row["path"])}

    def _table(self, name: str) -> dict[str, dict[str, str]]:
        """Rows by image."""
        if (path := self.folder / f"{name}.csv").is_file():
            with open(path, newline="", encoding="utf-8") as file:
                return {row["image_id"]: row for row in csv.DictReader(file)}
        if not (path := self.folder / f"{name}.txt").is_file():
            raise DataError(
                f"'{self.folder}' has neither {name}.csv nor {name}.txt; give the folder with CelebA's lists and its "
                "img_align_celeba/."
            )
        lines = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        if name == "list_attr_celeba":  # a line with the number of images, then one with the names
            header, lines = lines[1], lines[2:]
        else:
            header = ["partition"]
        return {line[0]: dict(zip(header, line[1:], strict=True)) for line in lines}
