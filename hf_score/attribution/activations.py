"""Where the activations of a CNN are: a probe layer gives what comes after one, never a linear bottleneck.

MobileNets and EfficientNets end their blocks with a projection that no activation follows. Its outputs carry a sign,
so a neuron there does not stand for a feature that is present or absent.
"""

from __future__ import annotations

from torch import nn

__all__ = ["ends_linear", "next_activation"]

_ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")


def ends_linear(module: nn.Module) -> bool:
    """Whether a module of a network of bottlenecks ends with a convolution or norm that no activation follows.

    By the order in which its parts were registered, which in these networks is the order in which they run.
    """
    for part in reversed(list(module.modules())):
        if _is_activation(part):
            return False
        if isinstance(part, nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm):
            return True
    return False


def next_activation(model: nn.Module, name: str) -> str | None:
    """The dotted name of the first activation after a module: behind a block, that of the next block's expansion."""
    names = [other for other, _ in model.named_modules()]
    within = [n for n in names if n == name or n.startswith(f"{name}.")]
    for other in names[names.index(within[-1]) + 1 :]:
        if _is_activation(model.get_submodule(other)):
            return other
    return None


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_ACTIVATIONS)
