"""From a name or a folder to an `ImageData`: read, checked, split, and with the group labels taken out of training.

Everything a user can get wrong in a data set is found here, before anything is computed or written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets
from PIL import Image as PILImage
from tqdm.auto import tqdm

from ..errors import DataError
from .adapt import as_splits
from .classes import is_automatic
from .decode import REMARKS, DecodedImage, FormatError, decode, is_turned
from .identity import check_same_files, encoded_bytes
from .labels import Groups, in_order, read_groups, read_labels
from .reading import converted
from .regions import Regions, find_masks, refuse_shared_masks
from .registry.specs import Benchmark, compare_counts
from .scaling import UsedRange
from .sources import Source, named_splits, read_source
from .splitting import stratified, test_split

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
    test_sources: list[str] | None = None
    """What each test image was made from: images of one source are no independent pictures. None where not said."""
    licence: str | None = None
    source: str | None = None
    unreadable: dict[int, str] = field(default_factory=dict)
    """`idx` and reason of the training images that were left out because they cannot be read."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Files of each split that were left out because they are no images, or because no table lists them."""
    notes: list[str] = field(default_factory=list)
    """What a user should know about how the data set was read: said when it was loaded."""
    cues: tuple[str, ...] = ()
    """Names of the two attributes that a group is made of (4 * label + 2 * first + second), where there are two."""
    _regions: dict[str, Regions] = field(default_factory=dict, repr=False)

    @property
    def has_regions(self) -> bool:
        """Whether any training image has a mask of its spurious region."""
        return "train" in self._regions and len(self._regions["train"]) > 0

    def regions(self, split: str) -> Regions:
        """The masks of `train`, `held_out`, `validation` or `test`; empty where the data set has none."""
        return self._regions.get("train" if split == "held_out" else split, Regions({}))


def load_data(
    name_or_path: str | os.PathLike[str] | Any,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    spurious_column: str | None = None,
    group_column: str | None = None,
    class_names: Sequence[str] | None = None,
    model_classes: Sequence[str] | None = None,
    held_out: float = 0.15,
    test_share: float = 0.2,
    split_by: str | None = None,
    seed: int = 0,
    masks: str | os.PathLike[str] | None = None,
    invert_masks: bool = False,
    value_range: Sequence[float] | None = None,
    drop_minority: bool = False,
    num_train: int | None = None,
    verify: bool = True,
    strict: bool = False,
    revision: str | None = None,
    config_name: str | None = None,
    with_train_groups: bool | Literal["if known"] = False,
    source_column: str | None = None,
    check_counts: bool = True,
) -> ImageData:
    """Load and check a data set. Long because every way to say what the data are is an argument.

    Args:
        name_or_path: A registered benchmark (`list_datasets`), a folder that `hf-score build` has made, a Hub id
            (`user/name` or `user/name:configuration`), a folder, a table, or a data set in memory (`Dataset`,
            `DatasetDict`, a dict of splits, or what `hf_score.data.adapt` takes).

            A folder has `train/`, `validation/` (or `valid/`, `val/`) and `test/`, in any case of letters. A split's
            folder holds images and a `metadata.csv` with the columns `file_name` and `label` (numbers from 0, or
            names), or one sub-folder of images per class, whose own sub-folders are parts of it. Or the folder holds
            class folders alone, a `metadata.csv` for all, `train.parquet` and so on, or what `save_to_disk` wrote. A
            table (`.csv`, `.tsv`, `.jsonl`) has a column of files, `label`, and perhaps `split`. Values of a CSV file
            have the type that fits them in all splits; only an empty one is missing.

            Without a test split the validation split is the test split, and without both a share of the training
            split is.
        data_dir: For a benchmark: the raw public folder (`hf-score benchmarks NAME` says what has to be in it), or
            one that `hf-score build` has made of it. Default: the Hub, or what is included in the package.
        label_column: Column of the label; default `label`.
        spurious_column: Column of the spurious attribute, 0, 1, ..., or words, which get the ids of their sorted
            order; default `spurious`, may be absent.
        group_column: Column of the group; default `group`, may be absent: then the group is
            `label * number of attribute values + attribute`. `none`: no column is one.
        class_names: What the labels 0, 1, ... stand for; or the order of the classes where the data name them, by
            name. Default: the order of the data's own label ids, or sorted (numbers by value, words as text). Names
            are the same whatever their capitals, the blanks around them and the encoding of their accents.
        model_classes: What a model calls its outputs (`hf_score.models.own_class_names`). Where these are the data's
            classes, the label ids are put into the model's order, by name.
        held_out: Share of the training images of each class set aside for choosing models without group labels.
        test_share: Share of each class set aside for testing where there is no other split. The same images for every
            seed.
        split_by: Column of a patient or a source, all images of which are set aside together or not at all.
        seed: Seed of the held-out split and of `num_train`.
        masks: Where each image's region of the spurious attribute is: a column of images or of file names; a folder
            with `<split>/<image>.png`, `<image>_patch.png` or `<image>_mask.png`; or a pattern such as
            `masks/{split}/{bird_id}_bird.png`, filled in with `split`, `stem` and the metadata columns. White is
            inside. An image without a mask has no region. A folder without folders of the splits will do where no
            name is in two splits.
        invert_masks: The masks show the object, and the region is the rest.
        value_range: The numbers that are black and white in images of more than 8 bits (in Hounsfield units for CT,
            such as `(-160, 240)`), for the whole data set. Needed where files do not declare it; see `open_image`.
        drop_minority: Leave out the training rows with `minority` = 1.
        num_train: Keep only about so many training images, drawn per class.
        verify: Decode every image once, so that a broken file is found now, and look for the same file in two classes
            or in two splits. Training images that cannot be read are listed in `ImageData.unreadable` and left out;
            in the other splits they are errors.
        strict: Make them errors in the training split too, and the same file in two places.
        revision: Revision of a Hub data set.
        config_name: Configuration of a Hub data set.
        with_train_groups: Also fill in `ImageData.train_groups`, for baselines that train on group labels;
            `"if known"`: where the data have them.
        source_column: Column of the test split that says which picture each was made from, so that statistics do not
            take two versions of one for two.
        check_counts: A benchmark has to have its official number of images in every split and group.

    Raises:
        DataError: For everything that is wrong with the data set; the message names the cause and the fix.
        ModelError: `model_classes` are as many as the data's classes and others.
    """
    name, source = _open(name_or_path, data_dir, revision=revision, config_name=config_name, official=check_counts)
    benchmark, notes = source.benchmark, list(source.notes)
    splits = {split: _with_image_column(rows, name, split) for split, rows in source.splits.items()}
    order = model_classes
    if benchmark is not None:  # its label ids have its names: an option can but put them in another order
        order = class_names if order is None or is_automatic(order) else order
        class_names = benchmark.class_names or None  # none of its own: those of the data
    labels, names = read_labels(splits, label_column or "label", class_names, name)
    if "test" not in splits:
        rows, ids = splits["train"], labels["train"]
        train, test, note = test_split(rows, ids, share=test_share, split_by=split_by, name=name, class_names=names)
        splits, labels = (
            {"train": rows.select(train), "test": rows.select(test)},
            {"train": ids[train], "test": ids[test]},
        )
        notes.append(note)
    sources = _test_sources(splits["test"], source_column, name)
    groups = read_groups(
        splits,
        labels,
        names,
        group_column=group_column,
        spurious_column=spurious_column or "spurious",
        spurious_names=benchmark.spurious_names if benchmark else None,
        name=name,
    )
    if check_counts and source.counts and groups.names is not None:
        compare_counts(name, groups.counts, source.counts, groups.names)
    regions = _regions(splits, masks, invert_masks, source, name)
    unreadable: dict[int, str] = {}
    if verify:
        check_same_files(splits, labels, name=name, strict=strict)
        for split, rows in splits.items():
            skip = unreadable if split == "train" and not strict else None
            _verify(rows, split, regions.get(split), skip, value_range)
    _say(notes, source.skipped, unreadable)

    for split, rows in splits.items():
        splits[split] = converted(rows, value_range=value_range, broken=unreadable if split == "train" else ())
    keep = np.setdiff1d(np.arange(len(splits["train"])), list(unreadable))
    keep = _wanted(keep, splits["train"], groups, benchmark, drop_minority, name)
    keep, train_rows, set_aside = _drawn(keep, labels["train"], num_train, held_out, seed)
    counts = np.bincount(labels["train"][train_rows], minlength=len(names))
    if (counts == 0).any():
        lacking = names[int(np.argmin(counts))]
        raise DataError(f"'{name}' has no training images of class '{lacking}' left; add some, or keep more of them.")
    if order is not None:
        labels, names, groups = in_order(labels, names, groups, order)
    in_train = groups.ids.pop("train", None)
    train_groups = None if in_train is None else {int(row): int(in_train[row]) for row in keep}
    if with_train_groups is True and train_groups is None:
        raise DataError(
            f"The groups of the training images of '{name}' were asked for, but its train or its test split has no "
            "column of groups: add one, or use a method without group labels."
        )
    views = {split: _view(rows, labels[split], names, groups.ids.get(split)) for split, rows in splits.items()}
    group_counts = None
    if train_groups is not None and groups.names is not None:
        group_counts = np.bincount(list(train_groups.values()), minlength=len(groups.names)).tolist()
    return ImageData(
        name=benchmark.name if benchmark else _short_name(name),
        class_names=names,
        train=views["train"].select(train_rows),
        held_out=views["train"].select(set_aside),
        validation=views.get("validation"),
        test=views["test"],
        group_names=groups.names,
        train_group_counts=group_counts,
        fingerprint=dataset_fingerprint(views["train"].select(keep)),
        train_groups=train_groups if with_train_groups else None,
        test_sources=sources,
        unreadable=unreadable,
        skipped={split: len(files) for split, files in source.skipped.items()},
        notes=notes,
        cues=benchmark.cues if benchmark else (),
        licence=benchmark.licence if benchmark else None,
        source=source.where,
        _regions=regions,
    )


def dataset_fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the number of rows, the labels, and the encoded bytes of up to 256 evenly spaced images.

    File names and places do not count, so the same images give the same fingerprint on every machine.
    """
    dataset = dataset.with_format(None)
    digest, labels = hashlib.sha256(str(len(dataset)).encode()), dataset["label"][:]
    numbers = all(isinstance(label, int) for label in labels)
    digest.update(np.asarray(labels, dtype="<i8").tobytes() if numbers else json.dumps(labels).encode())
    rows = np.unique(np.linspace(0, len(dataset) - 1, num=min(256, len(dataset)), dtype=np.int64))
    for image in dataset.cast_column("image", Image(decode=False)).select(rows)["image"]:
        digest.update(hashlib.sha256(encoded_bytes(image)).digest())
    return digest.hexdigest()


def _test_sources(rows: Dataset, column: str | None, name: str) -> list[str] | None:
    """What the test images were made from; None where no column was said to say so."""
    if column is not None and column not in rows.column_names:
        raise DataError(f"'{name}' has no column '{column}' in its test split (it has {rows.column_names}).")
    return None if column is None else [str(value) for value in rows[column][:]]


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


def _open(given: Any, data_dir: str | os.PathLike[str] | None, **options: Any) -> tuple[str, Source]:
    """What a data set is called, and its splits."""
    if isinstance(given, str | os.PathLike):
        name = os.fspath(given)
        return name, read_source(name, data_dir=None if data_dir is None else os.fspath(data_dir), **options)
    if data_dir is not None:
        raise DataError("data_dir goes with the name of a benchmark, not with a data set in memory; leave it off.")
    return "data", named_splits(Source(as_splits(given), "in memory"), "data")


def _short_name(name: str) -> str:
    path = Path(name)
    return path.resolve().name if path.is_dir() else path.stem if path.is_file() else name


def _regions(
    splits: Mapping[str, Dataset], masks: str | os.PathLike[str] | None, invert: bool, source: Source, name: str
) -> dict[str, Regions]:
    """The masks of each split: those asked for, or a benchmark's own where it has them."""
    optional = False
    if masks is None and source.benchmark is not None and source.benchmark.masks is not None:
        masks, invert, optional = source.benchmark.masks, source.benchmark.invert_masks, True
    if masks is None:
        return {}
    masks = os.fspath(masks)
    found = {
        split: find_masks(rows, masks, split=split, folder=source.folders.get(split))
        for split, rows in splits.items()
        if not optional or masks in rows.column_names
    }
    if not optional and not found["train"]:
        raise DataError(
            f"None of the masks in '{masks}' belongs to a training image of '{name}'; see `load_data` for the "
            "file names it looks for, or give a pattern."
        )
    if masks not in splits["train"].column_names:
        refuse_shared_masks(found, masks)
    return {split: Regions(of_split, invert) for split, of_split in found.items()}


def _wanted(
    keep: np.ndarray, rows: Dataset, groups: Groups, benchmark: Benchmark | None, drop_minority: bool, name: str
) -> np.ndarray:
    """The training rows that are left when those that are not wanted are dropped."""
    if drop_minority:
        if "minority" not in rows.column_names:
            raise DataError(
                f"'{name}' has no column 'minority' to drop training rows by; load it without that option."
            )
        keep = keep[np.asarray(rows["minority"][:])[keep] == 0]
    if benchmark is not None and benchmark.drop_groups:
        keep = keep[~np.isin(groups.ids["train"][keep], benchmark.drop_groups)]
    return keep


def _drawn(
    keep: np.ndarray, labels: np.ndarray, num_train: int | None, held_out: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The training rows that are used, and those of them to train on and to set aside."""
    rng = np.random.default_rng(seed)
    if num_train is not None and num_train < len(keep):
        keep = stratified(keep, labels, num_train / len(keep), rng)
    set_aside = stratified(keep, labels, held_out, rng)
    return keep, np.setdiff1d(keep, set_aside), set_aside


def _say(notes: Sequence[str], skipped: Mapping[str, list[Path]], unreadable: Mapping[int, str]) -> None:
    """What was done to the data set that nobody asked for."""
    if unreadable:
        logger.warning(f"{len(unreadable)} training images are left out; the first: {next(iter(unreadable.values()))}")
    for note in notes:
        logger.warning(note)
    for split, files in skipped.items():
        if files:
            logger.warning(
                f"{len(files)} files of split '{split}' are left out, being no images or in no table; the first: "
                f"{files[0]}"
            )


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
