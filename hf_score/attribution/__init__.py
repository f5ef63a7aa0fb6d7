"""Layer-wise relevance propagation (LRP): what in a picture, and in a layer, speaks for a class.

`Explainer` explains a CNN or a ViT without touching it; `find_layer` names a layer in words that survive library
versions, and its `ProbeLayer.capture()` gives the same activations during training; `pixel_flipping` and the other
functions of `hf_score.attribution.faithfulness` say whether a heatmap can be trusted. Nothing here knows of data sets,
selection or training.
"""

from .explainer import Explainer, Explanation
from .faithfulness import FlippingCurve, attention_rollout, pixel_flipping, randomisation_check, search_gamma
from .families import FAMILIES, Family, find_family
from .layers import Captured, ProbeLayer, find_activations, find_layer

__all__ = [
    "FAMILIES",
    "Captured",
    "Explainer",
    "Explanation",
    "Family",
    "FlippingCurve",
    "ProbeLayer",
    "attention_rollout",
    "find_activations",
    "find_family",
    "find_layer",
    "pixel_flipping",
    "randomisation_check",
    "search_gamma",
]
