"""`SCORETrainer`: `BaseTrainer` with the SCORE penalty."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from ..attribution import Explainer, find_layer
from ..data.exchange import ExchangedPairs, OtherClassPartners, SameClassPartners
from ..detection.samples import SpuriousSamples
from ..errors import DataError, HFScoreError, ModelError
from ..evaluation.classes import classification_metrics
from ..files import write_bytes
from ..margins import margin, margin_difference
from .base_trainer import BaseTrainer, eval_mode
from .columns import class_labels, column_names
from .penalty import positive_total, score_penalty, shortcut_relevance
from .score_config import SCOREConfig

__all__ = ["SCORETrainer", "classification_metrics"]

_STATE_FILE = "score_state.safetensors"
_PARTNERS_PER_HELD_OUT_SAMPLE = 8


class SCORETrainer(BaseTrainer):
    """Fine-tunes an image classifier with a penalty on what its spurious-positive samples' shortcut contributes.

    Loss = cross-entropy + λ·P/P₀ + w·cross-entropy of the copies with exchanged regions, with P₀ the penalty of the
    starting model. What P is, `score_penalised` says: by default the change of the class margin when the masked region
    is exchanged with that of an image of another class (`hf_score.margins.margin_difference`, ours); or Σ_k r_k·|a_k|
    at the probe layer, with a the activations of the original image and r the shortcut relevance of the masked image
    ("Shortcut Mitigation via Spurious-Positive Samples", arXiv 2605.13340, figure 1 B; |a|, the scale and the refresh
    of r are ours). Beside exchanged copies, training images take a region from their own class, so that its edge does
    not tell them apart (`score_own_class_exchange`, ours).

    Args:
        model: an image classifier of `transformers`, timm-wrapped ones included.
        args: [`SCOREConfig`].
        spurious_samples: the samples a person, a file or an oracle decided on; not needed with `score_lambda=0`.
        **kwargs: as for [`BaseTrainer`].

    Raises:
        DataError: a training set with any other column, or an evaluation set with groups that would choose.
        HFScoreError: a penalty without samples.
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
        model: PreTrainedModel | None = None,
        args: SCOREConfig | None = None,
        *,
        spurious_samples: SpuriousSamples | None = None,
        **kwargs: Any,
    ) -> None:
        args = SCOREConfig() if args is None else args
        super().__init__(model, args, **kwargs)
        self._relevance: Tensor | None = None
        self._total: Tensor | None = None
        self._scale: Tensor | None = None
        self._relevance_step = -1
        self._micro_step = (-1, 0)
        self._penalties: list[Tensor] = []
        self._starting_reliance: Tensor | None = None
        self.spurious_samples = self.held_out_samples = None
        if args.score_lambda > 0:
            if spurious_samples is None or len(spurious_samples) == 0:
                raise HFScoreError(
                    f"score_lambda is {args.score_lambda} but there are no spurious-positive samples to penalise: "
                    "decide on some first, or set score_lambda=0."
                )
            self.spurious_samples, self.held_out_samples = spurious_samples.split(
                held_out_share=args.score_held_out_share, seed=args.seed
            )
        elif spurious_samples is not None:
            _, self.held_out_samples = spurious_samples.split(held_out_share=args.score_held_out_share, seed=args.seed)

    # ---- The penalty ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Add λ·P to the base loss while training; with λ = 0 this is `Trainer.compute_loss` and nothing else."""
        penalised = model.training and self.spurious_samples is not None
        if penalised:
            micro_batch = self._next_micro_batch()
            inputs = {**inputs, "pixel_values": self._exchange_within_classes(micro_batch, **inputs)}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if penalised:
            penalty, swapped = self._penalty(micro_batch)
            self._penalties.append(penalty.detach())
            penalty = self.args.score_lambda * penalty + self.args.score_swap_weight * swapped
            loss = loss + self._batch_mean(penalty, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _exchange_within_classes(self, micro_batch: int, *, pixel_values: Tensor, labels: Tensor, **_: Any) -> Tensor:
        """The micro-batch's images as the loss sees them: beside copies with exchanged regions, all have an edge."""
        masks = self._masks_with_a_telling_edge
        if masks is None:
            return pixel_values
        first = micro_batch * self.args.train_batch_size
        draw_indices = range(first, first + len(labels))
        return self._same_class_partners.exchange(pixel_values, labels, masks, draw_indices=draw_indices)

    @cached_property
    def _masks_with_a_telling_edge(self) -> Tensor | None:
        """(t, H, W): the samples' masks, if copies are made and the masks are of something in front of the rest.

        Where they cover most of the images, their edge is the outline of an object, which every image has anyway, and
        on another image they would cut the object.
        """
        assert self.spurious_samples is not None
        copies = self.args.score_penalised == "difference" or self.args.score_swap_weight > 0
        masks = self.spurious_samples.masks
        wanted = copies and self.args.score_own_class_exchange and masks.float().mean() < 0.5
        return masks if wanted else None

    def _penalty(self, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Mean penalty of the micro-batch's samples, 1 on the starting model, and the cross-entropy of the copies with
        exchanged regions (0 where none are made)."""
        assert self.spurious_samples is not None
        # The unwrapped model: its parameters are the wrapped one's, so DDP still reduces one gradient per parameter.
        model = self.accelerator.unwrap_model(self.model)
        by_neurons = self.args.score_penalised != "difference"
        if by_neurons:
            self._refresh_relevance(model)
        elif self._scale is None:
            once = range(len(self.spurious_samples))
            self._scale = self._exchange(model, self.spurious_samples, self._partners, once)[0].clamp(min=1e-12)
        assert self._scale is not None
        draw_indices = self._draw_indices_of(micro_batch)
        chosen = self._samples_of(draw_indices)
        samples = self.spurious_samples[chosen].to(self.args.device)
        if by_neurons:
            assert self._relevance is not None
            strength = self._strength(model, samples.pixel_values, samples.labels)
            penalties = score_penalty(strength, self._relevance[chosen], reading=self.args.score_reading)
            penalty = (samples.weights * penalties).mean()
            if self.args.score_swap_weight == 0:
                return penalty / self._scale, penalty.new_zeros(())
            pairs = self._pairs(samples, self._partners, draw_indices)
            copies = model(pixel_values=pairs.counterfactuals(pairs.with_region, pairs.without_region)).logits.float()
        else:
            pairs = self._pairs(samples, self._partners, draw_indices)
            images = torch.cat([pairs.with_region, pairs.without_region])
            with_region, without_region = model(pixel_values=images).logits.float().chunk(2)
            differences = margin_difference(with_region, without_region, pairs.shortcut_labels)
            penalty = (samples.weights.repeat(2) * differences).mean()
            copies = pairs.counterfactuals(with_region, without_region)
        return penalty / self._scale, nn.functional.cross_entropy(copies, pairs.labels)

    def _pairs(
        self, samples: SpuriousSamples, partners: OtherClassPartners, draw_indices: Sequence[int]
    ) -> ExchangedPairs:
        """The samples and the partners of these draws with exchanged regions, on the samples' device."""
        return samples.exchanged_with(*partners.draw(samples.labels.tolist(), draw_indices))

    def _strength(self, model: nn.Module, pixel_values: Tensor, labels: Tensor) -> Tensor:
        """(B, P, C): the activation at the probe layer, or its contribution to the objective."""
        probe = find_layer(model, self.args.score_layer)
        if self.args.score_penalised == "activation":
            with probe.capture() as captured:
                model(pixel_values=pixel_values)
            return captured.activation
        # Only the plain attention kernel can be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), probe.capture() as captured:
            logits = model(pixel_values=pixel_values).logits.float()
            explained = margin(logits, labels)
            if self.args.score_objective == "logit":
                explained = logits.gather(1, labels[:, None])[:, 0]
            assert captured.output is not None
            (gradient,) = torch.autograd.grad(explained.sum(), captured.output, create_graph=True)
        return probe.to_positions(captured.output * gradient)

    def _next_micro_batch(self) -> int:
        """Number of this micro-batch among all that the processes have had: a function of step, micro-step and rank.

        The micro-batches of one step are dealt out over accumulation steps and processes, so that 8×1, 4×2 and two
        processes see the same.
        """
        step = self.state.global_step
        self._micro_step = (step, self._micro_step[1] + 1 if self._micro_step[0] == step else 0)
        processes = self.accelerator.num_processes
        return step * self._micro_batches + self._micro_step[1] * processes + self.accelerator.process_index

    @property
    def _micro_batches(self) -> int:
        """Micro-batches of an optimizer step, over all processes."""
        return self.current_gradient_accumulation_steps * self.accelerator.num_processes

    def _draw_indices_of(self, micro_batch: int) -> range:
        """Indices of the draws of samples and partners in this micro-batch."""
        size = -(-self.args.score_batch_size // self._micro_batches)
        return range(micro_batch * size, (micro_batch + 1) * size)

    def _samples_of(self, draw_indices: range) -> Tensor:
        """(t,): the samples of these draws. Seeded permutations follow each other, so every sample gets its turn."""
        assert self.spurious_samples is not None
        indices = []
        for draw_index in draw_indices:
            shuffle, place = divmod(draw_index, len(self.spurious_samples))
            generator = torch.Generator().manual_seed(self.args.seed + 7919 * shuffle)
            indices.append(torch.randperm(len(self.spurious_samples), generator=generator)[place])
        return torch.stack(indices)

    @cached_property
    def _partners(self) -> OtherClassPartners:
        """Training images to exchange regions with."""
        return self._partners_from(self.train_dataset)

    @cached_property
    def _same_class_partners(self) -> SameClassPartners:
        return SameClassPartners(
            self.train_dataset, self._labels_of(self.train_dataset), self.data_collator, seed=self.args.seed
        )

    def _partners_from(self, dataset: Any) -> OtherClassPartners:
        return OtherClassPartners(dataset, self._labels_of(dataset), self.data_collator, seed=self.args.seed)

    @staticmethod
    def _labels_of(dataset: Any) -> Sequence[int]:
        labels = class_labels(dataset)
        if labels is None:
            raise DataError(
                "exchanging regions with images of other classes needs a data set with a label column that can be "
                "indexed: give one, or set score_swap_weight=0 and score_penalised='activation'."
            )
        return labels

    def _exchange(
        self, model: nn.Module, samples: SpuriousSamples, partners: OtherClassPartners, draw_indices: Sequence[int]
    ) -> tuple[Tensor, float]:
        """Mean margin difference over the draws' pairs, and the accuracy on the copies of the class that fares worst.

        Draw n takes sample n modulo their number. In eval mode, without gradients.
        """
        differences, correct, labels = [], [], []
        with eval_mode(model), torch.no_grad():
            for part in torch.as_tensor(list(draw_indices)).split(max(1, self.args.per_device_eval_batch_size // 4)):
                pairs = self._pairs(samples[part % len(samples)].to(self.args.device), partners, part.tolist())
                with_region = model(pixel_values=pairs.with_region).logits
                without_region = model(pixel_values=pairs.without_region).logits
                differences.append(margin_difference(with_region, without_region, pairs.shortcut_labels))
                copies = pairs.counterfactuals(with_region, without_region)
                correct.append(copies.argmax(dim=1) == pairs.labels)
                labels.append(pairs.labels)
        right, classes = torch.cat(correct).float(), torch.cat(labels)
        worst = min(float(right[classes == label].mean()) for label in classes.unique())
        return torch.cat(differences).mean().float(), worst

    def _refresh_relevance(self, model: nn.Module) -> None:
        """Compute r of every sample where it is due: at the start, and every `score_refresh_steps` steps."""
        step, every = self.state.global_step, self.args.score_refresh_steps
        due = self._relevance is None or (every > 0 and step % every == 0 and step != self._relevance_step)
        if not due:
            return
        assert self.spurious_samples is not None
        samples = self.spurious_samples.to(self.args.device)
        images = samples.pixel_values if self.args.score_unmasked else samples.masked
        probe = find_layer(model, self.args.score_layer)
        weights, totals, penalties = [], [], []
        size = self.args.per_device_eval_batch_size
        with Explainer(model, batch_size=size) as explainer:
            for part in torch.arange(len(samples)).split(size):
                explained = explainer.explain(
                    images[part],
                    samples.labels[part],
                    layer=probe.name,
                    objective=self.args.score_objective,
                    pixels=False,
                )
                assert explained.layer_relevance is not None
                totals.append(positive_total(explained.layer_relevance))
                total = None if self._total is None else self._total[part]
                weights.append(
                    shortcut_relevance(explained.layer_relevance, reading=self.args.score_reading, total=total)
                )
        self._relevance = torch.cat(weights)
        if self._total is None:
            self._total = torch.cat(totals)
        if self.args.score_random_neurons:
            neurons = self._relevance.shape[-1]
            shuffled = torch.randperm(neurons, generator=torch.Generator().manual_seed(self.args.seed))
            self._relevance = self._relevance[..., shuffled.to(self._relevance.device)]
        if self._scale is None:
            with torch.no_grad(), eval_mode(model):
                for part in torch.arange(len(samples)).split(self.args.per_device_eval_batch_size):
                    strength = self._strength(model, samples.pixel_values[part], samples.labels[part])
                    penalty = score_penalty(strength.detach(), self._relevance[part], reading=self.args.score_reading)
                    penalties.append(penalty)
            self._scale = torch.cat(penalties).mean().clamp(min=1e-12)
        self._relevance_step = step

    # ---- Label-free evaluation ----

    def selection_metrics(self, worst_class_accuracy: float | None) -> dict[str, float]:
        """An estimate of worst-group accuracy without groups, and reliance, where samples were held out.

        `selection` is the worst class's accuracy as it comes, or where the decision has to be made against the
        region, whichever is lower.
        """
        if self.held_out_samples is None or not len(self.held_out_samples):
            return super().selection_metrics(worst_class_accuracy)
        metrics = self._counterfactual()
        if worst_class_accuracy is not None:
            metrics["selection"] = min(worst_class_accuracy, metrics["counterfactual_accuracy"])
        return metrics

    def _counterfactual(self) -> dict[str, float]:
        """What exchanging the regions of held-out spurious-positive samples with images of other classes does.

        Returns:
            `reliance`: the mean margin difference, 1 on the starting model, 0 where the region has no say any more;
            `counterfactual_accuracy`: accuracy on the copies with exchanged regions, of the class that fares worst.
        """
        assert self.held_out_samples is not None
        model = self.accelerator.unwrap_model(self.model)
        draw_indices = range(_PARTNERS_PER_HELD_OUT_SAMPLE * len(self.held_out_samples))
        difference, accuracy = self._exchange(model, self.held_out_samples, self._held_out_partners, draw_indices)
        if self._starting_reliance is None:
            self._starting_reliance = difference.clamp(min=1e-6)
        return {"reliance": float(difference / self._starting_reliance), "counterfactual_accuracy": accuracy}

    @cached_property
    def _held_out_partners(self) -> OtherClassPartners:
        """Images that were not trained on, where the evaluation set offers them without groups."""
        columns = set(column_names(self.eval_dataset) or ()) if not isinstance(self.eval_dataset, dict) else set()
        usable = columns & {"label", "labels"} and "group" not in columns
        return self._partners_from(self.eval_dataset) if usable else self._partners

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Note the starting model's reliance before the first step, then train."""
        if self.held_out_samples is not None and len(self.held_out_samples):
            assert self.model is not None
            self._move_model_to_device(self.model, self.args.device)
            self._counterfactual()
        return super().train(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean penalty since the last log."""
        if self._penalties and "loss" in logs:
            logs["penalty"] = round(float(torch.stack(self._penalties).mean()), 6)
            self._penalties.clear()
        super().log(logs, *args, **kwargs)

    # ---- Checkpoints ----

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Keep the shortcut relevance beside the optimizer's state: it cannot be computed again after the start."""
        super()._save_optimizer_and_scheduler(output_dir)
        state = {
            "relevance": self._relevance,
            "total": self._total,
            "scale": self._scale,
            "starting_reliance": self._starting_reliance,
        }
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items() if value is not None}
        if tensors and self.args.should_save:
            tensors["relevance_step"] = torch.tensor(self._relevance_step)
            write_bytes(Path(output_dir) / _STATE_FILE, save(tensors))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The counterpart of `_save_optimizer_and_scheduler`."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or (self.spurious_samples is None and self.held_out_samples is None):
            return
        path = Path(checkpoint) / _STATE_FILE
        if not path.is_file():
            raise ModelError(f"{path} is missing: resume from a checkpoint that SCORETrainer saved with its samples.")
        tensors = load_file(path, device=str(self.args.device))
        self._relevance, self._total = tensors.get("relevance"), tensors.get("total")
        self._scale = tensors.get("scale")
        self._starting_reliance = tensors.get("starting_reliance")
        self._relevance_step = int(tensors["relevance_step"])

    # ---- Publishing ----

    def _results(self, dataset: str | list[str] | None = None) -> dict[str, Any]:
        """Add how many samples there are of each class; who decided on them, they do not say."""
        results = super()._results(dataset)
        parts = [part.labels for part in (self.spurious_samples, self.held_out_samples) if part is not None]
        if self.results is None and parts:
            counts = torch.bincount(torch.cat(parts), minlength=len(results["dataset"]["class_names"])).tolist()
            results["selection"] = {"classes": dict(zip(results["dataset"]["class_names"], counts, strict=True))}
        return results
