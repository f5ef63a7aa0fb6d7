"""`Explainer`: one call that explains a class's logit at the pixels and at a layer, for CNNs and ViTs alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hf_score.attribution.attention import AttnLRP
from hf_score.attribution.copies import private_copy, unwrap
from hf_score.attribution.families import find_family
from hf_score.attribution.probe import ProbeLayer, find_layer, first_tensor
from hf_score.errors import HFScoreError, ModelError

__all__ = ["Explainer", "Explanation"]


_ATTNLRP: dict[str, dict[str, Any]] = {
    "attnlrp": {},
    "attnlrp_gamma": {"linear_gamma": 0.05, "convolution_gamma": 0.25},  # AttnLRP's choice for ViTs
    "cp_lrp": {"constant_attention": True},
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
            if the pixels were not asked for. What biases and stabilisers absorb makes it differ from 0.
    """

    logits: Tensor
    relevance: Tensor | None
    layer_relevance: Tensor | None
    layer_activation: Tensor | None
    convergence_delta: Tensor


class Explainer:
    """Explain an image classifier by layer-wise relevance propagation.

    A context manager. On entering it copies the model, and explains that private copy as it then is: the model itself
    is only read, so its `state_dict`, parameters, gradients, hooks and mode cannot change. CNNs are explained by
    zennit's composites, batch norms merged; ViTs by AttnLRP (see `hf_score.attribution.attention`).

    Args:
        model: A model of a family in `hf_score.attribution.FAMILIES`: timm or torchvision ResNet and VGG, a
            `torch.nn.Sequential`, timm or transformers ViT and DeiT; bare, in transformers' `TimmWrapper`, or in a
            wrapper for training.
        method (`str`, *optional*):
            CNNs: `"epsilon_plus_flat"` (default), `"epsilon_plus"`, `"epsilon_alpha2_beta1_flat"`,
            `"epsilon_alpha2_beta1"`, `"epsilon"`. ViTs: `"attnlrp"` (default), `"attnlrp_gamma"` (smoother, five
            times the cost), `"cp_lrp"`. Both: `"input_x_gradient"`.
        epsilon (`float`, *optional*, defaults to 1e-6):
            The stabiliser of the CNN rules. ViT rules divide by nothing and have none.

    Raises:
        UnsupportedArchitectureError: A module of the model has no rule; it is named, and nothing was run.
        ModelError: The family has no such method.
    """

    def __init__(self, model: nn.Module, *, method: str | None = None, epsilon: float = 1e-6) -> None:
        self.model = unwrap(model)
        self.family = find_family(self.model)
        self.method = method or self.family.methods[0]
        self.epsilon = epsilon
        if self.method not in self.family.methods:
            raise ModelError(
                f"A {self.family.name} model cannot be explained by {method!r}; use one of "
                f"{', '.join(self.family.methods)}."
            )
        self._copy: nn.Module | None = None
        self._merged: dict[str, str] = {}

    def __enter__(self) -> Explainer:
        with torch.inference_mode(False):
            self._copy = private_copy(self.model)
            if self._is_composite:
                from hf_score.attribution.canonizers import canonize, merge_batch_norms

                canonize(self._copy)
                self._merged = merge_batch_norms(self._copy)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._copy = None

    def explain(
        self,
        pixel_values: Tensor,
        targets: Tensor | Sequence[int] | int,
        *,
        layer: ProbeLayer | str | int | None = None,
        objective: Literal["logit", "margin"] = "logit",
        pixels: bool = True,
    ) -> Explanation:
        """Explain one batch in one forward and one backward pass.

        Args:
            pixel_values: (B, 3, H, W), preprocessed for the model.
            targets: The class to explain, one for each image or one for all.
            layer: Also explain this layer; anything that `find_layer` takes.
            objective: `"logit"` of the class, or `"margin"`: that logit minus the highest of the others.
            pixels: Whether to go down to the pixels. Without, the backward pass ends at the layer.

        Raises:
            ModelError: There is no such layer or class, or relevance at the layer would not mean what it should.
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
        recorded: list[Tensor] = []
        with _isolated(reference.device):
            # Clones, because tensors made under inference mode cannot be saved for the backward pass.
            x = x.clone().requires_grad_()
            classes = torch.as_tensor(targets, dtype=torch.long, device=x.device).clone()
            with self._rules():
                with _recording(probe, recorded):
                    output = self._copy(x)
                logits = getattr(output, "logits", output)
                slopes = _slopes(logits.detach(), classes, objective)
                start = logits.detach() * slopes if self._is_composite else slopes
                at = ([x] if pixels else []) + recorded[-1:]
                gradients = torch.autograd.grad(logits, at, start)
        relevances = [g if self._is_composite else g * h.detach() for g, h in zip(gradients, at, strict=True)]
        layer_relevance = layer_activation = None
        if probe is not None:
            layer_relevance = probe.to_positions(relevances[-1])
            layer_activation = probe.to_positions(recorded[-1].detach())
        explained = (logits.detach() * slopes).sum(1)
        total = relevances[0].flatten(1).sum(1)
        return Explanation(
            logits=logits.detach(),
            relevance=relevances[0].sum(1) if pixels else None,
            layer_relevance=layer_relevance,
            layer_activation=layer_activation,
            convergence_delta=(total - explained) / explained.abs().clamp_min(torch.finfo(total.dtype).tiny),
        )

    @property
    def _is_composite(self) -> bool:
        """Whether zennit's rules are at work, for which the modified gradient is the relevance itself."""
        return self.method not in ("input_x_gradient", *_ATTNLRP)

    def _rules(self) -> AbstractContextManager[Any]:
        if self.method == "input_x_gradient":
            return nullcontext()
        if not self._is_composite:
            return AttnLRP(**_ATTNLRP[self.method])
        from hf_score.attribution.composites import make_composite

        return make_composite(self.method, epsilon=self.epsilon).context(self._copy)

    def _probe(self, layer: ProbeLayer | str | int) -> ProbeLayer:
        name = find_layer(self.model, layer).name
        if name in self._merged:
            raise ModelError(
                f"The layer '{name}' cannot be explained, because its batch norm is merged into it; "
                f"probe '{self._merged[name]}' instead."
            )
        assert self._copy is not None
        return ProbeLayer(name, self._copy.get_submodule(name))


def _slopes(logits: Tensor, targets: Tensor, objective: str) -> Tensor:
    """The derivative of each sample's explained output with respect to its logits, (B, K)."""
    classes = logits.shape[1]
    targets = targets.expand(len(logits)).unsqueeze(1)
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


@contextmanager
def _recording(probe: ProbeLayer | None, recorded: list[Tensor]) -> Iterator[None]:
    """Append the layer's output to `recorded` and hand a clone on, which may be overwritten in place."""
    if probe is None:
        yield
        return

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        recorded.append(first_tensor(output))
        clone = recorded[-1].clone()
        return (clone, *output[1:]) if isinstance(output, tuple) else clone

    handle = probe.module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
