"""From the values of a mask, whatever their encoding, to what is inside and outside of the region."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from ..errors import DataError

__all__ = ["mask_values", "region_of"]

#: Of the pixels between black and white, the share that has to lie on an edge for the mask to be a region.
EDGE_SHARE = 0.5


def mask_values(image: Image.Image, name: str) -> tuple[np.ndarray, float | None]:
    """The mask's numbers (H, W), and the one that is white; None for palette indices, which have no white.

    Raises:
        DataError: transparency and colours contradict each other, or there are more than two colours.
    """
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A")).astype(np.int64)
        grey, _ = _greys(image.convert("RGB"), name)
        if alpha.min() == alpha.max():
            return grey, 255
        if grey.min() == grey.max():
            return alpha, 255
        values = grey * (alpha > 127)
        if values.min() == values.max():
            raise DataError(
                f"The mask {name} has its region both in its colours and in its transparency, and they contradict "
                "each other; save it in black and white."
            )
        return values, 255
    if image.mode == "P":
        indices = np.asarray(image).astype(np.int64)
        found = np.unique(indices)
        palette = np.array(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)[found]
        if (palette == palette[:, :1]).all() and len(np.unique(palette[:, 0])) == len(found):
            return palette[np.searchsorted(found, indices), 0], 255
        return indices, None
    if image.mode == "1":
        return np.asarray(image).astype(np.int64), 1
    if image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise DataError(f"The mask {name} has values that are no numbers; save it in black and white.")
        return values, 1 if values.max() <= 1 else 255
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return values, 65535 if image.mode != "I" or values.max() > 255 else 255
    return _greys(image, name)


def _greys(image: Image.Image, name: str) -> tuple[np.ndarray, float]:
    if image.mode == "L":
        return np.asarray(image).astype(np.int64), 255
    image = image.convert("RGB")
    colours = np.asarray(image).astype(np.int64)
    values = np.asarray(image.convert("L")).astype(np.int64)
    if np.ptp(colours, axis=2).max() > 8:  # JPEG gives greys a tint
        different = np.unique(colours.reshape(-1, 3), axis=0)
        if len(different) > 2 or not ((different == 0).all(1) | (different == 255).all(1)).any():
            raise DataError(f"The mask {name} is in colours; save it in black and white, white inside the region.")
    return values, 255


def region_of(values: np.ndarray, full: float | None, name: str, *, lossy: bool = False) -> Image.Image:
    """The region in mode L, 255 inside and 0 outside; see `open_mask`.

    Args:
        values: (H, W).
        full: the value that is white, or None where more than two values are always labels.
        name: of the mask.
        lossy: neighbouring values are noise, so that two of them are no encoding.

    Raises:
        DataError: it is a label map, or all noise.
    """
    found = np.unique(values)
    if len(found) == 1:
        inside = np.full(values.shape, found[0] != 0)
    elif len(found) == 2 and not lossy:
        inside = values == found[1]
    elif full is not None and found[-1] >= 0.95 * full and _on_edges(values):
        inside = values > full / 2
    else:
        some = ", ".join(f"{value:g}" for value in found[:4])
        raise DataError(
            f"The mask {name} has {len(found)} values ({some}{', ...' if len(found) > 4 else ''}) instead of two: it "
            "looks like a label map, or like a JPEG without white; save one region in black and white."
        )
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))


def _on_edges(values: np.ndarray) -> bool:
    """Whether the values between the lowest and the highest are mostly near lower and near higher ones.

    So they are where an edge was made soft; a label is flat inside. Near is one pixel, in large masks 1 % of the side.
    """
    between = (values > values.min()) & (values < values.max())
    size = 2 * max(1, round(0.01 * min(values.shape))) + 1
    edge = (minimum_filter(values, size) < values) & (maximum_filter(values, size) > values)
    return bool(edge[between].sum() >= EDGE_SHARE * between.sum())
