"""The methods a plan can name: the baselines and SCORE. What a benchmark needs to know of one, its trainer says."""

from __future__ import annotations

import difflib

from ..baselines import BASELINES
from ..errors import HFScoreError
from ..training.base_trainer import BaseTrainer
from ..training.score_trainer import SCORETrainer

__all__ = ["TRAINERS", "find_trainer"]

#: name → trainer: the baselines in the order of their supervision, then SCORE.
TRAINERS: dict[str, type[BaseTrainer]] = {**BASELINES, SCORETrainer.name: SCORETrainer}


def find_trainer(name: str) -> type[BaseTrainer]:
    """The method of that name.

    Raises:
        HFScoreError: there is none.
    """
    if name not in TRAINERS:
        near = difflib.get_close_matches(name, TRAINERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(TRAINERS)}."
        raise HFScoreError(f"there is no method {name!r}: {hint}")
    return TRAINERS[name]
