"""Whether a heatmap tells the truth about its model: pixel flipping, randomised weights, and maps to compare with.

Sources: Samek et al., "Evaluating the visualization of what a deep neural network has learned" (2017, arXiv
1509.06321) for pixel flipping; Petsiuk et al., "RISE" (2018, arXiv 1806.07421) for insertion and deletion; Adebayo et
al., "Sanity checks for saliency maps" (2018, arXiv 1810.03292); Abnar and Zuidema, "Quantifying attention flow in
transformers" (2020, arXiv 2005.00928) for attention rollout.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torchvision.transforms.functional import gaussian_blur

from ..errors import ModelError
from .explainer import Explainer
from .families import split_wrapper
from .private_copy import private_copy, unwrap

__all__ = ["FlippingCurve", "attention_rollout", "pixel_flipping", "randomisation_check", "search_gamma"]


@dataclass(frozen=True)
class FlippingCurve:
    """What the explained class gets while an image is taken apart or put together.

    Attributes:
        share: (S,), the share of the image that has been flipped, from 0 to 1.
        probability: (B, S), the softmax probability of the explained class.
        logit: (B, S), its logit.
    """

    share: Tensor
    probability: Tensor
    logit: Tensor

    @property
    def area(self) -> Tensor:
        """Area under the probability, (B,). Deletion: lower is better; insertion: higher is better."""
        return torch.trapezoid(self.probability, self.share, dim=1)


@torch.no_grad()
def pixel_flipping(
    model: nn.Module,
    pixel_values: Tensor,
    targets: Tensor | Sequence[int] | int,
    *,
    relevance: Tensor,
    order: Literal["deletion", "insertion"] = "deletion",
    patch_size: int = 16,
    steps: int = 20,
    batch_size: int = 64,
) -> FlippingCurve:
    """Flip an image's patches, the most relevant first, and watch the explained class.

    Deletion starts from the image and replaces its patches by those of a blurred copy; insertion starts from the
    blurred copy and puts the image's patches in.

    Args:
        model: The classifier. Its mode is left as it is found, so call `model.eval()` first.
        pixel_values: (B, 3, H, W).
        targets: The explained class, one for each image or one for all.
        relevance: (B, H, W), the heatmaps to judge; summed over patches.
        order: `"deletion"` or `"insertion"`.
        patch_size: Pixels on a side of a patch.
        steps: How often to look, besides at the start.
        batch_size: Images in one forward pass.

    Raises:
        ModelError: The heatmaps are not of the images' size.
    """
    size = pixel_values.shape[-2:]
    if relevance.shape != (len(pixel_values), *size):
        raise ModelError(
            f"The heatmaps have the shape {tuple(relevance.shape)}, but the images need "
            f"{(len(pixel_values), *size)}; explain the same images at the pixels."
        )
    blurred = gaussian_blur(pixel_values, [2 * (patch_size // 2) + 1] * 2, [patch_size / 2.0] * 2)
    whole, bare = (pixel_values, blurred) if order == "deletion" else (blurred, pixel_values)
    by_patch = F.avg_pool2d(relevance[:, None].float(), patch_size, ceil_mode=True)
    rank = by_patch.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view_as(by_patch)
    patches = by_patch[0].numel()
    shares = torch.linspace(0, 1, steps + 1)
    classes = torch.as_tensor(targets, device=pixel_values.device).expand(len(pixel_values))
    logits = []
    for share in shares.tolist():
        flipped = F.interpolate((rank < round(share * patches)).float(), scale_factor=patch_size)
        flipped = flipped[..., : size[0], : size[1]].bool()
        images = torch.where(flipped, bare, whole)
        output = [model(part) for part in images.split(batch_size)]
        logits.append(torch.cat([getattr(o, "logits", o) for o in output]).float())
    stacked = torch.stack(logits, 1)  # (B, S, K)
    at = classes.view(-1, 1, 1).expand(-1, len(shares), 1)
    return FlippingCurve(
        share=shares,
        probability=stacked.softmax(2).gather(2, at)[..., 0].cpu(),
        logit=stacked.gather(2, at)[..., 0].cpu(),
    )


def randomisation_check(
    model: nn.Module,
    pixel_values: Tensor,
    targets: Tensor | Sequence[int] | int,
    *,
    steps: int = 4,
    seed: int = 0,
    **explainer: Any,
) -> list[float]:
    """How alike heatmaps stay while the model forgets, from the head down, all that it has learned.

    A map that shows the model, rather than the image, must lose its likeness.

    Args:
        model: A model that `Explainer` takes. It is left alone.
        pixel_values: (B, 3, H, W).
        targets: The explained class, one for each image or one for all.
        steps: In how many parts of equal numbers of layers to shuffle the weights.
        seed: Seed of the shuffling.
        **explainer: Options of `Explainer`.

    Returns:
        Spearman's rank correlation with the map of the intact model, averaged over images: `steps + 1` numbers, of
        which the first is 1.
    """
    generator = torch.Generator().manual_seed(seed)
    randomised = copy.deepcopy(unwrap(model))
    layers = [m for m in randomised.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)][::-1]
    found = []
    for step in range(steps + 1):
        if step:
            first, last = (round(len(layers) * k / steps) for k in (step - 1, step))
            for layer in layers[first:last]:
                for parameter in layer.parameters(recurse=False):
                    flat = parameter.data.flatten()
                    order = torch.randperm(len(flat), generator=generator).to(flat.device)
                    parameter.data.copy_(flat[order].view_as(parameter))
        with Explainer(randomised, **explainer) as explain:
            relevance = explain.explain(pixel_values, targets).relevance
        assert relevance is not None
        ranks = relevance.flatten(1).argsort(1).argsort(1).float()
        found.append(ranks - ranks.mean(1, keepdim=True))
    return [float(F.cosine_similarity(found[0], other, dim=1).mean()) for other in found]


@torch.no_grad()
def attention_rollout(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """Attention rollout: where the class token's attention comes from, whatever the class. A map to compare with.

    Args:
        model: A ViT whose every block attends over all tokens.
        pixel_values: (B, 3, H, W).

    Returns:
        (B, H, W), the attention of the class token (or the mean over tokens, without one) through all blocks.

    Raises:
        ModelError: The model has no attention, or not over one and the same set of tokens.
    """
    seen = _Attention()
    core = split_wrapper(private_copy(unwrap(model)))[1]
    with seen:
        core(pixel_values)
    tokens = {a.shape[-1] for a in seen.probabilities}
    if len(tokens) != 1:
        raise ModelError(
            "Attention rollout needs a model whose blocks all attend over the same tokens; use another map."
        )
    rolled = torch.eye(tokens.pop(), device=pixel_values.device).expand(len(pixel_values), -1, -1)
    for probabilities in seen.probabilities:
        mixed = (probabilities.mean(1) + torch.eye(rolled.shape[-1], device=rolled.device)) / 2
        rolled = mixed @ rolled
    height, width = pixel_values.shape[-2:]
    side = int(rolled.shape[-1] ** 0.5)
    prefix = rolled.shape[-1] - side * side
    row = rolled[:, 0] if prefix else rolled.mean(1)
    return F.interpolate(row[:, prefix:].view(-1, 1, side, side), size=(height, width), mode="nearest")[:, 0]


class _Attention(TorchFunctionMode):
    """Record every attention map, fused or not."""

    def __init__(self) -> None:
        super().__init__()
        self.probabilities: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            query, key = args[:2]
            self.probabilities.append((query @ key.mT * query.shape[-1] ** -0.5).softmax(-1))
        elif getattr(func, "__name__", "") == "softmax" and result.ndim == 4:
            self.probabilities.append(result)
        return result


def search_gamma(
    model: nn.Module,
    pixel_values: Tensor,
    targets: Tensor | Sequence[int] | int,
    *,
    method: str | None = None,
    linear: Iterable[float] = (0.0, 0.05, 0.25),
    convolution: Iterable[float] = (0.0, 0.25, 1.0),
    **flipping: Any,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Find γ for each kind of layer by faithfulness: insertion area minus deletion area, on these images.

    Choose on other images than those that you report on.

    Args:
        model: A model that `Explainer` takes.
        pixel_values: (B, 3, H, W).
        targets: The explained class, one for each image or one for all.
        method: `"attnlrp_gamma"` or `"epsilon_gamma_flat"`; by default the one that the model's family has.
        linear: Values of γ of linear layers to try.
        convolution: Values of γ of convolutions to try, each with each.
        **flipping: Options of `pixel_flipping`.

    Returns:
        The best γ, as `Explainer(gamma=...)` takes it, and every row: γs, `insertion`, `deletion` and `score`.
    """
    probe = Explainer(model)
    method = method or next(m for m in probe.family.methods if m in ("attnlrp_gamma", "epsilon_gamma_flat"))
    judged = private_copy(unwrap(model))
    rows = []
    convolution = list(convolution)
    for linear_gamma in linear:
        for convolution_gamma in convolution:
            gamma = {"linear": linear_gamma, "convolution": convolution_gamma}
            with Explainer(model, method=method, gamma=gamma) as explainer:
                relevance = explainer.explain(pixel_values, targets).relevance
            assert relevance is not None
            area = {
                order: float(
                    pixel_flipping(
                        judged, pixel_values, targets, relevance=relevance, order=order, **flipping
                    ).area.mean()  # type: ignore[arg-type]
                )
                for order in ("insertion", "deletion")
            }
            rows.append({**gamma, **area, "score": area["insertion"] - area["deletion"]})
    best = max(rows, key=lambda row: row["score"])
    return {name: best[name] for name in ("linear", "convolution")}, rows
