"""Tables of a benchmark's rows: mean ± sample standard deviation over seeds, in %, as Markdown or LaTeX."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from ..baselines import SUPERVISION_KINDS
from ..evaluation import chance_levels
from ..report.summary import EMPTY, spread
from ..training.supervision import in_words
from .choice import nested_choice
from .contrasts import contrast_table, findings
from .measured import Measured, Tests, gates_in_words, with_measures
from .plan import Plan
from .rows import best_evaluation

__all__ = ["chosen", "chosen_runs", "dataset_table", "overview", "render_tables", "taken_runs"]

ORACLE, OLDER = "†", "‡"
NOTE = (
    "Mean ± standard deviation over seeds, in %. Every figure is of the evaluation with the best label-free estimate. "
    "Of a grid's points each half of the seeds takes the one that is best on the other half. "
    f"{ORACLE} is chosen by the worst group of a validation set with group labels instead, which only an oracle has. "
    f"{OLDER}: rows of older code, which kept no logits, so that they have no interval; of a grid each "
    "seed took its own best point. "
    "*95 % interval*: of the worst group's mean, over seeds and test images (of one seed over images alone). "
    "*Balanced*: mean of the classes' accuracies. *AUROC*: among images with the same value of the attribute, "
    "mean over its values. *Average*: accuracy over all test images. "
    "*Relevance*: share of the positive relevance inside the true region of the attribute, test images. *Flips*: "
    "share of rightly classified test images that change class when the region of another class's image is inserted. "
    "*Gates*: whether the runs did what their method is; one that did not is *inactive*, and no score. *Epochs*, "
    "*images* (sent forward in training, all passes) and *seconds* are medians. "
    "*Gap*, of two shortcuts: accuracy where that one is wrong, less accuracy weighted by training groups."
)
CONTRASTS_NOTE = (
    "Declared in the plan, of worst groups, in points. Paired over seeds and test images: hierarchical bootstrap, "
    "Student's t. *p* of “above” is twice the one-sided; of “within” it is the larger of two one-sided tests. "
    "*Holm*: adjusted for all lines of this table, the missing ones too; 0.05 decides."
)

#: heading → (column, whether the oracle chooses)
COLUMNS = {
    "worst group": ("worst_group_accuracy", False),
    f"worst group {ORACLE}": ("worst_group_accuracy", True),
    "balanced": ("balanced_accuracy", False),
    "AUROC": ("auroc_within_attribute", False),
    "average": ("accuracy", False),
    "mean of groups": ("mean_group_accuracy", False),
    "weighted": ("weighted_accuracy", False),
    "relevance": ("relevance_in_region", False),
    "flips": ("insertion_flips", False),
}
#: Beside these a table leaves out the columns that no line has.
ALWAYS = ("method", "supervision", "worst group", "seeds")


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


def chosen(rows: pd.DataFrame, tests: Tests) -> Measured:
    """The runs that stand in the tables, with measures, and those of them that are inactive.

    A point of a grid is chosen on the other half of the seeds (`nested_choice`), where an inactive run counts 0; among
    rows of older code by each seed for itself (`chosen_runs`).

    Args:
        rows: rows of a `RowFile`.
        tests: their test sets.
    """
    if "right" not in rows:
        rows = with_measures(rows, tests)
    taken = taken_runs(rows)
    return Measured(taken[taken["failed"] == ""], tests, taken[taken["failed"] != ""])


def taken_runs(rows: pd.DataFrame, *, oracle: bool = False) -> pd.DataFrame:
    """The runs that stand in tables and plots, inactive ones too: see `chosen`."""
    older = rows["older"].astype(bool)
    parts = [chosen_runs(rows[older], oracle=oracle)] if older.any() else []
    if not older.all():
        parts.append(nested_choice(rows[~older], by="validation" if oracle else "selection"))
    return pd.concat(parts).sort_index() if parts else rows


def dataset_table(
    rows: pd.DataFrame, dataset: str, model: str, names: Sequence[str], *, tests: Tests | None = None
) -> pd.DataFrame:
    """All columns for one data set and model: a line per method that has rows, and what chance reaches."""
    tests = Tests() if tests is None else tests
    here = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
    here = here if "right" in here else with_measures(here, tests)
    measured, by_oracle = chosen(here, tests), taken_runs(here, oracle=True)
    by_oracle = by_oracle[by_oracle["failed"] == ""]
    lines = [
        _line(measured, by_oracle, name)
        for name in names
        if (measured.rows["name"] == name).any() or (measured.inactive["name"] == name).any()
    ]
    digests = measured.rows.loc[~measured.rows["older"].astype(bool), "test"]
    if len(digests):
        lines += _chance_lines(tests, digests.iloc[0])
    table = pd.DataFrame(lines).fillna(EMPTY)
    return table[[name for name in table if name in ALWAYS or (table[name] != EMPTY).any()]]


def _line(measured: Measured, by_oracle: pd.DataFrame, name: str) -> dict[str, str]:
    mine = measured.rows[measured.rows["name"] == name]
    inactive = measured.inactive[measured.inactive["name"] == name]
    runs = pd.concat([mine, inactive]) if len(mine) else inactive
    line = {"method": runs["title"].iloc[0], "supervision": _told(runs)}
    for heading, (column, oracle) in COLUMNS.items():
        of = by_oracle[by_oracle["name"] == name] if oracle else mine
        line[heading] = _percent(of[column]) if len(mine) else "inactive"
        if heading == "worst group":
            line["95 % interval"] = _interval(measured.of(name)) if len(mine) else "inactive"
    older = f" {OLDER}" if runs["older"].astype(bool).any() else ""
    passes = _median(runs["image_passes"]) if "image_passes" in runs else None
    line |= _gaps(mine)
    return line | {
        "gates": gates_in_words(mine, inactive),
        "seeds": f"{runs['seed'].nunique()}{older}",
        "epochs": f"{_median(runs['history'].map(_epochs)):g}",
        "images": EMPTY if passes is None else f"{passes:,.0f}",
        "seconds": f"{runs['wall_seconds'].median():.0f}",
    }


def _epochs(history: str) -> float:
    return max((evaluation.get("epoch") or 0.0 for evaluation in json.loads(history)), default=0.0)


def _median(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.median()) if len(known) else None


def _interval(runs: Measured) -> str:
    mean = runs.worst_group()
    if mean is None:
        return EMPTY
    interval = mean.interval()
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _chance_lines(tests: Tests, digest: str) -> list[dict[str, str]]:
    test = tests[digest]
    return [
        {
            "method": f"*chance: {level.name}*",
            "worst group": f"{100 * level.worst_group_accuracy:.1f}",
            "balanced": f"{100 * level.balanced_accuracy:.1f}",
            "AUROC": "50.0",
            "average": f"{100 * level.accuracy:.1f}",
        }
        for level in chance_levels(test.labels, len(test.class_names))
    ]


def overview(plan: Plan, rows: pd.DataFrame, *, oracle: bool = False, tests: Tests | None = None) -> pd.DataFrame:
    """Worst group of every method (ablations apart) on every data set and model, in the order of their supervision."""
    rows = rows[rows["ablation"].isna()]
    rows = rows if "right" in rows else with_measures(rows, Tests() if tests is None else tests)
    runs = taken_runs(rows, oracle=oracle)
    runs = runs[runs["failed"] == ""]
    lines = []
    for name in ordered_names(plan, rows):
        of_name = rows[rows["name"] == name]
        line = {"method": of_name["title"].iloc[0], "supervision": _supervision(of_name["kinds"].iloc[0])}
        for dataset, model in _panels(plan, rows):
            here, all_here = (
                part[(part["name"] == name) & (part["dataset"] == dataset) & (part["model"] == model)]
                for part in (runs, rows)
            )
            text = _percent(here["worst_group_accuracy"]) if len(here) or not len(all_here) else "inactive"
            line[f"{dataset}, {model}"] = f"{text} {OLDER}" if here["older"].astype(bool).any() else text
        lines.append(line)
    return pd.DataFrame(lines)


def render_tables(
    plan: Plan, rows: pd.DataFrame, *, tests: Tests | None = None, form: Literal["markdown", "latex"] = "markdown"
) -> str:
    """Every table of a plan: the overview, the declared contrasts, one for each data set and model, the ablations.

    Args:
        plan: the plan.
        rows: its rows (`rows_of`).
        tests: their test sets (`Tests.beside`); rows without one are shown as rows of older code.
        form: of the text.
    """
    tests = Tests() if tests is None else tests
    rows = with_measures(rows, tests)
    main, ablations = rows[rows["ablation"].isna()], rows[rows["ablation"].notna()]
    parts = []
    if form == "markdown":
        commits = ", ".join(sorted({str(commit)[:8] for commit in rows["git_commit"]}))
        hardware = " or ".join(sorted(rows["hardware"].unique()))
        runs = f"{rows['key'].nunique()} runs; {hardware}; {commits}.\n"  # entries of a plan may share a run
        parts += [f"{plan.about}\n" if plan.about else "", f"{NOTE}\n", runs]
    parts += [titled("Worst group, label-free choice", overview(plan, main), form)]
    parts += [titled(f"Worst group {ORACLE}, an oracle's choice", overview(plan, main, oracle=True), form)]
    if plan.contrasts:
        found = findings(plan.contrasts, plan.places(), chosen(rows, tests))
        title = {place: plan.title(*place) for places in plan.places().values() for place in places}
        parts.append(titled("Contrasts", contrast_table(found, title=title), form))
        parts += [f"{CONTRASTS_NOTE}\n"] if form == "markdown" else []
    names = ordered_names(plan, main)
    for dataset, model in _panels(plan, main):
        parts.append(titled(plan.title(dataset, model), dataset_table(main, dataset, model, names, tests=tests), form))
    for dataset, model in _panels(plan, ablations):
        ablated = (m["name"] for m in plan.methods if m.get("ablation"))
        compared = list(dict.fromkeys(["continued_erm", "score", *ablated]))  # entries may share a name
        table = dataset_table(rows, dataset, model, compared, tests=tests)
        parts.append(titled(f"Ablations: {plan.title(dataset, model)}", table, form))
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


def _told(runs: pd.DataFrame) -> str:
    """What the runs of a method were told in one place: who decided, and on what; older code noted the kinds alone."""
    row = runs.iloc[0]
    if row["older"] or not isinstance(row.get("supervision"), str):
        return _supervision(row["kinds"])
    return row["supervision"].removeprefix(in_words(())).removeprefix(" + ") or EMPTY


def _supervision(kinds: str) -> str:
    return " + ".join(SUPERVISION_KINDS[kind] for kind in kinds.split(",") if kind) or EMPTY


def _gaps(rows: pd.DataFrame) -> dict[str, str]:
    """A column for each gap of a set with two shortcuts; none elsewhere."""
    if "gaps" not in rows or not rows["gaps"].notna().any():
        return {}
    found = [json.loads(gaps) for gaps in rows["gaps"].dropna()]
    return {name: _percent(pd.Series([gaps[name] for gaps in found], dtype=float)) for name in found[0]}


def _percent(values: pd.Series) -> str:
    found = spread(list(values))
    return EMPTY if found is None else found.text(100)


def titled(title: str, table: pd.DataFrame, form: str = "markdown") -> str:
    """A table under its heading, as Markdown or LaTeX."""
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
        (OLDER, r"\ddag{}"),
        ("<", r"$<$"),
        ("–", "--"),
        ("|", r"\textbar{}"),
    ):
        text = text.replace(character, escaped)
    return text
