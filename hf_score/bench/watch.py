"""What is looked at while a benchmark's cell trains: its model at every evaluation, and the memory it takes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from ..evaluation import ESTIMATES
from ..files import atomic_folder
from .rows import best_evaluation

__all__ = ["AfterFirstEpoch", "ImagePasses", "PeakMemory", "SomeEpochs", "Watch", "save_model"]


class Watch(TrainerCallback):
    """Measures the model at every evaluation, and keeps the weights that a label-free choice takes.

    Args:
        measure: model → its figures, by group too, and `logits` (N, K) of the test images.
    """

    def __init__(self, measure: Callable[[Any], dict[str, Any]]) -> None:
        self._measure = measure
        self.rows: list[dict[str, Any]] = []
        #: How many the training took: `chosen` says after which of them its weights were best.
        self.epochs_trained = 0.0
        #: (N, K): those of `chosen`.
        self.logits: np.ndarray | None = None
        self._best: dict[str, Tensor] = {}

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        measured = {name.removeprefix("eval_estimate_"): value for name, value in metrics.items()}
        estimates = {name: value for name, value in measured.items() if name in ESTIMATES}
        epoch = float(state.epoch or 0)
        self.add(model, epoch=epoch, selection=metrics["eval_selection"], estimates=estimates)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.epochs_trained = float(state.epoch or 0)

    def add(self, model: Any, *, epoch: float, selection: float | None, estimates: Mapping[str, float]) -> None:
        """Measure a model, wrapped or not, whose label-free estimates are known."""
        model = getattr(model, "module", model)
        row: dict[str, Any] = {"epoch": epoch, "selection": selection, **self._measure(model), "estimates": estimates}
        logits = row.pop("logits", None)
        self.rows.append(row)
        if self.chosen is row:
            self.logits = logits
            self._best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}

    @property
    def chosen(self) -> dict[str, Any]:
        """The evaluation that a label-free choice takes."""
        return best_evaluation(self.rows, by="selection")

    def restore(self, model: PreTrainedModel) -> None:
        """Give the model the weights of `chosen`."""
        model.load_state_dict(self._best)


class ImagePasses(TrainerCallback):
    """Counts the images that go forward through a model, or a copy of it, to train it: those of evaluations apart.

    Give it to the trainer as the last of its callbacks.
    """

    def __init__(self) -> None:
        self.count = 0
        #: The count after each optimizer step.
        self.after_step: list[int] = []
        self._paused = False

    def cost(self) -> tuple[float, float]:
        """Images before the first optimizer step, and of each step, once there were two of them."""
        first, last = self.after_step[0], self.after_step[-1]
        per_step = (last - first) / (len(self.after_step) - 1)
        return first - per_step, per_step

    def watch(self, model: nn.Module) -> Any:
        """Count those of this model from now on, until the handle that this gives is removed."""

        def counted(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:  # copies of the model share it
            images = kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]
            self.count += 0 if self._paused else len(images)

        return model.register_forward_pre_hook(counted, with_kwargs=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.after_step.append(self.count)
        self._paused = control.should_evaluate

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._paused = control.should_evaluate

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._paused = False


class SomeEpochs(TrainerCallback):
    """Asks for so many evaluations, evenly over the epochs, the last one included; with `patience` for none, as it has
    one every epoch."""

    def __init__(self, evaluations: int) -> None:
        self.evaluations = evaluations

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.patience is not None:
            return
        epochs = int(state.num_train_epochs or 1)
        count = min(self.evaluations, epochs)
        wanted = {round(epochs * (n + 1) / count) for n in range(count)}  # none for a count of 0
        control.should_evaluate = round(state.epoch or 0) in wanted


class AfterFirstEpoch(TrainerCallback):
    """Saves the model after its first epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if round(state.epoch) == 1:
            save_model(model, self.folder)


class PeakMemory:
    """The largest memory in use during the body, in MiB: of the GPU, or of this process."""

    def __init__(self, device: str) -> None:
        self.device, self.mib, self._stop = device, 0.0, threading.Event()

    def __enter__(self) -> PeakMemory:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device == "cuda":
            self.mib = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        process = psutil.Process(os.getpid())
        while True:
            self.mib = max(self.mib, round(process.memory_info().rss / 2**20, 1))
            if self._stop.wait(0.1):
                return


def save_model(model: Any, folder: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
