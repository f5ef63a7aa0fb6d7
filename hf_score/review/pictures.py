"""The three pictures of a candidate, as the review page shows them: original, heatmap over it, masked image."""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from ..report.figures import _font, overlay
from .table import CandidateTable

__all__ = ["VIEWS", "encode", "picture"]

Kind = Literal["original", "heatmap", "masked"]
VIEWS: tuple[str, ...] = get_args(Kind)
FILL = (124, 116, 104)  # as on the contact sheets: the mean of ImageNet, what the model is given where nothing is kept
MISSING = 214
SMALL = 128


def picture(table: CandidateTable, row: int, kind: Kind, *, longest: int | None = None) -> Image.Image:
    """One picture of a candidate, in the shape of its heatmap and at most twice as fine.

    Where the image is missing, a grey placeholder says so; the heatmap is then drawn over grey.

    Args:
        longest: shrink to this many pixels.
    """
    heatmap, mask = table.maps(row)
    image = table.image(row)
    height, width = heatmap.shape
    # A photograph is finer than what the model was given: show up to twice as much of it.
    scale = 2 if image is not None and min(image.width / width, image.height / height) >= 2 else 1
    size = (width * scale, height * scale)
    if image is None:
        drawn = _placeholder(size) if kind != "heatmap" else Image.new("RGB", size, (MISSING,) * 3)
    else:
        drawn = image.resize(size, Image.Resampling.LANCZOS) if image.size != size else image
    if kind == "heatmap":
        fine = np.asarray(Image.fromarray(heatmap).resize(size, Image.Resampling.BILINEAR))
        drawn = Image.fromarray(overlay(np.asarray(drawn), fine if scale > 1 else heatmap))
    elif kind == "masked" and image is not None:
        kept = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
        drawn = Image.composite(drawn, Image.new("RGB", size, FILL), kept)
    if longest is not None and max(size) > longest:
        drawn.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return drawn


def encode(drawn: Image.Image) -> tuple[bytes, str]:
    """File content and media type: JPEG, or PNG for small images, whose pixels one can count."""
    buffer = io.BytesIO()
    if max(drawn.size) <= SMALL:
        drawn.save(buffer, "PNG")
        return buffer.getvalue(), "image/png"
    drawn.save(buffer, "JPEG", quality=88)
    return buffer.getvalue(), "image/jpeg"


def _placeholder(size: tuple[int, int]) -> Image.Image:
    # At least 128 pixels wide, or the words could not be read.
    factor = max(1, -(-SMALL // min(size)))
    image = Image.new("RGB", (size[0] * factor, size[1] * factor), (MISSING,) * 3)
    middle = (image.width / 2, image.height / 2)
    font = _font(max(14, image.width // 12))
    ImageDraw.Draw(image).text(middle, "image missing", fill=(96, 100, 106), font=font, anchor="mm")
    return image
