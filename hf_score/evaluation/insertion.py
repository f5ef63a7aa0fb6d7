"""What a region does to images of other classes: the change of margin and decision when it is inserted."""

from __future__ import annotations

from typing import Any

import torch

from ..data.exchange import OtherClassPartners
from ..detection import SpuriousSamples
from ..margins import margin

__all__ = ["insertion_effects"]


def insertion_effects(
    model: Any, samples: SpuriousSamples, partners: OtherClassPartners, *, device: torch.device | str
) -> dict[str, float | None]:
    """Insert each sample's region into an image of another class.

    Args:
        model: image classifier in eval mode.
        samples: images whose masks are the region.
        partners: where the images of other classes come from; draw n is sample n's.
        device: where to compute.

    Returns:
        `insertion_effect`: mean change of the margin of the sample's class, in logits; `insertion_flips`: share of
        the rightly classified images that change class, None where none was right.
    """
    pairs = samples.exchanged_with(*partners.draw(samples.labels.tolist(), range(len(samples))))
    with torch.no_grad():
        after, before = (
            model(pixel_values=x.to(device)).logits.float().cpu().chunk(2)[1]
            for x in (pairs.with_region, pairs.without_region)
        )
    classes = pairs.shortcut_labels.chunk(2)[1]
    right = before.argmax(1) == pairs.labels.chunk(2)[1]
    flips = (after.argmax(1) != before.argmax(1))[right].float()
    return {
        "insertion_effect": float((margin(after, classes) - margin(before, classes)).mean()),
        "insertion_flips": float(flips.mean()) if len(flips) else None,
    }
