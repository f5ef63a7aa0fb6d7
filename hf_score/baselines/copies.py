"""Counterfactual copies of all training images, with the masks that SCORE has and without its penalty."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data.exchange import OtherClassPartners
from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer

__all__ = ["CopiesConfig", "CopiesTrainer"]


@dataclass
class CopiesConfig(BaselineConfig):
    """Configuration of [`CopiesTrainer`].

    Parameters:
        copies_per_step: copies of each optimizer step, over all processes; 64 is what SCORE sends through the model
            beside the batch, with its default of 16 samples a step: each and a partner, with and without the region.
        copies_weight: weight of the copies' cross-entropy.
    """

    copies_per_step: int = field(default=64, metadata={"help": "Copies per optimizer step."})
    copies_weight: float = field(default=1.0, metadata={"help": "Weight of the copies' cross-entropy."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copies_per_step < 1 or self.copies_weight < 0:
            raise HFScoreError("copies_per_step must be at least 1, and copies_weight at least 0: correct them.")


class CopiesTrainer(BaselineTrainer):
    """Cross-entropy of the training images + w · cross-entropy of counterfactual copies of them, which keep the label:
    the plainest use of the samples' masks, and the nearest rival of exchanging regions.

    A copy of an image is made with a decided-on sample drawn at random. Is it of another class, the image takes what
    is inside the sample's mask: the shortcut of that class appears. Is it of the image's own class, the image takes
    what an image of another class has there: the shortcut goes. So every training image is copied, where SCORE
    exchanges regions between samples and partners alone, and nothing is penalised. SPIRE (Plumb et al., 2021), which
    adds and removes an object, and Mixed-Rand (Xiao et al., 2020), which gives an image the background of a random
    class, are of this kind.

    Supervision: decisions. As many images go through the model as in SCORE.
    """

    name = "copies"
    title = "copies of all images"
    paper = "Plumb et al., 2021, arXiv 2106.02112"
    supervision_kinds = ("samples",)
    initial_model = "erm"
    config_class = CopiesConfig
    args: CopiesConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "copies_weight": [0.3, 1.0, 3.0, 10.0]}
    wanted_gates: ClassVar[dict[str, str]] = {"copy_loss_left": "<= 0.9"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first: Tensor | None = None

    @cached_property
    def _partners(self) -> OtherClassPartners:
        labels = self.train_labels().tolist()
        return OtherClassPartners(self.train_dataset, labels, self.data_collator, seed=self.args.seed)

    def copies(self, pixel_values: Tensor, labels: Tensor, draw_indices: list[int]) -> Tensor:
        """(B, 3, H, W): one copy of each image. What is drawn depends on the seed and the index of the draw alone."""
        samples = self.supervision.samples
        drawn = [
            int(torch.randint(len(samples), (1,), generator=torch.Generator().manual_seed(self.args.seed + index)))
            for index in draw_indices
        ]
        chosen = samples[drawn].to(pixel_values.device)
        own = chosen.labels == labels
        partners, _ = self._partners.draw(labels.tolist(), draw_indices)
        inside = torch.where(own[:, None, None, None], partners.to(pixel_values), chosen.pixel_values)
        return torch.where(chosen.masks[:, None], inside, pixel_values)

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        loss, outputs = super().batch_loss(model, inputs, idx)
        micro_batches = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        count = -(-self.args.copies_per_step // micro_batches)
        rows = torch.arange(count, device=loss.device) % len(idx)
        # Steps, images and the several copies of one image draw apart.
        numbers = [self.state.global_step * 7_368_787 + i * 64 + n for n, i in enumerate(idx[rows.cpu()].tolist())]
        labels = inputs["labels"][rows]
        copies = self.copies(inputs["pixel_values"][rows], labels, numbers)
        of_copies = nn.functional.cross_entropy(model(pixel_values=copies).logits.float(), labels)
        if self._first is None:
            self._first = of_copies.detach().clamp(min=1e-12)
        self.note_penalty(of_copies / self._first)
        return loss + self.args.copies_weight * of_copies, outputs

    def extra_state(self) -> dict[str, Tensor]:
        """The copies' loss at the start, which a resumed run cannot measure any more."""
        return {} if self._first is None else {"first": self._first}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        self._first = tensors.get("first")

    def gates(self) -> dict[str, float]:
        """The copies' cross-entropy in the last steps, as a share of the first step's."""
        return {"copy_loss_left": self.penalty_left}
