"""The registry of benchmarks: where each data set is, what its columns are called, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Benchmark", "list_benchmarks"]


@dataclass(frozen=True)
class Benchmark:
    """One data set that `load_data` knows by name.

    `path` is a Hub id or a folder. `verified` is False for rows whose columns are taken from public descriptions
    and were never loaded by this project's tests.
    """

    name: str
    path: str
    description: str
    licence: str
    class_names: tuple[str, ...]
    spurious_names: tuple[str, ...]
    label_column: str = "label"
    spurious_column: str = "spurious"
    masks: str | None = None
    drop_minority: bool = False
    verified: bool = False


_FASHION_PATCH = str(Path(__file__).with_name("fashion_patch"))

_BENCHMARKS = (
    Benchmark(
        name="fashion_patch",
        path=_FASHION_PATCH,
        description="Fashion-MNIST pullovers and shirts; a red square on 95 % of the pullovers and 5 % of the shirts",
        licence="MIT",
        class_names=("pullover", "shirt"),
        spurious_names=("no square", "red square"),
        masks="region",
        verified=True,
    ),
    Benchmark(
        name="fashion_patch_100",
        path=_FASHION_PATCH,
        description="fashion_patch without its minority groups: every training pullover has the square, no shirt has",
        licence="MIT",
        class_names=("pullover", "shirt"),
        spurious_names=("no square", "red square"),
        masks="region",
        drop_minority=True,
        verified=True,
    ),
    Benchmark(
        name="waterbirds",
        path="grodino/waterbirds",
        description="CUB birds pasted onto Places backgrounds (Sagawa et al., 2020)",
        licence="see the data set's page",
        class_names=("landbird", "waterbird"),
        spurious_names=("land", "water"),
        spurious_column="place",
    ),
    Benchmark(
        name="celeba",
        path="flwrlabs/celeba",
        description="CelebA faces: blond hair, spuriously correlated with gender (Liu et al., 2015)",
        licence="non-commercial research, see the data set's page",
        class_names=("not blond", "blond"),
        spurious_names=("female", "male"),
        label_column="Blond_Hair",
        spurious_column="Male",
    ),
)


def list_benchmarks() -> list[Benchmark]:
    """Every registered benchmark."""
    return list(_BENCHMARKS)


def find_benchmark(name: str) -> Benchmark | None:
    """The benchmark with this name or Hub id, or None."""
    return next((b for b in _BENCHMARKS if name in (b.name, b.path)), None)
