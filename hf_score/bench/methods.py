"""The methods a plan can name: the baselines and SCORE. What a benchmark needs to know of one, its trainer says."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from ..baselines import BASELINES, BaselineTrainer
from ..errors import HFScoreError, first_line
from ..training.base_trainer import BaseTrainer
from ..training.score_trainer import SCORETrainer

__all__ = ["TRAINERS", "find_trainer", "trainers_of_module"]

#: name → trainer: the baselines in the order of their supervision, then SCORE.
TRAINERS: dict[str, type[BaseTrainer]] = {**BASELINES, SCORETrainer.name: SCORETrainer}


def find_trainer(name: str, trainers: Mapping[str, type[BaseTrainer]] = TRAINERS) -> type[BaseTrainer]:
    """The method of that name, of the package's or of `trainers`.

    Raises:
        HFScoreError: there is none.
    """
    if name not in trainers:
        near = difflib.get_close_matches(name, trainers, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(trainers)}."
        raise HFScoreError(f"there is no method {name!r}: {hint}")
    return trainers[name]


def trainers_of_module(path: Path, *, known: Mapping[str, type[BaseTrainer]]) -> dict[str, type[BaseTrainer]]:
    """The baselines that a file of Python defines, by name. The file is run.

    Args:
        path: of the file; whoever wrote the plan has named it.
        known: the methods that there are already.

    Raises:
        HFScoreError: a file that cannot be run, defines no baseline, or one under a name that is taken.
    """
    path = path.resolve()
    module_name = f"hf_score_plan_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name not in sys.modules:  # classes keep their identity from plan to plan
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise HFScoreError(f"there is no Python file {path}: correct `modules` of the plan.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise HFScoreError(f"{path} cannot be run ({type(error).__name__}: {first_line(error)}).") from error
    found: dict[str, type[BaseTrainer]] = {}
    for value in vars(sys.modules[module_name]).values():
        if isinstance(value, type) and issubclass(value, BaselineTrainer) and value.__module__ == module_name:
            if value.name in known or value.name in found:
                raise HFScoreError(f"{path}: there is a method {value.name!r} already: give {value.__name__} another.")
            found[value.name] = value
    if not found:
        raise HFScoreError(f"{path} defines no BaselineTrainer: see docs/how-to/add-a-baseline.md.")
    return found
