"""The grid that a method declares: as many points for every method, so that none is tuned more than another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base_trainer import BaseTrainer

__all__ = ["FACTORS", "GRID_POINTS", "grid_points"]

#: How many points a declared grid has.
GRID_POINTS = 8
#: Fields whose values in a grid are factors of the schedule's: what suits one model is far off for another.
FACTORS = ("learning_rate", "num_train_epochs")


def grid_points(trainer_class: type[BaseTrainer], schedule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of every point of a method's grid, to be put over those of `schedule`.

    Args:
        trainer_class: the method; its `grid` maps fields to values, whose product the points are.
        schedule: the fields that the points vary: the factors of `FACTORS` are multiplied with its values. Epochs are
            whole, and one at least.
    """
    points = []
    for values in itertools.product(*trainer_class.grid.values()):
        point = dict(zip(trainer_class.grid, values, strict=True))
        if "learning_rate" in point:
            point["learning_rate"] *= schedule.get("learning_rate", 5e-5)
        if "num_train_epochs" in point:
            point["num_train_epochs"] = max(1, round(point["num_train_epochs"] * schedule.get("num_train_epochs", 3)))
        points.append(point)
    return points
