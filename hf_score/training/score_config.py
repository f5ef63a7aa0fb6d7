"""`SCOREConfig`: everything that decides how a model is fine-tuned with the SCORE penalty."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from ..errors import HFScoreError
from ..renamed import accepts_old_names
from .base_config import BaseConfig

__all__ = ["SCOREConfig"]

logger = logging.getLogger(__name__)

_SAMPLES_PER_STEP = 16
_CHOICES = {
    "score_form": ("paper", "exchange", "both"),
    "score_neuron_strength": ("activation", "contribution"),
    "score_fine_tuning_set": ("all", "samples", "samples_and_random"),
    "score_granularity": ("channel", "spatial"),
    "score_objective": ("logit", "margin"),
}


@accepts_old_names
@dataclass
class SCOREConfig(BaseConfig):
    """Configuration of [`SCORETrainer`]: all of [`BaseConfig`], and the fields below.

    Parameters that control the penalty:
        score_form: `"paper"` penalises neurons that speak for the shortcut at a probe layer (SCORE); `"exchange"` the
            change of the class margin when the masked region is exchanged with that of an image of another class
            (ours, SCORE-X); `"both"` does both (SCORE-B).
        score_lambda: λ, the weight of the penalty beside the cross-entropy. The penalty is scaled to 1 on the starting
            model, so λ is in nats and carries over between models. 0 leaves the copies below alone, in every form.
        score_neuron_lambda: of `"both"`, the weight of the penalty on neurons beside λ, that of the exchange. Default:
            the same.
        score_exchange_weight: weight w of the cross-entropy of the copies with exchanged regions; each keeps the label
            of what is outside the region. Default: 0 in the paper's form, which has no copies, 1 in the others. With
            `score_lambda=0` and `score_exchange_weight=0` samples train nothing and measure reliance alone.
        score_own_class_exchange: where such copies are made, every training image takes a region from an image of its
            own class, so that the edge of a region does not tell copies from images. Keeps up to 256 images in memory.
            Not done where the masks cover half of the image or more: their edge is the outline of the object.
        score_fine_tuning_set: what the cross-entropy is of: `"all"` training images, the penalised `"samples"` alone,
            or `"samples_and_random"`, as many training images beside them, drawn at random without a look at their
            labels (the construction is the paper's, appendix A.1). An epoch has as many steps whichever it is; with
            `class_balanced` the classes that are there are seen equally.
        score_batch_size: spurious-positive samples per optimizer step, exactly so many over all micro-batches and
            processes. Default: 16, or the images of a step where those are fewer. Copies with exchanged regions make
            four images of each ([`SCOREConfig.images_per_step`]).
        score_held_out_share: share of the spurious-positive samples that is never penalised and measures reliance.

    Parameters of the penalty on neurons, in the forms `"paper"` and `"both"`:
        score_neuron_strength: how strongly a neuron speaks: by its `"activation"` |a| (the paper's), or by its
            `"contribution"` |a·∂f/∂a| to the objective f, which also trains the layers above the probe layer to ignore
            it.
        score_layer: the probe layer: `"last"`, a stage or block (`"stage3"`, `"block4"`, `-2`), or a dotted name; or
            several with commas between (`"block4,block8"`), whose penalties are averaged, each scaled to 1.
        score_granularity: `"channel"` pools relevance and activation over positions first, `"spatial"` pairs them
            position by position.
        score_objective: what is explained of the masked image: the class `"logit"` (the paper's; where it is not
            positive, and so has no relevance to give, the margin), or always its `"margin"` over the strongest other
            class.
        score_refresh_steps: recompute the shortcut relevance with the current weights every so many optimizer steps;
            0 keeps that of the starting model (the paper's description).
        score_random_neurons: control: give every neuron the relevance of another, randomly drawn one.
        score_unmasked: control: take the relevance of the whole image instead of the masked one.

    Defaults that differ from [`BaseConfig`]: `freeze_batch_norm` and `class_balanced` are on where there are samples
    that train something ([`SCOREConfig.with_defaults`]).
    """

    score_lambda: float = field(default=3.0, metadata={"help": "Weight of the penalty; 0 leaves the copies alone."})
    score_form: Literal["paper", "exchange", "both"] = field(
        default="exchange",
        metadata={"help": "Penalise neurons (paper: SCORE), the margin's change (exchange: SCORE-X), or both."},
    )
    score_neuron_lambda: float | None = field(
        default=None, metadata={"help": "Form both: weight of the penalty on neurons. Default: score_lambda."}
    )
    score_exchange_weight: float | None = field(
        default=None, metadata={"help": "Weight of copies with exchanged regions. Default: 1; form paper: 0."}
    )
    score_own_class_exchange: bool = field(
        default=True,
        metadata={"help": "Training images take a region from their own class where copies are made."},
    )
    score_fine_tuning_set: Literal["all", "samples", "samples_and_random"] = field(
        default="all", metadata={"help": "Images to fine-tune on: all, samples, or samples_and_random (as many)."}
    )
    score_batch_size: int | None = field(
        default=None,
        metadata={"help": "Spurious-positive samples per step, all processes. Default: 16, at most the batch."},
    )
    score_held_out_share: float = field(
        default=0.25, metadata={"help": "Share of spurious-positive samples kept to measure reliance."}
    )
    score_neuron_strength: Literal["activation", "contribution"] = field(
        default="activation", metadata={"help": "Strength of a neuron: |a|, or |a * df/da|."}
    )
    score_layer: str = field(
        default="last",
        metadata={"help": "Probe layers: last, stage3, block4, -2, dotted name; several: block4,block8."},
    )
    score_granularity: Literal["channel", "spatial"] = field(
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
        default=None, metadata={"help": "BatchNorm in eval mode while training. Default: where samples train."}
    )
    class_balanced: bool | None = field(
        default=None,
        metadata={
            "help": "Draw training images so that classes are seen equally. Default: where samples train, no stream."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_lambda < 0:
            raise HFScoreError(f"score_lambda is {self.score_lambda}: give a number of at least 0.")
        if self.score_refresh_steps < 0:
            raise HFScoreError(f"score_refresh_steps is {self.score_refresh_steps}: give 0 (never) or more.")
        if self.score_batch_size is not None and self.score_batch_size < 1:
            raise HFScoreError(f"score_batch_size is {self.score_batch_size}: give a number of at least 1.")
        if not 0 <= self.score_held_out_share < 1:
            raise HFScoreError(f"score_held_out_share is {self.score_held_out_share}: give a share from 0 to below 1.")
        for name in ("score_exchange_weight", "score_neuron_lambda"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise HFScoreError(f"{name} is {value}: give a number of at least 0.")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise HFScoreError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}.")
        if not self.layers or "" in self.layers:
            raise HFScoreError(f"score_layer is {self.score_layer!r}: give a layer, or several with commas between.")
        if self.score_neuron_lambda is not None and self.score_form != "both":
            raise HFScoreError(
                f"score_neuron_lambda is of score_form='both', and score_form is {self.score_form!r}: score_lambda is "
                "the weight of its one penalty."
            )
        if self.score_form == "exchange" and (self.score_random_neurons or self.score_unmasked):
            raise HFScoreError(
                "score_random_neurons and score_unmasked are controls of the penalty on neurons: set "
                "score_form='paper' or 'both' too, or leave them off."
            )

    @property
    def layers(self) -> list[str | int]:
        """The probe layers of `score_layer`."""
        names = [name.strip() for name in str(self.score_layer).split(",")]
        return [int(name) if name.lstrip("-").isdecimal() else name for name in names]

    @property
    def neuron_lambda(self) -> float:
        """The weight of the penalty on neurons; 0 in a form without it."""
        if self.score_form == "exchange" or self.score_lambda == 0:
            return 0.0
        return self.score_lambda if self.score_neuron_lambda is None else self.score_neuron_lambda

    @property
    def exchange_lambda(self) -> float:
        """The weight of the margin's change; 0 in a form without it."""
        return 0.0 if self.score_form == "paper" else self.score_lambda

    @property
    def exchange_weight(self) -> float:
        """The weight of the copies with exchanged regions."""
        if self.score_exchange_weight is None:
            return 0.0 if self.score_form == "paper" else 1.0
        return self.score_exchange_weight

    @property
    def samples_per_step(self) -> int:
        """Spurious-positive samples of an optimizer step, over all processes."""
        return min(_SAMPLES_PER_STEP, self._batch) if self.score_batch_size is None else self.score_batch_size

    @property
    def images_per_step(self) -> dict[str, int]:
        """How many images go through the network for an optimizer step, over all processes: those of the `batch`, the
        `samples` and their `copies` with exchanged regions and partners. That r is computed anew is beside these."""
        samples = self.samples_per_step if self.samples_train else 0
        of_neurons = samples if self.neuron_lambda > 0 else 0
        if self.score_form == "paper":
            return {"batch": self._batch, "samples": of_neurons, "copies": 2 * samples if self.exchange_weight else 0}
        return {"batch": self._batch, "samples": of_neurons + samples, "copies": 3 * samples}

    @property
    def cost_of_a_step(self) -> str:
        """`images_per_step` in a sentence."""
        images = self.images_per_step
        total = sum(images.values())
        parts = ", ".join(f"{count} of {name}" for name, count in images.items() if count)
        return f"A step is of {total} images ({parts}): {total / images['batch']:.2g} times a plain step's."

    @property
    def _batch(self) -> int:
        """Training images of an optimizer step, over all processes."""
        return self.train_batch_size * self.gradient_accumulation_steps * self.world_size

    @property
    def samples_train(self) -> bool:
        """Whether spurious-positive samples, where there are any, train something."""
        return self.score_lambda > 0 or self.exchange_weight > 0

    def described(self) -> dict[str, Any]:
        """As [`BaseConfig.described`], with the weights that the form decides."""
        weights = {"score_exchange_weight": self.exchange_weight}
        if self.score_form == "both":
            weights["score_neuron_lambda"] = self.neuron_lambda
        return {**super().described(), **weights}

    def with_defaults(self, *, samples: bool, stream: bool = False) -> Self:
        """A copy in which `freeze_batch_norm`, `class_balanced` and `score_batch_size` are decided.

        Args:
            samples: whether there are spurious-positive samples.
            stream: whether the training set is one, from which classes cannot be drawn equally.
        """
        decided = copy.copy(self)
        decided.score_batch_size = self.samples_per_step
        if stream and self.class_balanced is None:
            decided.class_balanced = False
            if samples and self.samples_train:
                logger.warning("The training set is a stream: its classes are seen as often as they come in it.")
        for name in ("freeze_batch_norm", "class_balanced"):
            if getattr(decided, name) is None:
                setattr(decided, name, samples and self.samples_train)
        return decided
