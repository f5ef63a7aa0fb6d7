"""What a run will take, before its first long step: minutes by stage and disk, from a few measured images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..attribution import Explainer
from ..models import checkpoint_state, eval_mode
from ..training import SCOREConfig
from .arguments import RunArguments
from .run_folder import RunFolder
from .workspace import Workspace

__all__ = ["estimate_run", "in_one_line"]

MEASURED = 4  # images
#: Forward passes' worth of a training step per image, and of one with samples and copies beside the images.
TRAINING, WITH_SAMPLES = 3.0, 6.0
#: Passes over the test set that measuring a model takes: predictions, and regions inserted and removed.
MEASURING = 4.0
#: Copies of the weights in a checkpoint with its optimizer; two are there for a moment.
CHECKPOINT = 3.0


def estimate_run(
    arguments: RunArguments, config: SCOREConfig, workspace: Workspace, folder: RunFolder, methods: Sequence[str]
) -> tuple[dict[str, float], float]:
    """Stage → seconds, of those that are not done yet, and bytes of disk.

    An estimate: reading, one forward pass and one explanation are measured on a few training images after a first
    one, the rest is multiplied.
    """
    data, model = workspace.data, workspace.loaded.model
    with eval_mode(model), torch.no_grad():
        model.to(workspace.device)  # type: ignore[arg-type]
        number = min(MEASURED, len(data.train))
        images, read = _timed(lambda: workspace.pixel_values(data.train, range(number)))
        images = images.to(workspace.device)
        model(images[:1])  # the first pass is slow
        forward = _timed(lambda: model(images).logits.sum().item())[1] / number
    with Explainer(model) as explainer:
        layer = config.layers[-1]  # as the scan does
        explained = _timed(lambda: explainer.explain(images, 0, layer=layer).logits.sum().item())[1]
    seconds: dict[str, float] = {}
    total = sum(len(split) for split in (data.train, data.held_out, data.test))
    seconds["reading"] = read / number * total

    def train(epochs: float, passes: float) -> float:
        if config.max_steps > 0:
            epochs = config.max_steps * config.train_batch_size * config.gradient_accumulation_steps / len(data.train)
        return epochs * passes * forward * len(data.train)

    if not folder.has("erm") and not workspace.loaded.has_head:
        seconds["starting model"] = arguments.erm_epochs * TRAINING * forward * len(data.train)
    if not folder.has("candidates"):
        candidates = min(arguments.num_candidates * len(data.class_names), len(data.train))
        seconds["scan"] = forward * len(data.train) + explained / number * candidates
    to_train = [method for method in methods if method != "erm" and not folder.has(method)]
    if to_train:
        tries = sum(len(arguments.lambdas or [1]) * len(arguments.score_forms or [1]) for _ in to_train)
        seconds["training"] = tries * train(config.num_train_epochs, WITH_SAMPLES)
    seconds["measuring"] = MEASURING * forward * len(data.test) * len(methods)
    weights = sum(value.nbytes for value in checkpoint_state(model).values())
    return seconds, weights * (len(to_train) + 2 + (2 * CHECKPOINT if to_train else 0))


def in_one_line(seconds: dict[str, float], disk: float, *, seeds: int = 1) -> str:
    """The estimate as a line of text, each stage of one seed and the total of all."""
    stages = ", ".join(f"{name} {_minutes(spent)}" for name, spent in seconds.items())
    times = f" for each of {seeds} seeds" if seeds > 1 else ""
    total = _minutes(seeds * sum(seconds.values()))
    return (
        f"Estimate, from {MEASURED} measured images: {stages}{times}; in all {total}, and {seeds * disk / 1e9:.1f} GB "
        "of disk."
    )


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return "under 1 min"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    return action(), time.perf_counter() - begun
