"""Find the shortcuts an image classifier has learned and train them out, with no group labels (SCORE)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attribution import Explainer
    from .data import load_data
    from .detection import Candidates, Selection, SpuriousSamples, find_candidates
    from .errors import HFScoreError
    from .evaluation import group_metrics
    from .models import load_model
    from .training.score_config import SCOREConfig
    from .training.score_trainer import SCORETrainer

__all__ = [
    "Candidates",
    "Explainer",
    "HFScoreError",
    "SCOREConfig",
    "SCORETrainer",
    "Selection",
    "SpuriousSamples",
    "find_candidates",
    "group_metrics",
    "load_data",
    "load_model",
]

__version__ = "0.1.0.dev0"

_HOMES = {
    "Explainer": "attribution",
    "SCOREConfig": "training",
    "load_data": "data",
    "Candidates": "detection",
    "Selection": "detection",
    "SpuriousSamples": "detection",
    "find_candidates": "detection",
    "HFScoreError": "errors",
    "group_metrics": "evaluation",
    "load_model": "models",
    "SCORETrainer": "training",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use: `import hf_score` alone stays fast."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported yet or not."""
    return sorted({*globals(), *__all__})
