"""The model families that can be explained: how each is recognised, how, and where it can be probed.

Support for a family is a row of `FAMILIES`, found by the class of the whole model. What its forward pass may contain
is settled by the rules themselves: relevance passes through no function without one (`hf_score.attribution.lrp`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..errors import UnsupportedArchitectureError
from .activations import ends_linear, next_activation
from .private_copy import type_name

__all__ = ["FAMILIES", "REFUSED", "Family", "find_family"]

Layers = Callable[[nn.Module], dict[str, str]]

# ---------------------------------------------------------------------------------------------------------------------
# Layers that can be probed by role
# ---------------------------------------------------------------------------------------------------------------------


def _last_in(pattern: str, *, inside: str = "", kind: type | None = None) -> Layers:
    """`stage1`, `stage2`, …: the last block of each stage, a module whose dotted name matches `pattern`.

    `kind`: the stages' very class, where other modules have such names.

    The block rather than the stage, because with activation checkpointing timm calls the blocks one by one.
    """

    def layers(model: nn.Module) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, stage in model.named_modules():
            if re.fullmatch(pattern, name) and (kind is None or type(stage) is kind):
                blocks = [child for child, _ in stage.get_submodule(inside).named_children()]
                path = ".".join(part for part in (name, inside, blocks[-1]) if part)
                found[f"stage{len(found) + 1}"] = path
        return found

    return layers


def _named(pattern: str) -> Layers:
    """`stage1`, `stage2`, …: the modules whose dotted name matches."""
    return lambda model: {
        f"stage{k}": name
        for k, name in enumerate((n for n, _ in model.named_modules() if re.fullmatch(pattern, n)), 1)
    }


def _activated(layers: Layers) -> Layers:
    """The same layers; where one is a linear bottleneck, the activation that comes next: that of the next block's
    expansion, through which all that the stage says passes."""

    def found(model: nn.Module) -> dict[str, str]:
        names = layers(model)
        for role, name in names.items():
            if ends_linear(model.get_submodule(name)):
                names[role] = next_activation(model, name) or name
        return names

    return found


def _pooling(model: nn.Module) -> dict[str, str]:
    """`stage1`, `stage2`, …: the pooling layers, or the activations of a network that does not pool."""
    for kinds in ((nn.MaxPool2d, nn.AvgPool2d), (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU)):
        names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
        if names:
            break
    return {f"stage{k}": name for k, name in enumerate(names, 1)}


def _blocks(model: nn.Module) -> dict[str, str]:
    """`block0`, `block1`, …: the transformer blocks in the order in which they run, by any name."""
    names = [name for name, _ in model.named_modules() if re.search(r"(^|\.)(blocks|layers?)\.\d+$", name)]
    innermost = [name for name in names if not any(other.startswith(name + ".") for other in names)]
    return {f"block{k}": name for k, name in enumerate(innermost)}


# ---------------------------------------------------------------------------------------------------------------------
# Families
# ---------------------------------------------------------------------------------------------------------------------

CNN_METHODS = (
    "epsilon_plus_flat",
    "epsilon_plus",
    "epsilon_plus_wsquare",
    "epsilon_gamma_flat",
    "epsilon_alpha2_beta1_flat",
    "epsilon_alpha2_beta1",
    "epsilon",
    "input_x_gradient",
)
VIT_METHODS = ("attnlrp", "attnlrp_gamma", "cp_lrp", "input_x_gradient")


@dataclass(frozen=True)
class Family:
    """A row of the table: models that share ways of being explained and names of layers.

    Attributes:
        name: What a person calls it.
        roots: Qualified names of the classes of whole models.
        methods: The ways of explaining it, the default first.
        layers: Maps a model to its probe layers in order, role → dotted name.
        examples: Models of it that the tests explain, as timm or transformers calls them.
        channels_last: Whether its feature maps are (B, H, W, C) rather than (B, C, H, W).
    """

    name: str
    roots: tuple[str, ...]
    methods: tuple[str, ...]
    layers: Layers
    examples: tuple[str, ...]
    channels_last: bool = False


_TIMM, _HF, _TORCHVISION = "timm.models.", "transformers.models.", "torchvision.models."
FAMILIES: tuple[Family, ...] = (
    Family(
        "timm ResNet, Wide ResNet, ResNeXt, SE-ResNet, ECA-ResNet",
        (_TIMM + "resnet.ResNet",),
        CNN_METHODS,
        _last_in(r"layer\d+"),
        ("resnet18", "wide_resnet50_2", "resnext50_32x4d", "seresnet18", "ecaresnet26t"),
    ),
    Family(
        "timm ResNetV2 and BiT",
        (_TIMM + "resnetv2.ResNetV2",),
        CNN_METHODS,
        _last_in(r"stages\.\d+", inside="blocks"),
        ("resnetv2_18", "resnetv2_50x1_bit"),
    ),
    Family("timm VGG", (_TIMM + "vgg.VGG",), CNN_METHODS, _pooling, ("vgg11", "vgg11_bn")),
    Family(
        "timm DenseNet",
        (_TIMM + "densenet.DenseNet",),
        CNN_METHODS,
        _named(r"features\.(denseblock\d+)"),
        ("densenet121",),
    ),
    Family(
        "timm EfficientNet, EfficientNetV2, EfficientNet-Lite, MobileNetV2",
        (_TIMM + "efficientnet.EfficientNet",),
        CNN_METHODS,
        _activated(_last_in(r"blocks\.\d+")),
        ("efficientnet_b0", "efficientnetv2_rw_t", "tf_efficientnet_lite0", "mobilenetv2_050"),
    ),
    Family(
        "timm MobileNetV3",
        (_TIMM + "mobilenetv3.MobileNetV3",),
        CNN_METHODS,
        _activated(_last_in(r"blocks\.\d+")),
        ("mobilenetv3_small_050",),
    ),
    Family(
        "timm RegNet",
        (_TIMM + "regnet.RegNet",),
        CNN_METHODS,
        _last_in(r"s\d+"),
        ("regnetx_002", "regnety_002"),
    ),
    Family(
        "timm Inception-v3",
        (_TIMM + "inception_v3.InceptionV3",),
        CNN_METHODS,
        _named(r"Mixed_\w+"),
        ("inception_v3",),
    ),
    Family(
        "torchvision ResNet",
        (_TORCHVISION + "resnet.ResNet",),
        CNN_METHODS,
        _last_in(r"layer\d+"),
        ("torchvision resnet18",),
    ),
    Family(
        "torchvision VGG",
        (_TORCHVISION + "vgg.VGG",),
        CNN_METHODS,
        _pooling,
        ("torchvision vgg11_bn",),
    ),
    Family(
        "torchvision DenseNet",
        (_TORCHVISION + "densenet.DenseNet",),
        CNN_METHODS,
        _named(r"features\.denseblock\d+"),
        ("torchvision densenet121",),
    ),
    Family(
        "torchvision EfficientNet and EfficientNetV2",
        (_TORCHVISION + "efficientnet.EfficientNet",),
        CNN_METHODS,
        _activated(_last_in(r"features\.\d+", kind=nn.Sequential)),
        ("torchvision efficientnet_b0", "torchvision efficientnet_v2_s"),
    ),
    Family(
        "torchvision MobileNetV2, MobileNetV3",
        (_TORCHVISION + "mobilenetv2.MobileNetV2", _TORCHVISION + "mobilenetv3.MobileNetV3"),
        CNN_METHODS,
        _activated(_named(r"features\.\d+")),
        ("torchvision mobilenet_v2", "torchvision mobilenet_v3_small"),
    ),
    Family(
        "torchvision RegNet",
        (_TORCHVISION + "regnet.RegNet",),
        CNN_METHODS,
        _last_in(r"trunk_output\.block\d+"),
        ("torchvision regnet_y_400mf",),
    ),
    Family(
        "torchvision ConvNeXt",
        (_TORCHVISION + "convnext.ConvNeXt",),
        (*VIT_METHODS, *CNN_METHODS[:-1]),
        _last_in(r"features\.[1357]"),
        ("torchvision convnext_tiny",),
    ),
    Family(
        "torchvision Swin and Swin V2",
        (_TORCHVISION + "swin_transformer.SwinTransformer",),
        VIT_METHODS,
        _last_in(r"features\.[1357]"),
        ("torchvision swin_t", "torchvision swin_v2_t"),
        channels_last=True,
    ),
    Family(
        "torch.nn.Sequential",
        ("torch.nn.modules.container.Sequential",),
        CNN_METHODS,
        _pooling,
        ("torch.nn.Sequential",),
    ),
    Family(
        "transformers ResNet",
        (_HF + "resnet.modeling_resnet.ResNetForImageClassification",),
        CNN_METHODS,
        _last_in(r"resnet\.encoder\.stages\.\d+", inside="layers"),
        ("ResNetForImageClassification",),
    ),
    Family(
        "timm ConvNeXt and ConvNeXt V2",
        (_TIMM + "convnext.ConvNeXt",),
        (*VIT_METHODS, *CNN_METHODS[:-1]),
        _last_in(r"stages\.\d+", inside="blocks"),
        ("convnext_atto", "convnextv2_atto"),
    ),
    Family(
        "timm MaxViT and CoAtNet",
        (_TIMM + "maxxvit.MaxxVit",),
        VIT_METHODS,
        _last_in(r"stages\.\d+", inside="blocks"),
        ("maxvit_rmlp_pico_rw_256", "coatnet_nano_rw_224"),
    ),
    Family(
        "timm MobileViT",
        (_TIMM + "byobnet.ByobNet",),
        VIT_METHODS,
        _last_in(r"stages\.\d+"),
        ("mobilevit_xxs", "mobilevitv2_050"),
    ),
    Family(
        "timm ViT, DeiT, DeiT III",
        (_TIMM + "vision_transformer.VisionTransformer", _TIMM + "deit.VisionTransformerDistilled"),
        VIT_METHODS,
        _blocks,
        ("deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"),
    ),
    Family(
        "timm EVA-02 and DINOv3",
        (_TIMM + "eva.Eva",),
        VIT_METHODS,
        _blocks,
        ("eva02_tiny_patch14_224", "vit_small_patch16_dinov3"),
    ),
    Family(
        "timm Swin",
        (_TIMM + "swin_transformer.SwinTransformer",),
        VIT_METHODS,
        _blocks,
        ("swin_tiny_patch4_window7_224",),
        channels_last=True,
    ),
    Family(
        "transformers ViT and DeiT",
        (
            _HF + "vit.modeling_vit.ViTForImageClassification",
            _HF + "deit.modeling_deit.DeiTForImageClassification",
            _HF + "deit.modeling_deit.DeiTForImageClassificationWithTeacher",
        ),
        VIT_METHODS,
        _blocks,
        ("ViTForImageClassification", "DeiTForImageClassification"),
    ),
    Family(
        "transformers DINOv2",
        (_HF + "dinov2.modeling_dinov2.Dinov2ForImageClassification",),
        VIT_METHODS,
        _blocks,
        ("Dinov2ForImageClassification",),
    ),
    Family(
        "transformers BEiT",
        (_HF + "beit.modeling_beit.BeitForImageClassification",),
        VIT_METHODS,
        _blocks,
        ("BeitForImageClassification",),
    ),
    Family(
        "transformers Swin",
        (_HF + "swin.modeling_swin.SwinForImageClassification",),
        VIT_METHODS,
        _blocks,
        ("SwinForImageClassification",),
    ),
    Family(
        "transformers CLIP and SigLIP",
        (
            _HF + "clip.modeling_clip.CLIPForImageClassification",
            _HF + "siglip.modeling_siglip.SiglipForImageClassification",
        ),
        VIT_METHODS,
        _blocks,
        ("CLIPForImageClassification", "SiglipForImageClassification"),
    ),
)

#: Families that people will try and that are refused, with the reason.
REFUSED: dict[str, str] = {
    _TORCHVISION + "vision_transformer.VisionTransformer": (
        "nn.MultiheadAttention keeps projections and attention in one fused function, which no rule can look into; "
        "the same weights run in timm's vit_base_patch16_224"
    ),
    **dict.fromkeys(
        (_TORCHVISION + "inception.Inception3", _TORCHVISION + "googlenet.GoogLeNet"),
        "its ReLUs overwrite the values that relevance has to pass; timm's inception_v3 has the same weights",
    ),
    _TORCHVISION
    + "maxvit.MaxVit": "its head has a tanh, for which no rule is known; timm's maxvit_tiny_tf_224 has none",
}
_TIMM_WRAPPER = _HF + "timm_wrapper.modeling_timm_wrapper.TimmWrapperForImageClassification"


def split_wrapper(model: nn.Module) -> tuple[str, nn.Module]:
    """The prefix of dotted names and the model proper: transformers keeps a timm model in `timm_model`."""
    return ("timm_model.", model.timm_model) if type_name(model) == _TIMM_WRAPPER else ("", model)  # type: ignore[return-value]


def find_family(model: nn.Module) -> Family:
    """The family of `model`. Nothing is run.

    Raises:
        UnsupportedArchitectureError: The model is of no family in the table.
    """
    prefix, core = split_wrapper(model)
    kind = type_name(core)
    family = next((family for family in FAMILIES if kind in family.roots), None)
    if family is None:
        reason = f" because {REFUSED[kind]}" if kind in REFUSED else ""
        raise UnsupportedArchitectureError(
            f"No LRP rules are known for '{prefix.rstrip('.') or 'model'}' ({kind}){reason}; "
            f"use a model of one of these families: {'; '.join(family.name for family in FAMILIES)}."
        )
    return family


def has_channels_last(model: nn.Module) -> bool:
    """Whether feature maps of `model`, which need not be of a known family, are (B, H, W, C)."""
    kind = type_name(split_wrapper(model)[1])
    return any(family.channels_last for family in FAMILIES if kind in family.roots)
