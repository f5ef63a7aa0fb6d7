"""Training a second model inside a method: plain cross-entropy, or another loss, with the settings of the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..training.samplers import WeightedSampler

if TYPE_CHECKING:
    from .base import BaselineTrainer

__all__ = ["fit_second", "steps_of"]


def steps_of(trainer: BaselineTrainer) -> int:
    """How many micro-batches the run has, before it began."""
    args, dataset = trainer.args, trainer.train_dataset
    if args.max_steps > 0:
        return args.max_steps * args.gradient_accumulation_steps
    batches = math.ceil(len(dataset) / args.per_device_train_batch_size)  # type: ignore[arg-type]
    return math.ceil(args.num_train_epochs * batches)


def fit_second(
    trainer: BaselineTrainer,
    model: nn.Module,
    *,
    steps: int,
    weights: Tensor | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    after_epoch: Callable[[], Any] | None = None,
) -> None:
    """Train `model` on the trainer's training images, with AdamW and its constant learning rate, then leave it in eval
    mode. What is drawn depends on the seed alone.

    Args:
        trainer: whose data, batch size, learning rate, weight decay and seed are taken.
        model: any classifier with `.logits`.
        steps: batches.
        weights: (N,), how often each image is drawn, in proportion; None for every class equally often, as ERM is run.
        loss: logits (B, K) and labels (B,) → (B,); cross-entropy by default.
        after_epoch: called after every len(data) images, and at the end.
    """
    args: Any = trainer.args
    dataset: Any = trainer.train_dataset
    labels = trainer.train_labels()
    if weights is None:
        weights = 1.0 / torch.bincount(labels).double()[labels]
    sampler = WeightedSampler(weights, seed=args.seed)
    size = args.per_device_train_batch_size
    per_epoch = math.ceil(len(dataset) / size)
    model.to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    order: list[int] = []
    for step in range(steps):
        if step % per_epoch == 0:
            sampler.set_epoch(step // per_epoch)
            order = list(sampler)
        rows = order[(step % per_epoch) * size :][:size]
        batch = {n: v.to(args.device) for n, v in trainer.data_collator([dataset[row] for row in rows]).items()}
        model.train()
        trainer.prepare_for_training(model)
        with trainer.compute_loss_context_manager():
            logits = model(pixel_values=batch["pixel_values"]).logits.float()
        losses = (loss or _cross_entropy)(logits, batch["labels"])
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        if after_epoch is not None and ((step + 1) % per_epoch == 0 or step + 1 == steps):
            after_epoch()
    model.eval()


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="none")
