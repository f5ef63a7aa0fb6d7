"""Training until it has converged: how long, says a label-free estimate, and the best weights are kept.

The weights are kept by `Trainer`'s checkpoints, and in memory where none are saved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import TrainerControl

from ..errors import HFScoreError
from .base_config import BaseConfig

__all__ = ["TOLERANCE", "UntilConverged", "best_epoch", "converged_checkpoint", "has_converged", "until_converged"]

#: What an estimate has to rise by to count as rising: less is a picture or two.
TOLERANCE = 0.005

_Config = TypeVar("_Config", bound=BaseConfig)


def until_converged(args: _Config, eval_dataset: Any) -> _Config:
    """The configuration that `patience` asks for: evaluations, checkpoints as often, and the best one's weights at the
    end; as it came where there is no patience.

    Raises:
        HFScoreError: there is no evaluation set, or there are several.
    """
    if args.patience is None:
        return args
    if eval_dataset is None or isinstance(eval_dataset, dict):
        raise HFScoreError(
            f"patience is {args.patience}, and there is no one set of held-out images to go by: give it as "
            "eval_dataset, or leave patience out."
        )
    strategy = "epoch" if args.eval_strategy == "no" else args.eval_strategy
    metric = args.metric_for_best_model or "selection"
    changes: dict[str, Any] = {"eval_strategy": strategy, "metric_for_best_model": metric}
    if args.save_strategy != "no":
        limit = 1 if args.save_total_limit is None else args.save_total_limit  # the best one stays beside them
        changes |= {"save_strategy": strategy, "save_steps": args.eval_steps or args.save_steps}
        changes |= {"load_best_model_at_end": True, "save_total_limit": limit}
    return dataclasses.replace(args, **changes)


def evaluations_of(state: TrainerState, args: BaseConfig) -> list[float]:
    """The evaluations of a training so far, by what chooses its weights, the larger the better."""
    name = _name_of_metric(args)
    sign = -1 if args.greater_is_better is False else 1
    return [sign * entry[name] for entry in state.log_history if name in entry]


def _name_of_metric(args: BaseConfig) -> str:
    return "eval_" + (args.metric_for_best_model or "selection").removeprefix("eval_")


def has_converged(values: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` evaluations are none of them better, by more than `TOLERANCE`, than all before."""
    return len(values) > patience and max(values[-patience:]) <= max(values[:-patience]) + TOLERANCE


def best_epoch(state: TrainerState, args: BaseConfig) -> float | None:
    """The epoch whose weights a training with `patience` ends with; without, the last. None before the first."""
    values = evaluations_of(state, args)
    if args.patience is None or not values:
        return state.epoch
    name = _name_of_metric(args)
    return [entry["epoch"] for entry in state.log_history if name in entry][values.index(max(values))]


class UntilConverged(TrainerCallback):
    """Stops a training whose evaluations have not risen for so long; what it knows is the state's history, so that a
    resumed training stops where an undisturbed one does (`EarlyStoppingCallback` counts anew).

    Where no checkpoints are saved, it keeps the best weights, and puts them back at the end.
    """

    def __init__(self) -> None:
        self._best: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._best = {}

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        values = evaluations_of(state, args)
        if not values:
            raise HFScoreError(
                f"patience is {args.patience}, and evaluations have no '{args.metric_for_best_model}' to go by: give "
                "an evaluation set with labels, or leave patience out."
            )
        if args.save_strategy == "no" and values[-1] > max(values[:-1], default=-torch.inf):
            weights = kwargs["model"].state_dict()
            self._best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        control.should_training_stop |= has_converged(values, args.patience)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._best:
            kwargs["model"].load_state_dict(self._best)
            self._best = {}


def converged_checkpoint(checkpoint: str, args: BaseConfig) -> TrainerState | None:
    """The state in a checkpoint whose training had converged, so that there is nothing to go on with; else None."""
    path = Path(checkpoint) / "trainer_state.json"
    if args.patience is None or not path.is_file():
        return None
    state = TrainerState.load_from_json(str(path))
    if state.best_model_checkpoint is None or not has_converged(evaluations_of(state, args), args.patience):
        return None
    best = path.parent.parent / Path(state.best_model_checkpoint).name  # the folder may have been moved
    state.best_model_checkpoint = str(best)
    return state if best.is_dir() else None
