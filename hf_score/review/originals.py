"""The images that candidates are of, at their own resolution, out of the data set that was scanned."""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import Lock

from PIL import Image

from ..data import ImageData
from ..data.decode import open_image
from ..data.reading import undecoded
from ..errors import DataError, SelectionError
from .table import CandidateTable

__all__ = ["Originals"]

#: Pixels of a side; more than a screen has, and less than a slide of pathology.
LONGEST = 4096


class Originals:
    """Originals by row of the table. The data set is loaded when the first one is asked for.

    A row is all that can be asked for, and what comes is a picture that was drawn anew: no path, no file.

    Args:
        table: the candidates.
        load: the data set that was scanned; it is asked again, with True, where images have to be left out because
            they cannot be read, and its answer is taken if it has the fingerprint of the candidates.
    """

    def __init__(self, table: CandidateTable, load: Callable[[bool], ImageData]) -> None:
        self._table, self._load = table, load
        self._views: list | None = None
        self._place: dict[int, tuple[int, int]] = {}
        self._one_at_a_time = Lock()

    def jpeg(self, row: int) -> bytes:
        """The original as a JPEG file, at most `LONGEST` pixels a side.

        Raises:
            SelectionError: the data set is another one by now.
            DataError: it cannot be loaded, or the image cannot be read.
        """
        with self._one_at_a_time:
            if self._views is None:
                self._open()
        idx = int(self._table.idx[row])
        if self._views is None or idx not in self._place:
            raise SelectionError(f"candidate {idx} is not in the data set any more: scan again.")
        view, place = self._place[idx]
        image = open_image(self._views[view][place]["image"])
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=92)
        return file.getvalue()

    def _open(self) -> None:
        for checked in (False, True):
            try:
                data = self._load(checked)
            except DataError:
                raise
            except OSError as error:
                raise DataError(f"the data set cannot be loaded ({error}): look whether it is still there.") from None
            if data.fingerprint == self._table.dataset_fingerprint:
                break
        else:
            raise SelectionError("the data set has changed since the scan, so its images are not shown: scan again.")
        views = [undecoded(view) for view in (data.train, data.held_out)]
        for number, view in enumerate(views):
            self._place |= {int(idx): (number, place) for place, idx in enumerate(view["idx"][:])}
        self._views = views
