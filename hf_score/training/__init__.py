"""Fine-tuning: `BaseTrainer`, which no group label can enter, and on top of it `SCORETrainer` with its penalties."""

from .base_config import BaseConfig
from .base_trainer import BaseTrainer
from .grids import grid_points
from .penalties import BothPenalties, MarginPenalty, NeuronPenalty, Penalty
from .score_config import SCOREConfig
from .score_trainer import SCORETrainer
from .supervision import Supervision

__all__ = [
    "BaseConfig",
    "BaseTrainer",
    "BothPenalties",
    "MarginPenalty",
    "NeuronPenalty",
    "Penalty",
    "SCOREConfig",
    "SCORETrainer",
    "Supervision",
    "grid_points",
]
