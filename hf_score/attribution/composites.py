"""Composites by name: which rule each convolution and linear layer gets.

The composites are zennit's own. Sources: Bach et al. 2015 (LRP-ε, αβ), Montavon et al. 2017 and 2019 (z⁺, zᴮ, γ,
composites), Lapuschkin et al. 2019 (flat), Kohlbrenner et al. 2020 (ε, plus and flat together).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonPlus,
    EpsilonPlusFlat,
    LayerMapComposite,
    SpecialFirstLayerMapComposite,
)
from zennit.core import BasicHook, Composite
from zennit.rules import Epsilon, Flat, Gamma, WSquare
from zennit.types import Convolution, Linear

from .rules import Rule

__all__ = ["COMPOSITES", "make_composite", "rules_for"]


def _epsilon_only(*, epsilon: float, **_: Any) -> Composite:
    return LayerMapComposite([(Linear, Epsilon(epsilon=epsilon))])


def _gamma(*, epsilon: float, linear: float = 0.0, convolution: float = 0.25) -> Composite:
    def rule(gamma: float) -> BasicHook:
        return Gamma(gamma=gamma, stabilizer=epsilon) if gamma else Epsilon(epsilon=epsilon)

    return SpecialFirstLayerMapComposite(
        layer_map=[(Convolution, rule(convolution)), (torch.nn.Linear, rule(linear))],
        first_map=[(Linear, Flat(stabilizer=epsilon))],
    )


def _first(rule: Callable[..., BasicHook]) -> Callable[..., Composite]:
    def make(*, epsilon: float, **_: Any) -> Composite:
        return EpsilonPlusFlat(epsilon=epsilon, stabilizer=epsilon, first_map=[(Linear, rule(stabilizer=epsilon))])

    return make


def _from_zennit(kind: Callable[..., Composite]) -> Callable[..., Composite]:
    return lambda *, epsilon, **_: kind(epsilon=epsilon, stabilizer=epsilon)


COMPOSITES: dict[str, Callable[..., Composite]] = {
    "epsilon_plus_flat": _from_zennit(EpsilonPlusFlat),
    "epsilon_plus": _from_zennit(EpsilonPlus),
    "epsilon_plus_wsquare": _first(WSquare),
    "epsilon_gamma_flat": _gamma,
    "epsilon_alpha2_beta1_flat": _from_zennit(EpsilonAlpha2Beta1Flat),
    "epsilon_alpha2_beta1": _from_zennit(EpsilonAlpha2Beta1),
    "epsilon": _epsilon_only,
}


def make_composite(name: str, *, epsilon: float = 1e-6, gamma: dict[str, float] | None = None) -> Composite:
    """A new composite of this name, whose quotients are all stabilised by `epsilon`.

    `gamma` gives γ for `"linear"` and `"convolution"` to the composite that uses it.
    """
    return COMPOSITES[name](epsilon=epsilon, **(gamma or {}))


def rules_for(composite: Composite, model: nn.Module) -> dict[nn.Module, Rule]:
    """The rule that `composite` has for each convolution and linear layer of `model`."""
    context: dict[str, Any] = {}
    found = ((module, composite.module_map(context, name, module)) for name, module in model.named_modules())
    return {module: rule for module, rule in found if isinstance(module, Linear) and isinstance(rule, BasicHook)}
