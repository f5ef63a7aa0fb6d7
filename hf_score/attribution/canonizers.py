"""Bring a private copy of a CNN into the form that LRP rules expect. Never call these on a user's model.

Batch norms are merged into the layer before them, and sums and pools that a block computes with functions become
modules that a rule can be attached to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from zennit.layer import Sum

from hf_score.attribution.copies import is_leaf, type_name

__all__ = ["canonize", "merge_batch_norms"]


def merge_batch_norms(model: nn.Module) -> dict[str, str]:
    """Merge, in place, every batch norm that directly follows a convolution or linear layer into that layer.

    Modules must be registered in the order in which they run, as in every family that is explained this way. The batch
    norm becomes an identity.

    Returns:
        The merged layers: name of the linear layer → name of the batch norm whose output it now computes.
    """
    merged: dict[str, str] = {}
    name_before, before = "", model
    for name, leaf in [(name, module) for name, module in model.named_modules() if is_leaf(module)]:
        if isinstance(leaf, nn.BatchNorm1d | nn.BatchNorm2d) and isinstance(before, nn.Conv2d | nn.Linear):
            fuse: Any = fuse_conv_bn_eval if isinstance(before, nn.Conv2d) else fuse_linear_bn_eval
            model.set_submodule(name_before, fuse(before, leaf))
            model.set_submodule(name, nn.Identity())
            merged[name_before] = name.removesuffix(_NORM_OF_NORM_ACT)
        name_before, before = name, leaf
    return merged


def canonize(model: nn.Module) -> None:
    """Make, in place, every operation in `model` that needs a rule of its own a module."""
    for name, module in list(model.named_modules()):
        form = _FORMS.get(type_name(module))
        if form is not None:
            form(model, name, module)


_NORM_OF_NORM_ACT = ".norm"
Form = Callable[[nn.Module, str, Any], None]


def _split_norm_act(model: nn.Module, name: str, module: Any) -> None:
    """timm's batch norm and activation in one, as two modules."""
    norm: Any = nn.BatchNorm2d(module.num_features, eps=module.eps, device="meta")
    for key in ("weight", "bias", "running_mean", "running_var"):
        setattr(norm, key, getattr(module, key))
    children: OrderedDict[str, nn.Module] = OrderedDict(
        [(_NORM_OF_NORM_ACT[1:], norm), ("drop", module.drop), ("act", module.act)]
    )
    model.set_submodule(name, nn.Sequential(children).eval())


def _replace_forward(forward: Callable[[Any, Tensor], Tensor], helper: Callable[[], nn.Module]) -> Form:
    def form(model: nn.Module, name: str, module: Any) -> None:
        module.canonical = helper()
        module.forward = forward.__get__(module)

    return form


def _timm_residual(self: Any, x: Tensor) -> Tensor:
    """timm's `BasicBlock` and `Bottleneck`, with the shortcut added by a `Sum`."""
    shortcut = x if self.downsample is None else self.downsample(x)
    if hasattr(self, "conv3"):
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(x)))))
        x, activation = self.bn3(self.conv3(x)), self.act3
    else:
        x = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        x, activation = self.bn2(self.conv2(x)), self.act2
    return activation(self.canonical(torch.stack([shortcut, x], dim=-1)))


def _torchvision_residual(self: Any, x: Tensor) -> Tensor:
    """torchvision's `BasicBlock` and `Bottleneck`, with the shortcut added by a `Sum`."""
    shortcut = x if self.downsample is None else self.downsample(x)
    x = self.relu(self.bn1(self.conv1(x)))
    x = self.bn2(self.conv2(x))
    if hasattr(self, "conv3"):
        x = self.bn3(self.conv3(self.relu(x)))
    return self.relu(self.canonical(torch.stack([shortcut, x], dim=-1)))


def _inverted_residual(model: nn.Module, name: str, module: Any) -> None:
    """timm's blocks of depthwise convolutions, with the shortcut added by a `Sum` after their own forward pass."""
    if module.has_skip:
        module.has_skip = False
        _replace_forward(_skip_around_forward, Sum)(model, name, module)


def _skip_around_forward(self: Any, x: Tensor) -> Tensor:
    return self.canonical(torch.stack([x, type(self).forward(self, x)], dim=-1))


def _timm_conv_mlp(self: Any, x: Tensor) -> Tensor:
    """timm's VGG head, with the pooling that widens a small feature map to the kernel's size done by a module."""
    height, width = x.shape[-2:]
    kernel = self.input_kernel_size
    if height < kernel or width < kernel:
        self.canonical.output_size = (max(kernel, height), max(kernel, width))
        x = self.canonical(x)
    return self.act2(self.fc2(self.drop(self.act1(self.fc1(x)))))


_FORMS: dict[str, Form] = {
    "timm.models.resnet.BasicBlock": _replace_forward(_timm_residual, Sum),
    "timm.models.resnet.Bottleneck": _replace_forward(_timm_residual, Sum),
    "torchvision.models.resnet.BasicBlock": _replace_forward(_torchvision_residual, Sum),
    "torchvision.models.resnet.Bottleneck": _replace_forward(_torchvision_residual, Sum),
    "timm.models._efficientnet_blocks.ConvBnAct": _inverted_residual,
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": _inverted_residual,
    "timm.models._efficientnet_blocks.InvertedResidual": _inverted_residual,
    "timm.models.vgg.ConvMlp": _replace_forward(_timm_conv_mlp, lambda: nn.AdaptiveAvgPool2d(1)),
    "timm.layers.norm_act.BatchNormAct2d": _split_norm_act,
}
