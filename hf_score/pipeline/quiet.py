"""How much a run says: one line per epoch instead of the Trainer's rows, and nothing of the libraries' own chatter."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import datasets
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.utils import logging as transformers_logging

from .arguments import RunArguments

__all__ = ["in_few_words", "only_our_words"]

_Trainer = TypeVar("_Trainer", bound=Trainer)
#: Figure of an evaluation → what it is called in the line of an epoch.
FIGURES = {
    "eval_accuracy": "held-out accuracy",
    "eval_worst_class_accuracy": "worst class",
    "eval_counterfactual_accuracy": "with exchanged regions",
    "eval_selection": "estimate",
    "eval_reliance": "reliance",
}


@contextmanager
def only_our_words() -> Iterator[None]:
    """Silence what the libraries say of their own; warnings of hf-score go to stderr, each once."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    ours, handler = logging.getLogger("hf_score"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.addFilter(_Once())
    ours.addHandler(handler)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets_bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")  # there is no accelerator to pin it for
            yield
    finally:
        ours.removeHandler(handler)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if not datasets_bars:
            datasets.enable_progress_bars()


def in_few_words(trainer: _Trainer, arguments: RunArguments) -> _Trainer:
    """The trainer, with a line per epoch in place of its rows; none with `quiet`, and as it came with `verbose`."""
    if arguments.verbose:
        return trainer
    trainer.remove_callback(PrinterCallback)
    had_bar = trainer.pop_callback(ProgressCallback) is not None
    if not arguments.quiet:
        trainer.add_callback(_Bar() if had_bar else _Lines())
    return trainer


class _Once(logging.Filter):
    """Lets the first of equal messages pass, in the first process."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._said and os.environ.get("RANK", "0") == "0"
        self._said.add(message)
        return new


def _line(state: Any, args: Any, metrics: dict[str, float]) -> str:
    losses = [f"loss {row['loss']:.3g}" for row in state.log_history if "loss" in row][-1:]
    figures = [f"{name} {metrics[key]:.3f}" for key, name in FIGURES.items() if metrics.get(key) is not None]
    done = f"epoch {state.epoch:.3g} of {args.num_train_epochs:g}"
    if args.max_steps > 0:
        done = f"step {state.global_step} of {state.max_steps}"
    return f"  {done}: {', '.join([*losses, *figures])}"


class _Lines(TrainerCallback):
    """Prints a line for every evaluation of a training."""

    _trains = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trains = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trains = False

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if self._trains and state.is_world_process_zero:
            print(_line(state, args, metrics or {}), flush=True)


class _Bar(ProgressCallback):
    """The Trainer's bars, and such a line above them."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """The bar, and not the rows."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        super().on_evaluate(args, state, control, **kwargs)
        if state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.write(_line(state, args, metrics or {}))
