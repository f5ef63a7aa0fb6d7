"""A model and its processor for another input size."""

from __future__ import annotations

import copy
from typing import Any

from timm.layers import resample_abs_pos_embed
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from ..errors import ModelError, first_line

__all__ = ["patching", "resize", "resized"]


def resize(config: Any, processor: Any, image_size: int | None) -> tuple[Any, Any]:
    """Copies of configuration and processor for another input size, or the same where it is None."""
    if image_size is None:
        return config, processor
    config = copy.deepcopy(config)
    if isinstance(config, TimmWrapperConfig):
        cfg = {key: value for key, value in config.pretrained_cfg.items() if not key.startswith("test_")}
        config.pretrained_cfg = {**cfg, "input_size": [3, image_size, image_size]}
        if cfg.get("fixed_input_size"):
            config.model_args = {**(config.model_args or {}), "img_size": image_size}
        return config, TimmWrapperImageProcessor(config.pretrained_cfg, config.architecture)
    if hasattr(config, "image_size"):
        config.image_size = image_size
    settings = processor.to_dict()
    cropped = settings.get("do_center_crop") and settings.get("crop_size")
    shown = settings["crop_size"] if cropped else settings["size"]
    factor = image_size / (shown.get("height") or shown["shortest_edge"])
    for key in ("size", "crop_size"):
        if settings.get(key):
            settings[key] = {side: round(value * factor) for side, value in settings[key].items() if value}
    return config, type(processor).from_dict(settings)


def resized(model: Any, processor: Any, image_size: int) -> tuple[Any, Any]:
    """The model and its processor for another input size, with its position embeddings interpolated."""
    config, processor = resize(model.config, processor, image_size)
    try:
        resized = type(model)(config)
    except (AssertionError, ValueError) as error:
        raise ModelError(
            f"The model cannot take {image_size} px images ({first_line(error)}); choose another size."
        ) from error
    state, expected = model.state_dict(), resized.state_dict()
    for key, value in state.items():
        if value.shape == expected[key].shape:
            continue
        old, new = patching(model), patching(resized)
        if not key.endswith(("pos_embed", "position_embeddings")) or old is None or new is None:
            raise ModelError(
                f"{type(model).__name__} cannot change its input size ({key} depends on it); leave it as it is."
            )
        before, after = old[0] // old[1], new[0] // new[1]
        tokens = value.shape[1] - before**2  # class and distillation tokens have positions of their own
        state[key] = resample_abs_pos_embed(value, [after, after], old_size=[before, before], num_prefix_tokens=tokens)
    resized.load_state_dict(state)
    return resized, processor


def patching(model: Any) -> tuple[int, int] | None:
    """Sides of the (square) image and of one patch in pixels, None for a model without patches."""
    if isinstance(model, TimmWrapperForImageClassification):
        embed: Any = getattr(model.timm_model, "patch_embed", None)
        size, patch = getattr(embed, "img_size", None), getattr(embed, "patch_size", None)
        return (size[0], patch[0]) if size is not None and patch is not None else None
    size, patch = getattr(model.config, "image_size", None), getattr(model.config, "patch_size", None)
    return (size, patch) if isinstance(size, int) and isinstance(patch, int) else None
