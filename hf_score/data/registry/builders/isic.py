"""Dermoscopy with colour patches: benign against malignant. The recipe is ours, after Rieger et al., ICML 2020 (CDEP).

Patches, the round coloured stickers of some clinics, are on benign images alone. In training about half of the benign
images have one, by nature or as a cut-out from another image, and no malignant one. Validation and test show every
image twice, without and with a cut-out that is not in training and does not touch the lesion.

Two variants: the patch on malignant images in training (`patched`), to confirm on what was found with the other; and a
split that somebody else has made, patches included (`split_file`).
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import BuilderConfig
from PIL import Image as PILImage
from PIL import ImageOps

from ....errors import DataError
from .base import FolderBuilder, encoded, numbered, open_image

__all__ = ["ISIC", "ISICConfig", "insert_patch"]

SPLITS = ("train", "validation", "test")
IDS = ("isic_id", "image_id", "image_name", "image")
LABELS = ("label", "target", "malignant", "melanoma", "MEL")
#: Sizes of a cut-out that are tried, until one does not touch the lesion.
SHRINK = (1.0, 0.8, 0.6, 0.45, 0.3)
#: Columns of a split file, and what its values may be.
LISTED = ("isic_id", "benign_malignant", "patches", "split")
CLASS_WORDS = {"benign": 0, "malignant": 1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
PATCH_WORDS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
SPLIT_WORDS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclass
class ISICConfig(BuilderConfig):
    """The recipe."""

    seed: int = field(default=0, metadata={"help": "Seed of the split, the cut-outs and their places."})
    image_size: int = field(default=256, metadata={"help": "Shorter side in pixels; 0 leaves images as they are."})
    patched: Literal["benign", "malignant"] = field(
        default="benign",
        metadata={"help": "Class with patches in training; on malignant images all are cut-outs."},
    )
    donors_apart: bool = field(
        default=False, metadata={"help": "Validation and test have cut-outs from different images too."}
    )
    split_file: str = field(
        default="",
        metadata={"help": "CSV file that gives the split: isic_id, benign_malignant, patches, split."},
    )
    patch_share: float = field(
        default=0.5, metadata={"help": "Share of the patched class's training images with a patch."}
    )
    max_lesion: float = field(
        default=0.5, metadata={"help": "Largest share of an evaluation image that its lesion may cover."}
    )
    validation_share: float = field(default=0.1, metadata={"help": "Share of each class, where no split is given."})
    test_share: float = field(default=0.2, metadata={"help": "Share of each class, where no split is given."})


class ISIC(FolderBuilder):
    """A folder with

    - `images/`: `<id>.jpg` or `.png`;
    - `labels.csv`: a column of ids (`isic_id`, `image_id`, `image_name` or `image`), one with 1 for malignant
      (`label`, `target`, `malignant`, `melanoma` or `MEL`), and `split` (train, validation, test), or none;
    - `lesions/`: masks of the lesion, `<id>.png`, `<id>_segmentation.png` or `<id>_lesion.png`: of all images that
      validation and test may take;
    - `patches/`: masks of the patches that are there by nature, `<id>.png` or `<id>_patch.png`. These images are the
      patched ones of training, and what is under the mask is a cut-out for others;
    - `cutouts/`: further cut-outs, RGBA, transparent outside of the patch, as large as the image they are from. A
      third is kept for evaluation.

    An image with a natural patch is in no evaluation, and in no class but the benign one: there it gives its cut-out
    alone. So it does everywhere where malignant images are patched. `mask` is the patch.

    With a `split_file`, `labels.csv` is not read and nothing is drawn but cut-outs: images are as they are, benign
    ones with `patches` 1 have theirs by nature, and malignant ones get a cut-out.
    """

    BUILDER_CONFIG_CLASS = ISICConfig
    config: ISICConfig
    class_names = ("benign", "malignant")
    mask_column = "mask"
    columns = {"isic_id": "string", "natural": "int64", "donor": "string"}  # noqa: RUF012

    def plan(self) -> dict[str, list[dict[str, Any]]]:
        images = {path.stem: path for path in sorted((self.folder / "images").glob("*")) if path.is_file()}
        lesions = _masks(self.folder / "lesions", ("", "_segmentation", "_lesion"))
        patches = _masks(self.folder / "patches", ("", "_patch"))
        rng = np.random.default_rng(self.config.seed)
        listed = self._listed(images) if self.config.split_file else self._labels(images)
        entries = [
            {
                "isic_id": name,
                "label": label,
                "split": split,
                "spurious": spurious,
                "natural": 1,
                "donor": "",
                "path": str(images[name]),
                "lesion": lesions.get(name),
                "patch": patches.get(name),
            }
            for name, label, split, spurious in listed
        ]
        if self.config.split_file:
            return self._as_listed(entries, rng)
        self._split(entries, rng)
        donors = self._donors(entries, rng)
        plan = {}
        for number, split in enumerate(SPLITS):
            own = [entry for entry in entries if entry["split"] == split]
            rows = (
                self._training(own, donors[split], rng) if split == "train" else self._pairs(own, donors[split], rng)
            )
            plan[split] = numbered([{**row, "draw": (self.config.seed, number, i)} for i, row in enumerate(rows)])
        return plan

    def example(self, row: dict[str, Any]) -> dict[str, Any]:
        image = self._sized(open_image(row["path"], "RGB"))
        if not row["spurious"]:
            return {"image": encoded(image), "mask": None}
        if row["natural"] and not row["patch"]:
            return {"image": encoded(image), "mask": None}
        if row["natural"]:
            patch = open_image(row["patch"], "L").resize(image.size, PILImage.Resampling.NEAREST)
            return {"image": encoded(image), "mask": encoded(patch.point(lambda value: 255 * (value > 127)))}
        lesion = None
        if row["lesion"]:
            lesion = open_image(row["lesion"], "L").resize(image.size, PILImage.Resampling.NEAREST)
        image, mask = insert_patch(image, _cut_out(row["donor_path"]), lesion, np.random.default_rng(row["draw"]))
        if not mask.getbbox():
            raise DataError(f"The lesion of '{row['path']}' leaves no room for a patch; take it out of labels.csv.")
        return {"image": encoded(image), "mask": encoded(mask)}

    def _sized(self, image: PILImage.Image) -> PILImage.Image:
        if not self.config.image_size:
            return image
        scale = self.config.image_size / min(image.size)
        return image.resize((round(image.width * scale), round(image.height * scale)), PILImage.Resampling.LANCZOS)

    def _labels(self, images: dict[str, Path]) -> Iterable[tuple[str, int, str | None, int]]:
        path = self.folder / "labels.csv"
        if not path.is_file():
            raise DataError(f"'{self.folder}' has no labels.csv; see `ISIC` for the layout.")
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            name = next((column for column in IDS if column in columns), None)
            label = next((column for column in LABELS if column in columns), None)
            if name is None or label is None:
                raise DataError(
                    f"'{path}' has the columns {list(columns)}; it needs one of {list(IDS)} and one of {list(LABELS)}."
                )
            for line, row in enumerate(reader, start=2):
                split = row.get("split")
                if row[name] not in images:
                    raise DataError(f"Line {line} of '{path}' names '{row[name]}', which is not in images/; add it.")
                if row[label] not in ("0", "1", "0.0", "1.0") or split not in (None, *SPLITS):
                    raise DataError(
                        f"Line {line} of '{path}' has the label '{row[label]}' and the split '{split}'; labels are 0 "
                        f"or 1, splits {', '.join(SPLITS)}."
                    )
                yield row[name], int(float(row[label])), split, 0

    def _listed(self, images: dict[str, Path]) -> Iterable[tuple[str, int, str | None, int]]:
        """What the split file says."""
        path = Path(self.config.split_file)
        if not path.is_file():
            raise DataError(f"There is no split file '{path}'; give a CSV file with the columns {', '.join(LISTED)}.")
        seen: set[str] = set()
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if lacking := [column for column in LISTED if column not in (reader.fieldnames or [])]:
                raise DataError(f"'{path}' has no column '{lacking[0]}'; it needs {', '.join(LISTED)}.")
            for line, row in enumerate(reader, start=2):
                name = row["isic_id"]
                if name not in images or name in seen:
                    what = "which is there twice; remove one" if name in seen else "which is not in images/; add it"
                    raise DataError(f"Line {line} of '{path}' names '{name}', {what}.")
                seen.add(name)
                words = [row[column].strip().lower() for column in LISTED[1:]]
                if words[0] not in CLASS_WORDS or words[1] not in PATCH_WORDS or words[2] not in SPLIT_WORDS:
                    raise DataError(
                        f"Line {line} of '{path}' has the values {words}; they are benign or malignant, 0 or 1, and "
                        f"{', '.join(SPLIT_WORDS)}."
                    )
                yield name, CLASS_WORDS[words[0]], SPLIT_WORDS[words[2]], PATCH_WORDS[words[1]]

    def _as_listed(self, entries: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
        """The rows of the split file; cut-outs of training are in no other split."""
        wanted = any(entry["label"] and entry["spurious"] for entry in entries)
        # masks of images that are said to have no patch are not believed
        able = [{**entry, "patch": entry["patch"] if entry["spurious"] else None} for entry in entries]
        donors = self._donors(able, rng) if wanted else {}
        plan = {}
        for number, split in enumerate(SPLITS):
            rows: list[dict[str, Any]] = []
            for entry in (entry for entry in able if entry["split"] == split):
                row = {**entry, "name": f"{entry['isic_id']}.png", "draw": (self.config.seed, number, len(rows))}
                if entry["label"] and entry["spurious"]:
                    if not donors[split]:
                        raise DataError(
                            f"'{self.folder}' has no cut-outs for the split {split}; put some into cutouts/."
                        )
                    row = _with_patch(row, donors[split], rng)
                rows.append(row)
            if rows:
                plan[split] = numbered(rows)
        if lacking := [split for split in ("train", "test") if split not in plan]:
            raise DataError(f"'{self.config.split_file}' has no rows of the split {lacking[0]}; add some.")
        return plan

    def _split(self, entries: list[dict[str, Any]], rng: np.random.Generator) -> None:
        """Fill in the splits that are not given."""
        shares = {"validation": self.config.validation_share, "test": self.config.test_share}
        # Of the natural patches too, so that each split has cut-outs of its own.
        for label, natural in itertools.product((0, 1), (False, True)):
            own = [
                entry
                for entry in entries
                if entry["split"] is None and entry["label"] == label and bool(entry["patch"]) == natural
            ]
            able = (own[i] for i in rng.permutation(len(own)) if natural or self._has_room(own[i]))
            splits = [split for split, share in shares.items() for _ in range(round(share * len(own)))]
            for split, entry in zip(splits, able, strict=False):
                entry["split"] = split
        for entry in entries:
            entry["split"] = entry["split"] or "train"

    def _has_room(self, entry: dict[str, Any]) -> bool:
        """Whether there is a lesion mask, and room for a patch beside the lesion."""
        if entry["lesion"] is None:
            return False
        return float((np.asarray(open_image(entry["lesion"], "L")) > 127).mean()) <= self.config.max_lesion

    def _donors(self, entries: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, list[tuple[str, Any]]]:
        """Cut-outs by split, as (id, where it is)."""
        donors: dict[str, list[tuple[str, Any]]] = {"train": [], "evaluation": []}
        more: list[tuple[str, Any]] = []  # in no split but by this draw
        for entry in entries:
            if entry["patch"] and (not self.config.split_file or entry["label"] == 0):
                kind = "train" if entry["split"] == "train" else "evaluation"
                own = more if self.config.patched == "malignant" else donors[kind]
                own.append((entry["isic_id"], (entry["path"], entry["patch"])))
        more += [(path.stem, (str(path), None)) for path in sorted((self.folder / "cutouts").glob("*.png"))]
        for place, i in enumerate(rng.permutation(len(more))):
            donors["evaluation" if place < -(-len(more) // 3) else "train"].append(more[i])
        if not donors["evaluation"]:
            raise DataError(
                f"No cut-outs in '{self.folder}' are left for evaluation; put some into cutouts/, or images with a "
                "mask in patches/ into the test split."
            )
        if not self.config.donors_apart:
            return {split: donors["train" if split == "train" else "evaluation"] for split in SPLITS}
        held = [donors["evaluation"][i] for i in rng.permutation(len(donors["evaluation"]))]
        if len(held) < 2:
            raise DataError(
                f"'{self.folder}' has one cut-out for evaluation, and validation and test are to have different ones; "
                "put more into cutouts/."
            )
        half = len(held) // 2
        return {"train": donors["train"], "validation": held[:half], "test": held[half:]}

    def _training(
        self, own: list[dict[str, Any]], donors: list[Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        label = self.class_names.index(self.config.patched)
        natural = [{**entry, "spurious": 1} for entry in own if entry["label"] == 0 and entry["patch"]]
        if label == 1:
            natural = []  # donors alone
        clean = [entry for entry in own if entry["label"] == label and not entry["patch"]]
        wanted = max(0, round(self.config.patch_share * (len(natural) + len(clean))) - len(natural))
        if wanted and not donors:
            raise DataError(f"'{self.folder}' has no cut-outs for the training images; put some into cutouts/.")
        chosen = set(rng.choice(len(clean), min(wanted, len(clean)), replace=False).tolist())
        rows = [_with_patch(entry, donors, rng) if i in chosen else entry for i, entry in enumerate(clean)]
        other = [entry for entry in own if entry["label"] != label and not entry["patch"]]
        return [{**row, "name": f"{row['isic_id']}.png"} for row in (*natural, *rows, *other)]

    def _pairs(self, own: list[dict[str, Any]], donors: list[Any], rng: np.random.Generator) -> list[dict[str, Any]]:
        rows = []
        for entry in own:
            if entry["patch"]:
                continue
            if not self._has_room(entry):
                raise DataError(
                    f"Image '{entry['isic_id']}' of split '{entry['split']}' has no mask in lesions/, or a lesion on "
                    f"more than {self.config.max_lesion:.0%} of it; add the mask, or move the image to train."
                )
            rows.append({**entry, "name": f"{entry['isic_id']}.png"})
            rows.append({**_with_patch(entry, donors, rng), "name": f"{entry['isic_id']}_patch.png"})
        return rows


def insert_patch(
    image: PILImage.Image, cut_out: PILImage.Image, lesion: PILImage.Image | None, rng: np.random.Generator
) -> tuple[PILImage.Image, PILImage.Image]:
    """The image with the cut-out on it, and the mask of what has changed.

    The cut-out goes where it was in its own image, in proportion, or where it would be if that were mirrored, and gets
    smaller until it does not touch the lesion. Whatever of it would still lie on the lesion is left out.

    Args:
        image: mode RGB.
        cut_out: mode RGBA, as large as the image it is from; what is at least half opaque is the patch.
        lesion: mode L, as large as `image`, or None.
        rng: which mirror image is tried first.
    """
    blocked = np.zeros((image.height, image.width), bool) if lesion is None else np.asarray(lesion) > 127
    best: tuple[int, np.ndarray, PILImage.Image] | None = None
    for layer in _placements(cut_out, image.size, rng):
        inside = np.asarray(layer.getchannel("A")) > 127
        overlap = int((inside & blocked).sum())
        if best is None or overlap < best[0]:
            best = overlap, inside & ~blocked, layer
        if not overlap:
            break
    assert best is not None
    mask = PILImage.fromarray((best[1] * 255).astype(np.uint8))
    return PILImage.composite(best[2].convert("RGB"), image, mask), mask


def _placements(cut_out: PILImage.Image, size: tuple[int, int], rng: np.random.Generator) -> Iterator[PILImage.Image]:
    """The cut-out on transparent images of `size`, mirrored in all ways, ever smaller."""
    flips = [(bool(flip & 1), bool(flip & 2)) for flip in rng.permutation(4)]
    for shrink, (mirror, flip) in itertools.product(SHRINK, flips):
        turned = ImageOps.mirror(cut_out) if mirror else cut_out
        yield _laid(ImageOps.flip(turned) if flip else turned, size, shrink)


def _laid(cut_out: PILImage.Image, size: tuple[int, int], shrink: float) -> PILImage.Image:
    """The cut-out on a transparent image of `size`, at the same distances from the edges, in proportion."""
    box = cut_out.getchannel("A").point(lambda value: 255 * (value > 127)).getbbox()
    layer = PILImage.new("RGBA", size)
    if box is None:
        return layer
    scale = shrink * min(size) / min(cut_out.size)
    patch = cut_out.crop(box)
    patch = patch.resize(
        (max(1, min(size[0], round(patch.width * scale))), max(1, min(size[1], round(patch.height * scale))))
    )
    room = (cut_out.width - (box[2] - box[0]), cut_out.height - (box[3] - box[1]))
    where = [round(box[i] / room[i] * (size[i] - patch.size[i])) if room[i] else 0 for i in range(2)]
    layer.paste(patch, (where[0], where[1]))
    return layer


def _cut_out(where: tuple[str, str | None]) -> PILImage.Image:
    image, mask = where
    if mask is None:
        return open_image(image, "RGBA")
    cut_out = open_image(image, "RGB").convert("RGBA")
    cut_out.putalpha(open_image(mask, "L").resize(cut_out.size, PILImage.Resampling.NEAREST))
    return cut_out


def _with_patch(entry: dict[str, Any], donors: list[Any], rng: np.random.Generator) -> dict[str, Any]:
    name, where = donors[rng.integers(len(donors))]
    return {**entry, "spurious": 1, "natural": 0, "donor": name, "donor_path": where}


def _masks(folder: Path, endings: tuple[str, ...]) -> dict[str, str]:
    """Mask files by the id of their image."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        ending = next(ending for ending in reversed(endings) if path.stem.endswith(ending))
        found[path.stem.removesuffix(ending)] = str(path)
    return found
