"""The registry of benchmarks: where each set is, how it is read, what has to be in it, and how to cite it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError
from . import citations
from .builders import (
    BFFHQ,
    ELPV,
    ISIC,
    NICO,
    BirdsReversed,
    CelebA,
    CheXpert,
    FashionTwoCues,
    FolderBuilder,
    Knee,
    Mark,
    MetaShift,
    Spawrious,
    UrbanCars,
    Waterbirds,
)
from .builders.layouts import LOCATIONS

__all__ = ["Benchmark", "compare_counts", "find_dataset", "list_datasets"]

#: Images per group (number of attribute values) * label + attribute; None where the number is not fixed.
Counts = Mapping[str, Sequence[int | None]]


@dataclass(frozen=True)
class Benchmark:
    """One data set that `load_data` knows by name.

    Attributes:
        path: a Hub id, or a folder inside the package; None where the set is on neither.
        class_names: empty where they are those of the user's folder.
        source: a raw folder inside the package, from which the builder makes the set; None where it is the user's.
        builder: what reads the raw public folder, with `options`; None where there is nothing to build.
        counts: official images per split and group, checked on load.
        hub_columns: what the columns `label` and `spurious` are called on the Hub.
        masks: column of the masks of the attribute's region; `invert_masks` where they show the object instead.
        cues: what the two attributes are where there are two: `spurious` is 2 * the first + the second.
        drop_groups: groups that are left out of the training split.
        verified: whether this project's tests have loaded the real data, and not only their layout.
    """

    name: str
    description: str
    licence: str
    citation: str
    class_names: tuple[str, ...]
    spurious_names: tuple[str, ...]
    path: str | None = None
    source: str | None = None
    builder: type[FolderBuilder] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    hub_columns: tuple[str, str] = ("label", "spurious")
    masks: str | None = None
    invert_masks: bool = False
    cues: tuple[str, ...] = ()
    drop_groups: tuple[int, ...] = ()
    verified: bool = False

    @property
    def group_names(self) -> list[str]:
        """The names of the groups, by number."""
        return [f"{label}, {attribute}" for label in self.class_names for attribute in self.spurious_names]


_FASHION: dict[str, Any] = {
    "licence": "MIT",
    "citation": citations.XIAO,
    "class_names": ("pullover", "shirt"),
    "spurious_names": ("no square", "red square"),
    "path": str(Path(__file__).with_name("fashion_patch")),
    "masks": "region",
    "counts": {"train": (30, 570, 570, 30), "validation": (100,) * 4, "test": (250,) * 4},
    "verified": True,
}
_WATERBIRDS: dict[str, Any] = {
    "licence": "none of its own; CUB-200-2011 is for non-commercial research and education, for Places see its page",
    "class_names": Waterbirds.class_names,
    "spurious_names": ("land", "water"),
    "builder": Waterbirds,
    "masks": Waterbirds.mask_column,
    "invert_masks": True,
}
_WATERBIRDS_EVALUATION = {"validation": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}
_WATERBIRDS_95: dict[str, Any] = {
    **_WATERBIRDS,
    "path": "grodino/waterbirds",
    "hub_columns": ("label", "place"),
    "counts": {"train": (3498, 184, 56, 1057), **_WATERBIRDS_EVALUATION},
}

_BENCHMARKS = (
    Benchmark(
        name="fashion_patch",
        description="Fashion-MNIST pullovers and shirts; a red square on 95 % of the pullovers and 5 % of the shirts",
        **_FASHION,
    ),
    Benchmark(
        name="fashion_patch_100",
        description="fashion_patch without its minority groups: every training pullover has the square, no shirt has",
        drop_groups=(0, 3),
        **_FASHION,
    ),
    Benchmark(
        name="waterbirds_95",
        description="CUB birds on Places backgrounds, 95 % of training birds on their own kind (Sagawa et al., 2020)",
        citation=citations.SAGAWA,
        **_WATERBIRDS_95,
    ),
    Benchmark(
        name="waterbirds_100_regenerated",
        description="Waterbirds made with correlation 1: GALS's waterbird_1.0_forest2water2 (Petryk et al., 2022)",
        citation=f"{citations.PETRYK}\n{citations.SAGAWA}",
        options={"correlation": 1.0},
        # Training counts as in GALS's code. Its validation draw is another one, whose counts are not published.
        counts={"train": (3694, 0, 0, 1101), "test": _WATERBIRDS_EVALUATION["test"]},
        **_WATERBIRDS,
    ),
    Benchmark(
        name="waterbirds_100_dropped",
        description="waterbirds_95 without its two minority groups: 3498 + 1057 training birds",
        citation=citations.SAGAWA,
        drop_groups=(1, 2),
        **_WATERBIRDS_95,
    ),
    Benchmark(
        name="celeba",
        description="CelebA faces: blond hair, correlated with sex (Liu et al., 2015); official splits",
        licence="non-commercial research, see the data set's agreement",
        citation=citations.LIU,
        class_names=CelebA.class_names,
        spurious_names=("female", "male"),
        path="flwrlabs/celeba",
        builder=CelebA,
        counts={
            "train": (71629, 66874, 22880, 1387),
            "validation": (8535, 8276, 2874, 182),
            "test": (9767, 7535, 2480, 180),
        },
        hub_columns=("Blond_Hair", "Male"),
    ),
    Benchmark(
        name="isic_patches",
        description="Dermoscopy, benign or malignant; colour patches on half of the benign training set (our recipe)",
        licence="CC0, CC BY or CC BY-NC, image by image; see the ISIC archive",
        citation=citations.ISIC,
        class_names=ISIC.class_names,
        spurious_names=("no patch", "patch"),
        builder=ISIC,
        counts={"train": (None, None, None, 0)},
        masks=ISIC.mask_column,
    ),
    Benchmark(
        name="knee_markers",
        description="Knee X-rays, KL 0-1 or 2-4; a marker on 95 % of the healthy training images (our recipe)",
        licence="CC BY 4.0 (Mendeley Data); X-rays from the Osteoarthritis Initiative, see its terms",
        citation=citations.CHEN,
        class_names=Knee.class_names,
        spurious_names=("no marker", "marker"),
        builder=Knee,
        counts={"train": (167, 3165, 2446, 0), "validation": (481, 481, 345, 345), "test": (935, 935, 721, 721)},
        masks=Knee.mask_column,
    ),
    Benchmark(
        name="birds_reversed",
        description="Birds on land and on water, 95 % of training birds on the other class's place (our recipe)",
        licence="that of your images",
        citation=citations.SAGAWA,
        class_names=BirdsReversed.class_names,
        spurious_names=("land", "water"),
        builder=BirdsReversed,
        masks=BirdsReversed.mask_column,
        invert_masks=True,
    ),
    Benchmark(
        name="isic_melanoma_patch",
        description="isic_patches with the patch on half of the malignant training images, donors apart (our recipe)",
        licence="CC0, CC BY or CC BY-NC, image by image; see the ISIC archive",
        citation=citations.ISIC,
        class_names=ISIC.class_names,
        spurious_names=("no patch", "patch"),
        builder=ISIC,
        options={"patched": "malignant", "donors_apart": True},
        counts={"train": (None, 0, None, None)},
        masks=ISIC.mask_column,
    ),
    Benchmark(
        name="mark",
        description="Any class folders, a grey textured square on 20 % of one class's training images (our recipe)",
        licence="that of your images",
        citation=citations.LAPUSCHKIN,
        class_names=(),
        spurious_names=("no mark", "mark"),
        builder=Mark,
        masks=Mark.mask_column,
    ),
    Benchmark(
        name="watermark",
        description="Any class folders, a translucent watermark on 20 % of one class's training images (our recipe)",
        licence="that of your images",
        citation=citations.LI,
        class_names=(),
        spurious_names=("no watermark", "watermark"),
        builder=Mark,
        options={"kind": "watermark"},
        masks=Mark.mask_column,
    ),
    Benchmark(
        name="elpv",
        description="Solar cells, defective or not; 95 % of functional ones mono, of defective ones poly (our recipe)",
        licence="CC BY-NC-SA 4.0",
        citation=citations.DEITSCH,
        class_names=ELPV.class_names,
        spurious_names=("mono", "poly"),
        builder=ELPV,
    ),
    Benchmark(
        name="fashion_two_cues",
        description="Fashion-MNIST pullovers and shirts; stripes and a square, each right in 95 % (our recipe)",
        licence="MIT",
        citation=f"{citations.XIAO}\n{citations.LI}",
        class_names=FashionTwoCues.class_names,
        spurious_names=("across, red", "across, blue", "upright, red", "upright, blue"),
        source=_FASHION["path"],
        builder=FashionTwoCues,
        counts={
            "train": (542, 28, 28, 2, 2, 28, 28, 542),
            "validation": (100,) * 8,
            "test": (250,) * 8,
        },
        masks=FashionTwoCues.mask_column,
        cues=("background", "object"),
    ),
    Benchmark(
        name="urbancars",
        description="Urban and country cars on backgrounds and beside objects of both kinds (Li et al., 2023)",
        licence="of its parts: Stanford Cars, Places and LVIS, see their pages",
        citation=citations.LI,
        class_names=UrbanCars.class_names,
        spurious_names=("urban, urban", "urban, country", "country, urban", "country, country"),
        builder=UrbanCars,
        cues=("background", "object"),
    ),
    Benchmark(
        name="metashift",
        description="MetaShift's cats and dogs, indoors and outdoors (Liang and Zou, 2022); a split of our own",
        licence="of Visual Genome's images, see its page",
        citation=citations.LIANG,
        class_names=MetaShift.class_names,
        spurious_names=("outdoor", "indoor"),
        builder=MetaShift,
    ),
    Benchmark(
        name="bffhq",
        description="Faces of FFHQ, young or old, correlated with gender (Kim et al., 2021)",
        licence="CC BY-NC-SA 4.0 (FFHQ); its images have licences of their own",
        citation=citations.KIM,
        class_names=BFFHQ.class_names,
        spurious_names=("female", "male"),
        builder=BFFHQ,
    ),
    Benchmark(
        name="spawrious",
        description="Generated dogs of four breeds on six backgrounds, one-to-one challenges (Lynch et al., 2023)",
        licence="see the set's page",
        citation=citations.LYNCH,
        class_names=Spawrious.class_names,
        spurious_names=LOCATIONS,
        builder=Spawrious,
        # Training as in the published code: bulldogs in the desert, corgis in snow, and so on, and all on the beach.
        counts={
            "train": (
                *(508, 5828, 0, 0, 0, 0),
                *(508, 0, 0, 0, 0, 5828),
                *(508, 0, 0, 5828, 0, 0),
                *(508, 0, 5828, 0, 0, 0),
            )
        },
    ),
    Benchmark(
        name="nico",
        description="NICO++'s classes in six common contexts (Zhang et al., 2023); a split of our own",
        licence="non-commercial research, see the set's page",
        citation=citations.ZHANG,
        class_names=(),
        spurious_names=NICO.contexts,
        builder=NICO,
    ),
    Benchmark(
        name="chexpert",
        description="Chest X-rays, pneumothorax, correlated with support devices (Irvin et al., 2019); our own split",
        licence="Stanford's research agreement",
        citation=citations.IRVIN,
        class_names=CheXpert.class_names,
        spurious_names=("no device", "device"),
        builder=CheXpert,
    ),
)


def list_datasets() -> list[Benchmark]:
    """Every registered benchmark."""
    return list(_BENCHMARKS)


def find_dataset(name: str) -> Benchmark | None:
    """The benchmark with this name or Hub id, or None."""
    return next((b for b in _BENCHMARKS if name in (b.name, b.path)), None)


def compare_counts(
    name: str, found: Mapping[str, Sequence[int]], expected: Counts, group_names: Sequence[str]
) -> None:
    """Compare images per split and group with those that should be there.

    Raises:
        DataError: for the first group that has another number.
    """
    for split, counts in expected.items():
        for group, (should, number) in enumerate(zip(counts, found.get(split, [0] * len(counts)), strict=True)):
            if should is not None and number != should:
                raise DataError(
                    f"Group '{group_names[group]}' of split '{split}' of '{name}' has {number} images instead of "
                    f"{should}; take the official files, or turn the check off (check_counts=False, --any_counts) "
                    "for a set of your own."
                )
