"""Tables of a benchmark's rows: mean ± sample standard deviation over seeds, in %, as Markdown or LaTeX."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from ..baselines import SUPERVISION_KINDS
from ..report.summary import spread
from .plan import Plan
from .rows import best_evaluation

__all__ = ["chosen_runs", "dataset_table", "overview", "render_tables"]

ORACLE = "†"
NOTE = (
    "Mean ± standard deviation over seeds, in %. Every figure is of the evaluation with the best label-free estimate; "
    f"{ORACLE} is chosen by the worst group of a validation set with group labels instead, which only an oracle has. "
    "*Average*: accuracy over all test images. "
    "*Relevance*: share of the positive relevance inside the true region of the attribute, test images. *Flips*: "
    "share of rightly classified test images that change class when the region of another class's image is inserted."
)

#: heading → (column, whether the oracle chooses)
COLUMNS = {
    "worst group": ("worst_group_accuracy", False),
    f"worst group {ORACLE}": ("worst_group_accuracy", True),
    "average": ("accuracy", False),
    "mean of groups": ("mean_group_accuracy", False),
    "weighted": ("weighted_accuracy", False),
    "relevance": ("relevance_in_region", False),
    "flips": ("insertion_flips", False),
}


def chosen_runs(rows: pd.DataFrame, *, oracle: bool = False) -> pd.DataFrame:
    """One row per data set, model, method name and seed: of a grid's runs the one a choice takes.

    Args:
        rows: rows of a `RowFile`.
        oracle: choose by the worst group of the validation set instead of the label-free estimate; the measures are
            then those of the evaluation that this takes.
    """
    rows = rows.copy()
    if oracle:
        best = [best_evaluation(json.loads(history), by="validation") for history in rows["history"]]
        for name in ("worst_group_accuracy", "accuracy", "mean_group_accuracy", "weighted_accuracy"):
            rows[name] = [row[name] for row in best]
        rows["_by"] = [row.get("validation", 0.0) for row in best]
    else:
        rows["_by"] = rows["selection"].astype(float).fillna(0.0)
    rows = rows.sort_values(["_by", "key"])  # of equals always the same one
    return rows.groupby(["dataset", "model", "name", "seed"], sort=False).tail(1).drop(columns="_by").sort_index()


def dataset_table(rows: pd.DataFrame, dataset: str, model: str, names: Sequence[str]) -> pd.DataFrame:
    """All columns for one data set and model: a line per method that has rows."""
    here = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
    runs, by_oracle = chosen_runs(here), chosen_runs(here, oracle=True)
    lines = []
    for name in names:
        mine = runs[runs["name"] == name]
        if not len(mine):
            continue
        line = {"method": mine["title"].iloc[0], "supervision": _supervision(mine["kinds"].iloc[0])}
        for heading, (column, oracle) in COLUMNS.items():
            of = by_oracle[by_oracle["name"] == name] if oracle else mine
            line[heading] = _percent(of[column])
        line["seeds"] = str(mine["seed"].nunique())
        line["seconds"] = f"{mine['wall_seconds'].median():.0f}"
        lines.append(line)
    return pd.DataFrame(lines)


def overview(plan: Plan, rows: pd.DataFrame, *, oracle: bool = False) -> pd.DataFrame:
    """Worst group of every method (ablations apart) on every data set and model, in the order of their supervision."""
    runs = chosen_runs(rows[rows["ablation"].isna()], oracle=oracle)
    lines = []
    for name in ordered_names(plan, runs):
        mine = runs[runs["name"] == name]
        line = {"method": mine["title"].iloc[0], "supervision": _supervision(mine["kinds"].iloc[0])}
        for dataset, model in _panels(plan, rows):
            cell = mine[(mine["dataset"] == dataset) & (mine["model"] == model)]
            line[f"{dataset}, {model}"] = _percent(cell["worst_group_accuracy"])
        lines.append(line)
    return pd.DataFrame(lines)


def render_tables(plan: Plan, rows: pd.DataFrame, *, form: Literal["markdown", "latex"] = "markdown") -> str:
    """Every table of a plan: the overview, one for each data set and model, and the ablations."""
    main, ablations = rows[rows["ablation"].isna()], rows[rows["ablation"].notna()]
    parts = []
    if form == "markdown":
        commits = ", ".join(sorted({str(commit)[:8] for commit in rows["git_commit"]}))
        hardware = " or ".join(sorted(rows["hardware"].unique()))
        runs = f"{rows['key'].nunique()} runs; {hardware}; {commits}.\n"  # entries of a plan may share a run
        parts += [f"{plan.about}\n" if plan.about else "", f"{NOTE}\n", runs]
    parts += [_titled("Worst group, label-free choice", overview(plan, main), form)]
    parts += [_titled(f"Worst group {ORACLE}, an oracle's choice", overview(plan, main, oracle=True), form)]
    names = ordered_names(plan, main)
    for dataset, model in _panels(plan, main):
        title = f"{plan.datasets[dataset].get('title', dataset)}; {plan.models[model].get('title', model)}"
        parts.append(_titled(title, dataset_table(main, dataset, model, names), form))
    for dataset, model in _panels(plan, ablations):
        ablated = (m["name"] for m in plan.methods if m.get("ablation"))
        compared = list(dict.fromkeys(["continued_erm", "score", *ablated]))  # entries may share a name
        title = f"Ablations: {plan.datasets[dataset].get('title', dataset)}; {plan.models[model].get('title', model)}"
        parts.append(_titled(title, dataset_table(rows, dataset, model, compared), form))
    return "\n".join(parts)


def ordered_names(plan: Plan, rows: pd.DataFrame) -> list[str]:
    """The method names that have rows: less supervision first, then as in the plan."""
    position = {m.get("name", m["method"]): n for n, m in enumerate(plan.methods)}
    kinds = list(SUPERVISION_KINDS)
    found = rows.drop_duplicates("name")

    def order(pair: tuple[str, str]) -> tuple[int, int]:
        name, declared = pair
        strongest = max((kinds.index(kind) + 1 for kind in declared.split(",") if kind), default=0)
        return strongest, position.get(name, len(position))

    return [name for name, _ in sorted(zip(found["name"], found["kinds"], strict=True), key=order)]


def _panels(plan: Plan, rows: pd.DataFrame) -> list[tuple[str, str]]:
    there = set(zip(rows["dataset"], rows["model"], strict=True)) if len(rows) else set()
    return [(d, m) for d in plan.datasets for m in plan.models if (d, m) in there]


def _supervision(kinds: str) -> str:
    return " + ".join(SUPERVISION_KINDS[kind] for kind in kinds.split(",") if kind) or "–"


def _percent(values: pd.Series) -> str:
    found = spread(list(values))
    return "–" if found is None else found.text(100)


def _titled(title: str, table: pd.DataFrame, form: str) -> str:
    if form == "markdown":
        head = [list(table.columns), ["---", *("---:" if n > 1 else "---" for n in range(1, len(table.columns)))]]
        lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in [*head, *table.to_numpy().tolist()]]
        return f"### {title}\n\n" + "\n".join(lines) + "\n"
    columns = "ll" + "r" * (len(table.columns) - 2)
    cells = [[_latex(str(cell)) for cell in line] for line in [list(table.columns), *table.to_numpy().tolist()]]
    body = [" & ".join(line) + r" \\" for line in cells]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    for character, escaped in (
        ("\\", r"\textbackslash{}"),
        ("&", r"\&"),
        ("%", r"\%"),
        ("_", r"\_"),
        ("#", r"\#"),
        (" ± ", r" $\pm$ "),
        ("λ", r"$\lambda$"),
        ("→", r"$\to$"),
        (ORACLE, r"\dag{}"),
        ("–", "--"),
        ("|", r"\textbar{}"),
    ):
        text = text.replace(character, escaped)
    return text
