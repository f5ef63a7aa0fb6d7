"""Planted probes: what a shortcut often is, put into any image, and beside each what no shortcut is.

Pure functions from images to images. A mark (a text, a sticker, a ruler, a border) has as its placebo the same shape
at another place, filled with the image's own pixels in random order: as many pixels change, and they show nothing. A
change of the whole picture (tint, blur, brightness) has its mirror image: cyan for red, sharper for blurred. Ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = [
    "PROBES",
    "Probe",
    "blurred",
    "bordered",
    "brightened",
    "marked",
    "ruled",
    "scrambled",
    "stickered",
    "tinted",
]

#: Red, green and blue of a sticker, from 0 to 1.
COLOURS = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.7, 0.2),
    "blue": (0.1, 0.2, 0.9),
    "yellow": (0.95, 0.9, 0.1),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
}
#: Of the image's side: a sticker, a ruler's length of a tick, a border, a letter.
_STICKER, _TICK, _BORDER, _LETTER = 0.2, 0.1, 0.06, 0.14
#: How much of a text is seen, how strong a tint and a change of brightness are, and how wide a blur, of the side.
_OPACITY, _TINT, _LIGHT, _BLUR = 0.8, 0.15, 0.2, 0.02

#: Seeds by which it is looked for where a mark is already.
_TRIED = 8

#: Masks (n, H, W) from 0 to 1 of what is painted, and what is painted (n, 3, H, W).
Paint = tuple[Tensor, Tensor]
#: Images (n, 3, H, W) from 0 to 1, and a seed for each.
Change = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Probe:
    """A probe.

    Attributes:
        name: in files.
        title: what it does, for readers: "a red sticker".
        change: images (n, 3, H, W) from 0 to 1 and n seeds, to images. Each depends on its own image and seed alone.
        placebo: the same for its placebo.
        presence: images (n, 3, H, W) to (n,): how much they look as if they had the probe already; the scale says
            nothing.
        beside: what the placebo is, for readers.
        is_mirrored: whether the placebo is the opposite, so that it is a finding too.
    """

    name: str
    title: str
    change: Change
    placebo: Change
    presence: Callable[[Tensor], Tensor]
    beside: str = "its shape elsewhere, with the image's own pixels in random order"
    is_mirrored: bool = False


# ---- Marks ----


def stickered(images: Tensor, seeds: Sequence[int], *, colour: Sequence[float]) -> Paint:
    """A square of one colour in one of the four corners, a little away from the edge."""
    side = images.shape[-1]
    size, gap = max(1, round(side * _STICKER)), max(1, side // 32)
    masks = images.new_zeros(len(images), *images.shape[-2:])
    for mask, seed in zip(masks, seeds, strict=True):
        below, right = (int(bit) for bit in np.random.default_rng(seed).integers(0, 2, 2))
        rows = slice(-gap - size, -gap) if below else slice(gap, gap + size)
        columns = slice(-gap - size, -gap) if right else slice(gap, gap + size)
        mask[rows, columns] = 1
    return masks, images.new_tensor(colour)[None, :, None, None].expand_as(images)


def marked(images: Tensor, seeds: Sequence[int]) -> Paint:
    """A line of letters and digits across the image, white with a dark edge, at a height that the seed says."""
    height, width = images.shape[-2:]
    masks, colours = images.new_zeros(len(images), height, width), images.new_zeros(images.shape)
    size = max(6, round(height * _LETTER))
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    for mask, colour, seed in zip(masks, colours, seeds, strict=True):
        generator = np.random.default_rng(seed)
        text = "".join(generator.choice(list("ABCDEHKLMNRSTX0123456789"), 8))
        canvas = Image.new("LA", (width, height), 0)
        place = (max(1, width // 32), int(generator.integers(0, max(1, height - size - 2))))
        ImageDraw.Draw(canvas).text(
            place, text, font=font, fill=(255, 255), stroke_width=max(1, size // 16), stroke_fill=(0, 255)
        )
        grey, seen = torch.from_numpy(np.array(canvas)).to(images).permute(2, 0, 1) / 255
        mask.copy_(seen * _OPACITY)
        colour.copy_(grey.expand_as(colour))
    return masks, colours


def ruled(images: Tensor, seeds: Sequence[int]) -> Paint:
    """Dark ticks along one of the four edges, every fifth one longer, on a light ground: a ruler."""
    height, width = images.shape[-2:]
    masks, colours = images.new_zeros(len(images), height, width), images.new_zeros(images.shape)
    for mask, colour, seed in zip(masks, colours, seeds, strict=True):
        edge = int(np.random.default_rng(seed).integers(4))
        across, down = (width, height) if edge % 2 == 0 else (height, width)
        inside, ticks = mask.new_zeros(down, across), colour.new_full((down, across), 0.9)
        depth = max(2, round(down * _TICK))
        inside[: depth + depth // 2] = 1
        step = max(2, across // 28)
        for number, column in enumerate(range(step // 2, across, step)):
            length = depth if number % 5 == 0 else depth // 2
            ticks[:length, column : column + max(1, step // 4)] = 0.05
        mask.copy_(torch.rot90(inside, edge))  # it lay along the top
        colour.copy_(torch.rot90(ticks, edge).expand_as(colour))
    return masks, colours


def bordered(images: Tensor, seeds: Sequence[int], *, colour: Sequence[float] = (0.0, 0.0, 0.0)) -> Paint:
    """A frame of one colour around the image; the seeds decide nothing."""
    width = max(1, round(images.shape[-1] * _BORDER))
    masks = images.new_ones(len(images), *images.shape[-2:])
    masks[:, width:-width, width:-width] = 0
    return masks, images.new_tensor(colour)[None, :, None, None].expand_as(images)


def scrambled(images: Tensor, masks: Tensor, seeds: Sequence[int]) -> Paint:
    """The placebo of a mark: its masks (n, H, W) moved to a random place, around the edges, and the image's own pixels
    in random order to fill them with."""
    moved, mixed = torch.empty_like(masks), torch.empty_like(images)
    for row, seed in enumerate(seeds):
        generator = np.random.default_rng((seed, 1))
        shift = tuple(int(generator.integers(length)) for length in masks.shape[1:])
        moved[row] = masks[row].roll(shift, dims=(0, 1))
        order = torch.from_numpy(generator.permutation(masks[row].numel())).to(images.device)
        mixed[row] = images[row].flatten(1)[:, order].view_as(images[row])
    return moved, mixed


def _painted(images: Tensor, paint: Paint) -> Tensor:
    masks, colours = paint
    return torch.lerp(images, colours, masks[:, None])


def _mark(name: str, title: str, paint: Callable[[Tensor, Sequence[int]], Paint]) -> Probe:
    def presence(images: Tensor) -> Tensor:
        """What has the mark changes little when it is put there; of some places, the one where it changes least."""
        found = []
        for seed in range(_TRIED):
            masks, colours = paint(images, [seed] * len(images))
            moved = (colours - images).abs().mean(1) * masks
            found.append(moved.flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1))
        return -torch.stack(found).amin(0)

    return Probe(
        name,
        title,
        presence=presence,
        change=lambda images, seeds: _painted(images, paint(images, seeds)),
        placebo=lambda images, seeds: _painted(images, scrambled(images, paint(images, seeds)[0], seeds)),
    )


# ---- Changes of the whole picture ----


def tinted(images: Tensor, *, channel: int, strength: float = _TINT) -> Tensor:
    """More of one channel and half as much less of both others, so that the brightness stays; less of it where the
    strength is below 0."""
    shift = images.new_full((3,), -strength / 2)
    shift[channel] = strength
    return (images + shift[None, :, None, None]).clamp(0, 1)


def brightened(images: Tensor, *, strength: float = _LIGHT) -> Tensor:
    """Lighter, or darker where the strength is below 0."""
    return (images + strength).clamp(0, 1)


def blurred(images: Tensor, *, strength: float = 1.0) -> Tensor:
    """Blurred by three boxes in a row, nearly a Gaussian; sharper by as much where the strength is below 0."""
    radius = max(1, round(images.shape[-1] * _BLUR))
    soft = images
    for _ in range(3):
        soft = F.avg_pool2d(F.pad(soft, (radius,) * 4, mode="replicate"), 2 * radius + 1, stride=1)
    return torch.lerp(images, soft, strength).clamp(0, 1)


def _mirrored(
    name: str,
    title: str,
    beside: str,
    change: Callable[[Tensor, float], Tensor],
    presence: Callable[[Tensor], Tensor],
) -> Probe:
    return Probe(
        name,
        title,
        presence=presence,
        change=lambda images, seeds: change(images, 1.0),
        placebo=lambda images, seeds: change(images, -1.0),
        beside=beside,
        is_mirrored=True,
    )


def _sticker(colour: str) -> Probe:
    return _mark(f"sticker_{colour}", f"a {colour} sticker", lambda x, s: stickered(x, s, colour=COLOURS[colour]))


def _tint(channel: int, name: str, opposite: str) -> Probe:
    return _mirrored(
        f"tint_{name}",
        f"a tint of {name}",
        f"a tint of {opposite}",
        lambda x, sign: tinted(x, channel=channel, strength=sign * _TINT),
        lambda x: (x[:, channel] - x.mean(1)).flatten(1).mean(1),
    )


#: By name, in the order of the page.
PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        _mark("text", "a text like a watermark", marked),
        *(_sticker(colour) for colour in COLOURS),
        _mark("ruler", "a ruler along an edge", ruled),
        _mark("border_black", "a black border", lambda x, s: bordered(x, s, colour=COLOURS["black"])),
        _mark("border_white", "a white border", lambda x, s: bordered(x, s, colour=COLOURS["white"])),
        _tint(0, "red", "cyan"),
        _tint(1, "green", "magenta"),
        _tint(2, "blue", "yellow"),
        _mirrored(
            "brightness",
            "more light",
            "less light",
            lambda x, sign: brightened(x, strength=sign * _LIGHT),
            lambda x: x.flatten(1).mean(1),
        ),
        _mirrored(
            "blur",
            "a blur",
            "sharpening",
            lambda x, sign: blurred(x, strength=sign),
            lambda x: -(x - blurred(x)).abs().flatten(1).mean(1) / x.flatten(1).std(1).clamp(min=1e-6),
        ),
    )
}
