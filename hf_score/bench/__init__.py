"""Benchmarks: a plan of methods, data sets, models and seeds → one row per run → tables and plots.

`docs/how-to/run-a-benchmark.md` has the format of a plan. Training code never sees a group label that its method did
not declare.
"""

from pathlib import Path

from ..errors import HFScoreError
from ..files import write_bytes, write_text
from .methods import TRAINERS, find_trainer
from .plan import Cell, Plan
from .rows import RowFile, rows_of
from .runner import run_plan
from .tables import render_tables

__all__ = ["TRAINERS", "Cell", "Plan", "RowFile", "find_trainer", "rows_of", "run_plan", "write_tables"]


def write_tables(plan: Plan, store: RowFile, folder: str | Path) -> Path:
    """Write `tables.md`, `tables.tex` and the plots of a plan's rows into a folder, and return it.

    Rows of runs that the plan no longer has stay in the file and out of the tables; what a run is called, the plan
    says.

    Raises:
        HFScoreError: there are no rows.
    """
    import io

    from .plots import against_lambda, against_supervision, before_after

    folder = Path(folder)
    rows = rows_of(plan, store)
    if not len(rows):
        raise HFScoreError(f"{store.path} has no rows of {plan.path}: run the plan first.")
    pictures = []
    for plot in (against_supervision, before_after, against_lambda):
        figure = plot(plan, rows)
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
            write_bytes(folder / f"{plot.__name__.replace('_', '-')}.png", buffer.getvalue())
            pictures.append(f"![{(plot.__doc__ or '').splitlines()[0]}]({plot.__name__.replace('_', '-')}.png)\n")
    heading = (
        f"# Results of {plan.path.name}\n\nMade by `hf-score bench {plan.path} --tables DIR` from the rows alone.\n"
    )
    write_text(folder / "tables.md", "\n".join([heading, *pictures, render_tables(plan, rows)]))
    write_text(folder / "tables.tex", render_tables(plan, rows, form="latex"))
    return folder
