"""GroupDRO: minimise the loss of the worst group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HFScoreError
from .base import BaselineConfig
from .reweighting import ReweightingTrainer

__all__ = ["GroupDROConfig", "GroupDROTrainer"]


@dataclass
class GroupDROConfig(BaselineConfig):
    """Configuration of [`GroupDROTrainer`].

    Parameters:
        group_dro_step_size: η, by how much the weight of a group grows with its loss (their default: 0.01).
        group_dro_adjustment: C, adds C/√n_g to the loss of a group with n_g training images (their default: 0).
    """

    group_dro_step_size: float = field(default=0.01, metadata={"help": "Step size of the group weights."})
    group_dro_adjustment: float = field(default=0.0, metadata={"help": "C of the adjustment C/sqrt(group size)."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_dro_step_size <= 0:
            raise HFScoreError(f"group_dro_step_size is {self.group_dro_step_size}: give a number above 0.")


class GroupDROTrainer(ReweightingTrainer):
    """min_θ max_q Σ_g q_g · E[loss | g], with q by exponentiated gradient ascent (Sagawa et al., 2020, algorithm 1).

    Supervision: groups of the training set. As in their commands, batches are drawn with equal probability of every
    group. q follows every micro-batch, so 8×1 and 4×2 differ; several processes share one q.
    """

    name = "group_dro"
    title = "GroupDRO"
    paper = "Sagawa et al., 2020, arXiv 1911.08731"
    config_class = GroupDROConfig
    args: GroupDROConfig  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        groups = self.train_groups()
        sizes = torch.bincount(groups)
        self._group_of = dict(zip(self.train_idx().tolist(), groups.tolist(), strict=True))
        self._adjustment = (self.args.group_dro_adjustment / sizes.clamp(min=1).sqrt()).to(self.args.device)
        #: (G,): the weights q of the groups; those without a training image have 0.
        self.group_weights = ((sizes > 0) / (sizes > 0).sum()).float().to(self.args.device)

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs = model(pixel_values=inputs["pixel_values"])
        losses = nn.functional.cross_entropy(outputs.logits.float(), inputs["labels"], reduction="none")
        groups = torch.as_tensor([self._group_of[i] for i in idx.tolist()], device=losses.device)
        one_hot = nn.functional.one_hot(groups, len(self.group_weights)).to(losses.dtype)
        sums = self.accelerator.reduce(torch.stack([one_hot.T @ losses.detach(), one_hot.sum(0)]), reduction="sum")
        counts = sums[1].clamp(min=1)
        present = (sums[1] > 0).to(losses.dtype)
        adjusted = sums[0] / counts + self._adjustment * present
        weights = self.group_weights * torch.exp(self.args.group_dro_step_size * adjusted)
        self.group_weights = weights / weights.sum()
        # Gradients are averaged over processes: each one's share of a group's mean is taken as many times.
        means = (one_hot.T @ losses) / counts * self.accelerator.num_processes
        return self.group_weights @ means, outputs

    def extra_state(self) -> dict[str, Tensor]:
        """q, so that a resumed run goes on with it."""
        return {"group_weights": self.group_weights}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        self.group_weights = tensors["group_weights"]
