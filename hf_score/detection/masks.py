"""From a relevance heatmap to the mask that keeps only the most relevant region, as pure tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

__all__ = ["relevance_mask"]


def relevance_mask(heatmaps: Tensor, *, share: float = 0.95, max_area: float = 0.2, blur: float = 0.05) -> Tensor:
    """Keep the smallest region that holds a given share of the positive relevance, bounded by area.

    The positive relevance is blurred, pixels are taken in falling order until they hold `share` of it, and no
    more than `max_area` of the pixels are kept. That masks exist is the paper's (SCORE, arXiv 2605.13340, figure 1 A);
    how they are made is ours. The masks are exchanged between images in training, and what one leaves over of an
    attribute is still a shortcut: so by default the area is the bound in practice, not the share.

    Args:
        heatmaps: (B, H, W), signed relevance.
        share: share of the blurred positive relevance to hold, in (0, 1].
        max_area: largest share of the pixels that may be kept, in (0, 1].
        blur: standard deviation of the Gaussian, in image widths.

    Returns:
        (B, H, W), bool. Without any positive relevance nothing is kept.
    """
    batch, height, width = heatmaps.shape
    positive = heatmaps.clamp(min=0).float()
    sigma = blur * width
    if sigma > 0:
        size = 2 * max(1, round(3 * sigma)) + 1
        size = min(size, 2 * ((min(height, width) - 1) // 2) + 1)  # reflection cannot reach beyond the image
        positive = gaussian_blur(positive[:, None], [size, size], [sigma, sigma])[:, 0]
    flat = positive.flatten(1)
    values, order = flat.sort(dim=1, descending=True, stable=True)
    total = flat.sum(dim=1, keepdim=True)
    held_before = values.cumsum(dim=1) - values
    keep = (held_before < share * total) & (values > 0)
    keep[:, max(1, int(max_area * height * width)) :] = False
    return torch.zeros_like(keep).scatter(1, order, keep).reshape(batch, height, width)
