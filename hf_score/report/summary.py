"""Means, spreads and the verdict of a finished run: pure functions of the `results.json` dictionary.

The table, the page, the figures and the model card all take their numbers from here, so they cannot disagree.
"""

from __future__ import annotations

import math
import statistics
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .methods import METHODS, find_method

__all__ = ["Conclusion", "MethodSummary", "Spread", "judge", "render_table", "spread", "summarise", "table_cells"]

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


@dataclass(frozen=True)
class Conclusion:
    """What the run shows. `holds`: True or False, or None where the run cannot tell."""

    holds: bool | None
    headline: str
    sentence: str


def summarise(results: Mapping[str, Any]) -> dict[str, MethodSummary]:
    """Mean and spread over seeds of every method.

    The worst-group accuracy is the mean of each seed's own worst group, which need not be the same group; the field
    `worst_group` is the group with the lowest mean.

    Args:
        results: the content of `results.json` (schema `hf-score/results/1`).

    Returns:
        Summaries by method key, in the order of the tables; methods that are not of a run come last.
    """
    return {key: _summarise_method(key, results["methods"][key], _group_names(results)) for key in _keys(results)}


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


def _summarise_method(key: str, method: Mapping[str, Any], group_names: Sequence[str]) -> MethodSummary:
    runs = method["runs"]
    metrics = [run["metrics"] for run in runs]
    groups = {name: spread(m.get("group_accuracy", {}).get(name) for m in metrics) for name in group_names}
    present = {name: spread.mean for name, spread in groups.items() if spread is not None}
    return MethodSummary(
        key=key,
        label=method.get("label", key),
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


def judge(results: Mapping[str, Any]) -> Conclusion:
    """Say in words whether SCORE raised the worst-group accuracy, and whether that is more than its controls do.

    SCORE is compared with the best of its controls (`Method.is_control`). The gain holds when it exceeds the standard
    deviation of a difference between two runs, √(s₁² + s₂²) over seeds.
    """
    methods = summarise(results)
    score, erm = methods.get("score"), methods.get("erm")
    after = score.worst_group_accuracy if score else None
    before = erm.worst_group_accuracy if erm else None
    if after is None:
        why = "it holds no run of SCORE" if score is None else "its test data has no groups"
        return Conclusion(None, "No worst-group accuracy to judge", f"This run cannot be judged, because {why}.")
    change = f"With SCORE the worst-group accuracy {_went(before, after)}"
    if score and score.accuracy:
        change += f" and average accuracy {_went(erm.accuracy if erm else None, score.accuracy)}"
    change += f" ({after.count} seeds, ± is the standard deviation)." if after.count > 1 else " (one seed)."

    controls = {
        key: method.worst_group_accuracy
        for key, method in methods.items()
        if _is_control(key) and method.worst_group_accuracy is not None
    }
    if before is not None and after.mean <= before.mean:
        return Conclusion(False, "SCORE did not help", f"{change} It did not help the worst group here.")
    if not controls:
        text = f"{change} No control was run, so what caused the change is open."
        return Conclusion(None, "Changed, but not controlled", text)

    best = max(controls, key=lambda key: controls[key].mean)
    control, name = controls[best], methods[best].label
    lead = 100 * (after.mean - control.mean)
    if lead <= 0:
        text = f"{change} But the control “{name}” reaches {control.percent()} %: the gain does not come from SCORE."
        return Conclusion(False, "The gain does not survive its controls", text)
    text = f"{change} That is {lead:.1f} points above the best control, “{name}” ({control.percent()} %)"
    if after.std is None or control.std is None:
        return Conclusion(None, "Above its controls, on one seed", f"{text}, but with a single seed it may be chance.")
    noise = 100 * (after.std**2 + control.std**2) ** 0.5
    text += f", and the spread over seeds of such a difference is {noise:.1f} points"
    if lead > noise:
        return Conclusion(True, "The gain survives its controls", f"{text}.")
    return Conclusion(False, "The gain does not survive its controls", f"{text}: it is within the noise.")


def _is_control(key: str) -> bool:
    method = find_method(key)
    return method is not None and method.is_control


def _went(before: Spread | None, after: Spread) -> str:
    return f"went from {before.percent()} % to {after.percent()} %" if before else f"is {after.percent()} %"


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
    tables = [
        _markdown_table([[line[i] for i in part] for line in (header, *rows)]) for part in parts if len(part) > 1
    ]
    return "\n\n".join(tables)


def _markdown_table(lines: list[list[str]]) -> str:
    """The first line is the header; names are to the left, figures to the right."""
    head, *body = ([_escape_markdown(cell) for cell in line] for line in lines)
    rule = ["---" if name in ("method", "supervision") else "---:" for name in lines[0]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body))


def _escape_markdown(text: str) -> str:
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


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
