"""MaskTune: fine-tune on images whose most relevant pixels are hidden."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..attribution import Explainer
from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer

__all__ = ["MaskTuneConfig", "MaskTuneTrainer", "salient"]


@dataclass
class MaskTuneConfig(BaselineConfig):
    """Configuration of [`MaskTuneTrainer`].

    Parameters:
        masktune_deviations: a pixel is hidden whose relevance is so many standard deviations above the mean of the
            image's positive relevance.
    """

    masktune_deviations: float = field(default=2.0, metadata={"help": "Threshold, in standard deviations."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masktune_deviations < 0:
            raise HFScoreError(f"masktune_deviations is {self.masktune_deviations}: give a number of at least 0.")


class MaskTuneTrainer(BaselineTrainer):
    """Fine-tunes the ERM model on the training images with their most relevant pixels hidden (Taghanaki et al., 2022,
    section 3.1).

    Supervision: class labels. The relevance is LRP's, of the image's class, blurred; theirs is xGradCAM's, which needs
    a CNN. The threshold is that of their code. Hidden pixels have the processor's mean, 0. They train for one epoch;
    here the schedule says.
    """

    name = "masktune"
    title = "MaskTune"
    paper = "Taghanaki et al., 2022, arXiv 2210.00055"
    initial_model = "erm"
    config_class = MaskTuneConfig
    args: MaskTuneConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "masktune_deviations": [0.5, 1.0, 2.0, 3.0]}
    wanted_gates: ClassVar[dict[str, str]] = {"hidden_share": ">= 0.005"}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self.train_dataset, _Hidden):
            self.train_dataset = _Hidden(self.train_dataset, self.hidden_pixels(), self.data_collator)
        return super().train(*args, **kwargs)

    def gates(self) -> dict[str, float]:
        """Share of the training images' pixels that are hidden."""
        dataset: Any = self.train_dataset
        return {"hidden_share": float(dataset.masks.float().mean())}

    def hidden_pixels(self) -> Tensor:
        """(N, H, W) bool: what is hidden of each training image."""
        model: Any = self.model
        model.to(self.args.device)
        masks = []
        with Explainer(model, batch_size=self.args.per_device_eval_batch_size) as explainer:
            for batch in tqdm(self.batches(self.train_dataset), desc="Masks", disable=self.args.disable_tqdm):
                explained = explainer.explain(batch["pixel_values"], batch["labels"])
                assert explained.relevance is not None
                masks.append(salient(explained.relevance, deviations=self.args.masktune_deviations).cpu())
        return torch.cat(masks)


def salient(relevance: Tensor, *, deviations: float) -> Tensor:
    """(B, H, W) bool: where the blurred relevance (B, H, W) is so many standard deviations above its mean.

    Mean and deviation are over the image's positive relevance. Without any, nothing is salient.
    """
    width = max(3, relevance.shape[-1] // 16 | 1)
    blurred = torch.nn.functional.avg_pool2d(
        relevance[:, None].float(), width, stride=1, padding=width // 2, count_include_pad=False
    )[:, 0]
    positive = blurred.masked_fill(blurred <= 0, float("nan"))
    mean = positive.nanmean(dim=(1, 2), keepdim=True)
    deviation = (positive - mean).square().nanmean(dim=(1, 2), keepdim=True).sqrt()
    return blurred > mean + deviations * deviation


class _Hidden(torch.utils.data.Dataset):
    """A training set whose images have hidden pixels."""

    def __init__(self, dataset: Any, masks: Tensor, collator: Any) -> None:
        self.dataset, self.masks, self.collator = dataset, masks, collator

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        batch = self.collator([self.dataset[item]])
        pixel_values = batch["pixel_values"][0]
        hidden = pixel_values * ~self.masks[item].to(pixel_values.device)
        return {"pixel_values": hidden, "labels": batch["labels"][0], "idx": batch["idx"][0]}
