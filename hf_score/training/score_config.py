"""`SCOREConfig`: everything that decides how a model is fine-tuned with the SCORE penalty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import HFScoreError
from .base_config import BaseConfig

__all__ = ["SCOREConfig"]


@dataclass
class SCOREConfig(BaseConfig):
    """Configuration of [`SCORETrainer`]: all of [`BaseConfig`], and the fields below.

    Parameters that control the penalty:
        score_lambda: λ, the weight of the penalty beside the cross-entropy. The penalty is scaled to 1 on the starting
            model, so λ is in nats and carries over between models. 0 makes training bit-identical to `Trainer`.
        score_penalised: what the shortcut contributes: `"difference"`, the change of the class margin when the masked
            region is exchanged with that of an image of another class; or what the shortcut neurons at the probe layer
            say: their `"activation"` |a| (the paper's), or their `"contribution"` |a·∂f/∂a| to the objective f, which
            also trains the layers above the probe layer to ignore it.
        score_swap_weight: weight w of the cross-entropy of the copies with exchanged regions; each keeps the label of
            what is outside the region.
        score_own_class_exchange: where such copies are made, every training image takes a region from an image of its
            own class, so that the edge of a region does not tell copies from images. Keeps up to 256 images in memory.
            Not done where the masks cover half of the image or more: their edge is the outline of the object.
        score_batch_size: spurious-positive samples per optimizer step, over all processes.
        score_held_out_share: share of the spurious-positive samples that is never penalised and measures reliance.

    Parameters of the penalty on neurons (`score_penalised` other than `"difference"`):
        score_layer: the probe layer: `"last"`, a stage or block (`"stage3"`, `"block4"`, `-2`), or a dotted name.
        score_reading: `"channel"` pools relevance and activation over positions first, `"spatial"` pairs them
            position by position.
        score_objective: what is explained: the class `"logit"`, or its `"margin"` over the strongest other class.
        score_refresh_steps: recompute the shortcut relevance with the current weights every so many optimizer steps;
            0 keeps that of the starting model (the paper's description).
        score_random_neurons: control: give every neuron the relevance of another, randomly drawn one.
        score_unmasked: control: take the relevance of the whole image instead of the masked one.

    Defaults that differ from [`BaseConfig`]: `freeze_batch_norm` and `class_balanced` are on where `score_lambda` is
    above 0.
    """

    score_lambda: float = field(default=3.0, metadata={"help": "Weight of the penalty; 0 is plain fine-tuning."})
    score_penalised: Literal["difference", "activation", "contribution"] = field(
        default="difference",
        metadata={"help": "Margin change when the region is exchanged, or at the probe layer |a| or |a * df/da|."},
    )
    score_swap_weight: float = field(default=1.0, metadata={"help": "Weight of copies with exchanged regions."})
    score_own_class_exchange: bool = field(
        default=True,
        metadata={"help": "Training images take a region from their own class where copies are made."},
    )
    score_batch_size: int = field(default=16, metadata={"help": "Spurious-positive samples per step, all processes."})
    score_held_out_share: float = field(
        default=0.25, metadata={"help": "Share of spurious-positive samples kept to measure reliance."}
    )
    score_layer: str = field(default="last", metadata={"help": "Probe layer: last, stage3, block4, -2, dotted name."})
    score_reading: Literal["channel", "spatial"] = field(
        default="spatial", metadata={"help": "Pool over positions first (channel), or not (spatial)."}
    )
    score_objective: Literal["logit", "margin"] = field(
        default="logit", metadata={"help": "Explain the class logit, or its margin over the next class."}
    )
    score_refresh_steps: int = field(
        default=8, metadata={"help": "Recompute shortcut relevance every N steps; 0 = never."}
    )
    score_random_neurons: bool = field(default=False, metadata={"help": "Control: shuffle relevance over neurons."})
    score_unmasked: bool = field(default=False, metadata={"help": "Control: relevance of the unmasked image."})
    freeze_batch_norm: bool | None = field(
        default=None, metadata={"help": "BatchNorm in eval mode while training. Default: if score_lambda > 0."}
    )
    class_balanced: bool | None = field(
        default=None,
        metadata={"help": "Draw training images so that classes are seen equally. Default: if score_lambda > 0."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_lambda < 0:
            raise HFScoreError(f"score_lambda is {self.score_lambda}: give a number of at least 0.")
        if self.score_refresh_steps < 0:
            raise HFScoreError(f"score_refresh_steps is {self.score_refresh_steps}: give 0 (never) or more.")
        if self.score_batch_size < 1:
            raise HFScoreError(f"score_batch_size is {self.score_batch_size}: give a number of at least 1.")
        if not 0 <= self.score_held_out_share < 1:
            raise HFScoreError(f"score_held_out_share is {self.score_held_out_share}: give a share from 0 to below 1.")
        if self.score_penalised == "difference" and (self.score_random_neurons or self.score_unmasked):
            raise HFScoreError(
                "score_random_neurons and score_unmasked are controls of the penalty on neurons: set "
                "score_penalised='activation' too, or leave them off."
            )
        if self.class_balanced is None:
            self.class_balanced = self.score_lambda > 0
        if self.freeze_batch_norm is None:
            self.freeze_batch_norm = self.score_lambda > 0
