"""Loading an image classifier and its processor for a task: from the Hub, a folder, or timm by name.

Every model that comes out is a stock transformers class (timm architectures in `TimmWrapperForImageClassification`),
so what is saved loads anywhere with `AutoModelForImageClassification`, `AutoImageProcessor` and `pipeline`.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
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

from ..data.classes import is_automatic, is_unnamed, match_classes
from ..errors import ModelError, first_line
from ..hub_errors import HUB_ID, hub_problem
from .checks import refuse_what_is_not_supported, reset_problem_type
from .heads import linear_head
from .sizes import patching, resize, resized
from .weights import read_weights
from .yes_no import (
    classes_of_model,
    find_output,
    has_yes_no_outputs,
    read_output,
    restore_output,
    saved_classes,
    yes_no_head,
)

__all__ = [
    "LoadedModel",
    "base_model_id",
    "checkpoint_digest",
    "checkpoint_state",
    "classifier_head",
    "describe_model",
    "load_checkpoint",
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
    label: str | None = None,
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
        label: The output of a multi-label classifier to look at, by name or number. It is read as two classes, absent
            and present, like the one output of a classifier with a sigmoid; the other outputs are kept
            (`hf_score.models.yes_no`).
        image_size: Side of the square input in pixels, if not the checkpoint's own. Position embeddings are
            interpolated to it (bicubic, `timm.layers.resample_abs_pos_embed`).
        weights: For a timm name, a `.safetensors` or `.pth` file with timm's keys to load in place of the Hub's
            weights.
        from_scratch: Random weights, from torch's global generator.
        revision, cache_dir, trust_remote_code: As in `from_pretrained`.

    Returns:
        The model in float32 and eval mode, its image processor, and whether it came with a head for these classes.

    Raises:
        ModelError: The model cannot be found, its weights do not fit it, it names or orders the classes otherwise, it
            does not name them and nobody stated their order, it was to keep its head and has none, or it is of a kind
            that is not supported (one-channel images, adapters, regression).
    """
    name = os.fspath(name_or_path)
    hub = {"revision": revision, "cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    architecture = _timm_architecture(name)
    if weights is not None and (architecture is None or from_scratch):
        raise ModelError(f"`weights` goes with a timm name and without `from_scratch`, not with '{name}'; drop one.")
    if architecture is not None and (from_scratch or weights is not None):
        model, processor, has_head, output = _from_timm(architecture, class_names, label, weights, image_size)
    else:
        path = _find(name) if architecture is None else _hub_id(architecture)
        size = image_size if from_scratch else None
        model, processor, has_head, output = _from_checkpoint(
            path, class_names, label, hub, name=name, from_scratch=from_scratch, image_size=size
        )
    refuse_what_is_not_supported(model, name)
    if class_names is None and (not has_head or model.config.num_labels < 2):
        raise ModelError(f"'{name}' has no classes of its own that it was trained to name; give a trained classifier.")
    if image_size is not None:
        if not from_scratch:
            model, processor = resized(model, processor, image_size)
        patch = patching(model)
        if patch is not None and image_size % patch[1]:
            raise ModelError(
                f"The image size {image_size} is no multiple of the patch size {patch[1]} of '{name}'; choose one."
            )
    if output is not None:
        assert class_names is not None
        read_output(model, *output, class_names)
    return LoadedModel(model.float().eval(), processor, has_head)


def load_checkpoint(folder: str | os.PathLike[str]) -> PreTrainedModel:
    """A model that hf-score saved, in eval mode and read as it was read then."""
    return restore_output(AutoModelForImageClassification.from_pretrained(folder))


def _from_checkpoint(
    path: str,
    class_names: Sequence[str] | None,
    label: str | None,
    hub: dict[str, Any],
    *,
    name: str,
    from_scratch: bool,
    image_size: int | None,
) -> tuple[Any, Any, bool, tuple[int, int] | None]:
    """A model from a folder or the Hub, or a random one after its configuration, for images of that size; the rest as
    of `_from_timm`."""
    try:
        config = AutoConfig.from_pretrained(path, **hub)
        processor = AutoImageProcessor.from_pretrained(path, **hub)
    except Exception as error:  # transformers lets the errors of several libraries through
        raise _cannot_load(path, error) from error
    own = _names_in(config)
    output = None if from_scratch else find_output(config, class_names, label, name)
    fits = class_names is None or output is not None or len(own) == len(class_names)
    named = fits and not is_unnamed(own) and not from_scratch
    if class_names is not None and named and output is None:
        _check_order(class_names, own, name)  # the model's spelling stays
    elif class_names is not None and output is None:
        _set_classes(config, class_names)
    if class_names is not None and output is None:
        reset_problem_type(config, name)
    if from_scratch:
        config, processor = resize(config, processor, image_size)
        trusted = {"trust_remote_code": hub["trust_remote_code"]}
        return AutoModelForImageClassification.from_config(config, **trusted), processor, False, None
    model, head_loaded = _load_pretrained(path, config, hub)
    has_head = fits and head_loaded
    if has_head and class_names is not None and output is None and not named:
        _check_order(class_names, own, name)
    return model, processor, has_head, output


def _from_timm(
    architecture: str,
    class_names: Sequence[str] | None,
    label: str | None,
    weights: str | os.PathLike[str] | None,
    image_size: int | None,
) -> tuple[Any, Any, bool, tuple[int, int] | None]:
    """A timm model with the weights of a file, or else with random ones for images of that size; its processor;
    whether it has a head for the classes; and the output that is read, if it is one (`find_output`)."""
    config = _timm_config(architecture, class_names)
    processor = TimmWrapperImageProcessor(config.pretrained_cfg, config.architecture)
    if weights is None:
        config, processor = resize(config, processor, image_size)
        return _new_timm_model(config), processor, False, None
    state = read_weights(Path(weights))
    own = _config_of_weights(architecture, state)
    own.problem_type = "multi_label_classification" if label is not None else None  # a file does not say
    output = find_output(own, class_names, label, str(weights))
    model = _new_timm_model(config if output is None else own)
    has_head = _load_weights(model, state, str(weights))
    if has_head and class_names is not None and output is None:  # such a file names no classes
        _check_order(class_names, [f"LABEL_{i}" for i in range(len(class_names))], str(weights))
    return model, processor, has_head, output


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
        The names, or None where it does not name them, as with yes/no outputs that nobody has read yet.

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
        config = AutoConfig.from_pretrained(path, **hub)
    except Exception as error:  # as in load_model
        raise _cannot_load(path, error) from error
    if has_yes_no_outputs(config):
        return saved_classes(config)
    return None if is_automatic(_names_in(config)) else _names_in(config)


def classifier_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that gives the logits (B, K); its input (B, D) is the image's representation.

    Raises:
        ModelError: the model has no linear head, several, or one with yes/no outputs.
    """
    if yes_no_head(model) is not None:
        raise ModelError(
            f"The head of this {type(model).__name__} has yes/no outputs, and a method that sets the classifier needs "
            "an output per class; choose a model with one."
        )
    return linear_head(model)[1]


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
    """What results say of a model itself: its architecture, whether timm is needed to load it, and `output`, of a
    model with yes/no outputs the one that is read, the class it speaks for, and how many there are."""
    config: Any = model.config
    architecture = getattr(config, "architecture", None) or type(model).__name__
    described: dict[str, Any] = {
        "architecture": architecture,
        "is_timm": isinstance(model, TimmWrapperForImageClassification),
    }
    head = yes_no_head(model)
    if head is not None:
        label, speaks_for = config.id2label[head.output], classes_of_model(model)[head.present]
        described["output"] = {"label": label, "class": speaks_for, "count": head.out_features}
    return described


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
    if (Path(name) / "adapter_config.json").is_file():
        raise ModelError(
            f"The folder '{name}' holds adapters (PEFT) and not a whole model; merge them first: "
            "`model.merge_and_unload()`, then `save_pretrained`."
        )
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


def _config_of_weights(architecture: str, state: Mapping[str, Tensor]) -> Any:
    """The configuration of the model that the weights are from: as many classes as its head has, without names."""
    classifier = getattr(timm.get_pretrained_cfg(architecture), "classifier", None) or ()
    heads = (classifier,) if isinstance(classifier, str) else classifier
    rows = next((len(state[f"{head}.weight"]) for head in heads if f"{head}.weight" in state), 0)
    return _timm_config(architecture, [f"LABEL_{i}" for i in range(rows)])


def _load_weights(model: Any, state: Mapping[str, Tensor], file: str) -> bool:
    """Fill a timm model from the weights in a file; whether the file's head fitted."""
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


def _cannot_load(path: str, error: Exception) -> ModelError:
    if Path(path).is_dir():
        if (Path(path) / "config.json").is_file() and "preprocessor_config.json" in str(error):
            return ModelError(
                f"The model folder '{path}' has no preprocessor_config.json, which says how images are prepared; save "
                "the processor that the model was trained with into it, by `processor.save_pretrained`."
            )
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
