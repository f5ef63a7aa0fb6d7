"""`Explainer`: one call that explains a class's logit at the pixels and at a layer, for CNNs and ViTs alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import psutil
import torch
from torch import Tensor, nn
from zennit.core import Composite

from ..errors import HFScoreError, ModelError
from .composites import COMPOSITES, make_composite, rules_for
from .families import find_family, split_wrapper
from .layers import ProbeLayer, find_layer, recording
from .lrp import LRP
from .private_copy import private_copy, unwrap

__all__ = ["Explainer", "Explanation"]


_ATTNLRP: dict[str, dict[str, Any]] = {
    "attnlrp": {},
    "attnlrp_gamma": {"linear_gamma": 0.05, "convolution_gamma": 0.25},  # AttnLRP's choice for ViTs
    "cp_lrp": {"constant_attention": True},
}
#: Parameters that are summed with activations, or stand among them, instead of being multiplied with them.
_EMBEDDINGS = {
    "class_token": r"(cls|class|dist|distillation|reg|register|storage|mask)_tokens?|class_embedding",
    "positions": r"pos(ition)?_embed(ding)?s?|absolute_pos(_embed)?",
}


@dataclass(frozen=True)
class Explanation:
    """Relevance of one batch, in single precision (double for a model in double), on the model's device.

    Attributes:
        logits: (B, K), detached.
        relevance: (B, H, W), summed over the colour channels; `None` if the pixels were not asked for.
        layer_relevance: (B, P, C), P positions (space or tokens) by C neurons; `None` without a layer.
        layer_activation: (B, P, C), detached; `None` without a layer.
        convergence_delta: (B,), (Σ relevance − explained output) / |explained output|, at the pixels, or at the layer
            if the pixels were not asked for. 0 where all relevance arrives.
        absorbed: Where the rest went, each (B,), as a share of |explained output|: `"biases"` of layers and norms,
            `"class_token"` (with distillation and register tokens), `"positions"` (position embeddings), and
            `"rules"`: what softmax, stabilisers and biases without a tap neither pass on nor name. They sum to
            −`convergence_delta`.
    """

    logits: Tensor
    relevance: Tensor | None
    layer_relevance: Tensor | None
    layer_activation: Tensor | None
    convergence_delta: Tensor
    absorbed: dict[str, Tensor]


class Explainer:
    """Explain an image classifier by layer-wise relevance propagation.

    A context manager. On entering it copies the model, and explains that private copy as it then is: the model itself
    is only read, so its `state_dict`, parameters, gradients, hooks and mode cannot change. The rules are in
    `hf_score.attribution.lrp`; CNNs get one of zennit's composites on top, with batch norms merged.

    Args:
        model: A model of a family in `hf_score.attribution.FAMILIES` (`hf-score families` prints them); bare, in
            transformers' `TimmWrapper`, compiled, with PEFT adapters, or in a wrapper for training.
        method (`str` or `zennit.core.Composite`, *optional*):
            One of the family's methods; the first is the default. CNNs: `"epsilon_plus_flat"`, `"epsilon_plus"`,
            `"epsilon_plus_wsquare"`, `"epsilon_gamma_flat"`, `"epsilon_alpha2_beta1_flat"`, `"epsilon_alpha2_beta1"`,
            `"epsilon"`. ViTs: `"attnlrp"`, `"attnlrp_gamma"` (smoother, five times the cost), `"cp_lrp"`. All:
            `"input_x_gradient"`. A composite of your own gives the rules of convolutions and linear layers; everything
            else keeps the rules of `hf_score.attribution.lrp`, and canonizers are not needed.
        epsilon (`float`, *optional*, defaults to 1e-6):
            The stabiliser of the composites. ViT rules divide by nothing and have none.
        gamma (`dict`, *optional*):
            γ for `"linear"` and `"convolution"` layers, for `"attnlrp_gamma"` and `"epsilon_gamma_flat"`. See
            `search_gamma`.
        batch_size (`int`, *optional*):
            How many images at most to explain at once. By default as many as fit: an image's share of the memory is
            measured once, and half of what is free may be used.

    Raises:
        UnsupportedArchitectureError: The model is of no known family; nothing was run.
        ModelError: The family has no such method.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        method: str | Composite | None = None,
        epsilon: float = 1e-6,
        gamma: Mapping[str, float] | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.model = unwrap(model)
        self.family = find_family(self.model)
        self.method = method or self.family.methods[0]
        self.epsilon, self.gamma, self.batch_size = epsilon, dict(gamma or {}), batch_size
        if isinstance(self.method, str) and self.method not in self.family.methods:
            raise ModelError(
                f"A model of the family {self.family.name} cannot be explained by {method!r}; use one of "
                f"{', '.join(self.family.methods)}."
            )
        if unknown := sorted(set(self.gamma) - {"linear", "convolution"}):
            raise ModelError(f"There is no γ for {', '.join(unknown)}; give it for 'linear' and 'convolution'.")
        self._copy: nn.Module | None = None
        self._mode: LRP | None = None
        self._measured: dict[tuple, int] = {}

    def __enter__(self) -> Explainer:
        with torch.inference_mode(False):
            self._copy = private_copy(self.model)
        for name, parameter in self._copy.named_parameters():
            for kind, pattern in _EMBEDDINGS.items():
                if re.search(rf"(^|\.)({pattern})(\.weight)?$", name):
                    parameter._lrp_embedding = kind  # type: ignore[attr-defined]
        self._mode = self._make_mode(split_wrapper(self._copy)[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._copy = self._mode = None

    def _make_mode(self, core: nn.Module) -> LRP | None:
        if self.method == "input_x_gradient":
            return None
        if self.method in _ATTNLRP:
            own = {f"{layer}_gamma": value for layer, value in self.gamma.items()}
            return LRP(**{**_ATTNLRP[self.method], **(own if self.method == "attnlrp_gamma" else {})})
        composite = self.method
        if isinstance(composite, str):
            assert composite in COMPOSITES
            composite = make_composite(composite, epsilon=self.epsilon, gamma=self.gamma)
        mode = LRP(rules_for(composite, core))
        mode.attach()
        return mode

    def explain(
        self,
        pixel_values: Tensor,
        targets: Tensor | Sequence[int] | int,
        *,
        layer: ProbeLayer | str | int | None = None,
        objective: Literal["logit", "margin"] = "logit",
        pixels: bool = True,
    ) -> Explanation:
        """Explain one batch in one forward and one backward pass, or in several if it does not fit.

        Args:
            pixel_values: (B, 3, H, W), preprocessed for the model.
            targets: The class to explain, one for each image or one for all.
            layer: Also explain this layer; anything that `find_layer` takes.
            objective: `"logit"` of the class, or `"margin"`: that logit minus the highest of the others.
            pixels: Whether to go down to the pixels. Without, nothing below the layer is differentiated.

        Raises:
            ModelError: There is no such layer or class, relevance at the layer would not mean what it should, or the
                pixels are not what the model takes.
            UnsupportedArchitectureError: Relevance would have to pass through a function without a rule.
        """
        if self._copy is None:
            raise HFScoreError(
                "An Explainer explains within its context only; write 'with Explainer(model) as explainer:'."
            )
        if layer is None and not pixels:
            raise HFScoreError("There is nothing to explain with pixels=False and no layer; give a layer.")
        probe = None if layer is None else self._probe(layer)
        reference = next(self._copy.parameters())
        x = pixel_values.detach().to(reference.device, reference.dtype)
        _check_pixels(x, self._copy)
        classes = torch.as_tensor(targets, dtype=torch.long, device=x.device).expand(len(x))
        with _isolated(reference.device):
            # Clones, because tensors made under inference mode cannot be saved for the backward pass.
            x, classes = x.clone(), classes.clone()
            size = self.batch_size or self._fitting(x, classes, probe, objective, pixels)
            parts = [
                self._explain(*part, probe, objective, pixels)
                for part in zip(x.split(size), classes.split(size), strict=True)
            ]
        return parts[0] if len(parts) == 1 else _join(parts)

    def _explain(
        self, x: Tensor, classes: Tensor, probe: ProbeLayer | None, objective: str, pixels: bool
    ) -> Explanation:
        assert self._copy is not None
        mode = self._mode
        recorded: list[Tensor] = []
        x = x.detach().requires_grad_(pixels)
        x._lrp_pixels = True  # type: ignore[attr-defined]
        if mode is not None:
            mode.start(len(x))
        with nullcontext() if mode is None else mode, recording(probe, recorded, cut=not pixels):
            output = self._copy(x)
        logits: Tensor = getattr(output, "logits", output)
        slopes = _slopes(logits.detach(), classes, objective)
        at = ([x] if pixels else []) + recorded[-1:]
        leaves = [] if mode is None else [leaf for _, leaf in mode.ledger.embeddings]
        gradients: Sequence[Tensor | None] = [None] * len(at)
        if logits.requires_grad:
            gradients = torch.autograd.grad(logits, at + leaves, slopes, allow_unused=True)
        if gradients[len(at) - 1] is None:
            assert probe is not None
            raise ModelError(
                f"The layer '{probe.name}' cannot be explained, because a batch norm is merged into it or the logits "
                "do not depend on it; probe the batch norm after it, or another layer."
            )
        given = [gradient for gradient in gradients[: len(at)] if gradient is not None]
        relevances = [g * h.detach() for g, h in zip(given, at, strict=True)]
        if pixels and mode is not None and mode.ledger.pixels_hold_relevance:
            relevances[0] = given[0]
        layer_relevance = layer_activation = None
        if probe is not None:
            layer_relevance = probe.to_positions(relevances[-1])
            layer_activation = probe.to_positions(recorded[-1].detach())
        explained = (logits.detach() * slopes).sum(1)
        whole = explained.abs().clamp_min(torch.finfo(explained.dtype).tiny)
        delta = (relevances[0].flatten(1).sum(1) - explained) / whole
        return Explanation(
            logits=logits.detach(),
            relevance=relevances[0].sum(1) if pixels else None,
            layer_relevance=layer_relevance,
            layer_activation=layer_activation,
            convergence_delta=delta,
            absorbed=self._absorbed(gradients[len(at) :], whole, delta),
        )

    def _absorbed(self, gradients: Sequence[Tensor | None], whole: Tensor, delta: Tensor) -> dict[str, Tensor]:
        shares = {kind: torch.zeros_like(whole) for kind in ("biases", *_EMBEDDINGS)}
        if self._mode is not None:
            for (kind, leaf), gradient in zip(self._mode.ledger.embeddings, gradients, strict=True):
                if gradient is not None:
                    shares[kind] += (leaf.detach() * gradient).flatten(1).sum(1) / whole
            if self._mode.ledger.absorbed_by_biases is not None:
                shares["biases"] = self._mode.ledger.absorbed_by_biases / whole
        return {**shares, "rules": -delta - sum(shares.values())}

    def _fitting(self, x: Tensor, classes: Tensor, probe: ProbeLayer | None, objective: str, pixels: bool) -> int:
        """How many images of this size fit into half of the free memory, by what one image keeps for its backward."""
        if len(x) < 2:
            return max(1, len(x))
        key = (x.shape[1:], probe and probe.name, pixels)
        if key not in self._measured:
            kept: dict[int, int] = {}
            assert self._copy is not None
            weights = {parameter.untyped_storage().data_ptr() for parameter in self._copy.parameters()}

            def weigh(tensor: Tensor) -> Tensor:
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in weights:
                    kept[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
                self._explain(x[:1], classes[:1], probe, objective, pixels)
            self._measured[key] = max(1, sum(kept.values()))
        free = torch.cuda.mem_get_info(x.device)[0] if x.is_cuda else psutil.virtual_memory().available
        return max(1, int(free / 2 // self._measured[key]))

    def _probe(self, layer: ProbeLayer | str | int) -> ProbeLayer:
        probe = find_layer(self.model, layer)
        assert self._copy is not None
        return ProbeLayer(probe.name, self._copy.get_submodule(probe.name), probe.channels_last)


def _join(parts: list[Explanation]) -> Explanation:
    def join(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], dict):
            return {key: torch.cat([value[key] for value in values]) for key in values[0]}
        return None if values[0] is None else torch.cat(values)

    return Explanation(**{name: join(name) for name in Explanation.__dataclass_fields__})


def _check_pixels(x: Tensor, model: nn.Module) -> None:
    """Raises ModelError unless x is what the first convolution takes, and finite."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = x.shape[1] if first is None else first.in_channels
    if x.ndim != 4 or x.shape[1] != channels:
        raise ModelError(
            f"The pixel values have the shape {tuple(x.shape)}, but the model takes (batch, {channels}, height, "
            "width); preprocess the images with the model's own processor."
        )
    if not x.isfinite().all():
        broken = (~x.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        raise ModelError(
            f"The pixel values of image {broken[0]} of the batch are not finite; look for a division by zero in its "
            "preprocessing."
        )


def _slopes(logits: Tensor, targets: Tensor, objective: str) -> Tensor:
    """The derivative of each sample's explained output with respect to its logits, (B, K)."""
    classes = logits.shape[1]
    targets = targets.unsqueeze(1)
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise ModelError(f"A target is not among the model's {classes} classes; give numbers from 0 to {classes - 1}.")
    slopes = torch.zeros_like(logits).scatter(1, targets, 1.0)
    if objective == "logit":
        return slopes
    if objective != "margin":
        raise ModelError(f"There is no objective {objective!r}; use 'logit' or 'margin'.")
    if classes < 2:
        raise ModelError("A model with one logit has no margin; use objective='logit'.")
    return slopes.scatter(1, logits.scatter(1, targets, -torch.inf).argmax(1, keepdim=True), -1.0)


@contextmanager
def _isolated(device: torch.device) -> Iterator[None]:
    """Gradients on, and single precision throughout, whatever the caller has set.

    In half precision the rules run into 0/0, and with TensorFloat-32 a quotient of two convolutions is off by 1e-3.
    """
    backends = [torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None)]
    switches: list[Any] = [b for b in backends if device.type == "cuda" and hasattr(b, "fp32_precision")]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
