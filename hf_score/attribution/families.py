"""The model families that can be explained: how each is recognised, what it may contain, its rules and its layers.

Support for a family is a row of `FAMILIES`. A row lists, by qualified class name, every container whose forward pass
we have read and every leaf that has a rule. A model with anything else inside is refused by name, because a module
without a rule would silently get its plain gradient. A subclass counts as something else: it may compute otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from hf_score.attribution.copies import is_leaf, type_name
from hf_score.errors import UnsupportedArchitectureError

__all__ = ["FAMILIES", "Family", "find_family"]

# ---------------------------------------------------------------------------------------------------------------------
# Modules
# ---------------------------------------------------------------------------------------------------------------------

_IDLE = (  # do nothing in evaluation mode
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.dropout.*",
    "timm.layers.drop.*",
    "timm.layers.patch_dropout.PatchDropout",
)
_CNN_LEAVES = (
    *_IDLE,
    "torch.nn.modules.conv.Conv2d",
    "timm.layers.conv2d_same.Conv2dSame",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.activation.ReLU6",
    "torch.nn.modules.activation.LeakyReLU",
    "torch.nn.modules.activation.SiLU",
    "torch.nn.modules.activation.GELU",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.pooling.AvgPool2d",
    "torch.nn.modules.pooling.AdaptiveAvgPool2d",
    "torch.nn.modules.pooling.AdaptiveMaxPool2d",
    "torch.nn.modules.flatten.Flatten",
    "timm.layers.adaptive_avgmax_pool.FastAdaptiveAvgPool",
    "timm.layers.adaptive_avgmax_pool.FastAdaptiveMaxPool",
    "timm.layers.blur_pool.BlurPool2d",
)
_CNN_CONTAINERS = (
    "torch.nn.modules.container.Sequential",
    "timm.layers.adaptive_avgmax_pool.SelectAdaptivePool2d",
    "timm.layers.classifier.ClassifierHead",
)
_VIT_LEAVES = (
    *_IDLE,
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.normalization.LayerNorm",
    "timm.layers.norm.LayerNorm",
    "timm.layers.norm.LayerNormFp32",
    "timm.layers.layer_scale.LayerScale",
    "timm.models.vision_transformer.LayerScale",
    "torch.nn.modules.activation.GELU",
    "torch.nn.modules.activation.SiLU",
    "torch.nn.modules.activation.ReLU",
    "timm.layers.activations.GELU",
    "timm.layers.activations.GELUTanh",
    "transformers.activations.GELUActivation",
    "transformers.activations.GELUTanh",
    "transformers.activations.SiLUActivation",
)
_VIT_CONTAINERS = ("torch.nn.modules.container.Sequential", "torch.nn.modules.container.ModuleList")


# ---------------------------------------------------------------------------------------------------------------------
# Layers that can be probed by role
# ---------------------------------------------------------------------------------------------------------------------


def _residual_stages(model: nn.Module) -> dict[str, str]:
    """`stage1`, `stage2`, …: the last block of each stage.

    The block rather than the stage, because with activation checkpointing timm calls the blocks one by one.
    """
    stages = [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+|layer\d+", name)]
    return {
        f"stage{k}": f"{name}.{len(list(model.get_submodule(name).children())) - 1}"
        for k, name in enumerate(stages, 1)
    }


def _pooling_stages(model: nn.Module) -> dict[str, str]:
    """`stage1`, `stage2`, …: the pooling layers, or the activations of a network that does not pool."""
    for kinds in ((nn.MaxPool2d, nn.AvgPool2d), (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU)):
        names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
        if names:
            break
    return {f"stage{k}": name for k, name in enumerate(names, 1)}


def _transformer_blocks(model: nn.Module) -> dict[str, str]:
    """`block0`, `block1`, …: the blocks in the order in which they run, wherever this library version keeps them."""
    kinds = ("ViTLayer", "DeiTLayer", "Block", "ResPostBlock")
    names = [name for name, module in model.named_modules() if type(module).__name__ in kinds]
    return {f"block{k}": name for k, name in enumerate(names)}


# ---------------------------------------------------------------------------------------------------------------------
# Families
# ---------------------------------------------------------------------------------------------------------------------

CNN_METHODS = (
    "epsilon_plus_flat",
    "epsilon_plus",
    "epsilon_alpha2_beta1_flat",
    "epsilon_alpha2_beta1",
    "epsilon",
    "input_x_gradient",
)
VIT_METHODS = ("attnlrp", "attnlrp_gamma", "cp_lrp", "input_x_gradient")


@dataclass(frozen=True)
class Family:
    """A row of the table: models built in the same way, which share rules and names of layers.

    Attributes:
        name: What a person calls it.
        roots: Qualified names of the classes of whole models.
        containers: Qualified names of the classes of modules with children. Patterns such as `package.module.*` stand
            for every class of a file.
        leaves: The same for modules without children.
        methods: The ways of explaining it, the default first.
        layers: Maps a model to its probe layers in order, role → dotted name.
        refuse: Maps a module of a known class to why this one has no rule, or to `None`.
    """

    name: str
    roots: tuple[str, ...]
    containers: tuple[str, ...]
    leaves: tuple[str, ...]
    methods: tuple[str, ...]
    layers: Callable[[nn.Module], dict[str, str]]
    refuse: Callable[[nn.Module], str | None] = lambda module: None


def _gated(module: nn.Module) -> str | None:
    return "its output is gated by a sigmoid" if getattr(module, "gate", None) is not None else None


def _python_gelu(module: nn.Module) -> str | None:
    written_out = "python" in getattr(getattr(module, "act", None), "__name__", "")
    return "its activation is written out in Python" if written_out else None


_TIMM_VIT = "timm.models.vision_transformer."
FAMILIES: tuple[Family, ...] = (
    Family(
        name="timm ResNet",
        roots=("timm.models.resnet.ResNet",),
        containers=(*_CNN_CONTAINERS, "timm.models.resnet.BasicBlock", "timm.models.resnet.Bottleneck"),
        leaves=_CNN_LEAVES,
        methods=CNN_METHODS,
        layers=_residual_stages,
    ),
    Family(
        name="timm VGG",
        roots=("timm.models.vgg.VGG",),
        containers=(*_CNN_CONTAINERS, "timm.models.vgg.ConvMlp"),
        leaves=_CNN_LEAVES,
        methods=CNN_METHODS,
        layers=_pooling_stages,
    ),
    Family(
        name="timm EfficientNet-Lite",
        roots=("timm.models.efficientnet.EfficientNet",),
        containers=(
            *_CNN_CONTAINERS,
            "timm.layers.norm_act.BatchNormAct2d",
            "timm.models._efficientnet_blocks.ConvBnAct",
            "timm.models._efficientnet_blocks.DepthwiseSeparableConv",
            "timm.models._efficientnet_blocks.InvertedResidual",
        ),
        leaves=_CNN_LEAVES,
        methods=CNN_METHODS,
        layers=_residual_stages,
    ),
    Family(
        name="torchvision ResNet",
        roots=("torchvision.models.resnet.ResNet",),
        containers=(
            *_CNN_CONTAINERS,
            "torchvision.models.resnet.BasicBlock",
            "torchvision.models.resnet.Bottleneck",
        ),
        leaves=_CNN_LEAVES,
        methods=CNN_METHODS,
        layers=_residual_stages,
    ),
    Family(
        name="torchvision VGG",
        roots=("torchvision.models.vgg.VGG",),
        containers=_CNN_CONTAINERS,
        leaves=_CNN_LEAVES,
        methods=CNN_METHODS,
        layers=_pooling_stages,
    ),
    Family(
        name="torch.nn.Sequential",
        roots=("torch.nn.modules.container.Sequential",),
        containers=_CNN_CONTAINERS,
        leaves=_CNN_LEAVES,
        methods=CNN_METHODS,
        layers=_pooling_stages,
    ),
    Family(
        name="timm VisionTransformer",
        roots=(_TIMM_VIT + "VisionTransformer", "timm.models.deit.VisionTransformerDistilled"),
        containers=(
            *_VIT_CONTAINERS,
            _TIMM_VIT + "Block",
            _TIMM_VIT + "ResPostBlock",
            _TIMM_VIT + "Attention",
            "timm.layers.attention.Attention",
            "timm.layers.mlp.Mlp",
            "timm.layers.patch_embed.PatchEmbed",
        ),
        leaves=_VIT_LEAVES,
        methods=VIT_METHODS,
        layers=_transformer_blocks,
        refuse=_gated,
    ),
    Family(
        name="transformers ViT and DeiT",
        roots=(
            "transformers.models.vit.modeling_vit.ViTForImageClassification",
            "transformers.models.deit.modeling_deit.DeiTForImageClassification",
            "transformers.models.deit.modeling_deit.DeiTForImageClassificationWithTeacher",
        ),
        containers=(
            *_VIT_CONTAINERS,
            "transformers.models.vit.modeling_vit.*",
            "transformers.models.deit.modeling_deit.*",
        ),
        leaves=_VIT_LEAVES,
        methods=VIT_METHODS,
        layers=_transformer_blocks,
        refuse=_python_gelu,
    ),
)
_TIMM_WRAPPER = "transformers.models.timm_wrapper.modeling_timm_wrapper.TimmWrapperForImageClassification"


def split_wrapper(model: nn.Module) -> tuple[str, nn.Module]:
    """The prefix of dotted names and the model proper: transformers keeps a timm model in `timm_model`."""
    return ("timm_model.", model.timm_model) if type_name(model) == _TIMM_WRAPPER else ("", model)  # type: ignore[return-value]


def find_family(model: nn.Module) -> Family:
    """The family of `model`, after a look at every module in it. Nothing is run.

    Raises:
        UnsupportedArchitectureError: The model, or a module in it, has no rule; it is named with its class.
    """
    prefix, core = split_wrapper(model)
    family = next((family for family in FAMILIES if type_name(core) in family.roots), None)
    if family is None:
        raise UnsupportedArchitectureError(
            f"No LRP rules are known for '{prefix.rstrip('.') or 'model'}' ({type_name(core)}); "
            f"use a model of one of these families: {', '.join(family.name for family in FAMILIES)}."
        )
    for name, reason in _unruled(core, family):
        raise UnsupportedArchitectureError(
            f"No LRP rule is known for '{prefix}{name}' ({type_name(core.get_submodule(name))}) in this "
            f"{family.name} model{reason}; use a model of the family without this module."
        )
    return family


def _unruled(model: nn.Module, family: Family) -> Iterator[tuple[str, str]]:
    for name, module in model.named_modules():
        known = family.roots if module is model else family.leaves if is_leaf(module) else family.containers
        if not any(fnmatchcase(type_name(module), pattern) for pattern in known):
            yield name, ""
        elif reason := family.refuse(module):
            yield name, f", because {reason}"
        elif "forward" in vars(module) and "_original_forward" not in vars(module):
            yield name, ", because its forward was replaced on the instance"
