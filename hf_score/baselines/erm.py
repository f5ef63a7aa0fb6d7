"""Empirical risk minimisation: plain cross-entropy. The bar that every method has to clear.

Two rows in every table: ERM, where the methods that repair a model start; and continued ERM, from that model with as
many further steps as they get, because steps alone change a model.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .base import BaselineTrainer

__all__ = ["ContinuedERMTrainer", "ERMTrainer"]


class ERMTrainer(BaselineTrainer):
    """Mean cross-entropy over the training set (Vapnik, 1991). Supervision: class labels."""

    name = "erm"
    title = "ERM"
    paper = "Vapnik, 1991"
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.1, 0.3, 1.0, 3.0], "num_train_epochs": [0.5, 1.0]}


class ContinuedERMTrainer(ERMTrainer):
    """The same, from the ERM model on: the control of every method that fine-tunes one. Supervision: class labels."""

    name = "continued_erm"
    title = "continued ERM"
    initial_model = "erm"
