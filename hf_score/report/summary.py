"""Means and spreads of a finished run: pure functions of the `results.json` dictionary.

The table, the page, the figures and the model card all take their numbers from here, so they cannot disagree.
"""

from __future__ import annotations

import math
import statistics
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .methods import METHODS, find_method, label_of
from .templating import cell

__all__ = ["EMPTY", "MethodSummary", "Spread", "markdown_table", "render_table", "spread", "summarise", "table_cells"]

EMPTY = "–"


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, with the sample standard deviation (n − 1); `std` is None for a single seed."""

    mean: float
    std: float | None
    count: int

    def percent(self) -> str:
        """`"58.3 ± 2.1"`, or `"58.3"` for one seed."""
        return self.text(100)

    def text(self, factor: float) -> str:
        """Mean and standard deviation times `factor`, to one decimal."""
        text = f"{factor * self.mean:.1f}"
        return text if self.std is None else f"{text} ± {factor * self.std:.1f}"


@dataclass(frozen=True)
class MethodSummary:
    """One method over all its seeds. A figure that no run has (an empty group, an unknown region) is None."""

    key: str
    label: str
    supervision: str
    seeds: tuple[int, ...]
    worst_group_accuracy: Spread | None
    accuracy: Spread | None
    weighted_accuracy: Spread | None
    mean_group_accuracy: Spread | None
    relevance_in_region: Spread | None
    group_accuracy: dict[str, Spread | None]
    worst_group: str | None


def summarise(results: Mapping[str, Any]) -> dict[str, MethodSummary]:
    """Mean and spread over seeds of every method.

    The worst-group accuracy is the mean of each seed's own worst group, which need not be the same group; the field
    `worst_group` is the group with the lowest mean.

    Args:
        results: the content of `results.json` (schema `hf-score/results/1`).

    Returns:
        Summaries by method key, in the order of the tables; methods that are not of a run come last.
    """
    return {key: _summarise_method(key, results) for key in _keys(results)}


def _keys(results: Mapping[str, Any]) -> list[str]:
    order = list(METHODS)

    def position(key: str) -> int:
        method = find_method(key)
        return order.index(method.key) if method else len(order)

    return sorted(results["methods"], key=position)


def _group_names(results: Mapping[str, Any]) -> list[str]:
    declared = results["dataset"].get("group_names")
    if declared:
        return list(declared)
    runs = (run for method in results["methods"].values() for run in method["runs"])
    return list(dict.fromkeys(name for run in runs for name in run["metrics"].get("group_accuracy", {})))


def _summarise_method(key: str, results: Mapping[str, Any]) -> MethodSummary:
    method, group_names = results["methods"][key], _group_names(results)
    runs = method["runs"]
    metrics = [run["metrics"] for run in runs]
    groups = {name: spread(m.get("group_accuracy", {}).get(name) for m in metrics) for name in group_names}
    present = {name: spread.mean for name, spread in groups.items() if spread is not None}
    return MethodSummary(
        key=key,
        label=label_of(key, results),
        supervision=method.get("supervision", ""),
        seeds=tuple(run["seed"] for run in runs),
        worst_group_accuracy=spread(m.get("worst_group_accuracy") for m in metrics),
        accuracy=spread(m.get("accuracy") for m in metrics),
        weighted_accuracy=spread(m.get("weighted_accuracy") for m in metrics),
        mean_group_accuracy=spread(m.get("mean_group_accuracy") for m in metrics),
        relevance_in_region=spread(run.get("relevance_in_region") for run in runs),
        group_accuracy=groups,
        worst_group=min(present, key=present.__getitem__) if present else None,
    )


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of the finite values; None where there are none."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def table_cells(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the before/after table: one row per method, percent with one decimal.

    A measure that no method has (weighted accuracy without known training group sizes, relevance without a known
    region) is left out. A group without test images stays, as "–".
    """
    methods = list(summarise(results).values())
    measures: list[tuple[str, Callable[[MethodSummary], Spread | None]]] = [
        ("worst group", lambda m: m.worst_group_accuracy),
        ("average", lambda m: m.accuracy),
        ("weighted", lambda m: m.weighted_accuracy),
        ("mean of groups", lambda m: m.mean_group_accuracy),
        ("relevance in region", lambda m: m.relevance_in_region),
    ]
    columns = [(name, read) for name, read in measures if any(read(method) for method in methods)]
    for group in _group_names(results):
        columns.append((group, lambda m, group=group: m.group_accuracy[group]))  # type: ignore[misc]
    header = ["method", *(name for name, _ in columns), "supervision"]
    rows = []
    for method in methods:
        spreads = (read(method) for _, read in columns)
        rows.append([method.label, *(s.percent() if s else EMPTY for s in spreads), method.supervision or EMPTY])
    return header, rows


def render_table(results: Mapping[str, Any], format: Literal["text", "markdown"] = "text", *, width: int = 110) -> str:
    """The before/after table, in percent, mean ± standard deviation over seeds where there are several.

    Args:
        results: the content of `results.json`.
        format: `"text"` for a terminal, `"markdown"` for READMEs and model cards: there the groups have a table of
            their own, below, for a page that is too wide hides its last columns.
        width: columns of the terminal; a text table that is wider goes on in further blocks, each starting with the
            methods again.
    """
    header, rows = table_cells(results)
    first_group, last = len(header) - 1 - len(_group_names(results)), len(header) - 1
    if format == "text":
        return _text_table(header, rows, width, first_group)
    parts = [[*range(first_group), last], [0, *range(first_group, last)]]
    tables = [markdown_table([[line[i] for i in part] for line in (header, *rows)]) for part in parts if len(part) > 1]
    return "\n\n".join(tables)


def markdown_table(lines: list[list[str]]) -> str:
    """A table in markdown. The first line is the header; names are to the left, figures to the right."""
    head, *body = ([cell(text) for text in line] for line in lines)
    rule = ["---" if name in ("method", "class", "supervision") else "---:" for name in lines[0]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body))


def _text_table(header: list[str], rows: list[list[str]], width: int, first_group: int) -> str:
    columns = [[" ".join(cell.split()) for cell in column] for column in zip(header, *rows, strict=True)]
    sizes = [max(_terminal_width(cell) for cell in column) for column in columns]
    fits = sum(sizes) + 2 * (len(sizes) - 1) <= width
    blocks: list[list[int]] = [[0]]
    for index in range(1, len(columns)):
        used = sum(sizes[i] + 2 for i in blocks[-1])
        if len(blocks[-1]) > 1 and not fits and (used + sizes[index] > width or index == first_group):
            blocks.append([0])
        blocks[-1].append(index)
    last = len(columns) - 1
    texts = []
    for block in blocks:
        lines = []
        for line in zip(*(columns[i] for i in block), strict=True):
            cells = [_pad(cell, sizes[i], left=i in (0, last)) for i, cell in zip(block, line, strict=True)]
            lines.append("  ".join(cells).rstrip())
        lines.insert(1, "─" * (sum(sizes[i] + 2 for i in block) - 2))
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _terminal_width(text: str) -> int:
    """Terminal columns: wide East Asian characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _pad(text: str, size: int, *, left: bool) -> str:
    gap = " " * (size - _terminal_width(text))
    return text + gap if left else gap + text
