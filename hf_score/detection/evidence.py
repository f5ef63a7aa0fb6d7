"""Evidence, without group labels, that a masked region is a spurious attribute.

Two scores per candidate; `hf_score.detection.ranking` makes one order of them. What else was tried, and where these
two fail, is in docs/evidence/proposals.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.exchange import OtherClassPartners
from ..data.reading import fetch, pixels_of
from ..margins import margin
from ..models import eval_mode
from .candidates import Candidates

__all__ = ["find_evidence", "hue_contrast", "transfer"]


def find_evidence(
    candidates: Candidates,
    model: nn.Module,
    dataset: Any,
    partners: OtherClassPartners,
    *,
    processor: Any = None,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """The scores that `suspicion` ranks candidates by, name to (n,); arguments as for `transfer`."""
    return {
        "transfer": transfer(candidates, model, dataset, partners, processor=processor, batch_size=batch_size),
        "hue_contrast": hue_contrast(candidates, dataset, processor=processor, batch_size=batch_size),
    }


def transfer(
    candidates: Candidates,
    model: nn.Module,
    dataset: Any,
    partners: OtherClassPartners,
    *,
    processor: Any = None,
    num_partners: int = 6,
    batch_size: int = 32,
) -> np.ndarray:
    """What the region inside the mask does to images of other classes: evidence that works anywhere is a shortcut.

    Args:
        candidates: n of them.
        model: the classifier they were found with, left as it was.
        dataset: the label-free training view they were found in.
        partners: images to insert the region into, best held out: an image the model knows by heart resists.
        processor: image processor, where items carry images.
        num_partners: per candidate.
        batch_size: images per forward pass (at least `num_partners`); the draw of partners does not depend on it.

    Returns:
        (n,), in logits: mean change of the margin of the candidate's class. Higher is more suspicious.
    """
    device = next(model.parameters()).device
    changes = []
    with eval_mode(model), torch.no_grad():
        for rows, images, masks in _batches(candidates, dataset, processor, max(1, batch_size // num_partners)):
            repeated = np.repeat(candidates.labels[rows], num_partners)
            draw_indices = [int(row) * num_partners + n for row in rows for n in range(num_partners)]
            clean = partners.draw(repeated.tolist(), draw_indices)[0].to(device)
            region, image = (x.to(device).repeat_interleave(num_partners, dim=0) for x in (masks[:, None], images))
            inserted = torch.where(region, image, clean)
            after, before = (model(pixel_values=x).logits.float().cpu() for x in (inserted, clean))
            labels = torch.from_numpy(repeated)
            change = margin(after, labels) - margin(before, labels)
            changes.append(change.view(-1, num_partners).mean(dim=1))
    return torch.cat(changes).numpy()


def hue_contrast(candidates: Candidates, dataset: Any, *, processor: Any = None, batch_size: int = 32) -> np.ndarray:
    """How far the mean colour inside the mask is from that of the rest of the image, brightness aside.

    Patches, markers and stamps are often of a colour that nothing else in the image has. Says nothing about a spurious
    attribute without a colour of its own.

    Args:
        candidates: n of them.
        dataset: the label-free training view they were found in.
        processor: image processor, where items carry images.
        batch_size: images in memory at once.

    Returns:
        (n,), ≥ 0, in the processor's units: distance between the two mean colours, each less its mean over the
        channels; 0 where the mask keeps nothing or everything. Higher is more suspicious.
    """
    distances = []
    for _, images, masks in _batches(candidates, dataset, processor, batch_size):
        inside, outside = (_mean_colour(images, region) for region in (masks, ~masks))
        contrast = (inside - outside) - (inside - outside).mean(dim=1, keepdim=True)
        distances.append(torch.where(masks.flatten(1).any(1) & ~masks.flatten(1).all(1), contrast.norm(dim=1), 0.0))
    return torch.cat(distances).numpy()


def _batches(
    candidates: Candidates, dataset: Any, processor: Any, batch_size: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Rows (b,), processed images (b, 3, H, W) and masks (b, H, W) of the candidates, in order."""
    for start in range(0, len(candidates), batch_size):
        rows = np.arange(start, min(start + batch_size, len(candidates)))
        images = pixels_of(fetch(dataset, candidates.position[rows].tolist()), processor)
        yield rows, images, torch.from_numpy(candidates.masks[rows]).to(images.device)


def _mean_colour(images: Tensor, regions: Tensor) -> Tensor:
    """(b, 3)."""
    area = regions.flatten(1).sum(dim=1).clamp(min=1)
    return (images * regions[:, None]).sum(dim=(2, 3)) / area[:, None]
