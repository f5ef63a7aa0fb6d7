"""The registry of benchmarks: where each set is, how it is read, what has to be in it, and how to cite it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError
from .builders import ISIC, CelebA, FolderBuilder, Knee, Waterbirds

__all__ = ["Benchmark", "compare_counts", "find_dataset", "list_datasets"]

#: Images per group 2 * label + attribute; None where the number is not fixed.
Counts = Mapping[str, Sequence[int | None]]


@dataclass(frozen=True)
class Benchmark:
    """One data set that `load_data` knows by name.

    Attributes:
        path: a Hub id, or a folder inside the package; None where the set is on neither.
        builder: what reads the raw public folder, with `options`; None where there is nothing to build.
        counts: official images per split and group, checked on load.
        hub_columns: what the columns `label` and `spurious` are called on the Hub.
        masks: column of the masks of the attribute's region; `invert_masks` where they show the object instead.
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
    builder: type[FolderBuilder] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    hub_columns: tuple[str, str] = ("label", "spurious")
    masks: str | None = None
    invert_masks: bool = False
    drop_groups: tuple[int, ...] = ()
    verified: bool = False

    @property
    def group_names(self) -> list[str]:
        """The names of the groups, by number."""
        return [f"{label}, {attribute}" for label in self.class_names for attribute in self.spurious_names]


_SAGAWA = """@inproceedings{sagawa2020distributionally,
  title = {Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for
           Worst-Case Generalization},
  author = {Sagawa, Shiori and Koh, Pang Wei and Hashimoto, Tatsunori B. and Liang, Percy},
  booktitle = {International Conference on Learning Representations},
  year = {2020}
}
@techreport{wah2011caltech,
  title = {The {Caltech-UCSD Birds-200-2011} Dataset},
  author = {Wah, Catherine and Branson, Steve and Welinder, Peter and Perona, Pietro and Belongie, Serge},
  institution = {California Institute of Technology},
  number = {CNS-TR-2011-001},
  year = {2011}
}
@article{zhou2018places,
  title = {Places: A 10 Million Image Database for Scene Recognition},
  author = {Zhou, Bolei and Lapedriza, Agata and Khosla, Aditya and Oliva, Aude and Torralba, Antonio},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {40},
  number = {6},
  pages = {1452--1464},
  year = {2018}
}"""
_PETRYK = """@inproceedings{petryk2022guiding,
  title = {On Guiding Visual Attention with Language Specification},
  author = {Petryk, Suzanne and Dunlap, Lisa and Nasseri, Keyan and Gonzalez, Joseph and Darrell, Trevor and
            Rohrbach, Anna},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022}
}"""
_LIU = """@inproceedings{liu2015deep,
  title = {Deep Learning Face Attributes in the Wild},
  author = {Liu, Ziwei and Luo, Ping and Wang, Xiaogang and Tang, Xiaoou},
  booktitle = {IEEE International Conference on Computer Vision},
  year = {2015}
}"""
_ISIC = """@inproceedings{codella2018skin,
  title = {Skin Lesion Analysis toward Melanoma Detection: A Challenge at the 2017 International Symposium on
           Biomedical Imaging ({ISBI}), Hosted by the International Skin Imaging Collaboration ({ISIC})},
  author = {Codella, Noel C. F. and others},
  booktitle = {IEEE International Symposium on Biomedical Imaging},
  year = {2018}
}
@inproceedings{rieger2020interpretations,
  title = {Interpretations are Useful: Penalizing Explanations to Align Neural Networks with Prior Knowledge},
  author = {Rieger, Laura and Singh, Chandan and Murdoch, W. James and Yu, Bin},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}"""
_CHEN = """@article{chen2019fully,
  title = {Fully Automatic Knee Osteoarthritis Severity Grading Using Deep Neural Networks with a Novel Ordinal Loss},
  author = {Chen, Pingjun and Gao, Linlin and Shi, Xiaoshuang and Allen, Kyle and Yang, Lin},
  journal = {Computerized Medical Imaging and Graphics},
  volume = {75},
  pages = {84--92},
  year = {2019}
}
@misc{chen2018knee,
  title = {Knee Osteoarthritis Severity Grading Dataset},
  author = {Chen, Pingjun},
  howpublished = {Mendeley Data},
  doi = {10.17632/56rmx5bjcr.1},
  year = {2018}
}"""
_XIAO = """@misc{xiao2017fashion,
  title = {{Fashion-MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  author = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  note = {arXiv:1708.07747},
  year = {2017}
}"""

_FASHION: dict[str, Any] = {
    "licence": "MIT",
    "citation": _XIAO,
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
        citation=_SAGAWA,
        **_WATERBIRDS_95,
    ),
    Benchmark(
        name="waterbirds_100_regenerated",
        description="Waterbirds made with correlation 1: GALS's waterbird_1.0_forest2water2 (Petryk et al., 2022)",
        citation=f"{_PETRYK}\n{_SAGAWA}",
        options={"correlation": 1.0},
        # Training counts as in GALS's code. Its validation draw is another one, whose counts are not published.
        counts={"train": (3694, 0, 0, 1101), "test": _WATERBIRDS_EVALUATION["test"]},
        **_WATERBIRDS,
    ),
    Benchmark(
        name="waterbirds_100_dropped",
        description="waterbirds_95 without its two minority groups: 3498 + 1057 training birds",
        citation=_SAGAWA,
        drop_groups=(1, 2),
        **_WATERBIRDS_95,
    ),
    Benchmark(
        name="celeba",
        description="CelebA faces: blond hair, correlated with sex (Liu et al., 2015); official splits",
        licence="non-commercial research, see the data set's agreement",
        citation=_LIU,
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
        citation=_ISIC,
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
        citation=_CHEN,
        class_names=Knee.class_names,
        spurious_names=("no marker", "marker"),
        builder=Knee,
        counts={"train": (167, 3165, 2446, 0), "validation": (481, 481, 345, 345), "test": (935, 935, 721, 721)},
        masks=Knee.mask_column,
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
