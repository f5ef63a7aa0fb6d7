"""Fine-tuning: `BaseTrainer`, which no group label can enter, and on top of it `SCORETrainer` with the penalty."""

from .base_config import BaseConfig
from .base_trainer import BaseTrainer
from .score_config import SCOREConfig
from .score_trainer import SCORETrainer
from .supervision import Supervision

__all__ = ["BaseConfig", "BaseTrainer", "SCOREConfig", "SCORETrainer", "Supervision"]
