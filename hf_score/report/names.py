"""Names in pictures: written where the pictures' own font can, else a number that the text beside it explains.

Figures are drawn with DejaVu Sans, which comes with matplotlib: the same letters on every machine. It has no CJK, Thai
and most emoji, and neither matplotlib nor Pillow joins Arabic letters; a browser can do all of that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font

__all__ = ["FONT", "drawn_names", "in_words"]

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
#: Of letters that are written from right to left.
_RIGHT_TO_LEFT = ("R", "AL", "AN")


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(str(FONT)).get_charmap())


def _can_draw(name: str) -> bool:
    return all(
        char.isspace() or (ord(char) in _glyphs() and unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT)
        for char in unicodedata.normalize("NFC", name)
    )


def drawn_names(names: Sequence[str], kind: str = "class") -> list[str]:
    """Each name as a figure can show it: as it is, or its kind and number such as `class 3`."""
    return [unicodedata.normalize("NFC", n) if _can_draw(n) else f"{kind} {i}" for i, n in enumerate(names)]


def in_words(names: Sequence[str], kind: str = "class", *, among: Sequence[int] | None = None) -> str:
    """What the numbers of `drawn_names` stand for, as a sentence for a caption; empty where there are none.

    Args:
        names: all names.
        kind: as for `drawn_names`.
        among: the numbers that the picture shows; default: all.
    """
    shown = range(len(names)) if among is None else sorted({*among})
    parts = [f"{kind} {i} is “{names[i]}”" for i in shown if not _can_draw(names[i])]
    return f" Here {', '.join(parts)}." if parts else ""
