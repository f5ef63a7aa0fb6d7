"""The penalties of `SCORETrainer`: `MarginPenalty` (ours) and `NeuronPenalty` (the paper's), each with its state.

The arithmetic is that of `hf_score.margins` and `hf_score.training.neurons`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attribution import Explainer, find_layer
from ..data.exchange import ExchangedPairs, OtherClassPartners
from ..detection.samples import SpuriousSamples
from ..errors import HFScoreError
from ..margins import margin, margin_difference
from ..models import eval_mode
from .neurons import positive_total, score_penalty, shortcut_relevance
from .reliance import exchange_effect
from .score_config import SCOREConfig

__all__ = ["Draw", "MarginPenalty", "NeuronPenalty", "Penalty"]

_NOTHING = 1e-12


@dataclass(frozen=True)
class Draw:
    """The samples of one micro-batch, drawn by the numbers of their draws alone.

    Attributes:
        all_samples: the samples to draw from.
        partners: images of other classes to exchange regions with; None where no copies are made.
        indices: the numbers of the draws.
        seed: of the order of the samples.
        device: where the drawn samples go.
    """

    all_samples: SpuriousSamples
    partners: OtherClassPartners | None
    indices: range
    seed: int
    device: torch.device

    @cached_property
    def rows(self) -> Tensor:
        """(t,): which of the samples. Seeded permutations follow each other, so every sample is drawn as often."""
        rows = []
        for index in self.indices:
            shuffle, position = divmod(index, len(self.all_samples))
            generator = torch.Generator().manual_seed(self.seed + 7919 * shuffle)
            rows.append(torch.randperm(len(self.all_samples), generator=generator)[position])
        return torch.stack(rows)

    @cached_property
    def samples(self) -> SpuriousSamples:
        """The t samples."""
        return self.all_samples[self.rows].to(self.device)

    @cached_property
    def pairs(self) -> ExchangedPairs:
        """The samples and a partner for each, with exchanged regions."""
        assert self.partners is not None
        return self.samples.exchanged_with(*self.partners.draw(self.samples.labels.tolist(), self.indices))


class Penalty(Protocol):
    """What a model pays for the shortcut, 1 on the starting model."""

    def __call__(self, model: nn.Module, draw: Draw, *, step: int) -> tuple[Tensor, Tensor]:
        """The penalty on the drawn samples, and the cross-entropy of the copies with exchanged regions.

        Args:
            model: the unwrapped model, in train mode.
            draw: the samples.
            step: the optimizer step.

        Returns:
            two scalars with a graph, means over the draw; the second is 0 where no copies are made.

        Raises:
            HFScoreError: the first call finds nothing to penalise in any sample.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """What a resumed run cannot compute again."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take back `state`; other tensors are of no account."""
        ...


class MarginPenalty:
    """The change of the class margin when the masked region is exchanged with that of an image of another class
    (`hf_score.margins.margin_difference`, ours).

    Args:
        samples: all samples to penalise.
        partners: images to exchange regions with.
        args: the configuration.
    """

    def __init__(self, samples: SpuriousSamples, partners: OtherClassPartners, args: SCOREConfig) -> None:
        self._samples, self._partners, self._args = samples, partners, args
        self._scale: Tensor | None = None

    def __call__(self, model: nn.Module, draw: Draw, *, step: int) -> tuple[Tensor, Tensor]:
        if self._scale is None:
            once = range(len(self._samples))
            start, _ = exchange_effect(model, self._samples, self._partners, once, args=self._args)
            reason = "exchanging their masked regions leaves every margin as it is"
            self._scale = _starting_scale(start, self._samples, self._args, reason)
        pairs = draw.pairs
        images = torch.cat([pairs.with_region, pairs.without_region])
        with_region, without_region = model(pixel_values=images).logits.float().chunk(2)
        differences = margin_difference(with_region, without_region, pairs.shortcut_labels)
        penalty = (draw.samples.weights.repeat(2) * differences).mean()
        copies = pairs.counterfactuals(with_region, without_region)
        return penalty / self._scale, nn.functional.cross_entropy(copies, pairs.labels)

    def state(self) -> dict[str, Tensor]:
        """P of the starting model."""
        return {} if self._scale is None else {"scale": self._scale}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self._scale = tensors.get("scale")


class NeuronPenalty:
    """Σ_k r_k·|a_k| at the probe layer, with a the activations of the original image and r the shortcut relevance of
    the masked image ("Shortcut Mitigation via Spurious-Positive Samples", arXiv 2605.13340, figure 1 B; |a|, the scale
    and the refresh of r are ours).

    Args:
        samples: all samples to penalise.
        args: the configuration.
    """

    def __init__(self, samples: SpuriousSamples, args: SCOREConfig) -> None:
        self._samples, self._args = samples, args
        self._relevance: Tensor | None = None
        self._total: Tensor | None = None
        self._scale: Tensor | None = None
        self._relevance_step = -1

    def __call__(self, model: nn.Module, draw: Draw, *, step: int) -> tuple[Tensor, Tensor]:
        self._refresh(model, step)
        assert self._relevance is not None and self._scale is not None
        samples, granularity = draw.samples, self._args.score_granularity
        strength = self._strength(model, samples)
        penalties = score_penalty(strength, self._relevance[draw.rows], granularity=granularity)
        penalty = (samples.weights * penalties).mean() / self._scale
        if self._args.score_exchange_weight == 0:
            return penalty, penalty.new_zeros(())
        pairs = draw.pairs
        copies = model(pixel_values=pairs.counterfactuals(pairs.with_region, pairs.without_region)).logits.float()
        return penalty, nn.functional.cross_entropy(copies, pairs.labels)

    def state(self) -> dict[str, Tensor]:
        """r, its total and P of the starting model, and the step r is of."""
        if self._relevance is None or self._total is None or self._scale is None:
            return {}
        step = torch.tensor(self._relevance_step)
        return {"relevance": self._relevance, "total": self._total, "scale": self._scale, "relevance_step": step}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self._relevance, self._total, self._scale = (tensors.get(name) for name in ("relevance", "total", "scale"))
        self._relevance_step = int(tensors.get("relevance_step", -1))

    def _refresh(self, model: nn.Module, step: int) -> None:
        """Compute r of every sample where it is due: at the start, and every `score_refresh_steps` steps."""
        every = self._args.score_refresh_steps
        due = self._relevance is None or (every > 0 and step % every == 0 and step != self._relevance_step)
        if not due:
            return
        samples, size = self._samples.to(self._args.device), self._args.per_device_eval_batch_size
        granularity = self._args.score_granularity
        parts = torch.arange(len(samples)).split(size)
        relevance = self._explained(model, samples, parts)
        if self._total is None:
            self._total = torch.cat([positive_total(part) for part in relevance])
        weights = [
            shortcut_relevance(part, granularity=granularity, total=self._total[rows])
            for rows, part in zip(parts, relevance, strict=True)
        ]
        self._relevance = torch.cat(weights)
        if self._args.score_random_neurons:
            neurons = self._relevance.shape[-1]
            shuffled = torch.randperm(neurons, generator=torch.Generator().manual_seed(self._args.seed))
            self._relevance = self._relevance[..., shuffled.to(self._relevance.device)]
        if self._scale is None:
            penalties = []
            with torch.no_grad(), eval_mode(model):
                for rows in parts:
                    strength = self._strength(model, samples[rows]).detach()
                    penalties.append(score_penalty(strength, self._relevance[rows], granularity=granularity))
            reason = "their masked regions speak for their class through no neuron of the probe layer"
            self._scale = _starting_scale(torch.cat(penalties).mean(), samples, self._args, reason)
        self._relevance_step = step

    def _explained(self, model: nn.Module, samples: SpuriousSamples, parts: tuple[Tensor, ...]) -> list[Tensor]:
        """The relevance of the samples at the probe layer, (n, P, C) for each part of n."""
        images = samples.pixel_values if self._args.score_unmasked else samples.masked
        layer, objective = find_layer(model, self._args.score_layer).name, self._args.score_objective
        found = []
        with Explainer(model, batch_size=self._args.per_device_eval_batch_size) as explainer:
            for rows in parts:
                explained = explainer.explain(
                    images[rows], samples.labels[rows], layer=layer, objective=objective, pixels=False
                )
                assert explained.layer_relevance is not None
                found.append(explained.layer_relevance)
        return found

    def _strength(self, model: nn.Module, samples: SpuriousSamples) -> Tensor:
        """(t, P, C): the activation at the probe layer, or its contribution to the objective."""
        probe = find_layer(model, self._args.score_layer)
        if self._args.score_neuron_strength == "activation":
            with probe.capture() as captured:
                model(pixel_values=samples.pixel_values)
            return captured.activation
        # Only the plain attention kernel can be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), probe.capture() as captured:
            logits = model(pixel_values=samples.pixel_values).logits.float()
            explained = margin(logits, samples.labels)
            if self._args.score_objective == "logit":
                explained = logits.gather(1, samples.labels[:, None])[:, 0]
            assert captured.output is not None
            (gradient,) = torch.autograd.grad(explained.sum(), captured.output, create_graph=True)
        return probe.to_positions(captured.output * gradient)


def _starting_scale(start: Tensor, samples: SpuriousSamples, args: SCOREConfig, reason: str) -> Tensor:
    """P of the starting model to divide by.

    Raises:
        HFScoreError: it is 0, and λ would weigh nothing.
    """
    if args.score_lambda > 0 and start <= _NOTHING:
        raise HFScoreError(
            f"the penalty on the starting model is 0 for all {len(samples)} spurious-positive samples ({reason}), so "
            "there is nothing to train against: look at their masks, or set score_lambda=0."
        )
    return start.clamp(min=_NOTHING)
