"""The private copy of a model that is explained instead of the model itself, which is only ever read."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["private_copy", "type_name", "unwrap"]


def type_name(module: nn.Module) -> str:
    """The qualified name of a module's class, such as `torch.nn.modules.conv.Conv2d`."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel`, `DataParallel`, `torch.compile` and PEFT, adapters included."""
    while True:
        if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
            model = model.get_base_model()  # type: ignore[operator]
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model._modules["_orig_mod"]  # type: ignore[assignment]
        else:
            return model


def private_copy(model: nn.Module) -> nn.Module:
    """A deep copy of `model` that is fit to be explained.

    It is in evaluation mode and single precision (or double, where the model is), its parameters are frozen, it has
    none of the model's hooks, and it neither computes in place nor checkpoints activations.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if name.endswith("_hooks") and isinstance(value, dict):
                memo[id(value)] = type(value)()  # the copy gets an empty dictionary instead of the user's hooks
    duplicate = copy.deepcopy(model, memo)
    if "_original_forward" in vars(duplicate):  # accelerate's autocast around forward
        del duplicate.forward, duplicate._original_forward
    for module in duplicate.modules():
        for flag in ("inplace", "grad_checkpointing", "gradient_checkpointing", "_fast_norm"):
            if getattr(module, flag, False) is True:
                setattr(module, flag, False)
    config: Any = getattr(duplicate, "config", None)
    if hasattr(config, "output_hidden_states"):
        config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
        if getattr(config, "_attn_implementation", None) not in (None, "eager"):
            config._attn_implementation = "sdpa"  # what flash and flex kernels compute, visible to AttnLRP
    for parameter in duplicate.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            return duplicate.float().eval().requires_grad_(False)
    return duplicate.eval().requires_grad_(False)
