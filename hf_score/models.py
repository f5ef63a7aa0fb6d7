"""Loading an image classifier and its processor for a task: from the Hub, a folder, or timm by name.

Every model that comes out is a stock transformers class (timm architectures in `TimmWrapperForImageClassification`),
so what is saved loads anywhere with `AutoModelForImageClassification`, `AutoImageProcessor` and `pipeline`.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from .data.classes import class_key, class_names_of, is_automatic, is_unnamed, label_numbers, match_classes
from .errors import ModelError, first_line
from .hub_errors import HUB_ID, hub_problem

__all__ = [
    "LoadedModel",
    "base_model_id",
    "check_label_ids",
    "checkpoint_digest",
    "checkpoint_state",
    "classifier_head",
    "describe_model",
    "load_model",
    "model_fingerprint",
    "own_class_names",
]

logger = logging.getLogger(__name__)


class LoadedModel(NamedTuple):
    """What `load_model` gives.

    Attributes:
        model: in float32 and eval mode.
        processor: its image processor.
        has_head: whether it came with a head for the classes. Without one it has a new, random head and needs
            fine-tuning first.
    """

    model: PreTrainedModel
    processor: Any
    has_head: bool


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None,
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    from_scratch: bool = False,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a classifier for the given classes.

    Args:
        name_or_path: A folder with a transformers checkpoint, a Hub id, or a timm name (`resnet18`,
            `resnet18.a1_in1k`), whose pretrained weights come from the Hub.
        class_names: The task's classes in the order of their label ids. None: the model's own, with the head it came
            with. A head is taken only where its classes are these, in this order: compared by name, and the model's
            own spelling stays. To have the data in the model's order, load them with
            `load_data(..., model_classes=own_class_names(...))`. Where the model does not name its classes (`LABEL_0`,
            or timm weights), the order is yours to state: names that `load_data` only sorted are refused.
        image_size: Side of the square input in pixels, if not the checkpoint's own. Position embeddings are
            interpolated to it (bicubic, `timm.layers.resample_abs_pos_embed`).
        weights: For a timm name, a `.safetensors` file with timm's keys to load in place of the Hub's weights.
        from_scratch: Random weights, from torch's global generator.
        revision, cache_dir, trust_remote_code: As in `from_pretrained`.

    Returns:
        The model in float32 and eval mode, its image processor, and whether it came with a head for these classes.

    Raises:
        ModelError: The model cannot be found, its weights do not fit it, it names or orders the classes otherwise, it
            does not name them and nobody stated their order, or it was to keep its head and has none.
    """
    name = os.fspath(name_or_path)
    hub = {"revision": revision, "cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    architecture = _timm_architecture(name)
    if weights is not None and (architecture is None or from_scratch):
        raise ModelError(f"`weights` goes with a timm name and without `from_scratch`, not with '{name}'; drop one.")
    if architecture is not None and (from_scratch or weights is not None):
        model, processor, has_head = _from_timm(architecture, class_names, weights, image_size)
    else:
        path = _find(name) if architecture is None else _hub_id(architecture)
        try:
            config = AutoConfig.from_pretrained(path, **hub)
            processor = AutoImageProcessor.from_pretrained(path, **hub)
        except Exception as error:  # transformers lets the errors of several libraries through
            raise _cannot_load(path, error) from error
        own = _names_in(config)
        fits = class_names is None or len(own) == len(class_names)
        named = fits and not is_unnamed(own) and not from_scratch
        if class_names is not None and named:
            _check_order(class_names, own, name)  # the model's spelling stays
        elif class_names is not None:
            _set_classes(config, class_names)
        if from_scratch:
            config, processor = _resize(config, processor, image_size)
            model = AutoModelForImageClassification.from_config(config, trust_remote_code=trust_remote_code)
            has_head = False
        else:
            model, head_loaded = _load_pretrained(path, config, hub)
            has_head = fits and head_loaded
            if has_head and class_names is not None and not named:
                _check_order(class_names, own, name)
    if class_names is None and not has_head:
        raise ModelError(f"'{name}' has no classes of its own that it was trained to name; give a trained classifier.")
    if image_size is not None:
        if not from_scratch:
            model, processor = _resized(model, processor, image_size)
        patch = _patching(model)
        if patch is not None and image_size % patch[1]:
            raise ModelError(
                f"The image size {image_size} is no multiple of the patch size {patch[1]} of '{name}'; choose one."
            )
    return LoadedModel(model.float().eval(), processor, has_head)


def _from_timm(
    architecture: str,
    class_names: Sequence[str] | None,
    weights: str | os.PathLike[str] | None,
    image_size: int | None,
) -> tuple[Any, Any, bool]:
    """A timm model with the weights of a file, or else with random ones for images of that size; its processor; and
    whether it has a head for the classes."""
    config = _timm_config(architecture, class_names)
    processor = TimmWrapperImageProcessor(config.pretrained_cfg, config.architecture)
    if weights is None:
        config, processor = _resize(config, processor, image_size)
        return _new_timm_model(config), processor, False
    model = _new_timm_model(config)
    has_head = _load_weights(model, Path(weights))
    if has_head and class_names is not None:  # such a file names no classes
        _check_order(class_names, [f"LABEL_{i}" for i in range(len(class_names))], str(weights))
    return model, processor, has_head


def own_class_names(
    name_or_path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    from_scratch: bool = False,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
    **_: Any,
) -> list[str] | None:
    """What the model that `load_model` would load calls its classes, in the order of its outputs.

    For `load_data(..., model_classes=...)`; only the configuration is read.

    Args:
        name_or_path, weights, from_scratch, revision, cache_dir, trust_remote_code: As for `load_model`, whose other
            arguments may be given too.

    Returns:
        The names, or None where it does not name them.

    Raises:
        ModelError: The model cannot be found.
    """
    name = os.fspath(name_or_path)
    if weights is not None or from_scratch:
        return None
    architecture = _timm_architecture(name)
    path = _find(name) if architecture is None else _hub_id(architecture)
    hub = {"revision": revision, "cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    try:
        names = _names_in(AutoConfig.from_pretrained(path, **hub))
    except Exception as error:  # as in load_model
        raise _cannot_load(path, error) from error
    return None if is_automatic(names) else names


def check_label_ids(model: Any, dataset: Any, what: str = "the data set") -> None:
    """Refuse a data set whose label ids stand for other classes than the model's outputs.

    Where one of the two does not name its classes, nothing can be compared: that is said, and nothing refused.

    Args:
        model: a classifier; its `config.id2label` is read.
        dataset: its column `label` may be a `ClassLabel`; or names in the order of their ids.
        what: what to call the data set.

    Raises:
        ModelError: the names differ, or stand in another order, or are more than the model's outputs.
    """
    named = getattr(getattr(model, "config", None), "id2label", None)
    names = list(dataset) if isinstance(dataset, list | tuple) else class_names_of(dataset)
    if not named or not names:
        return
    own = [str(named[i]) for i in sorted(named)]
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


def classifier_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that gives the logits (B, K); its input (B, D) is the image's representation.

    Raises:
        ModelError: the model has no linear head, or several.
    """
    if isinstance(model, TimmWrapperForImageClassification):
        found: Any = model.timm_model.get_classifier()
        parts = found if isinstance(found, tuple) else (found,)  # a distilled model has two
        modules = [module for part in parts for module in part.modules()]
    else:
        body = f"{model.base_model_prefix}."
        modules = [module for name, module in model.named_modules() if not name.startswith(body)]
    heads = [module for module in modules if isinstance(module, nn.Linear)]
    if len(heads) != 1:
        raise ModelError(
            f"{type(model).__name__} has {len(heads)} linear heads, and a method that looks at the input of the "
            "classifier needs one; choose a model with one."
        )
    return heads[0]


def base_model_id(
    name_or_path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    from_scratch: bool = False,
) -> str | None:
    """The Hub id of what `load_model` starts from, None where that is a folder, a file or random weights."""
    name = os.fspath(name_or_path)
    if from_scratch or weights is not None or Path(name).is_dir():
        return None
    architecture = _timm_architecture(name)
    if architecture is not None:
        return _hub_id(architecture)
    return name if HUB_ID.fullmatch(name) else None


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """What results say of a model itself: its architecture, and whether timm is needed to load it."""
    architecture = getattr(model.config, "architecture", None) or type(model).__name__
    return {"architecture": architecture, "is_timm": isinstance(model, TimmWrapperForImageClassification)}


def checkpoint_state(model: PreTrainedModel, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights under the names to save them by: timm's own for a timm model, so that timm loads the file too.

    Args:
        model: transformers reads both names of a timm-wrapped one.
        state: the weights; default: the model's.
    """
    prefix = "timm_model." if isinstance(model, TimmWrapperForImageClassification) else ""
    state = model.state_dict() if state is None else state
    return {key.removeprefix(prefix): value for key, value in state.items()}


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's weight files in the order of their names; of one file, what `sha256sum` says."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _timm_architecture(name: str) -> str | None:
    """The timm name (`architecture` or `architecture.tag`) that `name` stands for, unless it is a folder."""
    bare = name.removeprefix("timm/")
    return bare if not Path(name).is_dir() and "/" not in bare and timm.is_model(bare) else None


def _find(name: str) -> str:
    """`name` where it is a folder or can be a Hub id; anything else is refused without asking the Hub."""
    if Path(name).is_dir() or HUB_ID.fullmatch(name):
        return name
    close = difflib.get_close_matches(name, timm.list_models(), n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise ModelError(
        f"There is no model folder '{name}' and no timm model of that name{hint}; give a folder, a Hub id such as "
        "'user/name', or a timm name such as 'resnet18'."
    )


def _hub_id(architecture: str) -> str:
    cfg = timm.get_pretrained_cfg(architecture)
    if cfg is None or not cfg.hf_hub_id:
        raise ModelError(
            f"timm has no pretrained weights for '{architecture}' on the Hub; give `weights` or choose `from_scratch`."
        )
    return cfg.hf_hub_id if not cfg.hf_hub_id.endswith("/") else f"{cfg.hf_hub_id}{cfg.architecture}.{cfg.tag}"


def _timm_config(architecture: str, class_names: Sequence[str] | None) -> Any:
    """The configuration that transformers needs to build, preprocess for, and save this timm model."""
    cfg = timm.get_pretrained_cfg(architecture)
    pretrained_cfg: dict[str, Any] = cfg.to_dict(remove_source=True) if cfg is not None else {}
    settings: dict[str, Any] = {"architecture": architecture.split(".")[0], "pretrained_cfg": pretrained_cfg}
    config = TimmWrapperConfig(**settings)
    if class_names is None:
        class_names = [f"LABEL_{i}" for i in range(pretrained_cfg.get("num_classes", 0))]
    _set_classes(config, class_names)
    return config


def _new_timm_model(config: Any) -> Any:
    """A timm model with timm's own initialisation, which transformers would otherwise replace by its own."""
    model: Any = TimmWrapperForImageClassification(config)
    fresh = timm.create_model(config.architecture, num_classes=config.num_labels, **(config.model_args or {}))
    model.timm_model.load_state_dict(fresh.state_dict())
    return model


def _load_weights(model: Any, file: Path) -> bool:
    """Fill a timm model from a file; whether the file's head fitted."""
    try:
        state = {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
    except Exception as error:  # a missing file, or the safetensors library's own error
        raise ModelError(
            f"Cannot read the weights '{file}' ({first_line(error)}); give a .safetensors file."
        ) from error
    expected = model.timm_model.state_dict()
    head = _head_keys(model)
    fits = all(key in state and state[key].shape == expected[key].shape for key in head)
    if not fits:
        state = {key: value for key, value in state.items() if key not in head}
    for key in expected.keys() & state.keys():
        if expected[key].shape != state[key].shape:
            raise ModelError(
                f"In the weights '{file}' {key} has the shape {tuple(state[key].shape)}, but "
                f"{model.config.architecture} needs {tuple(expected[key].shape)}; give this architecture's weights."
            )
    counters = {key for key in expected if key.endswith("num_batches_tracked")}  # unused by BatchNorm with momentum
    missing = sorted(expected.keys() - state.keys() - counters - (set() if fits else head))
    unexpected = sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise ModelError(
            f"The weights '{file}' do not fit {model.config.architecture}: {len(missing)} keys are missing "
            f"{missing[:1]}, {len(unexpected)} are unexpected {unexpected[:1]}; give this architecture's weights."
        )
    model.timm_model.load_state_dict({**expected, **state})
    return fits


def _head_keys(model: Any) -> set[str]:
    """Names of the classifier's parameters, inside `timm_model` for a timm model."""
    if isinstance(model, TimmWrapperForImageClassification):
        inner = model.timm_model
        heads = (inner.pretrained_cfg or {}).get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        return {key for key in inner.state_dict() if key.startswith(tuple(f"{head}." for head in heads))}
    return {key for key in model.state_dict() if not key.startswith(f"{model.base_model_prefix}.")}


def _load_pretrained(path: str, config: Any, hub: dict[str, Any]) -> tuple[Any, bool]:
    """Load a checkpoint, allow a new head and nothing else to be missing; whether the checkpoint's head fitted."""
    try:
        model, info = AutoModelForImageClassification.from_pretrained(
            path, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **hub
        )
    except Exception as error:  # as above
        raise _cannot_load(path, error) from error
    prefix = "timm_model." if isinstance(model, TimmWrapperForImageClassification) else ""
    head = {prefix + key for key in _head_keys(model)}
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    if new - head:
        raise ModelError(
            f"The checkpoint '{path}' lacks weights of its body, such as {min(new - head)}; give a complete one."
        )
    return model, not new & head


def _names_in(config: Any) -> list[str]:
    return [str(config.id2label[i]) for i in range(config.num_labels)]


def _check_order(class_names: Sequence[str], own: Sequence[str], name: str) -> None:
    """Refuse a head for the task's classes in another order."""
    for i, place in enumerate(match_classes(class_names, own, model=name)):
        if place != i:
            raise ModelError(
                f"The label ids of '{name}' and of the data differ: the model says {i} = '{own[i]}', the data says "
                f"{i} = '{class_names[i]}'; load the data in the model's order, with "
                f"load_data(..., model_classes={list(own)})."
            )


def _set_classes(config: Any, class_names: Sequence[str]) -> None:
    config.id2label = dict(enumerate(class_names))
    config.label2id = {label: i for i, label in enumerate(class_names)}
    if hasattr(config, "label_names"):  # timm's own list, which would win over id2label when the model is loaded again
        del config.label_names
    if isinstance(config, TimmWrapperConfig):
        # timm records the number of classes here too, and transformers passes both on; timm cannot read a null here.
        config.model_args = {key: value for key, value in (config.model_args or {}).items() if key != "num_classes"}


def _resize(config: Any, processor: Any, image_size: int | None) -> tuple[Any, Any]:
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


def _resized(model: Any, processor: Any, image_size: int) -> tuple[Any, Any]:
    """The model and its processor for another input size, with its position embeddings interpolated."""
    config, processor = _resize(model.config, processor, image_size)
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
        old, new = _patching(model), _patching(resized)
        if not key.endswith(("pos_embed", "position_embeddings")) or old is None or new is None:
            raise ModelError(
                f"{type(model).__name__} cannot change its input size ({key} depends on it); leave it as it is."
            )
        before, after = old[0] // old[1], new[0] // new[1]
        tokens = value.shape[1] - before**2  # class and distillation tokens have positions of their own
        state[key] = resample_abs_pos_embed(value, [after, after], old_size=[before, before], num_prefix_tokens=tokens)
    resized.load_state_dict(state)
    return resized, processor


def _patching(model: Any) -> tuple[int, int] | None:
    """Sides of the (square) image and of one patch in pixels, None for a model without patches."""
    if isinstance(model, TimmWrapperForImageClassification):
        embed: Any = getattr(model.timm_model, "patch_embed", None)
        size, patch = getattr(embed, "img_size", None), getattr(embed, "patch_size", None)
        return (size[0], patch[0]) if size is not None and patch is not None else None
    size, patch = getattr(model.config, "image_size", None), getattr(model.config, "patch_size", None)
    return (size, patch) if isinstance(size, int) and isinstance(patch, int) else None


def _cannot_load(path: str, error: Exception) -> ModelError:
    if Path(path).is_dir():
        return ModelError(
            f"Cannot load the model folder '{path}' ({first_line(error)}); it must be written by `save_pretrained` of "
            "a model and its processor."
        )
    return ModelError(f"Cannot load the model '{path}', which is no local folder: {hub_problem(error)}.")


def model_fingerprint(model: nn.Module) -> str:
    """A short hash of all weights and buffers, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
