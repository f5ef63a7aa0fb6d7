"""LRP rules for CNNs by name: which of zennit's rules each kind of layer gets.

The composites are zennit's own, with rows for the pooling layers that timm defines. Sources: Bach et al. 2015 (LRP-ε),
Montavon et al. 2017 and 2019 (z⁺, composites), Kohlbrenner et al. 2020 (ε, plus and flat together).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonPlus,
    EpsilonPlusFlat,
    LayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite
from zennit.rules import Epsilon, Hook, Norm
from zennit.types import Convolution

__all__ = ["make_composite"]


class _EpsilonOnly(LayerMapComposite):
    """LRP-ε for every layer with weights."""

    def __init__(self, *, epsilon: float, stabilizer: float, layer_map: list[tuple[type | tuple[type, ...], Hook]]):
        rule = Epsilon(epsilon=epsilon)
        super().__init__([*layer_map, *layer_map_base(stabilizer), (Convolution, rule), (torch.nn.Linear, rule)])


_COMPOSITES: dict[str, Callable[..., Composite]] = {
    "epsilon_plus_flat": EpsilonPlusFlat,
    "epsilon_plus": EpsilonPlus,
    "epsilon_alpha2_beta1_flat": EpsilonAlpha2Beta1Flat,
    "epsilon_alpha2_beta1": EpsilonAlpha2Beta1,
    "epsilon": _EpsilonOnly,
}


def make_composite(name: str, *, epsilon: float = 1e-6) -> Composite:
    """A new composite of this name, whose quotients are all stabilised by `epsilon`."""
    from timm.layers import BlurPool2d
    from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool

    pooling = ((FastAdaptiveAvgPool, BlurPool2d), Norm(stabilizer=epsilon))
    return _COMPOSITES[name](epsilon=epsilon, stabilizer=epsilon, layer_map=[pooling])
