"""What a method is told beyond images and class labels: declared by the method, handed over, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SupervisionError

if TYPE_CHECKING:
    from ..detection import SpuriousSamples

__all__ = ["SUPERVISION_KINDS", "Supervision", "in_words"]

#: kind → what tables call it, from the least to the most a user has to know.
SUPERVISION_KINDS = {
    "samples": "decisions",
    "regions": "regions of the attribute in training images",
    "validation": "groups of a validation set",
    "train_groups": "groups of the training set",
}


def in_words(kinds: Iterable[str]) -> str:
    """What a method that declares these kinds is told, as tables and cards show it."""
    return " + ".join(["class labels", *(SUPERVISION_KINDS[kind] for kind in kinds)])


class Supervision:
    """The supervision of one run. Reading a kind that was not declared, or not given, raises.

    Args:
        samples: the decided-on spurious-positive samples.
        regions: `idx` of a training image → (H, W) bool, true inside the spurious attribute as the model sees the
            image, or None where it has none.
        validation: a data set held out from training, an item as a training item and `group` with it.
        train_groups: `idx` of a training image → group id.
    """

    def __init__(
        self,
        *,
        samples: SpuriousSamples | None = None,
        regions: Callable[[int], np.ndarray | None] | None = None,
        validation: Any = None,
        train_groups: Mapping[int, int] | None = None,
    ) -> None:
        self._given = {
            "samples": samples,
            "regions": regions,
            "validation": validation,
            "train_groups": train_groups,
        }
        self._declared: frozenset[str] = frozenset(SUPERVISION_KINDS)
        self._method = "the caller"

    def declared_by(self, method: str, kinds: Iterable[str]) -> Supervision:
        """The same, of which `method` can read `kinds` alone.

        Raises:
            SupervisionError: a kind that was not given.
        """
        limited = Supervision()
        limited._declared, limited._method = frozenset(kinds), method
        limited._given = {kind: self._given[kind] if kind in limited._declared else None for kind in SUPERVISION_KINDS}
        for kind in sorted(limited._declared):
            getattr(limited, kind)
        return limited

    @property
    def samples(self) -> SpuriousSamples:
        return self._read("samples")

    @property
    def regions(self) -> Callable[[int], np.ndarray | None]:
        return self._read("regions")

    @property
    def validation(self) -> Any:
        return self._read("validation")

    @property
    def train_groups(self) -> Mapping[int, int]:
        return self._read("train_groups")

    def _read(self, kind: str) -> Any:
        if kind not in self._declared:
            declared = ", ".join(sorted(self._declared)) or "class labels alone"
            raise SupervisionError(
                f"{self._method} asks for {SUPERVISION_KINDS[kind]} ({kind}) but declares {declared}: add it to its "
                "`supervision_kinds`, so that every table shows it."
            )
        value = self._given[kind]
        if value is None:
            raise SupervisionError(
                f"{self._method} needs {SUPERVISION_KINDS[kind]}: give supervision=Supervision({kind}=...), from data "
                "that has it."
            )
        return value
