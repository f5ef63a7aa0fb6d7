"""RR-ClArC: no gradient in latent space along the direction of the artefact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attribution import find_layer
from ..base_trainer import eval_mode
from ..errors import DataError, HFScoreError
from .base import BaselineConfig, BaselineTrainer

__all__ = ["RRClArCConfig", "RRClArCSamplesTrainer", "RRClArCTrainer", "pattern_cav"]


@dataclass
class RRClArCConfig(BaselineConfig):
    """Configuration of [`RRClArCTrainer`].

    Parameters:
        rr_clarc_lambda: λ; the penalty is 1 on the starting model.
        rr_clarc_layer: layer whose activations hold the direction, as in `hf_score.attribution.find_layer`.
    """

    rr_clarc_lambda: float = field(default=10.0, metadata={"help": "Weight of the penalty, 1 on the starting model."})
    rr_clarc_layer: str = field(default="last", metadata={"help": "Layer: last, stage3, block4, -2, dotted name."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rr_clarc_lambda < 0:
            raise HFScoreError(f"rr_clarc_lambda is {self.rr_clarc_lambda}: give a number of at least 0.")


class RRClArCTrainer(BaselineTrainer):
    """Cross-entropy + λ (∂f/∂a · h)², h the direction of the artefact at a layer with activations a and f the logits
    summed with random signs (Dreyer et al., 2024, equations 4 to 6).

    Supervision: groups of the training set (which images have the artefact). h is their signal-pattern CAV of the
    activations' means over positions. Scaled to 1 on the starting model (ours).
    """

    name = "rr_clarc"
    title = "RR-ClArC"
    paper = "Dreyer et al., 2024, arXiv 2308.09437"
    supervision_kinds = ("train_groups",)
    starts_from = "erm"
    config_class = RRClArCConfig
    args: RRClArCConfig  # type: ignore[assignment]

    def artefact(self) -> Tensor:
        """(N,) bool: the training images with the artefact: those of an odd group, group = class · 2 + attribute."""
        return self.train_groups() % 2 == 1

    def train(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        model.to(self.args.device)
        artefact = self.artefact()
        if artefact.all() or not artefact.any():
            raise DataError(f"{self.title} needs training images with the artefact and some without: it has one kind.")
        self.direction = pattern_cav(self._means(model), artefact).to(self.args.device)
        self._scale: Tensor | None = None
        return super().train(*args, **kwargs)

    def _means(self, model: nn.Module) -> Tensor:
        """(N, C): the layer's activations, mean over positions, of every training image."""
        probe, means = find_layer(model, self.args.rr_clarc_layer), []
        with eval_mode(model), torch.no_grad():
            for batch in self.batches(self.train_dataset):
                with probe.capture() as captured:
                    model(pixel_values=batch["pixel_values"])
                means.append(captured.activation.float().mean(dim=1).cpu())
        return torch.cat(means)

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        loss, outputs = super().batch_loss(model, inputs, idx)
        core = self.accelerator.unwrap_model(self.model)
        with torch.autocast(loss.device.type, enabled=False):
            penalty = self.latent_gradient(core, inputs["pixel_values"][:16].float()).square().mean()
        if self._scale is None:
            self._scale = penalty.detach().clamp(min=1e-12)
        return loss + self.args.rr_clarc_lambda * penalty / self._scale, outputs

    def latent_gradient(self, model: nn.Module, pixel_values: Tensor) -> Tensor:
        """(B,): ∂f/∂a · h, summed over positions, with a graph."""
        probe = find_layer(model, self.args.rr_clarc_layer)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), probe.capture() as captured:
            logits = model(pixel_values=pixel_values).logits.float()
            signs = torch.randint(2, (logits.shape[1],), device="cpu").to(logits) * 2 - 1
            if signs.unique().numel() == 1:  # all the same: their sum is moved by nothing but the bias
                signs[0] = -signs[0]
            assert captured.output is not None
            (gradient,) = torch.autograd.grad((logits * signs).sum(), captured.output, create_graph=True)
        return probe.to_positions(gradient).sum(dim=1) @ self.direction


class RRClArCSamplesTrainer(RRClArCTrainer):
    """[`RRClArCTrainer`] at SCORE's supervision: the artefact is in the decided-on samples, and not in the training
    images
    of other classes than theirs. Ours. Supervision: decisions."""

    name = "rr_clarc_samples"
    title = "RR-ClArC, from decisions"
    supervision_kinds = ("samples",)

    def artefact(self) -> Tensor:
        """(N,) bool: the decided-on samples."""
        kept = set(self.supervision.samples.idx.tolist())
        return torch.as_tensor([int(idx) in kept for idx in self.train_idx()])


def pattern_cav(activations: Tensor, artefact: Tensor) -> Tensor:
    """(C,): cov(a, t) / var(t) with unit length, t whether the artefact is there (Pahde et al., 2022).

    Args:
        activations: (N, C).
        artefact: (N,) bool.
    """
    target = artefact.to(activations.dtype) - artefact.to(activations.dtype).mean()
    return nn.functional.normalize(target @ (activations - activations.mean(dim=0)), dim=0)
