"""JTT, just train twice: draw what an early model got wrong more often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer

__all__ = ["JTTConfig", "JTTTrainer"]


@dataclass
class JTTConfig(BaselineConfig):
    """Configuration of [`JTTTrainer`].

    Parameters:
        jtt_upweight: λ_up, how many times as often an image of the error set is drawn (theirs: 5 to 100).
    """

    jtt_upweight: float = field(default=20.0, metadata={"help": "How much more often the error set is drawn."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jtt_upweight < 1:
            raise HFScoreError(f"jtt_upweight is {self.jtt_upweight}: give a number of at least 1.")


class JTTTrainer(BaselineTrainer):
    """ERM with the error set of an early-stopped model drawn λ_up times as often (Liu et al., 2021, equations 3 and
    4).

    Supervision: class labels. The paper chooses λ_up and when to stop the first model on a validation set with groups;
    without one they are fixed here: the first model is ERM after its first epoch, 10 to 25 % of its steps in the
    plans here (theirs: 20 % on Waterbirds, 2 % on CelebA).
    """

    name = "jtt"
    title = "JTT"
    paper = "Liu et al., 2021, arXiv 2107.09044"
    second_model = "early"
    config_class = JTTConfig
    args: JTTConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "jtt_upweight": [5.0, 20.0, 50.0, 100.0]}
    wanted_gates: ClassVar[dict[str, str]] = {
        "upweighted_share": ">= 0.005",
        "unchanged_share": ">= 0.5",
        "upweighted_draws": ">= 0.1",
    }

    def error_set(self) -> Tensor:
        """(N,) bool: training images that the early model gets wrong."""
        assert self.reference_model is not None
        return self.predict_logits(self.reference_model, self.train_dataset).argmax(1) != self.train_labels()

    def sample_weights(self) -> Tensor:
        """(N,): λ_up in the error set, 1 elsewhere."""
        self._errors = self.error_set()
        self._drawn = self.balanced(torch.where(self._errors, self.args.jtt_upweight, 1.0).double())
        return self._drawn

    def gates(self) -> dict[str, float]:
        """The shares of the images in and outside the error set, and of the draws that fall into it."""
        share = float(self._errors.double().mean())
        drawn = float(self._drawn[self._errors].sum() / self._drawn.sum())
        return {"upweighted_share": share, "unchanged_share": 1 - share, "upweighted_draws": drawn}
