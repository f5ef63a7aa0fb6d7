"""The penalties of `SCORETrainer`: `NeuronPenalty` (the paper's), `MarginPenalty` (ours) and `BothPenalties`.

The arithmetic is that of `hf_score.training.neurons` and `hf_score.margins`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attribution import Explainer, ProbeLayer, find_activations
from ..data.exchange import OtherClassPartners
from ..detection.samples import SpuriousSamples
from ..errors import InactiveError
from ..margins import margin, margin_difference
from ..models import eval_mode
from .draws import Draw
from .neurons import penalised_share, positive_total, score_penalty, shortcut_relevance
from .reliance import exchange_effect
from .score_config import SCOREConfig

__all__ = ["BothPenalties", "MarginPenalty", "NeuronPenalty", "Penalty"]

_NOTHING = 1e-12


class Penalty(Protocol):
    """What a model pays for the shortcut, 1 on the starting model."""

    def __call__(self, model: nn.Module, draw: Draw, *, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """The penalties on the drawn samples, and the cross-entropy of the copies with exchanged regions.

        Args:
            model: the unwrapped model, in train mode.
            draw: the samples.
            step: the optimizer step.

        Returns:
            scalars with a graph, means over the draw: the penalties by name, `"exchange"` and `"neurons"`; and the
            cross-entropy, 0 where no copies are made. All are 0 for a draw of no samples.

        Raises:
            InactiveError: the first call finds nothing to penalise in any sample.
        """
        ...

    def shares(self) -> dict[str, float]:
        """How much is penalised now, as shares; known from the first call on."""
        ...

    def gates(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """What the penalty got hold of at the start, and what of it `model` has left; empty before that."""
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

    def __call__(self, model: nn.Module, draw: Draw, *, step: int) -> tuple[dict[str, Tensor], Tensor]:
        if self._scale is None:
            reason = "exchanging their masked regions leaves every margin as it is"
            self._scale = _starting_scale(self._effect(model), self._samples, self._args.exchange_lambda, reason)
        if not draw.indices:
            return {"exchange": draw.nothing}, draw.nothing
        pairs = draw.pairs
        images = torch.cat([pairs.with_region, pairs.without_region])
        with_region, without_region = model(pixel_values=images).logits.float().chunk(2)
        differences = margin_difference(with_region, without_region, pairs.shortcut_labels)
        penalty = (draw.samples.weights.repeat(2) * differences).mean()
        copies = pairs.counterfactuals(with_region, without_region)
        return {"exchange": penalty / self._scale}, nn.functional.cross_entropy(copies, pairs.labels)

    def _effect(self, model: nn.Module) -> Tensor:
        once = range(len(self._samples))
        return exchange_effect(model, self._samples, self._partners, once, args=self._args)[0]

    def shares(self) -> dict[str, float]:
        """None: every sample's region is exchanged."""
        return {}

    def gates(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """`penalty_start`: P of the starting model in logits; `penalty_end`: that of `model`, relative to it."""
        if self._scale is None:
            return {}
        return {"penalty_start": float(self._scale), "penalty_end": float(self._effect(model) / self._scale)}

    def state(self) -> dict[str, Tensor]:
        """P of the starting model."""
        return {} if self._scale is None else {"scale": self._scale}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self._scale = tensors.get("scale")


@dataclass
class _Probed:
    """One probe layer: r of every sample, its total and P of the starting model, and the share that P took hold of."""

    address: str | int
    relevance: Tensor | None = None
    total: Tensor | None = None
    scale: Tensor | None = None
    share: Tensor | None = None


class NeuronPenalty:
    """Σ_k r_k·|a_k| at the probe layer, with a the activations of the original image and r the shortcut relevance of
    the masked image ("Shortcut Mitigation via Spurious-Positive Samples", arXiv 2605.13340, figure 1 B).

    Ours: |a|, which is a where activations are at least 0; the scale; the refresh of r; and that it is active by
    construction. A sample whose masked image alone does not get its class from the starting model is left out; where
    the logit of one that does is not positive, and so has no relevance to give, the margin is explained. Of several
    probe layers the penalties, each scaled to 1, are averaged.

    Args:
        samples: all samples to penalise.
        args: the configuration.
    """

    def __init__(self, samples: SpuriousSamples, args: SCOREConfig) -> None:
        self._samples, self._args = samples, args
        self._layers = [_Probed(address) for address in args.layers]
        self._sufficient: Tensor | None = None
        self._relevance_step = -1
        self._last_share: Tensor | None = None

    def __call__(self, model: nn.Module, draw: Draw, *, step: int) -> tuple[dict[str, Tensor], Tensor]:
        found = {}
        if self._args.neuron_lambda > 0:
            self._refresh(model, step)
            found["neurons"] = self._penalty(model, draw.samples, draw.rows) if draw.indices else draw.nothing
        if self._args.score_form != "paper" or self._args.exchange_weight == 0 or not draw.indices:
            return found, draw.nothing
        pairs = draw.pairs
        copies = model(pixel_values=pairs.counterfactuals(pairs.with_region, pairs.without_region)).logits.float()
        return found, nn.functional.cross_entropy(copies, pairs.labels)

    def shares(self) -> dict[str, float]:
        """`share_of_samples_active`: of the samples, those with r > 0, by the last r; and of the activations of the
        last draw those with r·|a| > 0, `share_of_activations_penalised`. Means over the layers.
        """
        if not self._known or self._last_share is None:
            return {}
        known = [layer.relevance for layer in self._layers if layer.relevance is not None]
        active = [(relevance.sum(dim=(1, 2)) > 0).float().mean() for relevance in known]
        return {
            "share_of_samples_active": float(torch.stack(active).mean()),
            "share_of_activations_penalised": float(self._last_share),
        }

    def gates(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """At the start, `share_of_samples_active`, `share_of_activations_penalised` (of the active samples: those with
        r·|a| > 0) and `penalty_start`, Σ r·|a|; and `penalty_end`, that of `model` with the last r, relative to it.
        Means over the layers.
        """
        if not self._known:
            return {}
        with torch.no_grad(), eval_mode(model):
            samples = self._samples.to(device)
            rows = torch.arange(len(samples), device=device)
            parts = [
                self._penalty(model, samples[part], part, weighted=False) * len(part)
                for part in rows.split(self._args.per_device_eval_batch_size)
            ]
        start = [layer.scale for layer in self._known if layer.scale is not None]
        shares = [layer.share for layer in self._known if layer.share is not None]
        found = torch.stack(shares).mean(dim=0).tolist() if shares else ()
        return {
            **dict(zip(("share_of_samples_active", "share_of_activations_penalised"), found, strict=False)),
            "penalty_start": float(torch.stack(start).mean()),
            "penalty_end": float(sum(parts)) / len(samples),
        }

    def state(self) -> dict[str, Tensor]:
        """Of each layer r, its total, P of the starting model and the shares; r's step; the samples left out."""
        if not self._known:
            return {}
        state = {"relevance_step": torch.tensor(self._relevance_step)}
        if self._sufficient is not None:
            state["sufficient"] = self._sufficient
        for number, layer in enumerate(self._layers):
            parts = {name: getattr(layer, name) for name in _PARTS}
            state |= {_key(name, number): value for name, value in parts.items() if value is not None}
        return state

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        for number, layer in enumerate(self._layers):
            for name in _PARTS:
                setattr(layer, name, tensors.get(_key(name, number)))
        self._sufficient = tensors.get("sufficient")
        self._relevance_step = int(tensors.get("relevance_step", -1))

    @property
    def _known(self) -> list[_Probed]:
        """The layers whose r is known: all, or none before the first call."""
        return [layer for layer in self._layers if layer.relevance is not None]

    def _penalty(self, model: nn.Module, samples: SpuriousSamples, rows: Tensor, *, weighted: bool = True) -> Tensor:
        """The mean over layers and samples of Σ r·|a|, each layer's scaled to 1 on the starting model."""
        weights = samples.weights if weighted else torch.ones_like(samples.weights)
        granularity = self._args.score_granularity
        found, shares = [], []
        for layer, strength in zip(self._layers, self._strengths(model, samples), strict=True):
            assert layer.relevance is not None and layer.scale is not None
            relevance = layer.relevance[rows]
            penalties = score_penalty(strength, relevance, granularity=granularity)
            found.append((weights * penalties).mean() / layer.scale)
            shares.append(penalised_share(strength, relevance, granularity=granularity).mean())
        self._last_share = torch.stack(shares).mean()
        return torch.stack(found).mean()

    def _refresh(self, model: nn.Module, step: int) -> None:
        """Compute r of every sample where it is due: at the start, and every `score_refresh_steps` steps."""
        every = self._args.score_refresh_steps
        due = not self._known or (every > 0 and step % every == 0 and step != self._relevance_step)
        if not due:
            return
        samples, size = self._samples.to(self._args.device), self._args.per_device_eval_batch_size
        parts = torch.arange(len(samples)).split(size)
        begins = not self._known
        if begins:
            self._sufficient = _sufficient(model, samples, parts)
        for layer in self._layers:
            relevance = self._explained(model, samples, parts, layer)
            if layer.total is None:
                layer.total = torch.cat([positive_total(part) for part in relevance])
            weights = [
                shortcut_relevance(part, granularity=self._args.score_granularity, total=layer.total[rows])
                for rows, part in zip(parts, relevance, strict=True)
            ]
            layer.relevance = torch.cat(weights)
            if self._args.score_random_neurons:
                neurons = layer.relevance.shape[-1]
                shuffled = torch.randperm(neurons, generator=torch.Generator().manual_seed(self._args.seed))
                layer.relevance = layer.relevance[..., shuffled.to(layer.relevance.device)]
        if begins:
            self._measure_start(model, samples, parts)
        self._relevance_step = step

    def _measure_start(self, model: nn.Module, samples: SpuriousSamples, parts: tuple[Tensor, ...]) -> None:
        """P of the starting model, and the shares of samples and activations that it takes hold of."""
        granularity = self._args.score_granularity
        penalties: list[list[Tensor]] = [[] for _ in self._layers]
        shares: list[list[Tensor]] = [[] for _ in self._layers]
        with torch.no_grad(), eval_mode(model):
            for rows in parts:
                for number, strength in enumerate(self._strengths(model, samples[rows])):
                    relevance = self._layers[number].relevance
                    assert relevance is not None
                    strength = strength.detach()
                    penalties[number].append(score_penalty(strength, relevance[rows], granularity=granularity))
                    shares[number].append(penalised_share(strength, relevance[rows], granularity=granularity))
        for layer, paid, share in zip(self._layers, map(torch.cat, penalties), map(torch.cat, shares), strict=True):
            reason = (
                f"their masked regions speak for their class through no neuron of the probe layer {layer.address!r}"
                if self._sufficient is None or self._sufficient.any()
                else "none of their masked images alone gets its class"
            )
            layer.scale = _starting_scale(paid.mean(), samples, self._args.neuron_lambda, reason)
            active = share > 0
            layer.share = torch.stack([active.float().mean(), share[active].mean() if active.any() else share.mean()])

    def _explained(
        self, model: nn.Module, samples: SpuriousSamples, parts: tuple[Tensor, ...], layer: _Probed
    ) -> list[Tensor]:
        """The relevance of the samples at the probe layer, (n, P, C) for each part of n; 0 of those left out."""
        images = samples.pixel_values if self._args.score_unmasked else samples.masked
        probe, objective = find_activations(model, layer.address), self._args.score_objective
        found = []
        with Explainer(model, batch_size=self._args.per_device_eval_batch_size) as explainer:
            for rows in parts:
                relevance = explain_class(explainer, images[rows], samples.labels[rows], probe, objective=objective)
                if self._sufficient is not None:
                    relevance = relevance * self._sufficient[rows, None, None].to(relevance.device)
                found.append(relevance)
        return found

    def _strengths(self, model: nn.Module, samples: SpuriousSamples) -> list[Tensor]:
        """(t, P, C) of each layer: the activation there, or its contribution to the objective."""
        probes = [find_activations(model, layer.address) for layer in self._layers]
        contribution = self._args.score_neuron_strength == "contribution"
        with ExitStack() as stack:
            captured = [stack.enter_context(probe.capture()) for probe in probes]
            if not contribution:
                model(pixel_values=samples.pixel_values)
                return [one.activation for one in captured]
            # Only the plain attention kernel can be differentiated twice.
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            logits = model(pixel_values=samples.pixel_values).logits.float()
            explained = margin(logits, samples.labels)
            if self._args.score_objective == "logit":
                explained = logits.gather(1, samples.labels[:, None])[:, 0]
            outputs = [one.output for one in captured if one.output is not None]
            gradients = torch.autograd.grad(explained.sum(), outputs, create_graph=True)
        contributions = zip(probes, outputs, gradients, strict=True)
        return [probe.to_positions(output * gradient) for probe, output, gradient in contributions]


_PARTS = ("relevance", "total", "scale", "share")


def _key(name: str, number: int) -> str:
    """The name of a layer's tensor in the state; the first layer's is that of a run with one layer."""
    return name if number == 0 else f"{name}.{number}"


class BothPenalties:
    """The change of the margin and the penalty on neurons, each scaled to 1 on the starting model.

    Args:
        exchange: the first, which makes the copies.
        neurons: the second.
    """

    def __init__(self, exchange: MarginPenalty, neurons: NeuronPenalty) -> None:
        self.exchange, self.neurons = exchange, neurons

    def __call__(self, model: nn.Module, draw: Draw, *, step: int) -> tuple[dict[str, Tensor], Tensor]:
        of_neurons, _ = self.neurons(model, draw, step=step)
        of_exchange, copies = self.exchange(model, draw, step=step)
        return {**of_exchange, **of_neurons}, copies

    def shares(self) -> dict[str, float]:
        """Those of the neurons."""
        return self.neurons.shares()

    def gates(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Those of the neurons, and those of the exchange with `exchange_` before their names."""
        of_exchange = {f"exchange_{name}": value for name, value in self.exchange.gates(model, device).items()}
        return {**self.neurons.gates(model, device), **of_exchange}

    def state(self) -> dict[str, Tensor]:
        return {**self.exchange.state(), **{f"neurons.{k}": v for k, v in self.neurons.state().items()}}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.exchange.load_state(tensors)
        of_neurons = {k.removeprefix("neurons."): v for k, v in tensors.items() if k.startswith("neurons.")}
        self.neurons.load_state(of_neurons)


def explain_class(
    explainer: Explainer, images: Tensor, labels: Tensor, probe: ProbeLayer, *, objective: str
) -> Tensor:
    """(B, P, C): the relevance at a layer of each image's class.

    Args:
        explainer: of the model.
        images: (B, 3, H, W).
        labels: (B,).
        probe: the layer.
        objective: `"margin"`, or `"logit"`: relevance sums to what is explained, so where the logit is not positive
            the margin is explained in its place.
    """
    explained = explainer.explain(
        images,
        labels,
        layer=probe,
        objective=objective,  # type: ignore[arg-type]
        pixels=False,
    )
    relevance = explained.layer_relevance
    assert relevance is not None
    if objective == "logit":
        negative = explained.logits.gather(1, labels[:, None])[:, 0] <= 0
        if negative.any():
            again = explainer.explain(
                images[negative], labels[negative], layer=probe, objective="margin", pixels=False
            ).layer_relevance
            assert again is not None
            relevance = relevance.clone()
            relevance[negative] = again
    return relevance


def _sufficient(model: nn.Module, samples: SpuriousSamples, parts: tuple[Tensor, ...]) -> Tensor:
    """(t,): whether the masked image alone gets its class."""
    with torch.no_grad(), eval_mode(model):
        return torch.cat(
            [margin(model(pixel_values=samples[rows].masked).logits, samples.labels[rows]) > 0 for rows in parts]
        )


def _starting_scale(start: Tensor, samples: SpuriousSamples, weight: float, reason: str) -> Tensor:
    """P of the starting model to divide by.

    Raises:
        InactiveError: it is 0, and λ would weigh nothing.
    """
    if weight > 0 and start <= _NOTHING:
        raise InactiveError(
            f"the penalty on the starting model is 0 for all {len(samples)} spurious-positive samples ({reason}), so "
            "there is nothing to train against: look at their masks, or set score_lambda=0."
        )
    return start.clamp(min=_NOTHING)
