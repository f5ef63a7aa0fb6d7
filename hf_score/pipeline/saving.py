"""Checkpoints by the clock: a training that is stopped loses a minute, however long its epochs are."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["SaveEveryMinute"]


class SaveEveryMinute(TrainerCallback):
    """Asks for a checkpoint once a minute has passed since the last one.

    In one process alone: the clocks of several differ, and all have to save at the same step. Nothing is saved with
    `save_strategy="no"`.

    Args:
        seconds: between two checkpoints; saving itself does not count.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._last = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        wanted = args.world_size == 1 and args.save_strategy != "no"
        if wanted and time.monotonic() - self._last >= self.seconds:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._last = time.monotonic()
