"""What a later step needs of a model, asked before the first long one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from ..data import ImageCollator
from ..data.classes import class_key, class_names_of, is_unnamed, label_numbers
from ..errors import ModelError, first_line
from .yes_no import classes_of_model, yes_no_head

__all__ = [
    "check_label_ids",
    "check_model",
    "check_sizes",
    "check_trainable",
    "refuse_what_is_not_supported",
    "reset_problem_type",
]

logger = logging.getLogger(__name__)

_LOOKED_AT = 16  # images of the data that are tried


def check_model(model: PreTrainedModel, processor: Any, dataset: Any, class_names: Sequence[str]) -> None:
    """Raise where model, processor and data do not go together, after one batch through all three.

    Args:
        model: as `load_model` gave it.
        processor: likewise.
        dataset: items with `image` or `pixel_values`; up to 16, spread over the whole, are looked at.
        class_names: the task's classes.

    Raises:
        ModelError: fewer than two classes, other classes than the model's logits are for, a processor that does not
            bring the images to one size, or a model that does not take what the processor gives.
    """
    if len(class_names) < 2:
        raise ModelError(f"There is one class, {list(class_names)}, and nothing to tell apart; give data with two.")
    check_trainable(model)
    kind = type(model).__name__
    count = min(_LOOKED_AT, len(dataset))
    items = [dataset[position * len(dataset) // count] for position in range(count)]
    try:
        pixel_values = ImageCollator(processor)([{**item, "labels": 0} for item in items])["pixel_values"]
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        shapes = sorted({_size(item) for item in items})
        advice = "set do_resize=true with a size in preprocessor_config.json, or resize the images"
        raise ModelError(
            f"{type(processor).__name__} cannot make one batch of images of {len(shapes)} sizes, such as {shapes[0]} "
            f"and {shapes[-1]} pixels ({first_line(error)}); {advice}."
        ) from error
    try:
        with torch.no_grad():
            logits = model(pixel_values=pixel_values.to(model.device)).logits
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"{kind} does not take the images that {type(processor).__name__} makes, of shape "
            f"{tuple(pixel_values.shape[1:])} ({first_line(error)}); give the processor that belongs to the model."
        ) from error
    if logits.shape != (count, len(class_names)):
        raise ModelError(
            f"{kind} gives {logits.shape[-1]} logits for the {len(class_names)} classes {list(class_names)}; load it "
            "with `hf_score.load_model` and these class names."
        )
    if not logits.isfinite().all():
        raise ModelError(f"{kind} gives logits that are not finite; its weights are broken, so start from others.")


def check_sizes(processor: Any, splits: Mapping[str, Any]) -> None:
    """Raise where a processor that does not bring images to one size gets images of two.

    Args:
        processor: the model's; most resize, and their images are not looked at.
        splits: name → items with `image` of a size, or `pixel_values`, which are of one size already.

    Raises:
        ModelError: there are images of two sizes.
    """
    tried = [{"image": Image.new("RGB", size), "labels": 0} for size in ((96, 64), (64, 80))]
    try:
        ImageCollator(processor)(tried)
    except (ValueError, RuntimeError, TypeError, KeyError):
        pass
    else:
        return
    first: tuple[str, str] | None = None
    for split, dataset in splits.items():
        for item in dataset:
            if "image" not in item:
                break
            size = _size(item)
            first = first or (size, split)
            if size != first[0]:
                raise ModelError(
                    f"{type(processor).__name__} does not bring images to one size, and split '{split}' has one of "
                    f"{size} pixels (idx {item['idx']}), split '{first[1]}' one of {first[0]}; set do_resize=true "
                    "with a size in preprocessor_config.json, or resize the images."
                )


def check_label_ids(model: Any, dataset: Any, what: str = "the data set") -> None:
    """Refuse a data set whose label ids stand for other classes than the model's outputs.

    Where one of the two does not name its classes, nothing can be compared: that is said, and nothing refused.

    Args:
        model: a classifier; its what its logits are for is read.
        dataset: its column `label` may be a `ClassLabel`; or names in the order of their ids.
        what: what to call the data set.

    Raises:
        ModelError: the names differ, or stand in another order, or are more than the model's outputs.
    """
    named = classes_of_model(model)
    names = list(dataset) if isinstance(dataset, list | tuple) else class_names_of(dataset)
    if not named or not names:
        return
    own = [named[i] for i in sorted(named)]
    if len(names) > len(own):
        raise ModelError(
            f"The model has {len(own)} outputs, and {what} {len(names)} classes; load it for these classes."
        )
    numbers, own_numbers = label_numbers(names), label_numbers(own)
    if not (numbers and own_numbers) and (is_unnamed(own) or is_unnamed(names)):
        logger.warning("The model calls its classes %s, %s %s; their label ids are taken to agree.", own, what, names)
        return
    for i, name in enumerate(names):
        same = numbers[i] == own_numbers[i] if numbers and own_numbers else class_key(name) == class_key(own[i])
        if not same:
            raise ModelError(
                f"The label ids of the model and of {what} differ: the model says {i} = '{own[i]}', {what} says "
                f"{i} = '{name}'; load the data in the model's order, with load_data(..., model_classes={own[:12]})."
            )


def check_trainable(model: Any) -> None:
    """Raise where a classifier cannot be trained on class labels, and put right what its configuration says wrongly.

    Raises:
        ModelError: adapters, a multi-label or one-output model that is not read as two classes, nothing to train.
    """
    _refuse_adapters(model, "This model")
    if not isinstance(model, PreTrainedModel):
        return
    config: Any = model.config
    if yes_no_head(model) is None:
        if len(classes_of_model(model)) == 1 or config.problem_type == "multi_label_classification":
            raise ModelError(
                f"{type(model).__name__} has yes/no outputs, and class labels would be compared with all of them; "
                "load it with `hf_score.load_model`, the two class names and, of several outputs, the `label`."
            )
        reset_problem_type(config, type(model).__name__)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"All weights of {type(model).__name__} are frozen; unfreeze those to train.")


def reset_problem_type(config: Any, name: str) -> None:
    """Class labels are compared by cross-entropy, whatever task the configuration was written for."""
    if config.problem_type not in (None, "single_label_classification"):
        logger.warning(
            "'%s' was configured for %s; it is trained on class labels, by cross-entropy.", name, config.problem_type
        )
    if config.problem_type is not None:
        config.problem_type = "single_label_classification"


def refuse_what_is_not_supported(model: Any, name: str) -> None:
    """Raise where a loaded checkpoint is of a kind that no later step can work with.

    Raises:
        ModelError: images of another number of channels than three, adapters.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3:
        raise ModelError(
            f"'{name}' takes images of {first.in_channels} channel{'s' * (first.in_channels > 1)}, and images are "
            "read as RGB here; repeat the weights of its first convolution over three channels, divided by three."
        )
    _refuse_adapters(model, f"'{name}'")


def _refuse_adapters(model: Any, name: str) -> None:
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{name} has adapters (PEFT), which would be saved without the model; merge them first: "
            "`model.merge_and_unload()`, then `save_pretrained`."
        )


def _size(item: Any) -> str:
    image = item.get("image")
    return "×".join(map(str, image.size if image is not None else item["pixel_values"].shape[-2:]))
