"""Benchmarks: a plan of methods, data sets, models and seeds → one row per run → tables and plots.

`docs/how-to/run-a-benchmark.md` has the format of a plan. Training code never sees a group label that its method did
not declare.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import HFScoreError
from ..files import write_bytes, write_text
from .choice import nested_choice
from .measured import Tests
from .methods import TRAINERS, find_trainer
from .plan import Cell, Plan
from .region_tables import render_verdicts
from .rows import RowFile, rows_of
from .runner import run_plan
from .tables import render_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "TRAINERS",
    "Cell",
    "Plan",
    "RowFile",
    "find_trainer",
    "nested_choice",
    "rows_of",
    "run_plan",
    "write_studies",
    "write_tables",
]


def write_tables(plan: Plan, store: RowFile, folder: str | Path) -> Path:
    """Write `tables.md`, `tables.tex` and the plots of a plan's rows into a folder, and return it.

    Rows of runs that the plan no longer has stay in the file and out of the tables; what a run is called, the plan
    says.

    Raises:
        HFScoreError: there are no rows.
    """
    from .plots import above_chance, against_lambda, against_supervision, before_after

    folder = Path(folder)
    rows, tests = _rows_and_tests(plan, store)
    pictures = []
    for plot in (
        partial(above_chance, tests=tests),
        *map(partial, (against_supervision, before_after, against_lambda)),
    ):
        figure = plot(plan, rows)
        if figure is not None:
            file = f"{plot.func.__name__.replace('_', '-')}.png"
            _write_picture(folder / file, figure)
            pictures.append(f"![{(plot.func.__doc__ or '').splitlines()[0]}]({file})\n")
    heading = (
        f"# Results of {plan.path.name}\n\nMade by `hf-score bench {plan.path} --tables DIR` from the rows alone.\n"
    )
    pages = (render_tables(plan, rows, tests=tests), render_verdicts(plan, rows))
    write_text(folder / "tables.md", "\n".join([heading, *pictures, *(page for page in pages if page)]))
    pages = (render_tables(plan, rows, tests=tests, form="latex"), render_verdicts(plan, rows, form="latex"))
    write_text(folder / "tables.tex", "\n".join(page for page in pages if page))
    return folder


def write_studies(plans: Sequence[Plan], stores: Sequence[RowFile], folder: str | Path) -> list[Path]:
    """Write what the rows of all plans together show of the estimates and of the verdict that need no groups.

    Args:
        plans: the plans.
        stores: the rows of each.
        folder: where `estimates.md` and `verdict.md` go, with their pictures.

    Returns:
        The pages; one that no row has anything for is not written.

    Raises:
        HFScoreError: a plan has no rows.
    """
    from .studies import estimates_study, in_one, verdict_study

    folder = Path(folder)
    parts = [(plan, *_rows_and_tests(plan, store)) for plan, store in zip(plans, stores, strict=True)]
    rows, tests = in_one(parts)
    made_by = f"hf-score bench {' '.join(str(plan.path) for plan in plans)} --tables DIR"
    written = []
    for name, study in (
        ("estimates", estimates_study(rows, made_by=made_by)),
        ("verdict", verdict_study(rows, tests, made_by=made_by)),
    ):
        if study is None:
            continue
        text, pictures = study
        for file, figure in pictures.items():
            _write_picture(folder / file, figure)
        written.append(write_text(folder / f"{name}.md", text))
    return written


def _rows_and_tests(plan: Plan, store: RowFile) -> tuple[pd.DataFrame, Tests]:
    rows = rows_of(plan, store)
    if not len(rows):
        raise HFScoreError(f"{store.path} has no rows of {plan.path}: run the plan first.")
    return rows, Tests.beside(store.path)


def _write_picture(path: Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
