"""RR-ClArC: no gradient in latent space along the direction of the artefact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attribution import find_layer
from ..attribution.families import find_family, split_wrapper
from ..attribution.layers import ProbeLayer, recording
from ..attribution.private_copy import unwrap
from ..data.exchange import OtherClassPartners
from ..errors import DataError, HFScoreError
from ..models import eval_mode
from .base import BaselineConfig, BaselineTrainer

__all__ = ["RRClArCConfig", "RRClArCSamplesTrainer", "RRClArCTrainer", "pattern_cav"]


@dataclass
class RRClArCConfig(BaselineConfig):
    """Configuration of [`RRClArCTrainer`].

    Parameters:
        rr_clarc_lambda: λ; the penalty is 1 on the starting model.
        rr_clarc_layer: layer whose activations hold the direction, as in `hf_score.attribution.find_layer`; None for
            the one two thirds up.
    """

    rr_clarc_lambda: float = field(default=10.0, metadata={"help": "Weight of the penalty, 1 on the starting model."})
    rr_clarc_layer: str | None = field(
        default=None, metadata={"help": "Layer: last, stage3, block4, -2, dotted name; none for two thirds up."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rr_clarc_lambda < 0:
            raise HFScoreError(f"rr_clarc_lambda is {self.rr_clarc_lambda}: give a number of at least 0.")


class RRClArCTrainer(BaselineTrainer):
    """Cross-entropy + λ (∂f/∂a · h)², h the direction of the artefact at a layer with activations a and f the logits
    summed with random signs (Dreyer et al., 2024, equations 4 to 6). What comes before the layer is not trained, as in
    the authors' code: features that move would leave the direction behind. Ours is which layer: two thirds up, not the
    last one, after which a transformer has a norm and a head to train and the class token alone sees the gradient.

    Supervision: groups of the training set (which images have the artefact). h is their signal-pattern CAV of the
    activations' maxima over positions. Scaled to 1 on the starting model (ours).
    """

    name = "rr_clarc"
    title = "RR-ClArC"
    paper = "Dreyer et al., 2024, arXiv 2308.09437"
    supervision_kinds = ("train_groups",)
    initial_model = "erm"
    config_class = RRClArCConfig
    args: RRClArCConfig  # type: ignore[assignment]
    version = 2
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.3, 1.0], "rr_clarc_lambda": [1.0, 10.0, 100.0, 1000.0]}
    wanted_gates: ClassVar[dict[str, str]] = {
        "trained_share": ">= 0.05",
        "positions_with_gradient": ">= 0.5",
        "penalty_left": "<= 0.8",
    }

    def train(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        model.to(self.args.device)
        activations, artefact, classes = self.examples(model)
        if artefact.all() or not artefact.any():
            raise DataError(f"{self.title} needs training images with the artefact and some without: it has one kind.")
        self.direction = pattern_cav(activations, artefact, classes).to(self.args.device)
        self._scale: Tensor | None = None
        frozen = self._before_the_layer(model)
        count = sum(parameter.numel() for parameter in model.parameters())
        self._trained = 1 - sum(parameter.numel() for parameter in frozen) / count
        self._positions: Tensor | None = None
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            return super().train(*args, **kwargs)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    @property
    def layer(self) -> ProbeLayer:
        """The layer whose activations hold the direction."""
        model: Any = self.model
        if self.args.rr_clarc_layer is not None:
            return find_layer(model, self.args.rr_clarc_layer)
        _, core = split_wrapper(unwrap(model))
        count = len(find_family(unwrap(model)).layers(core))
        return find_layer(model, -(-2 * count // 3) - 1)

    def gates(self) -> dict[str, float]:
        """Share of all weights after the layer, of its positions that the logits depend on, and the penalty's fall."""
        assert self._positions is not None
        return {
            "trained_share": self._trained,
            "positions_with_gradient": float(self._positions),
            "penalty_left": self.penalty_left,
        }

    def examples(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Activations (N, C), whether the artefact is there (N,) and classes (N,): here of all training images, with
        the artefact in those of an odd group, group = class · 2 + attribute."""
        images = (batch["pixel_values"] for batch in self.batches(self.train_dataset))
        return self._maxima(model, images), self.train_groups() % 2 == 1, self.train_labels()

    def _maxima(self, model: nn.Module, images: Iterable[Tensor]) -> Tensor:
        """(N, C): the layer's activations, largest over positions."""
        probe, maxima = self.layer, []
        with eval_mode(model), torch.no_grad():
            for part in images:
                with probe.capture() as captured:
                    model(pixel_values=part)
                maxima.append(captured.activation.float().amax(dim=1).cpu())
        return torch.cat(maxima)

    def _before_the_layer(self, model: nn.Module) -> list[nn.Parameter]:
        """The trainable parameters that the logits do not depend on once the layer's output is given."""
        probe = self.layer
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        data: Any = self.train_dataset
        (batch,) = self.batches([data[0]])
        with eval_mode(model), torch.enable_grad(), recording(probe, [], cut=True):
            logits = model(pixel_values=batch["pixel_values"]).logits
            gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
        return [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is None]

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        loss, outputs = super().batch_loss(model, inputs, idx)
        core = self.accelerator.unwrap_model(self.model)
        with torch.autocast(loss.device.type, enabled=False):
            penalty = self.latent_gradient(core, inputs["pixel_values"][:16].float()).square().mean()
        if self._scale is None:
            self._scale = penalty.detach().clamp(min=1e-12)
        self.note_penalty(penalty / self._scale)
        return loss + self.args.rr_clarc_lambda * penalty / self._scale, outputs

    def extra_state(self) -> dict[str, Tensor]:
        """The starting model's penalty, which a resumed run cannot measure any more."""
        return {} if self._scale is None else {"scale": self._scale}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        self._scale = tensors.get("scale")

    def latent_gradient(self, model: nn.Module, pixel_values: Tensor) -> Tensor:
        """(B,): ∂f/∂a · h, summed over positions, with a graph."""
        probe = find_layer(model, self.layer)
        pixel_values = pixel_values.detach().requires_grad_()  # all before the layer may be frozen
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), probe.capture() as captured:
            logits = model(pixel_values=pixel_values).logits.float()
            signs = torch.randint(2, (logits.shape[1],), device="cpu").to(logits) * 2 - 1
            if signs.unique().numel() == 1:  # all the same: their sum is moved by nothing but the bias
                signs[0] = -signs[0]
            assert captured.output is not None
            (gradient,) = torch.autograd.grad((logits * signs).sum(), captured.output, create_graph=True)
        by_position = probe.to_positions(gradient)
        self._positions = (by_position.detach().abs().amax(dim=2) > 0).float().mean()
        return by_position.sum(dim=1) @ self.direction


class RRClArCSamplesTrainer(RRClArCTrainer):
    """[`RRClArCTrainer`] at SCORE's supervision: the artefact is what the regions of the decided-on samples hold. Its
    direction is learned from samples and images of other classes before and after they exchanged the region. Ours.

    Supervision: decisions.
    """

    name = "rr_clarc_samples"
    title = "RR-ClArC, from decisions"
    supervision_kinds = ("samples",)

    def examples(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Both images of every pair; the class is that of what is outside the region."""
        samples = self.supervision.samples
        labels = self.train_labels().tolist()
        partners = OtherClassPartners(self.train_dataset, labels, self.data_collator, seed=self.args.seed)
        drawn = partners.draw(samples.labels.tolist(), range(len(samples)))
        pairs = samples.to("cpu").exchanged_with(*drawn)
        parts = torch.cat([pairs.with_region, pairs.without_region]).split(self.args.per_device_eval_batch_size)
        artefact = torch.arange(2 * len(pairs.labels)) < len(pairs.labels)
        return self._maxima(model, (part.to(self.args.device) for part in parts)), artefact, pairs.labels.repeat(2)


def pattern_cav(activations: Tensor, artefact: Tensor, classes: Tensor) -> Tensor:
    """(C,): cov(a, t) / var(t) with unit length, t whether the artefact is there (Pahde et al., 2022).

    Within the classes that have images of both kinds, as in the code of Dreyer et al.: over all images a shortcut's
    direction would be that of the class. Over all images where no class has both.

    Args:
        activations: (N, C).
        artefact: (N,) bool.
        classes: (N,).
    """
    target = artefact.to(activations.dtype)
    both = [c for c in classes.unique() if len(target[classes == c].unique()) == 2]
    parts = [classes == c for c in both] or [torch.ones_like(classes, dtype=torch.bool)]
    covariances = [
        (target[part] - target[part].mean()) @ (activations[part] - activations[part].mean(dim=0)) for part in parts
    ]
    return nn.functional.normalize(torch.stack(covariances).sum(dim=0), dim=0)
