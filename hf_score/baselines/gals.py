"""GALS: no gradient of the loss where somebody's attention is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import HFScoreError
from .base import BaselineConfig
from .rrr import RegionTrainer, input_gradient

__all__ = ["GALSConfig", "GALSTrainer", "loss_gradient_penalty"]


@dataclass
class GALSConfig(BaselineConfig):
    """Configuration of [`GALSTrainer`].

    Parameters:
        gals_lambda: λ; the penalty is 1 on the starting model (theirs: 10,000 without that scale).
    """

    gals_lambda: float = field(default=1.0, metadata={"help": "Weight of the penalty, 1 on the starting model."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gals_lambda < 0:
            raise HFScoreError(f"gals_lambda is {self.gals_lambda}: give a number of at least 0.")


class GALSTrainer(RegionTrainer):
    """Cross-entropy + λ ‖∂L/∂x ∘ (1 − A)‖₁, L the cross-entropy of an image and A where to look (Petryk et al., 2022).

    Supervision: regions of the attribute in training images, which are 1 − A here; theirs is the attention of a
    language model, told in words. Scaled to 1 on the starting model (ours).
    """

    name = "gals"
    title = "GALS, from regions"
    paper = "Petryk et al., 2022, arXiv 2202.08926"
    config_class = GALSConfig
    args: GALSConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "gals_lambda": [0.3, 1.0, 10.0, 100.0]}

    def strength(self) -> float:
        return self.args.gals_lambda

    def region_penalty(self, model: nn.Module, pixel_values: Tensor, regions: Tensor, labels: Tensor) -> Tensor:
        return loss_gradient_penalty(model, pixel_values, regions, labels).mean()


def loss_gradient_penalty(model: nn.Module, pixel_values: Tensor, regions: Tensor, labels: Tensor) -> Tensor:
    """(B,): Σ over the region of |∂L/∂x|, L the cross-entropy of the image, with a graph.

    Args:
        model: a classifier with `.logits`.
        pixel_values: (B, 3, H, W).
        regions: (B, H, W) bool.
        labels: (B,).
    """
    _, gradient = input_gradient(
        model, pixel_values, lambda logits: nn.functional.cross_entropy(logits, labels, reduction="sum")
    )
    return (gradient * regions[:, None]).abs().sum(dim=(1, 2, 3))
