"""Weights from files as people have them: `.safetensors`, and `.pth` or `.pth.tar` without running their code."""

from __future__ import annotations

import argparse
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ModelError, first_line

__all__ = ["read_weights"]

logger = logging.getLogger(__name__)

#: Entries of a training checkpoint that hold the weights, the first that is there: timm prefers averaged ones too.
_WEIGHTS = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.", "timm_model.")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Name → weight in float32, without what training wraps round them: `module.`, optimiser states, averages.

    Raises:
        ModelError: there is no such file, it holds no weights, or it is a pickle with code in it.
    """
    if not file.is_file():
        raise ModelError(
            f"Cannot read the weights '{file}' (there is no such file); give a .safetensors or .pth file."
        )
    state = _safetensors(file) if file.suffix == ".safetensors" else _unpickled(file)
    state = {key: value for key, value in state.items() if isinstance(value, Tensor) and key != "n_averaged"}
    if not state:
        raise ModelError(f"There are no weights in '{file}'; give a file with a model's state_dict.")
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except Exception as error:  # the safetensors library's own error
        raise ModelError(
            f"Cannot read the weights '{file}' ({first_line(error)}); give a .safetensors file."
        ) from error


def _unpickled(file: Path) -> Mapping[str, Any]:
    """The state dict of a file by `torch.save`; only tensors, plain containers and `argparse.Namespace` are read."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its options beside the weights
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"The weights '{file}' are a pickle with more than tensors in it, which would run code when it is read, "
            "or no weights at all; save the model's state_dict alone, best as .safetensors."
        ) from error
    except Exception as error:  # zip files, truncated files: torch lets many errors through
        raise ModelError(
            f"Cannot read the weights '{file}' ({first_line(error)}); give a .safetensors or .pth file."
        ) from error
    found = next(
        (key for key in _WEIGHTS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), ""
    )
    if found:
        logger.info("'%s' is a training checkpoint; its weights are those of '%s'.", file, found)
        content = content[found]
    return content if isinstance(content, Mapping) else {}
