"""Subsampling by group (SUBG): every group as large as the smallest."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import BaselineTrainer

__all__ = ["SubsamplingTrainer"]


class SubsamplingTrainer(BaselineTrainer):
    """ERM on a subset with equally many images of every group that the training set has (Idrissi et al., 2022).

    Supervision: groups of the training set. The subset is drawn once. An epoch has as many draws (with replacement) as
    the whole training set has images, so that the method gets as many steps as the others; theirs is shorter.
    """

    name = "subsampling"
    title = "subsampling (SUBG)"
    paper = "Idrissi et al., 2022, arXiv 2110.14503"
    supervision_kinds = ("train_groups",)
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.1, 0.3, 1.0, 3.0], "num_train_epochs": [0.5, 1.0]}

    def sample_weights(self) -> Tensor:
        """1 in the subset, 0 outside."""
        groups = self.train_groups()
        generator = torch.Generator().manual_seed(self.args.seed)
        smallest = int(torch.bincount(groups)[groups.unique()].min())
        weights = torch.zeros(len(groups), dtype=torch.double)
        for group in groups.unique():
            members = (groups == group).nonzero()[:, 0]
            weights[members[torch.randperm(len(members), generator=generator)[:smallest]]] = 1.0
        return weights
