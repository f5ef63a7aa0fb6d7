"""Pictures of an audit: what the probes look like."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .flips import PixelScale
from .probes import PROBES

__all__ = ["probe_strip"]

_COLUMNS = 8


def probe_strip(pixel_values: Tensor, processor: Any, *, seed: int) -> Image.Image:
    """One image (1, 3, H, W) with each probe, and below it with the placebo."""
    shares = PixelScale(processor).shares(pixel_values)
    probes = list(PROBES.values())
    bands = -(-len(probes) // _COLUMNS)
    figure = Figure(figsize=(1.5 * _COLUMNS, 3.3 * bands), dpi=100, layout="constrained")
    grid = figure.subplots(2 * bands, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, probe in enumerate(probes):
        band, column = divmod(number, _COLUMNS)
        for below, change in enumerate((probe.change, probe.placebo)):
            axes = grid[2 * band + below, column]
            axes.imshow(change(shares, [seed])[0].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_title("" if below else probe.title, fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
