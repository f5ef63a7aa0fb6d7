"""`Declared`: what a method says of itself, so that its runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = ["Declared"]


class Declared:
    """What every trainer declares: names, its version, the grid it may be tuned over, and what shows that it did
    something."""

    #: How results, plans and tables call the method.
    name: ClassVar[str] = "erm"
    title: ClassVar[str] = "ERM"
    #: Counts up when the method comes to another result with the same configuration: benchmarks then run it again.
    version: ClassVar[int] = 1
    #: Fields → values of the declared grid (`hf_score.training.grid_points`).
    grid: ClassVar[dict[str, list[Any]]] = {}
    #: What each of `gates` has to be, such as `">= 0.1"`, for a run to count as one in which the method did something.
    wanted_gates: ClassVar[dict[str, str]] = {}

    @classmethod
    def title_of(cls, config: Mapping[str, Any]) -> str:
        """What tables call the method with these fields of its configuration."""
        return cls.title

    def gates(self) -> dict[str, float]:
        """Figures that show whether the method did in training what it is named for. Default: none."""
        return {}
