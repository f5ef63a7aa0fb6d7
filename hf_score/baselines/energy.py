"""Energy loss on masks: as little of the explanation's energy as possible where the annotation says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import HFScoreError
from .base import BaselineConfig
from .rrr import RegionTrainer, input_gradient

__all__ = ["EnergyConfig", "EnergyTrainer", "energy_in_region"]


@dataclass
class EnergyConfig(BaselineConfig):
    """Configuration of [`EnergyTrainer`].

    Parameters:
        energy_lambda: λ; the penalty itself, a share between 0 and 1, is multiplied with it.
    """

    energy_lambda: float = field(default=1.0, metadata={"help": "Weight of the share of energy in the region."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.energy_lambda < 0:
            raise HFScoreError(f"energy_lambda is {self.energy_lambda}: give a number of at least 0.")


class EnergyTrainer(RegionTrainer):
    """Cross-entropy + λ · Σ_region R⁺ / Σ R⁺, with R the input times the gradient of the logit of the image's class
    (Rao et al., 2023, its energy loss, of what is outside a box there and inside the attribute's region
    here).

    Supervision: regions of the attribute in training images. RobustViT (Chefer et al., 2022) is of this kind, with an
    attention map and the object's mask: this is the same loss for every model, not theirs.
    """

    name = "energy"
    title = "energy loss"
    paper = "Rao et al., 2023, arXiv 2303.11932"
    config_class = EnergyConfig
    args: EnergyConfig  # type: ignore[assignment]
    scaled = False
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "energy_lambda": [0.3, 1.0, 3.0, 10.0]}

    def strength(self) -> float:
        return self.args.energy_lambda

    def region_penalty(self, model: nn.Module, pixel_values: Tensor, regions: Tensor, labels: Tensor) -> Tensor:
        return energy_in_region(model, pixel_values, regions, labels).mean()


def energy_in_region(model: nn.Module, pixel_values: Tensor, regions: Tensor, labels: Tensor) -> Tensor:
    """(B,): the share of the positive relevance that lies in the region, with a graph; relevance is summed over the
    colour channels.

    Args:
        model: a classifier with `.logits`.
        pixel_values: (B, 3, H, W).
        regions: (B, H, W) bool.
        labels: (B,).
    """
    images, gradient = input_gradient(model, pixel_values, lambda logits: logits.gather(1, labels[:, None]).sum())
    energy = (images * gradient).sum(dim=1).clamp(min=0)
    return (energy * regions).sum(dim=(1, 2)) / energy.sum(dim=(1, 2)).clamp(min=1e-12)
