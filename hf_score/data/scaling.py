"""From numbers of any range to grey levels of 8 bits, by a range that is declared and never by the image's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError

__all__ = ["FormatError", "UsedRange", "scaled"]

#: A data set whose values take up less than this of their declared range is refused: 12 bits stored as 16 take 1/16.
SMALLEST_SHARE = 1 / 8


class FormatError(DataError):
    """A setting or a package that a format needs: no fault of one image, so that none is left out for it."""


@dataclass(frozen=True)
class UsedRange:
    """The lowest and highest value found, and the range they were scaled by."""

    low: float
    high: float
    black: float
    white: float

    def __or__(self, other: UsedRange) -> UsedRange:
        """Of two images together."""
        return UsedRange(
            min(self.low, other.low),
            max(self.high, other.high),
            min(self.black, other.black),
            max(self.white, other.white),
        )

    def check(self, where: str) -> None:
        """Refuse a data set that would be shown in a few grey levels.

        Raises:
            FormatError: its values take up less than `SMALLEST_SHARE` of the range.
        """
        if self.high - self.low < SMALLEST_SHARE * (self.white - self.black):
            raise FormatError(
                f"The images of more than 8 bits in {where} have values from {self.low:g} to {self.high:g}, which is "
                f"little of the {self.black:g} to {self.white:g} that their files declare: say with value_range which "
                "values are black and white."
            )


def scaled(
    values: np.ndarray,
    declared: tuple[float, float] | None,
    value_range: Sequence[float] | None,
    *,
    name: str,
    kind: str,
) -> tuple[np.ndarray, UsedRange | None]:
    """`values` (H, W) as uint8, by `value_range` where there is one, else by the range that the file declares.

    Args:
        values: the numbers of one image.
        declared: black and white as the file declares them, or None.
        value_range: black and white of the data set, or None.
        name: of the image.
        kind: the kind of number, where none is declared.

    Returns:
        The grey levels, and what the values take up of the declared range; None where that was not used.

    Raises:
        FormatError: neither range is known.
    """
    used = None
    if value_range is not None:
        black, white = value_range
    elif declared is not None:
        black, white = declared
        used = UsedRange(float(values.min()), float(values.max()), black, white)
        bits = (int(white) + 1).bit_length() - 1
        if values.dtype.kind == "u" and black == 0 and white + 1 == 2**bits and bits >= 8:
            return (values >> (bits - 8)).clip(0, 255).astype(np.uint8), used  # as PIL does with colours of 16 bits
    else:
        raise FormatError(
            f"The image {name} holds {kind}, and nothing in it says which are black and white: give value_range, the "
            "same for the whole data set."
        )
    shares = (values.astype(np.float64) - black) / (white - black)
    return (shares.clip(0, 1) * 255).round().astype(np.uint8), used
