"""Reweighting by group (RWG): every group drawn equally often."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import BaselineTrainer

__all__ = ["ReweightingTrainer"]


class ReweightingTrainer(BaselineTrainer):
    """ERM on batches drawn with probability 1 / size of the image's group (Idrissi et al., 2022).

    Supervision: groups of the training set.
    """

    name = "reweighting"
    title = "reweighting (RWG)"
    paper = "Idrissi et al., 2022, arXiv 2110.14503"
    supervision_kinds = ("train_groups",)
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.1, 0.3, 1.0, 3.0], "num_train_epochs": [0.5, 1.0]}

    def sample_weights(self) -> Tensor:
        """(N,): 1 / size of the group."""
        groups = self.train_groups()
        return 1.0 / torch.bincount(groups).double()[groups]
