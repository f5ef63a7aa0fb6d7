"""From a name or a folder to an `ImageData`: read, checked, split, and with the group labels taken out of training.

Everything a user can get wrong in a data set is found here, before anything is computed or written.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets
from PIL import Image as PILImage
from tqdm.auto import tqdm

from ..errors import DataError
from .decode import REMARKS, DecodedImage, FormatError, decode, is_turned
from .reading import converted
from .regions import Regions, find_masks
from .registry.specs import compare_counts
from .scaling import UsedRange
from .sources import read_source

logger = logging.getLogger(__name__)

__all__ = ["ImageData", "dataset_fingerprint", "load_data"]

#: A region that is more than this share of its image is most likely the wrong way round.
LARGE_MASK = 0.95

_REMARKS = REMARKS | {
    "upright mask": "are turned as their EXIF orientation says, but their masks have none: those are taken as upright",
    "empty": "have an empty mask: no region at all",
    "large": f"have a mask that covers more than {LARGE_MASK:.0%} of them (see invert_masks)",
}
_NO_IMAGE = PILImage.new("RGB", (1, 1))


@dataclass(frozen=True)
class ImageData:
    """One data set, with label-free views for training and group labels in the evaluation views alone.

    `train` and `held_out` have exactly the columns `idx`, `image` and `label`; both come from the training
    distribution. `test` and `validation` (None where there is none) carry `group` as well, if the data set has groups.
    `idx` is the row's position in its split's file, before anything was dropped, split or shuffled.
    """

    name: str
    class_names: list[str]
    train: Dataset
    held_out: Dataset
    validation: Dataset | None
    test: Dataset
    group_names: list[str] | None
    train_group_counts: list[int] | None
    """Training images (held-out ones included) per group: for weighting an evaluation, never for training."""
    fingerprint: str
    train_groups: dict[int, int] | None = None
    """`idx` to group of the rows of `train` and `held_out`, for baselines that declare this supervision. None unless
    `load_data` was asked for it, so that no other training code can come upon it."""
    licence: str | None = None
    source: str | None = None
    unreadable: dict[int, str] = field(default_factory=dict)
    """`idx` and reason of the training images that were left out because they cannot be read."""
    _regions: dict[str, Regions] = field(default_factory=dict, repr=False)

    @property
    def has_regions(self) -> bool:
        """Whether any training image has a mask of its spurious region."""
        return "train" in self._regions and len(self._regions["train"]) > 0

    def regions(self, split: str) -> Regions:
        """The masks of `train`, `held_out`, `validation` or `test`; empty where the data set has none."""
        return self._regions.get("train" if split == "held_out" else split, Regions({}))


def load_data(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    spurious_column: str | None = None,
    group_column: str | None = None,
    class_names: Sequence[str] | None = None,
    held_out: float = 0.15,
    seed: int = 0,
    masks: str | os.PathLike[str] | None = None,
    invert_masks: bool = False,
    value_range: Sequence[float] | None = None,
    drop_minority: bool = False,
    num_train: int | None = None,
    verify: bool = True,
    strict: bool = False,
    revision: str | None = None,
    with_train_groups: bool = False,
    check_counts: bool = True,
) -> ImageData:
    """Load and check a data set.

    Args:
        name_or_path: A registered benchmark (`list_datasets`), a folder that `hf-score build` has made, a Hub id, or
            a folder with `train/`, `validation/` (or `valid/`, `val/`) and `test/`. A split's folder holds images and
            a `metadata.csv` with the columns `file_name` and `label` (numbers from 0, or names), or one sub-folder of
            images per class; or the folder holds `train.parquet` and so on. Without a test split the validation split
            is the test split.
        data_dir: For a benchmark: the raw public folder (`hf-score benchmarks NAME` says what has to be in it), or
            one that `hf-score build` has made of it. Default: the Hub, or what is included in the package.
        label_column: Column of the label; default `label`.
        spurious_column: Column of the spurious attribute, 0, 1, ...; default `spurious`, may be absent.
        group_column: Column of the group; default `group`, may be absent: then the group is
            `label * number of attribute values + attribute`.
        class_names: Names of the classes where labels are numbers, or their order where labels are names (default:
            sorted).
        held_out: Share of the training images of each class set aside for choosing models without group labels.
        seed: Seed of that split and of `num_train`.
        masks: Where each image's region of the spurious attribute is: a column of images or of file names; a folder
            with `<split>/<image>.png`, `<image>_patch.png` or `<image>_mask.png`; or a pattern such as
            `masks/{split}/{bird_id}_bird.png`, filled in with `split`, `stem` and the metadata columns. White is
            inside. An image without a mask has no region.
        invert_masks: The masks show the object, and the region is the rest.
        value_range: The numbers that are black and white in images of more than 8 bits (in Hounsfield units for CT,
            such as `(-160, 240)`), for the whole data set. Needed where files do not declare it; see `open_image`.
        drop_minority: Leave out the training rows with `minority` = 1.
        num_train: Keep only about so many training images, drawn per class.
        verify: Decode every image once, so that a broken file is found now. Training images that cannot be read are
            listed in `ImageData.unreadable` and left out; in the other splits they are errors.
        strict: Make them errors in the training split too.
        revision: Revision of a Hub data set.
        with_train_groups: Also fill in `ImageData.train_groups`, for baselines that train on group labels.
        check_counts: A benchmark has to have its official number of images in every split and group.

    Raises:
        DataError: For everything that is wrong with the data set; the message names the cause and the fix.
    """
    name = os.fspath(name_or_path)
    source = read_source(
        name,
        data_dir=None if data_dir is None else os.fspath(data_dir),
        revision=revision,
        official=check_counts,
    )
    benchmark, splits, optional_masks = source.benchmark, source.splits, False
    if benchmark is not None:
        class_names = class_names or benchmark.class_names
        if masks is None and benchmark.masks is not None:
            masks, invert_masks, optional_masks = benchmark.masks, benchmark.invert_masks, True
    label_column, spurious_column = label_column or "label", spurious_column or "spurious"
    spurious_names = benchmark.spurious_names if benchmark else None
    splits = {split: _with_image_column(rows, name, split) for split, rows in splits.items()}

    labels, names = _labels(splits, label_column, class_names, name)
    groups, group_names = _groups(splits, labels, names, group_column, spurious_column, spurious_names, name)
    if check_counts and source.counts and group_names is not None:
        found = {split: np.bincount(ids, minlength=len(group_names)).tolist() for split, ids in groups.items()}
        compare_counts(name, found, source.counts, group_names)

    regions = {}
    if masks is not None:
        regions = {
            split: Regions(
                find_masks(rows, os.fspath(masks), split=split, folder=source.folders.get(split)), invert_masks
            )
            for split, rows in splits.items()
            if not optional_masks or masks in rows.column_names
        }
        if not optional_masks and not len(regions["train"]):
            raise DataError(
                f"None of the masks in '{masks}' belongs to a training image of '{name}'; see `load_data` for the "
                "file names it looks for, or give a pattern."
            )
    unreadable: dict[int, str] = {}
    if verify:
        for split, rows in splits.items():
            skip = unreadable if split == "train" and not strict else None
            _verify(rows, split, regions.get(split), skip, value_range)
    if unreadable:
        logger.warning(f"{len(unreadable)} training images are left out; the first: {next(iter(unreadable.values()))}")

    for split, rows in splits.items():
        splits[split] = converted(rows, value_range=value_range, broken=unreadable if split == "train" else ())

    keep = np.setdiff1d(np.arange(len(splits["train"])), list(unreadable))
    if drop_minority:
        if "minority" not in splits["train"].column_names:
            raise DataError(
                f"'{name}' has no column 'minority' to drop training rows by; load it without that option."
            )
        keep = keep[np.asarray(splits["train"]["minority"])[keep] == 0]
    if benchmark is not None and benchmark.drop_groups:
        keep = keep[~np.isin(groups["train"][keep], benchmark.drop_groups)]
    rng = np.random.default_rng(seed)
    if num_train is not None and num_train < len(keep):
        keep = _stratified(keep, labels["train"], num_train / len(keep), rng)
    set_aside = _stratified(keep, labels["train"], held_out, rng)
    train_rows = np.setdiff1d(keep, set_aside)
    counts = np.bincount(labels["train"][train_rows], minlength=len(names))
    if (counts == 0).any():
        lacking = names[int(np.argmin(counts))]
        raise DataError(f"'{name}' has no training images of class '{lacking}' left; add some, or keep more of them.")

    in_train = groups.pop("train", None)
    train_groups = None if in_train is None else {int(row): int(in_train[row]) for row in keep}
    if with_train_groups and train_groups is None:
        raise DataError(
            f"The groups of the training images of '{name}' were asked for, but its train or its test split has no "
            "column of groups: add one, or use a method without group labels."
        )
    views = {split: _view(rows, labels[split], names, groups.get(split)) for split, rows in splits.items()}
    return ImageData(
        name=benchmark.name if benchmark else Path(name).resolve().name if Path(name).is_dir() else name,
        class_names=names,
        train=views["train"].select(train_rows),
        held_out=views["train"].select(set_aside),
        validation=views.get("validation"),
        test=views["test"],
        group_names=group_names,
        train_group_counts=None
        if train_groups is None or group_names is None
        else np.bincount(list(train_groups.values()), minlength=len(group_names)).tolist(),
        fingerprint=dataset_fingerprint(views["train"].select(keep)),
        train_groups=train_groups if with_train_groups else None,
        unreadable=unreadable,
        licence=benchmark.licence if benchmark else None,
        source=source.where,
        _regions=regions,
    )


def dataset_fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the number of rows, the labels, and the encoded bytes of up to 256 evenly spaced images.

    File names and places do not count, so the same images give the same fingerprint on every machine.
    """
    digest = hashlib.sha256(str(len(dataset)).encode())
    digest.update(np.asarray(dataset["label"], dtype="<i8").tobytes())
    rows = np.unique(np.linspace(0, len(dataset) - 1, num=min(256, len(dataset)), dtype=np.int64))
    for image in dataset.cast_column("image", Image(decode=False)).select(rows)["image"]:
        digest.update(hashlib.sha256(_encoded(image)).digest())
    return digest.hexdigest()


def _with_image_column(rows: Dataset, name: str, split: str) -> Dataset:
    """`rows` with its images, not decoded, in the column `image`."""
    images = [column for column, feature in rows.features.items() if isinstance(feature, Image)]
    if "image" not in images:
        if len(images) != 1:
            raise DataError(
                f"Split '{split}' of '{name}' has no column 'image' (it has {rows.column_names}); name one so."
            )
        rows = rows.rename_column(images[0], "image")
    return rows.cast_column("image", Image(decode=False))


def _labels(
    splits: dict[str, Dataset], column: str, class_names: Sequence[str] | None, name: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Label ids per split, and the class names."""
    values = {split: _label_values(rows, column, f"split '{split}' of '{name}'") for split, rows in splits.items()}
    names = list(class_names or [])
    if values["train"].dtype.kind == "U":
        feature = splits["train"].features[column]
        if isinstance(feature, ClassLabel):
            # Given names may put the data's own in another order, or replace them one by one.
            known = names if set(names) == set(feature.names) else feature.names
            names = names or known
        else:
            known = names = names or sorted(set(values["train"].tolist()))
        ids = {label: i for i, label in enumerate(known)}
        for split, found in values.items():
            strange = next((label for label in found.tolist() if label not in ids), None)
            if strange is not None:
                raise DataError(
                    f"Split '{split}' of '{name}' has the label '{strange}', which is not one of the classes {known}; "
                    "correct it, or add training images of it."
                )
            values[split] = np.array([ids[label] for label in found.tolist()])
    names = names or [f"class {i}" for i in range(int(values["train"].max()) + 1)]
    for split, found in values.items():
        if found.dtype.kind not in "biu" or found.min() < 0 or found.max() >= len(names):
            strange = found.min() if found.min() < 0 else found.max()
            raise DataError(
                f"Split '{split}' of '{name}' has the label {strange}, but with {len(names)} classes label ids are 0 "
                f"to {len(names) - 1}; correct the column '{column}' or the class names."
            )
    labels = {split: found.astype(np.int64) for split, found in values.items()}
    if len(np.unique(labels["train"])) < 2:
        only = names[int(labels["train"][0])]
        raise DataError(f"All training images of '{name}' are of one class, '{only}'; add images of another class.")
    return labels, names


def _label_values(rows: Dataset, column: str, where: str) -> np.ndarray:
    """The labels of one split as they are, numbers or names, none missing."""
    if column not in rows.column_names:
        raise DataError(
            f"The {where} has no column '{column}' (its columns are {rows.column_names}); add it to the metadata, or "
            "name the label column."
        )
    feature, raw = rows.features[column], rows[column][:]
    lacking = next((i for i, value in enumerate(raw) if value is None or value != value), None)
    if isinstance(feature, ClassLabel):
        lacking = next((i for i, value in enumerate(raw) if value is None or value < 0), None)
    if lacking is not None:
        raise DataError(f"Row {lacking} of {where} has no label; fill in its '{column}'.")
    return np.asarray([feature.names[value] for value in raw] if isinstance(feature, ClassLabel) else raw)


def _groups(
    splits: dict[str, Dataset],
    labels: dict[str, np.ndarray],
    class_names: list[str],
    group_column: str | None,
    spurious_column: str,
    spurious_names: Sequence[str] | None,
    name: str,
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Group ids of the splits that have them, and the group names (None where the test split has no groups)."""
    wanted = [group_column] if group_column else ["group", spurious_column]
    column = next((c for c in wanted if c in splits["test"].column_names), None)
    if column is None:
        if group_column:
            raise DataError(f"The test split of '{name}' has no column '{group_column}' of groups; name one it has.")
        return {}, None
    groups = {}
    for split, rows in splits.items():
        if column in rows.column_names:
            values = np.asarray(rows[column][:])
            if values.dtype.kind not in "biu" or values.min() < 0:
                raise DataError(
                    f"Column '{column}' in split '{split}' of '{name}' must hold whole numbers from 0; number its "
                    "values."
                )
            groups[split] = values.astype(np.int64)
    highest = max(int(values.max()) for values in groups.values())
    if column == spurious_column:
        attributes = max(2, highest + 1)
        groups = {split: labels[split] * attributes + values for split, values in groups.items()}
    else:
        attributes = -(-(highest + 1) // len(class_names))
        if any((values // attributes != labels[split]).any() for split, values in groups.items()):
            return groups, [f"group {g}" for g in range(highest + 1)]
    if spurious_names is None or len(spurious_names) != attributes:
        spurious_names = [f"spurious={a}" for a in range(attributes)]
    return groups, [f"{label}, {attribute}" for label in class_names for attribute in spurious_names]


def _stratified(rows: np.ndarray, labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A sorted draw of `share` of each class's rows, at least one and never all of them unless share is 0 or 1."""
    if not 0 <= share < 1:
        raise DataError(f"A share of the training images must be at least 0 and below 1, not {share}; correct it.")
    drawn = []
    for label in np.unique(labels[rows]):
        members = rng.permutation(rows[labels[rows] == label])
        count = round(share * len(members))
        drawn.append(members[: max(count, 1) if share > 0 and len(members) > 1 else count])
    return np.sort(np.concatenate(drawn)) if drawn else rows[:0]


def _view(rows: Dataset, labels: np.ndarray, class_names: list[str], groups: np.ndarray | None) -> Dataset:
    """The columns idx, image, label, and group where given."""
    columns: dict[str, Any] = {"idx": np.arange(len(rows)), "label": labels}
    features = {"idx": Value("int64"), "label": ClassLabel(names=class_names)}
    if groups is not None:
        columns["group"], features["group"] = groups, Value("int64")
    view = concatenate_datasets(
        [Dataset.from_dict(columns, features=Features(features)), rows.select_columns(["image"])], axis=1
    )
    return view.cast_column("image", Image()).select_columns(
        ["idx", "image", "label", *(["group"] if groups is not None else [])]
    )


def _verify(
    rows: Dataset,
    split: str,
    regions: Regions | None,
    skip: dict[int, str] | None,
    value_range: Sequence[float] | None = None,
) -> None:
    """Decode every image, and every mask, once, and say what is odd about them, in one warning for each kind.

    An image that cannot be read goes to `skip`, if that is given; one that needs a setting or a package stops it.
    """
    check = partial(_check, split=split, regions=regions, value_range=value_range)
    odd: dict[str, list[str]] = {}
    used: UsedRange | None = None
    images = rows.select_columns(["image"])
    with ThreadPoolExecutor() as pool, tqdm(total=len(rows), desc=f"Checking {split} images", leave=False) as bar:
        for start in range(0, len(rows), 512):  # in portions, so that memory stays small
            portion = images[start : start + 512]["image"]
            places = range(start, start + len(portion))
            for i, image, found in zip(places, portion, pool.map(check, places, portion), strict=True):
                if isinstance(found, DataError):
                    if skip is None or isinstance(found, FormatError):
                        raise found
                    skip[i] = str(found)
                else:
                    for kind in found.remarks:
                        odd.setdefault(kind, []).append(_where(i, image, split))
                    if found.used is not None:
                        used = found.used if used is None else used | found.used
                bar.update()
    if used is not None:
        used.check(f"split '{split}'")
    for kind, which in odd.items():
        logger.warning(
            f"{len(which)} of {len(rows)} images of split '{split}' {_REMARKS[kind]}; the first: {which[0]}"
        )


def _check(
    i: int,
    image: dict[str, Any] | None,
    split: str,
    regions: Regions | None,
    value_range: Sequence[float] | None,
) -> DecodedImage | DataError:
    """What is to be said about row `i`, its mask included, without the image; or why it cannot be read.

    Raises:
        DataError: its mask cannot be used.
    """
    if image is None:
        return DataError(f"Row {i} of split '{split}' has no image; remove it.")
    where = _where(i, image, split)
    try:
        found = decode(image, value_range=value_range, name=where)
    except DataError as error:
        return error
    size, remarks = found.image.size, found.remarks
    found = replace(found, image=_NO_IMAGE)
    mask = regions(i) if regions is not None else None
    if mask is None:
        return found
    if mask.size != size:
        turned = " once it is turned upright as its EXIF orientation says" if found.turned else ""
        raise DataError(
            f"The mask of the image {where} has the size {mask.size}, the image {size}{turned}; make them equal."
        )
    inside = mask.histogram()[255] / (size[0] * size[1])
    if found.turned and regions is not None and not is_turned(regions.sources[i]):
        remarks = (*remarks, "upright mask")
    if inside == 0:
        remarks = (*remarks, "empty")
    elif inside > LARGE_MASK:
        remarks = (*remarks, "large")
    return replace(found, remarks=remarks)


def _where(i: int, image: dict[str, Any] | None, split: str) -> str:
    return (image or {}).get("path") or f"in row {i} of split '{split}'"


def _encoded(image: dict[str, Any]) -> bytes:
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
