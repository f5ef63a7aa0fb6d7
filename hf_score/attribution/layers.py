"""Probe layers: the intermediate layer whose neurons are explained and regularised.

A layer is addressed by role (`"last"`, `"stage3"`, `"block4"`), by index (`-2`) or by dotted name, and its activations
come out in one layout, positions by neurons, for CNNs and transformers alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError
from .activations import ends_linear, next_activation
from .families import find_family, has_channels_last, split_wrapper
from .private_copy import unwrap

__all__ = ["Captured", "ProbeLayer", "find_activations", "find_layer"]

#: Networks whose blocks end with a linear projection.
_WITH_BOTTLENECKS = ("EfficientNet", "MobileNetV2", "MobileNetV3")


class Captured:
    """What `ProbeLayer.capture()` yields: the activation of the last forward pass."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._activation: Tensor | None = None
        self.output: Tensor | None = None
        """The layer's own output, as the layers above it receive it: what to differentiate with respect to."""

    @property
    def activation(self) -> Tensor:
        """Activation of shape (B, P, C), part of the autograd graph.

        Raises:
            ModelError: The layer did not run.
        """
        if self._activation is None:
            raise ModelError(f"The probe layer '{self._name}' did not run within capture(); run the model inside it.")
        return self._activation


@dataclass(frozen=True)
class ProbeLayer:
    """A layer of a model.

    Attributes:
        name: Dotted name within the model (without a `DistributedDataParallel` or `torch.compile` wrapper).
        module: The module whose output is the layer's activation.
        channels_last: Whether a feature map that it gives is (B, H, W, C).
    """

    name: str
    module: nn.Module
    channels_last: bool = False

    def to_positions(self, output: Tensor) -> Tensor:
        """An output of the layer as (B, P, C): P positions in space or tokens, C neurons.

        Takes feature maps (B, C, H, W) or, with `channels_last`, (B, H, W, C), tokens (B, N, D) and vectors (B, C).

        Raises:
            ModelError: The output has another number of dimensions.
        """
        if output.ndim == 4 and self.channels_last:
            return output.flatten(1, 2)
        if output.ndim == 4:
            return output.flatten(2).transpose(1, 2)
        if output.ndim == 3:
            return output
        if output.ndim == 2:
            return output.unsqueeze(1)
        raise ModelError(
            f"The layer '{self.name}' cannot be probed, because its output of shape {tuple(output.shape)} is no "
            "feature map, token sequence or vector; probe another layer."
        )

    @contextmanager
    def capture(self) -> Iterator[Captured]:
        """Record the layer's activation while the model runs within this context.

        Works through `DistributedDataParallel` and with non-reentrant activation checkpointing. The hook is removed
        at the end, also when the body raised.
        """
        captured = Captured(self.name)

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            # A clone, because a ReLU that comes next may overwrite the output in place.
            captured.output = first_tensor(output)
            captured._activation = self.to_positions(captured.output.clone())

        handle = self.module.register_forward_hook(hook)
        try:
            yield captured
        finally:
            handle.remove()


def first_tensor(output: Any) -> Tensor:
    """The activation in a module's output: layers of some libraries return a tuple that begins with it."""
    return output[0] if isinstance(output, tuple | list) else output


@contextmanager
def recording(probe: ProbeLayer | None, recorded: list[Tensor], *, cut: bool) -> Iterator[None]:
    """Append the layer's output to `recorded` and hand a clone on, which may be overwritten in place.

    With `cut` the graph starts here: nothing below the layer is differentiated.
    """
    if probe is None:
        yield
        return

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        recorded.append(tensor.detach().requires_grad_() if cut else tensor)
        clone = recorded[-1].clone()
        if hasattr(tensor, "_lrp_layer"):
            clone._lrp_layer = tensor._lrp_layer  # type: ignore[attr-defined]
        return (clone, *output[1:]) if isinstance(output, tuple) else clone

    handle = probe.module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def find_layer(model: nn.Module, layer: str | int | ProbeLayer = "last") -> ProbeLayer:
    """Resolve the address of a layer.

    Args:
        model: A model of a known family, possibly wrapped for training. A dotted name works for any model.
        layer: `"last"`, a role, an index or a dotted name. CNNs have `"stage1"` and up (ResNets: `layer1` to `layer4`;
            VGGs: each ends with a max-pool; MobileNets and EfficientNets, whose blocks end with a linear projection:
            the activation that comes next), transformers have `"block0"` and up. An integer indexes them as a list:
            0 is the first, -1 the last. A `ProbeLayer` is looked up again by its name.

    Raises:
        ModelError: There is no such layer; the message lists the roles.
        UnsupportedArchitectureError: A role or index of a model whose family is not known.
    """
    model = unwrap(model)
    address = layer.name if isinstance(layer, ProbeLayer) else layer
    if isinstance(address, str):
        modules = dict(model.named_modules())
        if address in modules and address:
            return ProbeLayer(address, modules[address], has_channels_last(model))
    prefix, core = split_wrapper(model)
    family = find_family(model)
    roles = {role: prefix + name for role, name in family.layers(core).items()}
    names = list(roles.values())
    if isinstance(address, int) and -len(names) <= address < len(names):
        name = names[address]
    elif address == "last":
        name = names[-1]
    elif address in roles:
        name = roles[address]  # type: ignore[index]
    else:
        raise ModelError(
            f"The model has no layer {address!r}; use 'last', one of {', '.join(roles)}, an index from {-len(names)} "
            f"to {len(names) - 1}, or the dotted name of a module."
        )
    return ProbeLayer(name, model.get_submodule(name), family.channels_last)


def find_activations(model: nn.Module, layer: str | int | ProbeLayer = "last") -> ProbeLayer:
    """`find_layer`, for a layer whose neurons are penalised: what it gives has passed its activation.

    Raises:
        ModelError: the layer is a convolution, a batch norm or a linear bottleneck.
    """
    probe, core = find_layer(model, layer), unwrap(model)
    network = split_wrapper(core)[1]
    bare = isinstance(probe.module, nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm)
    if (bare or type(network).__name__ in _WITH_BOTTLENECKS) and ends_linear(probe.module):
        following = next_activation(core, probe.name)
        raise ModelError(
            f"The neurons of the layer '{probe.name}' cannot be penalised, because it ends without an activation (a "
            f"linear bottleneck); use {'a layer after an activation' if following is None else repr(following)}."
        )
    return probe
