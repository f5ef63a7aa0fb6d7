"""GroupDRO: minimise the loss of the worst group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

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
        group_dro_step_size: η, by how much the weight of a group grows with its loss; None for
            `group_dro_total_step` / number of micro-batches.
        group_dro_total_step: η summed over the run. Theirs is about 110: 0.01 in each of some 11,000 steps.
        group_dro_loss_momentum: of the running mean of each group's loss that q follows; 0 is theirs.
        group_dro_adjustment: C, adds C/√n_g to the loss of a group with n_g training images (their default: 0).
    """

    group_dro_step_size: float | None = field(default=None, metadata={"help": "Step size of the group weights."})
    group_dro_total_step: float = field(default=100.0, metadata={"help": "Step size, summed over the run."})
    group_dro_loss_momentum: float = field(default=0.8, metadata={"help": "Momentum of the groups' running losses."})
    group_dro_adjustment: float = field(default=0.0, metadata={"help": "C of the adjustment C/sqrt(group size)."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_dro_step_size is not None and self.group_dro_step_size <= 0:
            raise HFScoreError(f"group_dro_step_size is {self.group_dro_step_size}: give a number above 0.")
        if self.group_dro_total_step <= 0 or not 0 <= self.group_dro_loss_momentum < 1:
            raise HFScoreError(
                "group_dro_total_step must be above 0, and group_dro_loss_momentum from 0 to below 1: correct them."
            )


class GroupDROTrainer(ReweightingTrainer):
    """min_θ max_q Σ_g q_g · E[loss | g], with q by exponentiated gradient ascent (Sagawa et al., 2020, algorithm 1).

    Supervision: groups of the training set. As in their commands, batches are drawn with equal probability of every
    group. Ours: η is set so that it sums to what theirs does over a whole run, or q would stay uniform in a few
    hundred steps, and with steps so large q follows running means of the groups' losses. q follows every micro-batch,
    so 8×1 and 4×2 differ; several processes share one q.
    """

    name = "group_dro"
    title = "GroupDRO"
    paper = "Sagawa et al., 2020, arXiv 1911.08731"
    config_class = GroupDROConfig
    args: GroupDROConfig  # type: ignore[assignment]
    version = 2
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "group_dro_total_step": [30.0, 100.0],
        "group_dro_adjustment": [0.0, 1.0],
    }
    wanted_gates: ClassVar[dict[str, str]] = {"group_weight_range": ">= 0.1"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        groups = self.train_groups()
        sizes = torch.bincount(groups)
        self._group_of = dict(zip(self.train_idx().tolist(), groups.tolist(), strict=True))
        self._adjustment = (self.args.group_dro_adjustment / sizes.clamp(min=1).sqrt()).to(self.args.device)
        #: (G,): the weights q of the groups; those without a training image have 0.
        self.group_weights = ((sizes > 0) / (sizes > 0).sum()).float().to(self.args.device)
        #: (G,): running losses; nan before an image of the group was seen.
        self._losses = torch.full_like(self.group_weights, torch.nan)
        self._has_images = (sizes > 0).to(self.args.device)
        self._range = torch.zeros((), device=self.args.device)

    @property
    def step_size(self) -> float:
        """η."""
        if self.args.group_dro_step_size is not None:
            return self.args.group_dro_step_size
        return self.args.group_dro_total_step / max(1, self.state.max_steps * self.args.gradient_accumulation_steps)

    def gates(self) -> dict[str, float]:
        """The largest difference between the weights of two groups in the run."""
        return {"group_weight_range": float(self._range)}

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs = model(pixel_values=inputs["pixel_values"])
        losses = nn.functional.cross_entropy(outputs.logits.float(), inputs["labels"], reduction="none")
        groups = torch.as_tensor([self._group_of[i] for i in idx.tolist()], device=losses.device)
        one_hot = nn.functional.one_hot(groups, len(self.group_weights)).to(losses.dtype)
        sums = self.accelerator.reduce(torch.stack([one_hot.T @ losses.detach(), one_hot.sum(0)]), reduction="sum")
        counts = sums[1].clamp(min=1)
        momentum = self.args.group_dro_loss_momentum
        before = torch.where(self._losses.isnan(), sums[0] / counts, self._losses)
        now = torch.where(sums[1] > 0, momentum * before + (1 - momentum) * sums[0] / counts, self._losses)
        self._losses = now
        # Without a running mean a group that is not in the batch keeps its weight, as theirs does.
        moves = ~now.isnan() if momentum > 0 else sums[1] > 0
        adjusted = torch.where(moves, now.nan_to_num() + self._adjustment, 0.0)
        logits = self.group_weights.log() + self.step_size * adjusted
        self.group_weights = logits.softmax(dim=0)
        of_images = self.group_weights[self._has_images]
        self._range = torch.maximum(self._range, of_images.max() - of_images.min())
        # Gradients are averaged over processes: each one's share of a group's mean is taken as many times.
        means = (one_hot.T @ losses) / counts * self.accelerator.num_processes
        return self.group_weights @ means, outputs

    def extra_state(self) -> dict[str, Tensor]:
        """q and the running losses, so that a resumed run goes on with them."""
        return {"group_weights": self.group_weights, "losses": self._losses, "range": self._range}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        self.group_weights, self._losses, self._range = (tensors[n] for n in ("group_weights", "losses", "range"))
