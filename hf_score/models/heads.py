"""The linear layer at the end of a classifier, by its name in the model."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel, TimmWrapperForImageClassification

from ..errors import ModelError

__all__ = ["linear_head"]


def linear_head(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Dotted name and module of the linear layer that gives the logits; its input (B, D) is the representation.

    Raises:
        ModelError: the model has no linear head, or several.
    """
    if isinstance(model, TimmWrapperForImageClassification):
        found: Any = model.timm_model.get_classifier()
        parts = found if isinstance(found, tuple) else (found,)  # a distilled model has two
        inside = {module for part in parts for module in part.modules()}
        heads = [(name, module) for name, module in model.named_modules() if module in inside]
    else:
        body = f"{model.base_model_prefix}."
        heads = [(name, module) for name, module in model.named_modules() if not name.startswith(body)]
    linear = [(name, module) for name, module in heads if isinstance(module, nn.Linear)]
    if len(linear) != 1:
        raise ModelError(
            f"{type(model).__name__} has {len(linear)} linear heads, and what looks at the input of the classifier "
            "needs one; choose a model with one."
        )
    return linear[0]
