"""SAE muting: take the shortcut's units of a sparse autoencoder out of the representation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data.exchange import OtherClassPartners
from ..errors import HFScoreError
from ..models import classifier_head, eval_mode
from .base import BaselineConfig
from .last_layer import LastLayerTrainer

__all__ = ["SAEMutingConfig", "SAEMutingTrainer", "SparseAutoencoder", "without_directions"]


@dataclass
class SAEMutingConfig(BaselineConfig):
    """Configuration of [`SAEMutingTrainer`].

    Parameters:
        sae_width: units of the autoencoder, as a multiple of the representation's (theirs: 8,000 in all).
        sae_l1: weight of the units' mean activation (theirs: 0.7, in another scale).
        sae_share: share of the units that is muted, those that go with the shortcut most (theirs: 0.01).
        sae_steps: steps of Adam over all training images (ours).
    """

    sae_width: float = field(default=4.0, metadata={"help": "Units, as a multiple of the representation's."})
    sae_l1: float = field(default=0.1, metadata={"help": "Weight of the units' activation."})
    sae_share: float = field(default=0.01, metadata={"help": "Share of the units that is muted."})
    sae_steps: int = field(default=300, metadata={"help": "Steps of the autoencoder's training."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.sae_width, self.sae_steps) <= 0 or self.sae_l1 < 0 or not 0 < self.sae_share <= 1:
            raise HFScoreError(
                "sae_width and sae_steps must be above 0, sae_l1 at least 0, sae_share above 0 and at most 1: "
                "correct them."
            )


class SAEMutingTrainer(LastLayerTrainer):
    """A sparse autoencoder on the penultimate representation of the training images; the units whose activation
    correlates most with the shortcut's presence are muted (Ahsan et al., 2026, "Weakly Supervised Shortcut Learning
    Mitigation Using Sparse Autoencoders"). Nothing else is trained.

    Supervision: decisions. Presence is that of the region of the decided-on samples, in them and in images of other
    classes before and after they exchanged it; theirs is 25 to 50 labelled images of every group. Ours, so that the
    result is a stock model: a muted unit's direction in the representation is projected out of the head, whether the
    unit is active or not; at most a quarter of the directions.
    """

    name = "sae_muting"
    title = "SAE muting, from decisions"
    paper = "Ahsan et al., 2026"
    supervision_kinds = ("samples",)
    config_class = SAEMutingConfig
    args: SAEMutingConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "sae_width": [4.0, 8.0],
        "sae_l1": [0.03, 0.1],
        "sae_share": [0.01, 0.03],
    }
    wanted_gates: ClassVar[dict[str, str]] = {
        **LastLayerTrainer.wanted_gates,
        "muted_correlation": ">= 0.2",
        "active_share": "<= 0.9",
    }

    def new_head(self) -> tuple[Tensor, Tensor]:
        model: Any = self.model
        _, raw = self.predict_features(model, self.train_dataset)
        mean, deviation = raw.mean(dim=0), raw.std(dim=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed)
            coder = SparseAutoencoder(raw.shape[1], max(1, round(self.args.sae_width * raw.shape[1])))
        coder.fit((raw - mean) / deviation, l1=self.args.sae_l1, steps=self.args.sae_steps)
        features, present = self.examples(model)
        with torch.no_grad():
            units = coder.encode((features - mean) / deviation)
        correlation = correlations(units, present)
        count = min(max(1, round(self.args.sae_share * len(correlation))), max(1, raw.shape[1] // 4))
        muted = correlation.argsort(descending=True)[:count]
        self._correlation = float(correlation[muted].mean())
        self._active = float((units > 0).float().mean())
        directions = coder.decoder.weight.detach()[:, muted].T
        return without_directions(classifier_head(model), directions, mean=mean, deviation=deviation)

    def examples(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Representations (4t, D) of the samples and their partners with and without the region, and whether it is
        there (4t,)."""
        samples = self.supervision.samples
        labels = self.train_labels().tolist()
        partners = OtherClassPartners(self.train_dataset, labels, self.data_collator, seed=self.args.seed)
        pairs = samples.to("cpu").exchanged_with(*partners.draw(samples.labels.tolist(), range(len(samples))))
        images, found = torch.cat([pairs.with_region, pairs.without_region]), []
        with eval_mode(model), torch.no_grad():
            for part in images.split(self.args.per_device_eval_batch_size):
                found.append(self.forward_with_features(model, part.to(self.args.device))[1].float().cpu())
        return torch.cat(found), torch.arange(len(images)) < len(pairs.labels)

    def gates(self) -> dict[str, float]:
        """The head's change, the mean correlation of the muted units, and the share of units active in an image."""
        return {
            **super().gates(),
            "muted_correlation": self._correlation,
            "active_share": self._active,
        }


class SparseAutoencoder(nn.Module):
    """relu(W (z − b) + c) and back: W' · units + b, with columns of W' of length 1.

    Args:
        size: D, of the representation.
        units: how many.
    """

    def __init__(self, size: int, units: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(size, units), nn.Linear(units, size)
        with torch.no_grad():
            self.decoder.weight.copy_(nn.functional.normalize(self.encoder.weight.T, dim=0))

    def encode(self, features: Tensor) -> Tensor:
        """(N, units) of representations (N, D)."""
        return self.encoder(features - self.decoder.bias).relu()

    def fit(self, features: Tensor, *, l1: float, steps: int) -> None:
        """Minimise mean (z − ẑ)² + l1 · mean of the units summed over D, over all representations at each step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-3)
        for _ in range(steps):
            units = self.encode(features)
            loss = (self.decoder(units) - features).square().mean() + l1 * units.sum(dim=1).mean() / features.shape[1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                self.decoder.weight.copy_(nn.functional.normalize(self.decoder.weight, dim=0))


def correlations(units: Tensor, present: Tensor) -> Tensor:
    """(units,): Pearson's correlation of each unit (N, units) with `present` (N,) bool; 0 for one that is constant."""
    centred = units.double() - units.double().mean(dim=0)
    target = present.double() - present.double().mean()
    norm = centred.norm(dim=0) * target.norm()
    return torch.where(norm > 0, (target @ centred) / norm.clamp(min=1e-12), 0.0)


def without_directions(
    head: nn.Linear, directions: Tensor, *, mean: Tensor, deviation: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the head on representations from whose standardised form the directions (n, D) are taken."""
    basis = torch.linalg.qr(directions.double().T).Q
    kept = torch.eye(len(mean), dtype=torch.double) - basis @ basis.T
    old, mean, deviation = head.weight.detach().double().cpu(), mean.double(), deviation.double()
    weight = (old * deviation) @ kept / deviation
    return weight, head.bias.detach().double().cpu() + (old - weight) @ mean
