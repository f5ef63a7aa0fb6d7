"""Bars and curves of a run, drawn by matplotlib, as PIL images.

Numbers in, an image out: no file, and no global plotting state (`Figure`, never `pyplot`).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from .methods import find_method
from .names import drawn_names
from .summary import summarise

__all__ = ["group_bars", "training_curves", "worst_groups"]

INK = "#20242b"
MUTED = "#6e747d"
WORST = "#c1121f"
#: More would be too thin to read.
MOST_GROUPS = 16
SPARE_COLOURS = ("#d55e00", "#7f5f00")


def group_bars(results: Mapping[str, Any]) -> Image.Image:
    """Accuracy of every group under every method, with each seed as a dot and the standard deviation as a bar.

    The worst group of each method is marked; a group without test images says so. Of many groups the worst are shown
    (`worst_groups`).

    Args:
        results: the content of `results.json`.
    """
    methods = list(summarise(results).values())
    groups = worst_groups(results)
    colours = _colours([method.key for method in methods])
    width = min(16.0, max(7.0, 1.6 + len(groups) * (0.5 + 0.34 * len(methods))))
    figure = Figure(figsize=(width, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    _bare_axes(axes)
    thickness = min(0.3, 0.8 / max(1, len(methods)))
    for m, method in enumerate(methods):
        runs = results["methods"][method.key]["runs"]
        for g, group in enumerate(groups):
            spread = method.group_accuracy[group]
            if spread is None:
                continue
            x, height = g + thickness * (m + 0.5 - len(methods) / 2), 100 * spread.mean
            axes.bar(x, height, width=thickness * 0.9, color=colours[method.key], zorder=2)
            top = height
            if spread.std is not None:
                axes.errorbar(x, height, 100 * spread.std, color=INK, capsize=2.5, linewidth=1, zorder=3)
                seeds = [run["metrics"].get("group_accuracy", {}).get(group) for run in runs]
                dots = [100 * value for value in seeds if value is not None]
                axes.scatter([x] * len(dots), dots, s=9, color="white", edgecolor=INK, linewidth=0.6, zorder=4)
                top = max(height + 100 * spread.std, *dots)
            if group == method.worst_group:
                axes.annotate("▼", (x, top), (0, 3), textcoords="offset points", ha="center", color=WORST, fontsize=9)
    for g, group in enumerate(groups):
        if methods and all(method.group_accuracy[group] is None for method in methods):
            axes.text(g, 3, "no test images", ha="center", fontsize=9, style="italic", color=MUTED)
    everyone = list(methods[0].group_accuracy) if methods else []
    told = dict(zip(everyone, drawn_names(everyone, "group"), strict=True))
    axes.set_xticks(range(len(groups)), [textwrap.fill(_label(told[group]), 16) for group in groups])
    axes.set_xlim(-0.6, max(1, len(groups)) - 0.4)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("accuracy in %")
    handles: list[Artist] = [Patch(color=colours[m.key], label=_label(m.label)) for m in methods]
    handles.append(
        Line2D([], [], color=WORST, marker="v", linestyle="", markersize=6, label="worst group of the method")
    )
    _legend(figure, handles)
    return _rendered(figure)


def worst_groups(results: Mapping[str, Any]) -> list[str]:
    """The groups that a page has room for, in their order: those with the lowest accuracy of any method."""
    methods = list(summarise(results).values())
    groups = list(methods[0].group_accuracy) if methods else []
    lowest = {
        group: min((s.mean for m in methods if (s := m.group_accuracy[group]) is not None), default=2.0)
        for group in groups
    }
    shown = {*sorted(groups, key=lowest.__getitem__)[:MOST_GROUPS]}
    return [group for group in groups if group in shown]


def training_curves(
    history: Mapping[str, Sequence[Mapping[str, float]]], *, labels: Mapping[str, str] | None = None
) -> Image.Image:
    """Loss, penalty, reliance and held-out accuracy over optimizer steps, one line per method.

    Panels without data are left out. The training of the starting model (`erm`) ends at step 0, where the others
    begin.

    Args:
        history: by method key, entries with `step` and any of `loss`, `penalty`, `reliance`, `held_out_accuracy`.
        labels: what to call the methods.
    """
    panels: list[tuple[str, str, float]] = [
        ("loss", "training loss", 1),
        ("penalty", "penalty P", 1),
        ("reliance", "effect of exchanging the regions", 1),
        ("held_out_accuracy", "held-out accuracy in %", 100),
    ]
    shift = max((entry["step"] for entry in history.get("erm", ())), default=0) if len(history) > 1 else 0
    curves = {
        name: {key: _curve(entries, name, scale, shift * (key == "erm")) for key, entries in history.items()}
        for name, _, scale in panels
    }
    drawn = [(name, label) for name, label, _ in panels if any(curves[name].values())]
    columns = min(len(drawn), 3 if len(drawn) < 4 else 2)
    rows = math.ceil(len(drawn) / max(1, columns))
    figure = Figure(figsize=(max(6.5, 4.2 * columns), 0.6 + 3.0 * max(1, rows)), dpi=110, layout="constrained")
    if not drawn:
        figure.text(0.5, 0.5, "Nothing was logged.", ha="center", va="center", color=MUTED)
        return _rendered(figure)
    colours = _colours(list(history))
    for axes, (name, label) in zip(figure.subplots(rows, columns, squeeze=False).flat, drawn, strict=True):
        _bare_axes(axes)
        for key, points in curves[name].items():
            if points:
                steps, values = zip(*points, strict=True)
                marker = "o" if len(points) < 25 else None
                axes.plot(steps, values, color=colours[key], marker=marker, markersize=3.5, linewidth=1.6)
        if shift:
            axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
        if name in ("penalty", "reliance"):
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.set_title(label, fontsize=10, loc="left", color=INK)
        axes.set_xlabel("optimizer step")
    used = [key for key in history if any(curves[name][key] for name, _ in drawn)]
    names = {key: _label((labels or {}).get(key, key)) for key in used}
    _legend(figure, [Line2D([], [], color=colours[key], label=names[key]) for key in used])
    return _rendered(figure)


def _curve(entries: Sequence[Mapping[str, Any]], name: str, scale: float, shift: float) -> list[tuple[float, float]]:
    known = ((entry["step"] - shift, entry.get(name)) for entry in entries)
    return [(step, value * scale) for step, value in known if value is not None and math.isfinite(value)]


def _colours(keys: Sequence[str]) -> dict[str, str]:
    known = {key: method.colour for key in keys if (method := find_method(key))}
    others = [key for key in keys if key not in known]
    return known | {key: SPARE_COLOURS[i % len(SPARE_COLOURS)] for i, key in enumerate(others)}


def _label(text: str) -> str:
    """A name as matplotlib shall print it: `$` is a dollar, and a leading `_` does not hide it from the legend."""
    return (f" {text}" if text.startswith("_") else text).replace("$", r"\$")


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Above the axes, in as many rows as the figure's width needs."""
    widest = max(0.65 + 0.085 * len(str(handle.get_label())) for handle in handles)  # inches, at font size 9
    rows = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / widest)))
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)


def _bare_axes(axes: Axes) -> None:
    sides: tuple[Literal["top", "right"], ...] = ("top", "right")
    for side in sides:
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def _rendered(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
