"""LRP for CNNs and vision transformers, as one `TorchFunctionMode`: nothing on the model is patched.

Relevance is activation times a modified gradient, R = h · g. While the mode is active the forward pass computes what
it always computes, and each function that has a rule of its own is given another derivative, so that one ordinary
backward pass yields the relevance. In terms of g the rules are:

================================  ===================================================  ========================
function                          rule                                                 derivative
================================  ===================================================  ========================
linear, convolution               that of the composite (`hf_score.attribution.rules`)
                                  or, without one, LRP-ε with ε → 0                    its own
sum, mean, average pooling        LRP-ε with ε → 0                                     its own
maximum                           the winner takes all                                 its own
softmax                           Taylor decomposition: R_i ← x_i (R_i − s_i Σ_j R_j)  its own
product of two activations        uniform: half of R to each factor                    half, for each factor
product with a gate               the gate, a sigmoid of the activations, is constant  none for the gate
layer, group, RMS and L2 norm     the divisor is a constant                            without the divisor's own
batch norm                        merged into the layer before it, else an affine map  its own
GELU, SiLU, hard swish, ReLU6, …  identity: R passes unchanged                         f(x) / x
================================  ===================================================  ========================

Attention is two products with a softmax between them, so its value gets half of the derivative and its query and key a
quarter each, whether the kernel is fused or not. Sources: Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise
Relevance Propagation for Transformers" (ICML 2024, arXiv 2402.05602) for softmax, products, norms and activations;
Arras et al., "Explaining and interpreting LSTMs" (2019, arXiv 1909.12114) for gates ("signal takes all").
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from zennit.rules import Gamma

from ..errors import UnsupportedArchitectureError
from .ledger import Ledger
from .rules import AppliedLayer, Rule, linearised

__all__ = ["LRP"]

Function = Callable[..., Any]


class LRP(TorchFunctionMode):
    """Give every function called within this context the derivative that its LRP rule asks for.

    The explained model's parameters must not require gradients: that is how a product of two activations is told from
    a product with a weight. Relevance does not pass through a function without a rule: the backward pass refuses it.

    Args:
        rules: Rules of single modules of a composite: module → rule. A convolution or linear layer that is not
            listed has LRP-ε with ε → 0. Call `attach` first.
        constant_attention (`bool`, *optional*, defaults to `False`):
            CP-LRP (Ali et al., "XAI for Transformers", ICML 2022, arXiv 2202.07304): the attention probabilities are
            constants, and relevance goes through the values only. Unlike AttnLRP, it conserves relevance exactly.
        linear_gamma (`float`, *optional*, defaults to 0): γ of linear layers without a rule of their own; 0 is ε.
        convolution_gamma (`float`, *optional*, defaults to 0): The same for convolutions.
    """

    def __init__(
        self,
        rules: Mapping[nn.Module, Rule] | None = None,
        *,
        constant_attention: bool = False,
        linear_gamma: float = 0.0,
        convolution_gamma: float = 0.0,
    ) -> None:
        super().__init__()
        self.rules = rules or {}
        self.constant_attention = constant_attention
        gamma = {"linear": linear_gamma, "conv1d": convolution_gamma, "conv2d": convolution_gamma}
        # The γ rule divides by nothing smaller than the output itself, so it needs no stabiliser that would show.
        self.default = {name: Gamma(gamma=value, stabilizer=1e-12) for name, value in gamma.items() if value}
        self._rule: Rule | None = None
        self.start(0)

    def start(self, batch_size: int) -> None:
        """Forget the last explanation; the next one is of this many images."""
        self.ledger = Ledger(batch_size)

    def attach(self) -> None:
        """Have the modules of `rules` announce their rule when they run. For a private copy: the hooks stay."""

        def announce(rule: Rule | None) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                self._rule = rule

            return hook

        for module, rule in self.rules.items():
            module.register_forward_pre_hook(announce(rule))
            module.register_forward_hook(announce(None))

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Rules go by name: torch.softmax, Tensor.softmax and torch.nn.functional.softmax are three functions.
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        rule = _RULES.get(name)
        if rule is not None:
            return rule(self, func, *args, **kwargs)
        result = func(*args, **kwargs)
        if name in _OWN_DERIVATIVE:
            return _inherit(result, args)
        return _without_rule(name, result)


# ---------------------------------------------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------------------------------------------


def _linear(
    mode: LRP, func: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    rule, mode._rule = mode._rule or mode.default.get(func.__name__), None
    if rule is not None:
        value = func(input.detach(), weight, bias, *args, **kwargs)
        input, pad = getattr(input, "_lrp_padded", (input, None))
        return AppliedLayer(mode.ledger, rule, func, input, weight, bias, args, kwargs, pad).apply(value)
    if not is_activation(input):
        return func(input, weight, bias, *args, **kwargs)
    output = func(input, weight, bias, *args, **kwargs)
    return mode.ledger.tap(output, bias, channels_last=func.__name__ == "linear")


def _pad(lrp: LRP, func: Function, input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
    result = func(input, pad, mode, value)
    if mode == "constant" and not value:
        result._lrp_padded = (input, (pad,))  # type: ignore[attr-defined]
    return result


def _batch_norm(
    mode: LRP,
    func: Function,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    args = (running_mean, running_var, weight, bias, training, momentum, eps)
    if training or running_mean is None or running_var is None:
        return _without_rule("batch_norm with the batch's own statistics", func(input, *args))
    if not is_activation(input):
        return func(input, *args)
    scale = torch.rsqrt(running_var + eps) * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    layer: AppliedLayer | None = getattr(input, "_lrp_layer", None)
    if layer is not None:
        return layer.merge(scale, shift).apply(func(input.detach(), *args))
    return mode.ledger.tap(func(input, *args), shift, channels_last=False)


def _attention(mode: LRP, func: Function, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    if mode.constant_attention:
        return func(query.detach(), key.detach(), value, *args, **kwargs)
    return func(_share(query, 1 / 4), _share(key, 1 / 4), _share(value, 1 / 2), *args, **kwargs)


def _softmax(mode: LRP, func: Function, *args: Any, **kwargs: Any) -> Tensor:
    probabilities = func(*args, **kwargs)
    return probabilities.detach() if mode.constant_attention else probabilities


def _product(mode: LRP, func: Function, *args: Any, **kwargs: Any) -> Tensor:
    active = [a for a in args if is_activation(a)]
    func = torch.mul if func.__name__ == "mul_" else func  # see `_add`
    if len(active) > 1:
        gates = [a for a in active if getattr(a, "_lrp_gate", False)]
        if 0 < len(gates) < len(active):
            args = tuple(a.detach() if any(a is gate for gate in gates) else a for a in args)
        else:
            args = tuple(_share(a, 1 / len(active)) if is_activation(a) else a for a in args)
    return _inherit(func(*args, **kwargs), args)


def _add(mode: LRP, func: Function, *args: Any, **kwargs: Any) -> Tensor:
    """A sum, in which a position embedding is a summand of its own for each image."""
    shape = next((a.shape for a in args if is_activation(a)), None)
    if shape is not None:
        args = tuple(_embedding(mode, a, shape) for a in args)
        func = torch.add  # the derivatives of rules do not survive a sum in place
    return _inherit(func(*args, **kwargs), args)


def _cat(mode: LRP, func: Function, tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
    if any(map(is_activation, tensors)):
        tensors = [_embedding(mode, t, t.shape) for t in tensors]
    return _inherit(func(tensors, *args, **kwargs), tensors)


def _addcmul(mode: LRP, func: Function, input: Tensor, one: Any, other: Any, *, value: float = 1) -> Tensor:
    return _add(mode, torch.add, input, value * _product(mode, torch.mul, one, other))


def _quotient(mode: LRP, func: Function, x: Any, divisor: Any, *args: Any, **kwargs: Any) -> Tensor:
    result = func(x, divisor, *args, **kwargs)
    return _without_rule("division by an activation", result) if is_activation(divisor) else _inherit(result, (x,))


def _constant(mode: LRP, func: Function, *args: Any, **kwargs: Any) -> Tensor:
    """A statistic that activations are divided by."""
    return func(*args, **kwargs).detach()


def _identity(mode: LRP, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not is_activation(input):
        return func(input, *args, **kwargs)
    value = func(input.detach(), *args, **kwargs)
    # At 0, where the quotient is undefined, an input has no relevance anyway; GELU and SiLU have slope 1/2 there.
    return linearised(input, value=value, slope=torch.where(input == 0, 0.5, value / input).detach())


def _gate(mode: LRP, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    result = _identity(mode, func, input, *args, **kwargs)
    result._lrp_gate = True  # type: ignore[attr-defined]
    return result


def _layer_norm(
    mode: LRP,
    func: Function,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    if not is_activation(input):
        return func(input, normalized_shape, weight, bias, eps)
    value = func(input.detach(), normalized_shape, weight, bias, eps)
    dims = tuple(range(-len(normalized_shape), 0))
    slope = torch.rsqrt(input.detach().var(dims, correction=0, keepdim=True) + eps)
    centred = input - input.mean(dims, keepdim=True)
    output = linearised(centred, value=value, slope=slope if weight is None else slope * weight)
    return mode.ledger.tap(output, bias, channels_last=True) if len(dims) == 1 else output


def _rms_norm(
    mode: LRP,
    func: Function,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    value = func(input.detach(), normalized_shape, weight, eps)
    if not is_activation(input):
        return value
    dims = tuple(range(-len(normalized_shape), 0))
    smallest = torch.finfo(input.dtype).eps if eps is None else eps
    slope = torch.rsqrt(input.detach().square().mean(dims, keepdim=True) + smallest)
    return linearised(input, value=value, slope=slope if weight is None else slope * weight)


def _group_norm(
    mode: LRP,
    func: Function,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    value = func(input.detach(), num_groups, weight, bias, eps)
    if not is_activation(input):
        return value
    grouped = input.unflatten(1, (num_groups, -1)).flatten(2)
    std = (grouped.detach().var(2, correction=0, keepdim=True) + eps).sqrt()
    scaled = ((grouped - grouped.mean(2, keepdim=True)) / std).view(input.shape)
    slope: Tensor | float = 1.0 if weight is None else weight.view(-1, *[1] * (input.ndim - 2))
    return mode.ledger.tap(linearised(scaled, value=value, slope=slope), bias, channels_last=False)


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d"), _linear),
    "pad": _pad,
    "batch_norm": _batch_norm,
    "scaled_dot_product_attention": _attention,
    "softmax": _softmax,
    **dict.fromkeys(
        ("matmul", "__matmul__", "bmm", "einsum", "mul", "__mul__", "__rmul__", "mul_", "multiply"), _product
    ),
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__", "add_"), _add),
    **dict.fromkeys(("cat", "concat"), _cat),
    "addcmul": _addcmul,
    **dict.fromkeys(("div", "__truediv__", "true_divide"), _quotient),
    **dict.fromkeys(("norm", "linalg_vector_norm", "vector_norm", "rsqrt", "var", "std"), _constant),
    **dict.fromkeys(("gelu", "silu", "hardswish", "hardtanh", "relu6", "leaky_relu", "elu", "mish"), _identity),
    **dict.fromkeys(("sigmoid", "hardsigmoid"), _gate),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _identity,  # x / ‖x‖, with the norm a constant: f(x) / x is its inverse
}

# Functions whose own derivative is their rule: linear maps, moving data about, the winner of a maximum, and ReLU,
# whose derivative is f(x) / x.
# fmt: off
_OWN_DERIVATIVE = frozenset([
    "relu", "relu_", "dropout", "interpolate", "sum", "mean", "max", "amax", "max_pool2d", "adaptive_max_pool2d",
    "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "sub", "__sub__", "__rsub__", "neg", "__neg__",
    "stack", "unbind", "chunk", "split", "split_with_sizes", "unfold", "fold",
    "reshape", "view", "view_as", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "repeat",
    "permute", "transpose", "swapaxes", "movedim", "roll", "narrow", "select", "index_select", "gather",
    "__getitem__", "__get__", "contiguous", "clone", "to", "float", "double", "type", "type_as", "embedding",
])
# fmt: on


# ---------------------------------------------------------------------------------------------------------------------
# Marks on tensors
# ---------------------------------------------------------------------------------------------------------------------

#: What a tensor remembers of where it comes from: the pixels, a gate, an embedding (and of which kind).
_MARKS = ("_lrp_pixels", "_lrp_gate", "_lrp_embedding")


def _inherit(result: Any, args: Any) -> Any:
    """Hand the marks of the first marked argument on, through functions that move data about."""
    if isinstance(result, Tensor):
        for mark in _MARKS:
            for arg in args:
                value = getattr(arg, mark, None) if isinstance(arg, Tensor) else None
                if value is not None and (mark != "_lrp_embedding" or not result.requires_grad):
                    setattr(result, mark, value)
                    break
    return result


def _embedding(mode: LRP, tensor: Any, shape: torch.Size) -> Any:
    """A class token or position embedding as a leaf of its own for every image, so that its relevance can be told."""
    kind = getattr(tensor, "_lrp_embedding", None)
    if kind is None or is_activation(tensor) or shape[0] != mode.ledger.batch_size:
        return tensor
    leaf = tensor.detach().expand(shape).clone().requires_grad_()
    mode.ledger.embeddings.append((kind, leaf))
    return leaf


def is_activation(x: Any) -> bool:
    # Parameters are frozen, so only what depends on the pixels requires a gradient.
    return isinstance(x, Tensor) and x.requires_grad


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives
# ---------------------------------------------------------------------------------------------------------------------


def _share(x: Tensor, part: float) -> Tensor:
    """`x` with this part of its derivative."""
    return linearised(x, value=x, slope=part)


class _Refused(torch.autograd.Function):
    """Fine to compute, as long as no relevance has to pass: some models return what their class logits do not use."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, what: str, where: str) -> Tensor:
        ctx.what, ctx.where = what, where
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise UnsupportedArchitectureError(
            f"No LRP rule is known for '{ctx.what}'{ctx.where}, through which relevance would have to pass; "
            "use a model of a supported family, or method='input_x_gradient'."
        )


def _without_rule(name: str, result: Any) -> Any:
    if isinstance(result, tuple | list):
        return type(result)(_without_rule(name, r) for r in result)
    return _Refused.apply(result, name, _module_running()) if is_activation(result) else result


def _module_running() -> str:
    """Words for the innermost module whose forward pass is on the stack."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            return f" in {type(module).__module__}.{type(module).__qualname__}"
        frame = frame.f_back
    return ""
