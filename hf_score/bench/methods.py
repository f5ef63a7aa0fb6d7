"""The methods a plan can name: SCORE and the baselines, with what each is told."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..base_config import BaseConfig
from ..base_trainer import BaseTrainer
from ..baselines import BASELINES
from ..baselines.supervision import in_words
from ..config import SCOREConfig
from ..errors import HFScoreError
from ..trainer import SCORETrainer

__all__ = ["MethodSpec", "find_method", "list_methods"]


@dataclass(frozen=True)
class MethodSpec:
    """What the harness has to know of a method."""

    name: str
    title: str
    kinds: tuple[str, ...]
    starts_from: str
    reference: str | None
    trainer_class: type[BaseTrainer]
    config_class: type[BaseConfig]

    @property
    def supervision(self) -> str:
        """What it is told, as tables show it."""
        return in_words(self.kinds)


def list_methods() -> dict[str, MethodSpec]:
    """Every method by name: the baselines in the order of their supervision, then SCORE."""
    methods = {
        name: MethodSpec(
            name=name,
            title=trainer.title,
            kinds=trainer.supervision_kinds,
            starts_from=trainer.starts_from,
            reference=trainer.reference,
            trainer_class=trainer,
            config_class=trainer.config_class,
        )
        for name, trainer in BASELINES.items()
    }
    methods["score"] = MethodSpec("score", "SCORE", ("samples",), "erm", None, SCORETrainer, SCOREConfig)
    return methods


def find_method(name: str) -> MethodSpec:
    """The method of that name.

    Raises:
        HFScoreError: there is none.
    """
    methods = list_methods()
    if name not in methods:
        near = difflib.get_close_matches(name, methods, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(methods)}."
        raise HFScoreError(f"there is no method {name!r}: {hint}")
    return methods[name]
