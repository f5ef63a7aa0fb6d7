"""A region of one image put into another, with an edge or without one, and a region taken out of an image.

Images are (n, 3, H, W), regions (n, H, W) bool. Each picture depends on its own images alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ERASING", "PASTING", "erase", "harmonic_fill", "paste"]

#: How `paste` and `erase` may work.
PASTING = ("cut", "feathered", "outlined", "seamless")
ERASING = (*PASTING, "filled")
#: Share of the image's side that a soft edge takes.
_FEATHER = 1 / 24
#: Of the largest difference from what is around it, what belongs to the thing that a region shows.
_OUTLINE = 0.5
_SWEEPS = 16


def paste(images: Tensor, masks: Tensor, onto: Tensor, *, how: str) -> Tensor:
    """(n, 3, H, W): `onto`, with what `images` show inside the masks.

    Args:
        images: (n, 3, H, W).
        masks: (n, H, W), bool.
        onto: (n, 3, H, W).
        how: `"cut"` along the mask; `"feathered"`, fading over a band around its edge; `"outlined"`, of the region
            only what stands out from its surroundings; `"seamless"`, the differences inside the region on top of a
            smooth continuation of `onto` (Poisson image editing, Pérez et al. 2003), which leaves no edge.
    """
    if how == "seamless":
        inside = masks[:, None]
        return torch.where(inside, images - harmonic_fill(images, masks) + harmonic_fill(onto, masks), onto)
    return torch.lerp(onto, images, _opacity(images, masks, how=how))


def erase(images: Tensor, masks: Tensor, instead: Tensor, *, how: str) -> Tensor:
    """(n, 3, H, W): the images, with what other images show inside the masks.

    Args:
        images: (n, 3, H, W).
        masks: (n, H, W), bool.
        instead: (n, 3, H, W).
        how: as in `paste`, where `"outlined"` replaces only what stands out in `images`; or `"filled"`, without the
            other images, smoothly from the region's edge.
    """
    if how == "filled":
        return harmonic_fill(images, masks)
    if how == "outlined":
        return torch.lerp(images, instead, _opacity(images, masks, how=how))
    return paste(instead, masks, images, how=how)


def harmonic_fill(images: Tensor, masks: Tensor) -> Tensor:
    """(n, 3, H, W): the images, inside the masks continued from their edge as smoothly as can be.

    The solution of Laplace's equation, nearly: from coarse to fine, with sweeps of Jacobi's method on every level.
    """
    known = (~masks)[:, None].to(images)
    return _fill(images * known, known)


def _fill(values: Tensor, known: Tensor) -> Tensor:
    """`values` are 0 where not `known`."""
    size = values.shape[-2:]
    if min(size) > 2:
        share = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
        coarse = F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False) / share.clamp(min=0.1)
        guess = F.interpolate(_fill(coarse, (share > 0).to(share)), size=size, mode="bilinear")
    else:
        guess = (values.sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)).expand_as(values)
    inside = known == 0
    values = torch.where(inside, guess, values)
    for _ in range(_SWEEPS):
        p = F.pad(values, (1, 1, 1, 1), mode="replicate")
        around = (p[..., :-2, 1:-1] + p[..., 2:, 1:-1] + p[..., 1:-1, :-2] + p[..., 1:-1, 2:]) / 4
        values = torch.where(inside, around, values)
    return values


def _opacity(images: Tensor, masks: Tensor, *, how: str) -> Tensor:
    """(n, 1, H, W) from 0 to 1: how much of what is inside the masks is seen."""
    inside = masks[:, None].to(images)
    if how == "cut":
        return inside
    if how == "feathered":
        return _blur(inside)
    stands_out = (images - harmonic_fill(images, masks)).abs().amax(1, keepdim=True)
    least = _OUTLINE * stands_out.amax((2, 3), keepdim=True)
    return inside * (stands_out / least.clamp(min=0.01)).clamp(max=1)  # less is rounding


def _blur(images: Tensor) -> Tensor:
    """Three box blurs in a row, which are nearly Gaussian."""
    radius = max(1, round(min(images.shape[-2:]) * _FEATHER / 2))
    for _ in range(3):
        images = F.pad(images, (radius,) * 4, mode="replicate")
        images = F.avg_pool2d(images, 2 * radius + 1, stride=1)
    return images
