"""The rows of `search.py` as Markdown: mean ± sample standard deviation over seeds, in % unless said otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from hf_score.report.summary import spread

__all__ = ["document"]

HEADER = """# Results of the search

Made by `python benchmarks/search.py {plan} --table` from `{rows}`; how the runs were made is in
[method-notes.md](method-notes.md). Mean ± standard deviation over seeds, in % unless said otherwise. *Relevance in
region*: share of the positive relevance of the shortcut's class inside the true region, test images. *Flips by
insertion*: share of rightly classified test images of other classes that change class when the true region of another
image is inserted. *Insertion* and *removal*: what that does to the margin of the shortcut's class, in logits. The
100 % sets have no reference of their own: see that of the 95 % set.
"""

#: key of a row → (heading, factor)
COLUMNS = {
    "wga": ("worst group", 100),
    "mean_groups": ("mean of groups", 100),
    "accuracy": ("plain", 100),
    "relevance_in_region": ("relevance in region", 100),
    "insertion_flips": ("flips by insertion", 100),
    "insertion_effect": ("insertion, logits", 1),
    "removal_effect": ("removal, logits", 1),
}


def document(plan_path: Path, rows_path: Path) -> str:
    """All tables of a plan and its rows, with what their columns mean."""
    plan = yaml.safe_load(plan_path.read_text())
    rows = [json.loads(line) for line in rows_path.read_text().splitlines()]
    heading = HEADER.format(plan=plan_path, rows=rows_path)
    return heading + result_tables(plan, rows) + "\n" + choice_table(plan, rows)


def result_tables(plan: dict, rows: list[dict]) -> str:
    """One table per set and model, one line per cell."""
    lines = []
    for set_name, model, cells in _jobs(plan, rows):
        size = next(iter(cells.values()))[0]["image_size"]
        lines += [f"\n### {set_name}, {model}, {size} px\n", _line("cell", *(h for h, _ in COLUMNS.values()), "seeds")]
        lines.append("|---|" + "---:|" * (len(COLUMNS) + 1))
        for cell in plan["cells"]:
            runs = cells.get(cell["name"], [])
            if runs:
                shown = [_spread([r[key] for r in runs if r[key] is not None], f) for key, (_, f) in COLUMNS.items()]
                lines.append(_line(cell["title"], *shown, str(len(runs))))
    return "\n".join(lines)


def choice_table(plan: dict, rows: list[dict]) -> str:
    """Worst group of the SCORE runs by who chooses: nobody (λ = 3, last epoch), the label-free estimate, an oracle."""
    lines = ["\n### Label-free choice against an oracle's (worst group; λ from those that were run, any epoch)\n"]
    lines += [
        _line("set", "model", "λ", "fixed", "label-free", "oracle", "seeds"),
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for set_name, model, cells in _jobs(plan, rows):
        tried = [name for name in ("score", "lambda_1", "lambda_10") if name in cells]
        fixed, chosen, best = [], [], []
        for run in cells.get("score", []):
            same = [r for name in tried for r in cells[name] if r["seed"] == run["seed"]]
            epochs = [epoch for r in same for epoch in r["history"]]
            fixed.append(run["wga"])
            chosen.append(max(epochs, key=lambda epoch: epoch["selection"])["wga"])
            best.append(max(epoch["wga"] for epoch in epochs))
        if fixed:
            values = "1, 3, 10" if len(tried) == 3 else "3"
            lines.append(
                _line(set_name, model, values, *(_spread(v, 100) for v in (fixed, chosen, best)), str(len(fixed)))
            )
    return "\n".join(lines)


def _jobs(plan: dict, rows: list[dict]) -> Iterator[tuple[str, str, dict[str, list[dict]]]]:
    """(set, model, rows by cell), in the plan's order, where there are any."""
    for set_name in plan["sets"]:
        for model in plan["models"]:
            cells: dict[str, list[dict]] = {}
            for row in rows:
                if (row["set"], row["model"]) == (set_name, model):
                    cells.setdefault(row["cell"], []).append(row)
            if cells:
                yield set_name, model, cells


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(values: list[float], factor: float) -> str:
    found = spread(values)
    return "–" if found is None else found.text(factor)
