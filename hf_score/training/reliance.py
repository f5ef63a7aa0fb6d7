"""What exchanging regions does to a model: the scale of the margin penalty, and the label-free estimate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.exchange import OtherClassPartners
from ..detection.samples import SpuriousSamples
from ..margins import margin_difference
from ..models import eval_mode
from .score_config import SCOREConfig

__all__ = ["Reliance", "exchange_effect"]

_PARTNERS_PER_SAMPLE = 8


def exchange_effect(
    model: nn.Module,
    samples: SpuriousSamples,
    partners: OtherClassPartners,
    draw_indices: Sequence[int],
    *,
    args: SCOREConfig,
) -> tuple[Tensor, float]:
    """Mean margin difference over pairs of samples and partners, and the accuracy on the copies of the class that
    fares worst.

    In eval mode, without gradients.

    Args:
        model: the unwrapped model.
        samples: draw n takes sample n modulo their number.
        partners: the images to exchange regions with.
        draw_indices: of the pairs.
        args: the device and the batch size.
    """
    draws = torch.as_tensor(list(draw_indices))
    partners.keep(partners.positions(samples.labels[draws % len(samples)].tolist(), draws.tolist()))
    differences, correct, labels = [], [], []
    with eval_mode(model), torch.no_grad():
        for part in draws.split(max(1, args.per_device_eval_batch_size // 4)):
            chosen = samples[part % len(samples)].to(args.device)
            pairs = chosen.exchanged_with(*partners.draw(chosen.labels.tolist(), part.tolist()))
            with_region = model(pixel_values=pairs.with_region).logits
            without_region = model(pixel_values=pairs.without_region).logits
            differences.append(margin_difference(with_region, without_region, pairs.shortcut_labels))
            copies = pairs.counterfactuals(with_region, without_region)
            correct.append(copies.argmax(dim=1) == pairs.labels)
            labels.append(pairs.labels)
    right, classes = torch.cat(correct).float(), torch.cat(labels)
    worst = min(float(right[classes == label].mean()) for label in classes.unique())
    return torch.cat(differences).mean().float(), worst


class Reliance:
    """How much a model relies on the regions of samples that are never penalised, beside the starting model.

    Args:
        samples: the held-out samples.
        args: the device and the batch size.
    """

    def __init__(self, samples: SpuriousSamples, args: SCOREConfig) -> None:
        self._samples, self._args = samples, args
        self._start: Tensor | None = None

    def __call__(self, model: nn.Module, partners: OtherClassPartners) -> dict[str, float]:
        """Exchange the samples' regions with images of other classes; the first model measured is the starting one.

        Returns:
            `reliance`: the mean margin difference, 1 on the starting model, 0 where the region has no say any more;
            `counterfactual_accuracy`: accuracy on the copies with exchanged regions, of the class that fares worst.
        """
        draw_indices = range(_PARTNERS_PER_SAMPLE * len(self._samples))
        difference, accuracy = exchange_effect(model, self._samples, partners, draw_indices, args=self._args)
        if self._start is None:
            self._start = difference.clamp(min=1e-6)
        return {"reliance": float(difference / self._start), "counterfactual_accuracy": accuracy}

    def state(self) -> dict[str, Tensor]:
        """What a resumed run cannot compute again."""
        return {} if self._start is None else {"starting_reliance": self._start}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take back `state`; other tensors are of no account."""
        self._start = tensors.get("starting_reliance")
