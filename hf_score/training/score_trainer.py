"""`SCORETrainer`: `BaseTrainer` with the SCORE penalty."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_utils import has_length

from ..data.exchange import OtherClassPartners, SameClassPartners
from ..data.views import is_stream
from ..detection.samples import SpuriousSamples
from ..errors import HFScoreError
from ..evaluation import SELECTION, Estimates
from ..report.methods import FORMS, form_of
from .base_trainer import BaseTrainer
from .columns import column_names
from .draws import Draw, Draws, PartnerImages
from .fine_tuning_set import fine_tuning_set, weights_within
from .penalties import BothPenalties, MarginPenalty, NeuronPenalty, Penalty
from .reliance import Reliance
from .score_config import SCOREConfig

__all__ = ["SCORETrainer"]


class SCORETrainer(BaseTrainer):
    """Fine-tunes an image classifier with a penalty on what its spurious-positive samples' shortcut contributes.

    Loss = cross-entropy + λ·P/P₀ + w·cross-entropy of the copies with exchanged regions, with P₀ the penalty of the
    starting model. What P is, `score_form` says: `NeuronPenalty`, which is SCORE as in the paper (arXiv 2605.13340);
    `MarginPenalty`, which is SCORE-X (ours, the default); or both, SCORE-B. Beside exchanged copies, training images
    take a region from their own class, so that its edge does not tell them apart (`score_own_class_exchange`, ours).
    Of a stream, about 256 images from its beginning, of every class as many, are kept in memory to exchange regions
    with: never held-out images, which are not to be trained on. Shuffle it where it is sorted by class. Its classes
    are seen as often as they come.

    Args:
        model: an image classifier of `transformers`, timm-wrapped ones included.
        args: [`SCOREConfig`].
        spurious_samples: the samples a person, a file or an oracle decided on. Without any, training is that of
            `Trainer` to the bit; so it is where neither λ nor w is above 0, and then samples measure reliance alone.
        **kwargs: as for [`BaseTrainer`].

    Raises:
        DataError: a training set with any other column, or an evaluation set with groups that would choose.
        HFScoreError: a penalty without samples, or, once training begins, one that is 0 for all of them.
    """

    args: SCOREConfig  # type: ignore[assignment]
    name = "score"
    title = "SCORE"
    supervision_kinds = ("samples",)
    initial_model = "erm"
    config_class = SCOREConfig
    _tag_names = ("hf-score", "score", "shortcut-mitigation")

    def __init__(
        self,
        model: PreTrainedModel | str | os.PathLike[str] | None = None,
        args: SCOREConfig | None = None,
        *,
        spurious_samples: SpuriousSamples | None = None,
        **kwargs: Any,
    ) -> None:
        args = SCOREConfig() if args is None else args
        given = spurious_samples if spurious_samples is not None and len(spurious_samples) else None
        if args.score_lambda > 0 and given is None:
            raise HFScoreError(
                f"score_lambda is {args.score_lambda} but there are no spurious-positive samples to penalise: "
                "decide on some first, or set score_lambda=0."
            )
        #: How results and cards call the form that is trained.
        self.title = FORMS[args.score_form]  # type: ignore[misc]
        args = args.with_defaults(samples=given is not None, stream=is_stream(kwargs.get("train_dataset")))
        super().__init__(model, args, **kwargs)
        #: Those that train something, and those that measure reliance; None where there are none.
        self.spurious_samples: SpuriousSamples | None = None
        self.held_out_samples: SpuriousSamples | None = None
        self._fine_tuned_on: Tensor | None = None
        if given is not None:
            trained, held_out = given.split(held_out_share=args.score_held_out_share, seed=args.seed)
            self.spurious_samples = trained if args.samples_train else None
            self.held_out_samples = held_out if len(held_out) else None
            kind = args.score_fine_tuning_set
            self._fine_tuned_on = fine_tuning_set(self.train_dataset, trained, kind, seed=args.seed)
        self.reliance = Reliance(self.held_out_samples, args) if self.held_out_samples is not None else None
        self._micro_step = (-1, 0)
        #: Of each micro-batch since the last log, how many samples, and their mean penalties.
        self._paid: list[tuple[int, dict[str, Tensor]]] = []

    @classmethod
    def title_of(cls, config: Mapping[str, Any]) -> str:
        """The name of the form in a configuration's fields."""
        return FORMS[form_of(config) or SCOREConfig.score_form]

    # ---- Loss ----

    @property
    def has_own_loss(self) -> bool:
        """Whether samples train anything."""
        return self.spurious_samples is not None

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Any) -> tuple[Tensor, Any]:
        """Cross-entropy + λ·P/P₀ + w·cross-entropy of the copies."""
        assert self.spurious_samples is not None and self.penalty is not None
        step, micro_batch = self._next_micro_batch()
        inputs = {**inputs, "pixel_values": self._exchange_within_classes(step, micro_batch, **inputs)}
        loss, outputs = super().batch_loss(model, inputs, idx)
        # The unwrapped model: its parameters are the wrapped one's, so DDP still reduces one gradient per parameter.
        unwrapped = self.accelerator.unwrap_model(self.model)
        draw = self._draw(step, micro_batch)
        penalties, copies = self.penalty(unwrapped, draw, step=step)
        self._paid.append((len(draw.indices), {name: penalty.detach() for name, penalty in penalties.items()}))
        weights = self._weights
        paid = sum(weights[name] * penalty for name, penalty in penalties.items())
        # The step's loss is the mean over its micro-batches, in which this one has its share of the samples.
        share = len(draw.indices) * self._micro_batches / self.args.samples_per_step
        return loss + share * (paid + self.args.exchange_weight * copies), outputs

    @property
    def _weights(self) -> dict[str, float]:
        """λ of each penalty."""
        return {"exchange": self.args.exchange_lambda, "neurons": self.args.neuron_lambda}

    @cached_property
    def penalty(self) -> Penalty | None:
        """What P is; None where samples train nothing."""
        if self.spurious_samples is None:
            return None
        if self.args.score_form == "paper":
            return NeuronPenalty(self.spurious_samples, self.args)
        exchange = MarginPenalty(self.spurious_samples, self._partners, self.args)
        if self.args.neuron_lambda == 0:
            return exchange
        return BothPenalties(exchange, NeuronPenalty(self.spurious_samples, self.args))

    def _next_micro_batch(self) -> tuple[int, int]:
        """The optimizer step, and the number of this micro-batch among those that accumulation steps and processes
        share it out to."""
        step = self.state.global_step
        self._micro_step = (step, self._micro_step[1] + 1 if self._micro_step[0] == step else 0)
        processes = self.accelerator.num_processes
        return step, self._micro_step[1] * processes + self.accelerator.process_index

    @property
    def _micro_batches(self) -> int:
        """Micro-batches of an optimizer step, over all processes."""
        return self.current_gradient_accumulation_steps * self.accelerator.num_processes

    def _draw(self, step: int, micro_batch: int = 0) -> Draw:
        """The samples and partners of a micro-batch."""
        return self._draws(step, micro_batch, of=self._micro_batches)

    @cached_property
    def _draws(self) -> Draws:
        assert self.spurious_samples is not None
        return Draws(
            self.spurious_samples,
            self._partners if self._makes_copies else None,
            self.args,
            processes=self.accelerator.num_processes,
            micro_batches_of=self._micro_batches_of,
        )

    def _micro_batches_of(self, step: int) -> int:
        """Of a step to come, over all processes: an epoch's last may have fewer, and after the last there are none."""
        most, loader = self.args.gradient_accumulation_steps, self.callback_handler.train_dataloader
        batches = len(loader) if loader is not None and has_length(loader) else 0
        steps = -(-batches // most)
        ends_epoch = steps > 0 and step % steps == steps - 1
        accumulated = batches - (steps - 1) * most if ends_epoch else most
        return accumulated * self.accelerator.num_processes if step < self.state.max_steps else 0

    @property
    def _makes_copies(self) -> bool:
        return self.args.score_form != "paper" or self.args.exchange_weight > 0

    def _exchange_within_classes(
        self, step: int, micro_batch: int, *, pixel_values: Tensor, labels: Tensor, **_: Any
    ) -> Tensor:
        """The micro-batch's images as the loss sees them: beside copies with exchanged regions, all have an edge."""
        masks = self._masks_with_a_telling_edge
        if masks is None:
            return pixel_values
        # Of a whole step, though the last one of an epoch may have fewer micro-batches.
        micro_batches = self.args.gradient_accumulation_steps * self.accelerator.num_processes
        first = (step * micro_batches + micro_batch) * self.args.train_batch_size
        draw_indices = range(first, first + len(labels))
        return self._same_class_partners.exchange(pixel_values, labels, masks, draw_indices=draw_indices)

    @cached_property
    def _masks_with_a_telling_edge(self) -> Tensor | None:
        """(t, H, W): the samples' masks, if copies are made and the masks are of something in front of the rest.

        Where they cover most of the images, their edge is the outline of an object, which every image has anyway, and
        on another image they would cut the object.
        """
        masks = self._draws.samples.masks
        wanted = self._makes_copies and self.args.score_own_class_exchange and masks.float().mean() < 0.5
        return masks if wanted else None

    def sample_weights(self) -> Tensor | None:
        """As [`BaseTrainer`]'s, of the images of `score_fine_tuning_set` alone."""
        if self._fine_tuned_on is None:
            return super().sample_weights()
        balanced = bool(self.args.class_balanced)
        return weights_within(self._fine_tuned_on, self.train_dataset, class_balanced=balanced)

    @cached_property
    def _images(self) -> PartnerImages:
        return PartnerImages(self.data_collator, self.args)

    @cached_property
    def _partners(self) -> OtherClassPartners:
        """Training images of other classes to exchange regions with."""
        return self._images.of_other_classes(self.train_dataset)

    @cached_property
    def _same_class_partners(self) -> SameClassPartners:
        return self._images.of_same_class(self.train_dataset)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the penalties' means since the last log, over all processes, and the share of samples that they act on.

        `penalty` is P/P₀, 1 on the starting model: in the form `both` the weighted mean of the two, which are there by
        name too.
        """
        if "loss" in logs:
            if self._paid and self._paid[0][1]:
                logs |= {name: round(value, 6) for name, value in self._mean_penalties().items()}
            self._paid.clear()
        super().log(logs, *args, **kwargs)

    def _mean_penalties(self) -> dict[str, float]:
        assert self.penalty is not None
        counts = torch.tensor([float(count) for count, _ in self._paid], device=self.args.device)
        sums = [(counts * torch.stack([paid[name] for _, paid in self._paid])).sum() for name in self._paid[0][1]]
        count, *sums = self.accelerator.reduce(torch.stack([counts.sum(), *sums]), "sum").tolist()
        means = {name: value / count for name, value in zip(self._paid[0][1], sums, strict=True)}
        if len(means) == 1:
            return {"penalty": next(iter(means.values())), **self.penalty.shares()}
        paid = sum(self._weights[name] * mean for name, mean in means.items())
        penalty = {"penalty": paid / sum(self._weights[name] for name in means)}
        return penalty | {f"{name}_penalty": mean for name, mean in means.items()} | self.penalty.shares()

    def gates(self) -> dict[str, float]:
        """What the penalty got hold of on the starting model, and what is left of it in the model as it is now.

        `penalty_start` (P₀, absolute) and `penalty_end` (relative to it). In the paper's form also
        `share_of_samples_active`, those with r > 0, and `share_of_activations_penalised`, of the active samples' at
        the probe layer. In the form `both` the exchange's begin with `exchange_`. Empty before training, and where
        samples train nothing.
        """
        if self.penalty is None or self.model is None:
            return {}
        return self.penalty.gates(self.accelerator.unwrap_model(self.model), self.args.device)

    # ---- Label-free evaluation ----

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Say what a step costs, note the starting model's reliance, then train."""
        if self.has_own_loss and self.is_world_process_zero():
            print(self.args.cost_of_a_step)
        if self.reliance is not None:
            assert self.model is not None
            self._move_model_to_device(self.model, self.args.device)
            self._measure_reliance(self.reliance)
        try:
            return super().train(*args, **kwargs)
        finally:
            if "_draws" in self.__dict__:
                self._draws.close()

    def selection_metrics(self, worst_class_accuracy: float | None) -> dict[str, float]:
        """Add reliance, and where samples were held out the estimate that they give, if no `estimates` were."""
        if self.reliance is None:
            return super().selection_metrics(worst_class_accuracy)
        if self.estimates is None:
            assert self.held_out_samples is not None
            self.estimates = Estimates(
                self.held_out_samples,
                self._held_out_partners,
                device=self.args.device,
                batch_size=self.args.per_device_eval_batch_size,
                names=(SELECTION,),
            )
        return {**super().selection_metrics(worst_class_accuracy), **self._measure_reliance(self.reliance)}

    def _measure_reliance(self, reliance: Reliance) -> dict[str, float]:
        return reliance(self.accelerator.unwrap_model(self.model), self._held_out_partners)

    @cached_property
    def _held_out_partners(self) -> OtherClassPartners:
        """Images that were not trained on, where the evaluation set offers them without groups."""
        columns = set(column_names(self.eval_dataset) or ()) if not isinstance(self.eval_dataset, dict) else set()
        usable = columns & {"label", "labels"} and "group" not in columns
        return self._images.of_other_classes(self.eval_dataset) if usable else self._partners

    # ---- Checkpoints and results ----

    @property
    def has_extra_state(self) -> bool:
        """Whether samples train or measure anything."""
        return self.has_own_loss or self.reliance is not None

    def extra_state(self) -> dict[str, Tensor]:
        """What the starting model paid and relied on, and the shortcut relevance: not to be computed again."""
        parts = [part for part in (self.penalty, self.reliance) if part is not None]
        return {name: value for part in parts for name, value in part.state().items()}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        for part in (self.penalty, self.reliance):
            if part is not None:
                part.load_state(tensors)

    def _results(self, dataset: str | list[str] | None = None) -> dict[str, Any]:
        """Add how many samples there are of each class; who decided on them, they do not say."""
        results = super()._results(dataset)
        parts = [part.labels for part in (self.spurious_samples, self.held_out_samples) if part is not None]
        if self.results is None and parts:
            counts = torch.bincount(torch.cat(parts), minlength=len(results["dataset"]["class_names"])).tolist()
            results["selection"] = {"classes": dict(zip(results["dataset"]["class_names"], counts, strict=True))}
        if self.results is None and (gates := self.gates()):
            results["methods"][self.name]["runs"][0]["mechanism"] = gates
        return results
