"""Models as people have them, each with what happens: rows of the table *Inputs* in the docs, walked by a test.

A row is a name, a function that makes the model in a folder and returns the keywords of `load_model`, and what is
expected: `read`, or `refused: ` and a part of the sentence.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

__all__ = ["MODEL_INPUTS", "ModelInput", "save_vit"]


class ModelInput(NamedTuple):
    name: str
    make: Callable[[Path], dict[str, Any]]
    expected: str


TWO, FINDING = ["benign", "malignant"], ["no finding", "Pneumonia"]
FINDINGS = ["Edema", "Pneumonia", "Mass"]


def save_vit(
    folder: Path,
    outputs: list[str],
    *,
    problem_type: str | None = None,
    dtype: torch.dtype = torch.float32,
    processor: dict[str, Any] | None = None,
    **settings: Any,
) -> ViTForImageClassification:
    """A small ViT with these outputs, saved with its processor."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        initializer_range=0.2,
        id2label=dict(enumerate(outputs)),
        label2id={name: i for i, name in enumerate(outputs)},
        problem_type=problem_type,
        **settings,
    )
    model = ViTForImageClassification(config).to(dtype).eval()
    model.save_pretrained(folder)
    ViTImageProcessor(**{"size": {"height": 32, "width": 32}, **(processor or {})}).save_pretrained(folder)
    return model


def _vit(outputs: list[str], classes: list[str] | None = TWO, label: str | None = None, **settings: Any) -> Callable:
    def make(folder: Path) -> dict[str, Any]:
        save_vit(folder, outputs, **settings)
        return {"name_or_path": folder, "class_names": classes, "label": label}

    return make


def _timm_file(name: str, change: Callable, *, outputs: int = 2, label: str | None = None) -> Callable:
    def make(folder: Path) -> dict[str, Any]:
        torch.manual_seed(0)
        content = change(timm.create_model("test_resnet", num_classes=outputs))
        (save_file if name.endswith(".safetensors") else torch.save)(content, folder / name)
        return {"name_or_path": "test_resnet", "class_names": TWO, "weights": folder / name, "label": label}

    return make


def _prefixed(prefix: str) -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    return lambda model: {f"{prefix}{key}": value for key, value in model.state_dict().items()}


def _training_checkpoint(model: nn.Module) -> dict[str, Any]:
    state = _prefixed("module.")(model)
    return {
        "epoch": 3,
        "arch": "test_resnet",
        "args": argparse.Namespace(lr=0.1),
        "optimizer": {"state": {}, "param_groups": []},
        "state_dict": {key: torch.zeros_like(value) for key, value in state.items()},
        "state_dict_ema": state,
        "metric": 71.0,
    }


def _adapters(folder: Path) -> dict[str, Any]:
    import peft

    model = save_vit(folder / "base", TWO)
    lora = peft.LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    peft.get_peft_model(model, lora).save_pretrained(folder / "adapters")
    return {"name_or_path": folder / "adapters", "class_names": TWO}


def _merged_adapters(folder: Path) -> dict[str, Any]:
    import peft

    model = save_vit(folder / "base", TWO)
    merged = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"])).merge_and_unload()
    merged.save_pretrained(folder / "merged")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "merged")
    return {"name_or_path": folder / "merged", "class_names": TWO}


def _without_processor(folder: Path) -> dict[str, Any]:
    save_vit(folder, TWO)
    (folder / "preprocessor_config.json").unlink()
    return {"name_or_path": folder, "class_names": TWO}


MULTI, REGRESSION = {"problem_type": "multi_label_classification"}, {"problem_type": "regression"}
MODEL_INPUTS = [
    ModelInput("an output per class, named as in the data", _vit(TWO), "read"),
    ModelInput("an output per class, capitals and blanks differ", _vit(["Benign", "MALIGNANT"]), "read"),
    ModelInput("an output per class, in another order", _vit(TWO[::-1]), "refused: in the model's order"),
    ModelInput("outputs named LABEL_0 and LABEL_1", _vit(["LABEL_0", "LABEL_1"]), "read"),
    ModelInput("more outputs than classes: a new head", _vit(["a", "b", "c"]), "read"),
    ModelInput("one output and a sigmoid, named", _vit(["malignant"]), "read"),
    ModelInput("one output and a sigmoid, named as class 0", _vit(["benign"]), "read"),
    ModelInput("one output and a sigmoid, LABEL_0", _vit(["LABEL_0"]), "read"),
    ModelInput("one output, problem_type multi-label", _vit(["malignant"], **MULTI), "read"),
    ModelInput("one output of another name", _vit(["melanoma"]), "refused: neither class of the data is called so"),
    ModelInput("one output, problem_type regression", _vit(["malignant"], **REGRESSION), "refused: by regression"),
    ModelInput("one output and no classes given", _vit(["malignant"], None), "refused: no classes of its own"),
    ModelInput("one output, three classes: a new head", _vit(["malignant"], ["a", "b", "c"]), "read"),
    ModelInput("multi-label, a label chosen", _vit(FINDINGS, FINDING, "Pneumonia", **MULTI), "read"),
    ModelInput("multi-label, a label chosen by number", _vit(FINDINGS, FINDING, "1", **MULTI), "read"),
    ModelInput("multi-label, classes no and yes", _vit(FINDINGS, ["no", "yes"], "Mass", **MULTI), "read"),
    ModelInput("multi-label, no label chosen", _vit(FINDINGS, FINDING, **MULTI), "refused: choose the one to look at"),
    ModelInput("multi-label, no such label", _vit(FINDINGS, FINDING, "Cyst", **MULTI), "refused: no output called"),
    ModelInput("multi-label, three classes", _vit(FINDINGS, FINDINGS, "Mass", **MULTI), "refused: two classes"),
    ModelInput("multi-label, classes of other names", _vit(FINDINGS, TWO, "Mass", **MULTI), "refused: called so"),
    ModelInput(
        "a label of a model with an output per class",
        _vit(TWO, TWO, "b", problem_type="single_label_classification"),
        "refused: no multi-label head",
    ),
    ModelInput("an output per class, problem_type regression", _vit(TWO, **REGRESSION), "read"),
    ModelInput("one-channel images", _vit(TWO, num_channels=1), "refused: takes images of 1 channel"),
    ModelInput("bfloat16 weights", _vit(TWO, dtype=torch.bfloat16), "read"),
    ModelInput("float16 weights", _vit(TWO, dtype=torch.float16), "read"),
    ModelInput("a processor that does not resize", _vit(TWO, processor={"do_resize": False}), "refused: one batch"),
    ModelInput(
        "a processor of another size",
        _vit(TWO, processor={"size": {"height": 48, "width": 48}}),
        "refused: does not take the images",
    ),
    ModelInput("no preprocessor_config.json", _without_processor, "refused: has no preprocessor_config.json"),
    ModelInput("one class", _vit(["a", "b"], ["a"]), "refused: There is one class"),
    ModelInput("a folder of LoRA adapters", _adapters, "refused: merge them first"),
    ModelInput("LoRA adapters merged", _merged_adapters, "read"),
    ModelInput("timm .safetensors", _timm_file("w.safetensors", _prefixed("")), "read"),
    ModelInput("timm .safetensors with module.", _timm_file("w.safetensors", _prefixed("module.")), "read"),
    ModelInput("timm .pth", _timm_file("w.pth", _prefixed("")), "read"),
    ModelInput("timm .pth of a compiled model", _timm_file("w.pth", _prefixed("_orig_mod.module.")), "read"),
    ModelInput(
        "timm .ckpt of Lightning", _timm_file("w.ckpt", lambda m: {"state_dict": _prefixed("model.")(m)}), "read"
    ),
    ModelInput("timm .pth.tar of a training", _timm_file("w.pth.tar", _training_checkpoint), "read"),
    ModelInput("timm .pth with one output", _timm_file("w.pth", _prefixed(""), outputs=1), "read"),
    ModelInput("timm .pth, multi-label", _timm_file("w.pth", _prefixed(""), outputs=3, label="2"), "read"),
    ModelInput("a whole model in a pickle", _timm_file("w.pth", lambda m: m), "refused: would run code"),
    ModelInput("a .pth without weights", _timm_file("w.pth", lambda m: {"epoch": 3}), "refused: no weights in"),
    ModelInput(
        "weights that do not exist",
        lambda folder: {"name_or_path": "test_resnet", "class_names": TWO, "weights": folder / "w.pth"},
        "refused: no such file",
    ),
]
