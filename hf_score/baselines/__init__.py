"""The methods that SCORE is compared with, one file each, and what each is told beyond class labels.

`BASELINES` maps names to trainers. A baseline is a [`BaselineTrainer`] with a `BaselineConfig`: the same pattern as
`SCORETrainer` and `SCOREConfig`, the same data.
"""

from .base import BaselineConfig, BaselineTrainer
from .erm import ContinuedERMTrainer, ERMTrainer
from .supervision import KINDS, Supervision

__all__ = [
    "BASELINES",
    "KINDS",
    "BaselineConfig",
    "BaselineTrainer",
    "ContinuedERMTrainer",
    "ERMTrainer",
    "Supervision",
]

#: name → trainer, in the order of the tables.
BASELINES: dict[str, type[BaselineTrainer]] = {trainer.name: trainer for trainer in (ERMTrainer, ContinuedERMTrainer)}
