"""The paper's penalty as pure tensor functions: the shortcut relevance and the strength of the neurons of a layer.

`NeuronPenalty` (`hf_score.training.penalties`) feeds it. The formula of the exchange is in `hf_score.margins`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Granularity",
    "activation_strength",
    "penalised_share",
    "positive_total",
    "score_penalty",
    "shortcut_relevance",
]

Granularity = Literal["channel", "spatial"]


def shortcut_relevance(relevance: Tensor, *, granularity: Granularity, total: Tensor | None = None) -> Tensor:
    """Turn the relevance of masked images at the probe layer into the weights r of the penalty.

    r = ReLU(LRP of the class logit at layer l for the masked image), from SCORE (arXiv 2605.13340, figure 1 B).
    Dividing by its sum, so that one sample weighs as much as another, is ours.

    Args:
        relevance: (B, P, C), relevance of P positions (pixels or tokens) and C neurons.
        granularity: `"spatial"` keeps the positions; `"channel"` sums the positive relevance over them first.
        total: (B,), what to divide by instead: the sums of the starting model, so that relevance computed anew later
            fades with the shortcut instead of turning to whatever is left.

    Returns:
        (B, P, C) for `"spatial"`, (B, 1, C) for `"channel"`; non-negative, each sample sums to 1
        (with `total`: to what is left of it), or to 0 where nothing was positive. Detached.
    """
    positive = relevance.detach().clamp(min=0)
    if granularity == "channel":
        positive = positive.sum(dim=1, keepdim=True)
    total = positive_total(relevance)[:, None, None] if total is None else total[:, None, None]
    return torch.where(total > 0, positive / total.clamp(min=torch.finfo(positive.dtype).tiny), 0.0)


def positive_total(relevance: Tensor) -> Tensor:
    """(B,): the sum of the positive relevance of each sample, of (B, P, C)."""
    return relevance.detach().clamp(min=0).sum(dim=(1, 2))


def activation_strength(activation: Tensor, *, granularity: Granularity) -> Tensor:
    """The non-negative strength |a| of each neuron.

    The paper multiplies r with the activation itself. Where activations are at least 0, as after a ReLU, the two are
    the same. Where they carry a sign (the residual stream of a ViT), the product has no lower bound: training drives
    a_k to minus infinity and the loss with it. |a| is bounded by 0, and it is the right direction for both signs: LRP
    gives neuron k the relevance a_k·∂f/∂a_k, so where that is positive, moving a_k towards 0 is what removes the
    contribution, whatever its sign.

    Args:
        activation: (B, P, C).
        granularity: `"spatial"` keeps the positions, `"channel"` takes the mean over them.

    Returns:
        (B, P, C) or (B, 1, C), ≥ 0.
    """
    strength = activation.abs()
    return strength.mean(dim=1, keepdim=True) if granularity == "channel" else strength


def score_penalty(activation: Tensor, weights: Tensor, *, granularity: Granularity) -> Tensor:
    """P of each sample = Σ_k r_k · |a_k| (SCORE, arXiv 2605.13340, figure 1 B; |·| is ours: `activation_strength`).

    Args:
        activation: (B, P, C), activations of the original images at the probe layer.
        weights: r from `shortcut_relevance` of the masked images, with the same `granularity`.
        granularity: `"channel"` or `"spatial"`.

    Returns:
        (B,), ≥ 0, float32 (bfloat16 sums over 10⁵ products lose the small ones).
    """
    strength = activation_strength(activation.float(), granularity=granularity)
    return (weights.float() * strength).sum(dim=(1, 2))


def penalised_share(activation: Tensor, weights: Tensor, *, granularity: Granularity) -> Tensor:
    """(B,): the share of the activations with r_k · |a_k| > 0, of what `score_penalty` takes."""
    strength = activation_strength(activation.detach().float(), granularity=granularity)
    return ((weights.float() * strength) > 0).float().mean(dim=(1, 2))
