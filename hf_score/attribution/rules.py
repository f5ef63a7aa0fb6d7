"""LRP rules for convolutions and linear layers: those of zennit, and two of them rewritten for speed.

A rule gives a layer with input x and output y another derivative g_x, such that x · g_x is the relevance below when
y · g_y is the relevance above. Any `zennit.core.BasicHook` is a rule: its modifiers, gradient mapper and reducer are
run as zennit runs them, on the layer's function rather than on a module. `zennit.rules.ZPlus` and `Epsilon`, which do
almost all of the work, take one convolution and one backward pass: for an input without negative entries the negative
branch of ZPlus is not computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from zennit.core import BasicHook, ParamMod, Stabilizer
from zennit.rules import Epsilon, Flat, WSquare, ZBox, ZPlus

from ..errors import UnsupportedArchitectureError
from .ledger import Ledger

__all__ = ["AppliedLayer", "Rule", "linearised"]

Rule: TypeAlias = BasicHook


@dataclass(frozen=True)
class AppliedLayer:
    """A convolution or linear layer at work: what was called with what, and the rule that goes with it."""

    ledger: Ledger
    rule: Rule
    func: Callable[..., Tensor]
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    args: tuple
    kwargs: dict[str, Any]
    pad: tuple | None = None  # what `pad` does to the input first: zeros that are no pixels get no relevance

    def apply(self, value: Tensor) -> Tensor:
        """The layer's output, with the rule's derivative with respect to its input."""
        if self.input.requires_grad and isinstance(self.rule, _FIRST_LAYER):
            if not getattr(self.input, "_lrp_pixels", False):
                raise UnsupportedArchitectureError(
                    f"The rule {type(self.rule).__name__} is for the layer that sees the pixels, but the composite "
                    "gives it to a later one; use another composite."
                )
            self.ledger.pixels_hold_relevance = True
        output = _Derivative.apply(self.input, value, self)
        output._lrp_layer = self  # for the batch norm that may follow
        return output

    def merge(self, scale: Tensor, shift: Tensor) -> AppliedLayer:
        """The same layer with a batch norm, y ← scale · y + shift, merged into it."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, weight=weight, bias=bias)

    def __call__(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        x = x if self.pad is None else nn.functional.pad(x, *self.pad)
        return self.func(x, self.weight if weight is None else weight, bias, *self.args, **self.kwargs)

    # ---- Derivatives ----

    def derivative(self, x: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
        epsilon = _only_epsilon(self.rule)
        if type(self.rule) is ZPlus and epsilon is not None:
            return self._plus(x, gradient * output, epsilon)
        if type(self.rule) is Epsilon and epsilon is not None:
            return self._epsilon(x, output, gradient, epsilon)
        return self._zennit(x, gradient * output)

    def _epsilon(self, x: Tensor, output: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
        gradient = gradient * (output / (output + torch.where(output < 0, -epsilon, epsilon)))
        self._absorb(gradient, self.bias)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (below,) = torch.autograd.grad(self(x, bias=self.bias), x, gradient)
        return below

    def _plus(self, x: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
        """z⁺, with contributions of a negative input and a negative weight among the positive ones, as in zennit."""
        bias = None if self.bias is None else self.bias.clamp(min=0)
        with torch.enable_grad():
            if x.amin() >= 0:
                inputs = [x.detach().requires_grad_()]
                output = self(inputs[0], self.weight.clamp(min=0), bias)
            else:
                inputs = [x.clamp(min=0).detach().requires_grad_(), x.clamp(max=0).detach().requires_grad_()]
                output = self(inputs[0], self.weight.clamp(min=0), bias) + self(inputs[1], self.weight.clamp(max=0))
        relevance = relevance.div_(output.detach() + epsilon)
        self._absorb(relevance, bias)
        gradients = torch.autograd.grad(output, inputs, relevance)
        return gradients[0] if len(gradients) == 1 else torch.where(x > 0, gradients[0], gradients[1])

    def _zennit(self, x: Tensor, relevance: Tensor) -> Tensor:
        """`BasicHook.backward`, for a function."""
        rule, inputs, outputs = self.rule, [], []
        with torch.enable_grad():
            for modify_input, modify_parameter, modify_output in zip(
                rule.input_modifiers, rule.param_modifiers, rule.output_modifiers, strict=True
            ):
                inputs.append(modify_input(x.detach().clone()).requires_grad_())
                modified = (
                    _modified(modify_parameter, p, name) for p, name in ((self.weight, "weight"), (self.bias, "bias"))
                )
                outputs.append(modify_output(self(inputs[-1], *modified)))
            gradients = torch.autograd.grad(outputs, inputs, rule.gradient_mapper(relevance, outputs))
        below = rule.reducer([i.detach() for i in inputs], gradients)
        if self.bias is not None:
            self.ledger.absorb_relevance(relevance.flatten(1).sum(1) - below.flatten(1).sum(1))
        if isinstance(rule, _FIRST_LAYER):
            return below
        return torch.where(x == 0, 0, below / x)

    def _absorb(self, gradient: Tensor, bias: Tensor | None) -> None:
        if bias is not None:
            self.ledger.absorb(gradient, bias, channels_last=self.func.__name__ == "linear")


#: Rules whose relevance is not proportional to the input, so that it cannot be written as x · g.
_FIRST_LAYER = (Flat, WSquare, ZBox)


def _modified(modifier: Any, parameter: Tensor | None, name: str) -> Tensor | None:
    modifier = ParamMod.ensure(modifier)
    zeros = modifier.zero_params or []
    zeros = [zeros] if isinstance(zeros, str) else zeros
    if parameter is None:
        return None
    if name in zeros:
        return torch.zeros_like(parameter)
    keys = modifier.param_keys
    return modifier.modifier(parameter, name) if keys is None or name in keys else parameter


def _only_epsilon(rule: Rule) -> float | None:
    """The ε that this rule adds to its denominators, if that is all it does, else `None`."""
    if ParamMod.ensure(rule.param_modifiers[0]).zero_params is not None:
        return None
    stabilizer = inspect.getclosurevars(rule.gradient_mapper).nonlocals.get("stabilizer_fn")
    if isinstance(stabilizer, Stabilizer) and not stabilizer.clip and not stabilizer.norm_scale:
        return float(stabilizer.epsilon)
    return None


class _Derivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, layer: AppliedLayer) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x, value)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, value = ctx.saved_tensors
        return ctx.layer.derivative(x.detach(), value, gradients[0]), None, None


class _Linearised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | float) -> Tensor:
        ctx.constant = None if isinstance(slope, Tensor) else slope
        if isinstance(slope, Tensor):
            ctx.save_for_backward(slope)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        slope = ctx.saved_tensors[0] if ctx.constant is None else ctx.constant
        return gradients[0] * slope, None, None


def linearised(x: Tensor, *, value: Tensor, slope: Tensor | float) -> Tensor:
    """`value` to the bit, with the elementwise derivative `slope` with respect to `x`."""
    return _Linearised.apply(x, value.detach(), slope)
