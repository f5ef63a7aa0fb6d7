"""AttnLRP for vision transformers, as one `TorchFunctionMode`: nothing on the model is patched.

Relevance is activation times a modified gradient, R = h · g. While the mode is active the forward pass computes what
it always computes, and each function that has a rule of its own is given another derivative, so that one ordinary
backward pass yields the relevance of Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
Transformers" (ICML 2024, arXiv 2402.05602). In terms of g the rules are:

================================  ===================================================  ========================
function                          rule                                                 derivative
================================  ===================================================  ========================
sum, mean, linear, convolution    LRP-ε with ε → 0: a bias keeps its share             its own
linear, convolution, with γ       contributions with the output's sign count 1 + γ     see `_gamma`
softmax                           Taylor decomposition: R_i ← x_i (R_i − s_i Σ_j R_j)  its own
product of two activations        uniform: half of R to each factor                    half, for each factor
layer norm                        the divisor is a constant                            without the divisor's own
GELU, SiLU                        identity: R passes unchanged                         f(x) / x
================================  ===================================================  ========================

Attention is two products with a softmax between them, so its value gets half of the derivative and its query and key a
quarter each, whether the kernel is fused or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hf_score.errors import UnsupportedArchitectureError

__all__ = ["AttnLRP"]

Function = Callable[..., Any]


class AttnLRP(TorchFunctionMode):
    """Give every function called within this context the derivative that its AttnLRP rule asks for.

    The explained model's parameters must not require gradients: that is how a product of two activations is told from
    a product with a weight. A function without a rule is refused rather than given its plain gradient.

    Args:
        constant_attention (`bool`, *optional*, defaults to `False`):
            CP-LRP (Ali et al., "XAI for Transformers", ICML 2022, arXiv 2202.07304): the attention probabilities are
            constants, and relevance goes through the values only. Unlike AttnLRP, it conserves relevance exactly.
        linear_gamma (`float`, *optional*, defaults to 0): γ of linear layers; 0 is the ε rule.
        convolution_gamma (`float`, *optional*, defaults to 0): γ of convolutions, which here embed the patches.

    Raises:
        UnsupportedArchitectureError: A function without a rule was applied to an activation.
    """

    def __init__(
        self, *, constant_attention: bool = False, linear_gamma: float = 0.0, convolution_gamma: float = 0.0
    ) -> None:
        super().__init__()
        self.constant_attention = constant_attention
        self.gamma = {"linear": linear_gamma, "conv2d": convolution_gamma}

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Rules go by name: torch.softmax, Tensor.softmax and torch.nn.functional.softmax are three functions.
        name = getattr(func, "__name__", str(func))
        rule = _RULES.get(name)
        if rule is not None:
            return rule(self, func, *args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if name not in _OWN_DERIVATIVE and any(map(_is_activation, result if _is_sequence(result) else [result])):
            raise UnsupportedArchitectureError(
                f"No AttnLRP rule is known for the function '{name}', which this model applies to its activations; "
                "use a model of a supported family, or method='input_x_gradient'."
            )
        return result


# ---------------------------------------------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------------------------------------------


def _attention(mode: AttnLRP, func: Function, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any):
    if mode.constant_attention:
        return func(query.detach(), key.detach(), value, *args, **kwargs)
    return func(_share(query, 1 / 4), _share(key, 1 / 4), _share(value, 1 / 2), *args, **kwargs)


def _softmax(mode: AttnLRP, func: Function, *args: Any, **kwargs: Any):
    probabilities = func(*args, **kwargs)
    return probabilities.detach() if mode.constant_attention else probabilities


def _product(mode: AttnLRP, func: Function, *args: Any, **kwargs: Any):
    factors = sum(map(_is_activation, args))
    if factors < 2:
        return func(*args, **kwargs)
    return func(*(_share(a, 1 / factors) if _is_activation(a) else a for a in args), **kwargs)


def _quotient(mode: AttnLRP, func: Function, x: Any, divisor: Any, *args: Any, **kwargs: Any):
    if _is_activation(divisor):
        raise UnsupportedArchitectureError(
            "No AttnLRP rule is known for a division by an activation, which this model does; "
            "use a model of a supported family, or method='input_x_gradient'."
        )
    return func(x, divisor, *args, **kwargs)


def _identity(mode: AttnLRP, func: Function, input: Tensor, *args: Any, **kwargs: Any):
    value = func(input.detach(), *args, **kwargs)
    # GELU and SiLU both have slope 1/2 at 0, where the quotient is undefined.
    return _linearised(input, value=value, slope=torch.where(input == 0, 0.5, value / input).detach())


def _layer_norm(
    mode: AttnLRP,
    func: Function,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
):
    value = func(input.detach(), normalized_shape, weight, bias, eps)
    dims = tuple(range(-len(normalized_shape), 0))
    slope = torch.rsqrt(input.detach().var(dims, correction=0, keepdim=True) + eps)
    centred = input - input.mean(dims, keepdim=True)
    return _linearised(centred, value=value, slope=slope if weight is None else slope * weight)


def _gamma(
    mode: AttnLRP, func: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
):
    """The γ rule for inputs of any sign (Andéol et al., NeurIPS 2021; zennit's `Gamma`).

    With contributions c_ij = x_i w_ji and z_j = Σ_i c_ij + b_j, R_i = Σ_j R_j (c_ij + γ c_ij*) / (z_j + γ z_j*), where
    the star keeps what has the sign of z_j.
    """
    output = func(input, weight, bias, *args, **kwargs)
    gamma = mode.gamma[func.__name__]
    if gamma == 0 or not _is_activation(input):
        return output

    def of_sign(sign: int) -> Tensor:
        above, below = {"min": 0}, {"max": 0}
        of_bias = None if bias is None else bias.clamp(**(above if sign > 0 else below))
        same, other = (above, below) if sign > 0 else (below, above)
        return func(input.clamp(**above), weight.clamp(**same), of_bias, *args, **kwargs) + func(
            input.clamp(**below), weight.clamp(**other), None, *args, **kwargs
        )

    surrogate = output + gamma * torch.where(output > 0, of_sign(+1), of_sign(-1))
    slope = torch.where(surrogate == 0, 0, output / surrogate).detach()
    return _linearised(surrogate, value=output, slope=slope)


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("linear", "conv2d"), _gamma),
    "scaled_dot_product_attention": _attention,
    "softmax": _softmax,
    **dict.fromkeys(("matmul", "__matmul__", "bmm", "einsum", "mul", "__mul__", "__rmul__", "multiply"), _product),
    **dict.fromkeys(("div", "__truediv__", "true_divide"), _quotient),
    **dict.fromkeys(("gelu", "silu"), _identity),
    "layer_norm": _layer_norm,
}

# Functions whose own derivative is their rule: linear maps, moving data about, the winner of a maximum, and ReLU,
# whose derivative is f(x) / x.
# fmt: off
_OWN_DERIVATIVE = frozenset([
    "relu", "dropout", "interpolate", "pad", "avg_pool2d", "adaptive_avg_pool2d",
    "add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__", "neg", "__neg__",
    "sum", "mean", "max", "amax", "cat", "concat", "stack", "unbind", "chunk", "split", "split_with_sizes",
    "reshape", "view", "view_as", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "repeat",
    "permute", "transpose", "swapaxes", "movedim", "roll", "narrow", "select", "index_select", "gather",
    "__getitem__", "__get__", "contiguous", "clone", "to", "float", "double", "type", "type_as",
])
# fmt: on


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives
# ---------------------------------------------------------------------------------------------------------------------


class _Linearised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | float) -> Tensor:
        ctx.slope = slope
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.slope, None, None


def _linearised(x: Tensor, *, value: Tensor, slope: Tensor | float) -> Tensor:
    """`value` to the bit, with the elementwise derivative `slope` with respect to `x`."""
    return _Linearised.apply(x, value.detach(), slope)


def _share(x: Tensor, part: float) -> Tensor:
    """`x` with this part of its derivative."""
    return _linearised(x, value=x, slope=part)


def _is_activation(x: Any) -> bool:
    # Parameters are frozen, so only what depends on the pixels requires a gradient.
    return isinstance(x, Tensor) and x.requires_grad


def _is_sequence(x: Any) -> bool:
    return isinstance(x, tuple | list)
