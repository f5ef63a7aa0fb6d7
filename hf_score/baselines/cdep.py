"""CDEP: penalise the contextual decomposition score of the attribute's region."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name

from ..errors import HFScoreError, UnsupportedArchitectureError
from ..models import eval_mode
from .base import BaselineConfig
from .rrr import RegionTrainer

__all__ = ["CDEPConfig", "CDEPTrainer", "contextual_decomposition"]


@dataclass
class CDEPConfig(BaselineConfig):
    """Configuration of [`CDEPTrainer`].

    Parameters:
        cdep_lambda: λ, in the paper's unit: the penalty itself, which is between 0 and 1, is multiplied with it.
    """

    cdep_lambda: float = field(default=10.0, metadata={"help": "Weight of the penalty, as in the paper."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cdep_lambda < 0:
            raise HFScoreError(f"cdep_lambda is {self.cdep_lambda}: give a number of at least 0.")


class CDEPTrainer(RegionTrainer):
    """Cross-entropy + λ · mean over images and classes of softmax(β, γ)_β, with β and γ what the region of the
    attribute and the rest contribute to a logit by contextual decomposition (Rieger et al., 2020, equation 4; the
    softmax form of their code).

    Supervision: regions of the attribute in training images. As in the paper the penalty is not scaled: it is bounded,
    and saturates where the region contributes most, so that a λ of 1 over the starting model's value does little.
    Their decomposition is for plain CNNs; ours for all models is described at `contextual_decomposition`.
    """

    name = "cdep"
    title = "CDEP"
    paper = "Rieger et al., 2020, arXiv 1909.13584"
    config_class = CDEPConfig
    args: CDEPConfig  # type: ignore[assignment]
    version = 2
    scaled = False
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "cdep_lambda": [1.0, 10.0, 100.0, 1000.0]}

    def strength(self) -> float:
        return self.args.cdep_lambda

    def region_penalty(self, model: nn.Module, pixel_values: Tensor, regions: Tensor, labels: Tensor) -> Tensor:
        region, rest = contextual_decomposition(model, pixel_values, regions)
        return torch.sigmoid(region - rest).mean()


def contextual_decomposition(model: nn.Module, pixel_values: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """What a region and the rest of an image contribute to each logit: β (B, K) and γ (B, K), β + γ = the logits.

    Both parts go through the model as one batch of 2B. Linear functions act on each; their bias is split in proportion
    to |β| and |γ| (Singh et al., 2019, equations 2 and 3); constants such as position embeddings belong to γ. For an
    element-wise function φ, β ← ½[φ(β + γ) − φ(γ) + φ(β) − φ(0)]. Max-pooling takes both parts where the sum has its
    maximum. Ours, for what plain CNNs do not have: a normalisation divides both by the scale of the sum, attention
    weights are those of the sum, and of a product of two activations a·b, β ← ½(β_a·b + a·β_b). In eval mode.

    Args:
        model: a classifier with `.logits`.
        pixel_values: (B, 3, H, W).
        regions: (B, H, W) bool.

    Raises:
        UnsupportedArchitectureError: the model uses a function that has no rule here.
    """
    inside = pixel_values * regions[:, None]
    stacked = torch.cat([inside, pixel_values - inside])
    stacked.cd_parts = True  # type: ignore[attr-defined]
    with eval_mode(model), _Decomposition():
        logits = model(pixel_values=stacked).logits
    region, rest = logits.chunk(2)
    return region, rest


class _Decomposition(TorchFunctionMode):
    """Runs functions of stacked parts (marked `cd_parts`) by the rules above."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat = _tensors([*args, *kwargs.values()])
        if not any(_is_parts(tensor) for tensor in flat):
            return func(*args, **kwargs)
        name = _name(func)
        if name in _RULES:
            result = _RULES[name](*args, **kwargs)
        elif name in _ELEMENTWISE:
            kwargs.pop("inplace", None)
            result = _elementwise(func, *args, **kwargs)
        elif name in _LINEAR:
            result = func(*args, **kwargs)
        elif name in _PLAIN:
            return func(*args, **kwargs)
        else:
            raise UnsupportedArchitectureError(
                f"contextual decomposition has no rule for {resolve_name(func) or name}: use CDEP with another model."
            )
        for tensor in _tensors([result]):
            tensor.cd_parts = True  # type: ignore[attr-defined]
        return result


def _is_parts(value: Any) -> bool:
    return isinstance(value, Tensor) and getattr(value, "cd_parts", False)


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _name(func: Any) -> str:
    if func is F.max_pool2d:  # which calls itself something else
        return "max_pool2d"
    name = getattr(func, "__name__", str(func))
    return {"iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul"}.get(name.strip("_"), name.strip("_"))


def _sum(parts: Tensor) -> Tensor:
    region, rest = parts.chunk(2)
    return region + rest


def _join(region: Tensor, rest: Tensor) -> Tensor:
    return torch.cat([region, rest])


def _with_bias(parts: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias (broadcastable to the parts), split in proportion to |β| and |γ|."""
    if bias is None:
        return parts
    region, rest = parts.chunk(2)
    share = region.abs() / (region.abs() + rest.abs()).clamp(min=1e-20)
    return _join(region + share * bias, rest + (1 - share) * bias)


def _channels(values: Tensor | None, like: Tensor) -> Tensor | None:
    return None if values is None else values.reshape(1, -1, *[1] * (like.ndim - 2))


def _linear(parts: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _with_bias(F.linear(parts, weight), bias)


def _conv2d(parts: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    result = F.conv2d(parts, weight, None, *args, **kwargs)
    return _with_bias(result, _channels(bias, result))


def _batch_norm(
    parts: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    stretched = _channels(scale, parts)
    assert stretched is not None
    return _with_bias(parts * stretched, _channels(shift, parts))


def _layer_norm(
    parts: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    scale = (_sum(parts).var(dim=dims, unbiased=False, keepdim=True) + eps).rsqrt()
    centred = (parts - parts.mean(dim=dims, keepdim=True)) * torch.cat([scale, scale])
    return _with_bias(centred if weight is None else centred * weight, bias)


def _elementwise(func: Callable, parts: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    region, rest = parts.chunk(2)
    both = func(region + rest, *args, **kwargs)
    zero = func(torch.zeros_like(region), *args, **kwargs)
    of_region = (both - func(rest, *args, **kwargs) + func(region.clone(), *args, **kwargs) - zero) / 2
    return _join(of_region, both - of_region)


def _max_pool2d(parts: Tensor, *args: Any, return_indices: bool = False, **kwargs: Any) -> Tensor:
    _, positions = F.max_pool2d(_sum(parts), *args, return_indices=True, **kwargs)
    positions = torch.cat([positions, positions])
    return parts.flatten(2).gather(2, positions.flatten(2)).view_as(positions)


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Tensor:
    query, key = (_sum(x) if _is_parts(x) else x for x in (query, key))
    region, rest = value.chunk(2)
    return _join(*(F.scaled_dot_product_attention(query, key, part, *args, **kwargs) for part in (region, rest)))


def _add(one: Any, other: Any, sign: int = 1) -> Tensor:
    one, other = (_constant_in_rest(x, y) for x, y in ((one, other), (other, one)))
    return one + other if sign > 0 else one - other


def _constant_in_rest(value: Any, beside: Any) -> Any:
    """A constant that is added to parts: nothing to β, all of it to γ."""
    if _is_parts(value):
        return value
    count = beside.shape[0] // 2
    constant = torch.as_tensor(value, dtype=beside.dtype, device=beside.device)
    if constant.ndim == beside.ndim and constant.shape[0] == beside.shape[0]:
        constant = constant[count:]  # expanded to the stacked batch
    constant = constant.expand(count, *beside.shape[1:]) if constant.ndim < beside.ndim else constant
    if constant.shape[0] == 1:
        constant = constant.expand(count, *constant.shape[1:])
    return torch.cat([torch.zeros_like(constant), constant])


def _mul(one: Any, other: Any) -> Tensor:
    if not (_is_parts(one) and _is_parts(other)):
        return operator.mul(one, other)
    first, second = _sum(one), _sum(other)
    region_one, region_other = one.chunk(2)[0], other.chunk(2)[0]
    region = (region_one * second + first * region_other) / 2
    return _join(region, first * second - region)


def _div(one: Any, other: Any) -> Tensor:
    if _is_parts(other):
        raise UnsupportedArchitectureError("contextual decomposition has no rule for a division by an activation.")
    return operator.truediv(one, other)


def _cat(tensors: Any, dim: int = 0) -> Tensor:
    parts = next(t for t in tensors if _is_parts(t))
    return torch.cat([t if _is_parts(t) else _constant_in_rest(t, parts) for t in tensors], dim)


_RULES: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "max_pool2d": _max_pool2d,
    "scaled_dot_product_attention": _attention,
    "add": _add,
    "sub": lambda one, other: _add(one, other, sign=-1),
    "mul": _mul,
    "div": _div,
    "truediv": _div,
    "cat": _cat,
}
_ELEMENTWISE = {
    *("relu", "relu_", "relu6", "gelu", "silu", "sigmoid", "sigmoid_", "tanh", "hardswish", "hardsigmoid"),
    *("hardtanh", "leaky_relu", "elu", "mish", "softplus"),
}
_LINEAR = {
    *("view", "reshape", "flatten", "permute", "transpose", "unbind", "chunk", "split", "squeeze", "unsqueeze"),
    *("contiguous", "clone", "to", "float", "mean", "sum", "adaptive_avg_pool2d", "avg_pool2d", "pad", "getitem"),
    *("movedim", "neg", "dropout", "expand", "detach", "type", "select", "narrow", "unflatten", "zero_pad2d"),
}
_PLAIN = {
    "size",
    "dim",
    "get",
    "numel",
    "is_contiguous",
    "stride",
    "len",
    "get_device",
    "is_floating_point",
    "data_ptr",
}
