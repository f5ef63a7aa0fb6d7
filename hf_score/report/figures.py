"""Images side by side, as PIL images: contact sheets of candidates, heatmaps before and after.

Images and arrays in, an image out: no model and no file. Pillow and not matplotlib puts them together, because a small
image has to be enlarged by whole factors, pixel by pixel.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from ..errors import HFScoreError
from .names import FONT, drawn_names

if TYPE_CHECKING:
    from ..detection import Candidates, Selection

__all__ = ["candidate_sheet", "contact_sheet", "heatmap_pairs", "overlay", "png_bytes"]

Colour = tuple[int, int, int]

INK: Colour = (32, 36, 43)
MUTED: Colour = (110, 116, 125)
PAPER: Colour = (255, 255, 255)
KEPT: Colour = (0, 135, 90)
REJECTED: Colour = (200, 204, 210)
POSITIVE = np.array([205, 22, 30], dtype=np.float64)
NEGATIVE = np.array([25, 85, 200], dtype=np.float64)

SMALLEST_TILE = 112
SHEET_WIDTH = 1440
GAP = 6


def png_bytes(image: Image.Image) -> bytes:
    """The image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def candidate_sheet(
    candidates: Candidates,
    *,
    label: int | None = None,
    selection: Selection | None = None,
    heatmaps: bool = True,
    columns: int | None = None,
) -> Image.Image:
    """Contact sheet of candidates: what a person judges, and with a selection what was decided, the kept ones first.

    Args:
        candidates: what `find_candidates` gives, or `Candidates.load`.
        label: show the candidates of this class alone.
        selection: the decisions about them.
        heatmaps: show the relevance too, beside original and masked image.
        columns: candidates per row; default: as many as fit.

    Raises:
        HFScoreError: the candidates have no images.
    """
    name = "Candidates"
    if label is not None:
        candidates = candidates.take(np.flatnonzero(candidates.labels == label))
        names = drawn_names(candidates.class_names)
        name = names[label] if label < len(names) else f"class {label}"
    spurious = {decision.idx for decision in selection.spurious} if selection else set()
    if spurious:
        candidates = candidates.take(np.argsort([int(idx) not in spurious for idx in candidates.idx], kind="stable"))
    images = candidates.pixels
    if images is None:
        raise HFScoreError("These candidates have no images to show: find them again.")
    return contact_sheet(
        images,
        np.asarray(candidates.heatmaps) if heatmaps else None,
        np.asarray(candidates.masks),
        captions=[f"#{i}  logit {logit:.1f}" for i, logit in zip(candidates.idx, candidates.logits, strict=True)],
        title=f"{name}: original, masked, heatmap" if heatmaps else f"{name}: original and masked",
        kept=[int(idx) in spurious for idx in candidates.idx] if selection else None,
        columns=columns,
    )


def contact_sheet(
    images: NDArray[np.uint8],
    heatmaps: NDArray[Any] | None,
    masks: NDArray[np.bool_],
    *,
    captions: Sequence[str],
    title: str,
    kept: Sequence[bool | None] | None = None,
    columns: int | None = None,
    tile_size: int = 144,
    fill: Colour = (124, 116, 104),
) -> Image.Image:
    """Original and masked image of each candidate side by side, for a person to judge.

    The masked image is what is left when only the most relevant region is kept. Small images are enlarged by whole
    factors without smoothing, so that what is seen is what the model sees.

    Args:
        images: (N, H, W, 3) uint8.
        heatmaps: (N, H, W) signed pixel relevance, for a third picture; None leaves it out.
        masks: (N, H, W) bool, True where the image is kept.
        captions: N texts, such as `"#17  logit 9.31"`; a line break starts a second line.
        title: one line above the sheet.
        kept: N verdicts. Kept ones get a green frame and the word, rejected ones a grey one; None is undecided.
        columns: candidates per row; default: as many as fit into 1,440 pixels.
        tile_size: larger images are shrunk to this many pixels; smaller ones than 112 are enlarged to at least that.
        fill: colour of what the mask removes; the default is the mean of ImageNet.

    Raises:
        HFScoreError: the arrays, captions and verdicts are not of the same length and size.
    """
    kept = [None] * len(images) if kept is None else kept
    _check_lengths(images, masks=masks, captions=captions, kept=kept)
    _check_shapes(images, masks=masks, heatmaps=heatmaps)
    strips = []
    for i, image in enumerate(images):
        masked = np.where(masks[i][..., None], image, np.array(fill, dtype=np.uint8)).astype(np.uint8)
        pictures = [image, masked] if heatmaps is None else [image, masked, overlay(image, heatmaps[i])]
        text = captions[i] + {True: "\n✓ kept", False: "\n✗ not kept", None: ""}[kept[i]]
        frame = {True: KEPT, False: REJECTED, None: None}[kept[i]]
        strips.append(_strip(pictures, text=text, tile_size=tile_size, frame=frame))
    names = ["original", "masked", "relevance"][: 2 if heatmaps is None else 3]
    legend = f"Each: {', '.join(names)}." if strips else "No candidates."
    if strips and heatmaps is not None:
        legend += " Red speaks for the class, blue against it."
    if any(verdict is not None for verdict in kept):
        legend += " Green frame: kept as a spurious-positive sample."
    return _grid(strips, title=title, legend=legend, columns=columns)


def heatmap_pairs(
    images: NDArray[np.uint8],
    before: NDArray[Any],
    after: NDArray[Any],
    *,
    captions: Sequence[str],
    title: str = "Relevance before and after",
    labels: tuple[str, str] = ("before", "after"),
    regions: NDArray[np.bool_] | None = None,
    columns: int | None = None,
    tile_size: int = 224,
) -> Image.Image:
    """Image, heatmap before and heatmap after, one strip per image.

    Both heatmaps of an image have one symmetric scale (the 99.5th percentile of the two), so that a paler one is of
    less relevance.

    Args:
        images: (N, H, W, 3) uint8.
        before: (N, H, W) signed pixel relevance of the starting model.
        after: (N, H, W) the same of the fine-tuned model.
        captions: N texts.
        title: one line above the pictures.
        labels: names of the two heatmaps.
        regions: (N, H, W) bool, the region of the spurious attribute, outlined where it is known.
        columns: strips per row; default: as many as fit into 1,440 pixels.
        tile_size: larger images are shrunk to this many pixels; smaller ones than 112 are enlarged to at least that.

    Raises:
        HFScoreError: the arrays and captions are not of the same length and size.
    """
    _check_lengths(images, captions=captions)
    _check_shapes(images, before=before, after=after, regions=regions)
    strips = []
    for i, image in enumerate(images):
        region = None if regions is None else regions[i]
        scale = max(_top(_smooth(before[i])), _top(_smooth(after[i])))
        pictures = [image, overlay(image, before[i], scale=scale), overlay(image, after[i], scale=scale)]
        names = ("image", *labels)
        strips.append(_strip(pictures, text=captions[i], tile_size=tile_size, names=names, region=region))
    legend = "Red speaks for the class, blue against it, white is zero; both maps of an image on one scale."
    if regions is not None:
        legend += " Green outline: the spurious region."
    return _grid(strips, title=title, legend=legend, columns=columns)


def overlay(image: NDArray[np.uint8], heatmap: NDArray[Any], *, scale: float | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: signed relevance over a pale grey image; red positive, blue negative, white zero.

    The scale is symmetric about zero and ends at `scale`, by default the 99.5th percentile of |relevance|. From 64
    pixels on the map is smoothed a little (σ = H / 112), since single-pixel relevance is not to be seen at this size.
    """
    relevance = _smooth(heatmap)
    top = _top(relevance) if scale is None else scale
    signed = np.clip(relevance / top, -1, 1)[..., None] if top > 0 else np.zeros((*relevance.shape, 1))
    colour = np.where(signed >= 0, 255 - signed * (255 - POSITIVE), 255 + signed * (255 - NEGATIVE))
    grey = np.asarray(image, dtype=np.float64) @ (0.299, 0.587, 0.114)
    shade = 0.7 + 0.3 * grey[..., None] / 255
    # Where relevance is strong the colour must win over dark parts of the image, or black regions would hide it.
    weight = np.abs(signed) * 0.75
    return np.round(colour * (shade * (1 - weight) + weight)).astype(np.uint8)


def _smooth(heatmap: NDArray[Any]) -> NDArray[np.float64]:
    relevance = np.nan_to_num(np.asarray(heatmap, dtype=np.float64))
    size = relevance.shape[0]
    return gaussian_filter(relevance, sigma=size / 112) if size >= 64 else relevance


def _top(relevance: NDArray[np.float64]) -> float:
    """Where the scale of one map ends."""
    return float(np.percentile(np.abs(relevance), 99.5) or np.abs(relevance).max())


def _check_lengths(images: NDArray[np.uint8], **others: Any) -> None:
    for name, values in others.items():
        if len(values) != len(images):
            raise HFScoreError(f"There are {len(images)} images but {len(values)} {name}: give one for each image.")


def _check_shapes(images: NDArray[np.uint8], **others: NDArray[Any] | None) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise HFScoreError(f"images is {images.dtype} {images.shape}: give uint8 of shape (N, H, W, 3).")
    for name, array in others.items():
        if array is not None and array.shape != images.shape[:3]:
            raise HFScoreError(f"{name} has shape {array.shape}: give {images.shape[:3]}, as the images have.")


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)


def _tile(picture: NDArray[np.uint8], tile_size: int) -> Image.Image:
    image = Image.fromarray(picture)
    shorter, longer = min(image.size), max(image.size)
    if shorter < SMALLEST_TILE:
        factor = math.ceil(SMALLEST_TILE / shorter)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longer > tile_size:
        image.thumbnail((tile_size, tile_size), Image.Resampling.LANCZOS)
    return image


def _outline(tile: Image.Image, region: NDArray[np.bool_]) -> None:
    """Draw the border of `region` on an enlarged tile, in place: white below green, to be seen on any ground."""
    mask = np.asarray(Image.fromarray(region.astype(np.uint8) * 255).resize(tile.size, Image.Resampling.NEAREST)) > 0
    pixels = np.array(tile)
    edge = mask & ~binary_erosion(mask, iterations=2, border_value=0)
    pixels[binary_dilation(edge) & ~edge] = PAPER
    pixels[edge] = KEPT
    tile.paste(Image.fromarray(pixels))


def _strip(
    pictures: Sequence[NDArray[np.uint8]],
    *,
    text: str,
    tile_size: int,
    frame: Colour | None = None,
    names: Sequence[str] = (),
    region: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """The pictures of one sample side by side, its caption below, a frame around all of it."""
    tiles = [_tile(picture, tile_size) for picture in pictures]
    if region is not None:
        for tile in tiles:
            _outline(tile, region)
    font = _font(12)
    top = 18 if names else 0
    width = sum(tile.width for tile in tiles) + GAP * (len(tiles) + 1)
    lines = [line for part in text.split("\n") for line in _wrap(part, font, width - 2 * GAP)]
    height = tiles[0].height + 2 * GAP + top + 16 * len(lines) + (GAP if lines else 0)
    strip = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(strip)
    x = GAP
    for tile, name in zip(tiles, [*names, *[""] * (len(tiles) - len(names))], strict=True):
        draw.text((x, GAP - 1), name, fill=MUTED, font=font)
        strip.paste(tile, (x, GAP + top))
        x += tile.width + GAP
    y = tiles[0].height + 2 * GAP + top
    for line in lines:
        verdict = line.startswith(("✓", "✗"))
        colour = frame if verdict and frame == KEPT else MUTED if verdict else INK
        draw.text((GAP, y - 2), line, fill=colour, font=font)
        y += 16
    if frame is not None:
        draw.rectangle((0, 0, width - 1, height - 1), outline=frame, width=3 if frame == KEPT else 1)
    return strip


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _grid(strips: Sequence[Image.Image], *, title: str, legend: str, columns: int | None) -> Image.Image:
    margin, spacing = 16, 10
    widest = max((strip.width for strip in strips), default=480)
    columns = columns or max(1, (SHEET_WIDTH - 2 * margin + spacing) // (widest + spacing))
    columns = max(1, min(columns, len(strips)))
    rows = [strips[i : i + columns] for i in range(0, len(strips), columns)]
    heights = [max(strip.height for strip in row) for row in rows]
    large, small = _font(18), _font(12)
    width = 2 * margin + columns * (widest + spacing) - spacing
    heads, legends = _wrap(title, large, width - 2 * margin), _wrap(legend, small, width - 2 * margin)
    top = margin + 26 * len(heads) + 18 * len(legends) + 8
    sheet = Image.new("RGB", (width, top + sum(heights) + spacing * max(0, len(rows) - 1) + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = margin - 4
    for line in heads:
        draw.text((margin, y), line, fill=INK, font=large)
        y += 26
    for line in legends:
        draw.text((margin, y), line, fill=MUTED, font=small)
        y += 18
    y = top
    for row, height in zip(rows, heights, strict=True):
        for i, strip in enumerate(row):
            sheet.paste(strip, (margin + i * (widest + spacing), y))
        y += height + spacing
    return sheet
