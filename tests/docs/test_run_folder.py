"""docs/reference/run-folder.md names what a run leaves, and nothing that it does not."""

import re
from pathlib import Path

import numpy as np
from documents import ROOT

from hf_score.pipeline.controls import METHODS
from hf_score.review import CandidateTable, DecisionStore
from hf_score.review.layout import lay_out

#: Named in the table, and not there unless `--controls` is given, or without `hf-score repair`; other tests make them.
CONTROLS = {f"{method}/" for method in METHODS} - {"erm/", "score/"} | {"repair.json"}


def named() -> list[str]:
    """The paths in the first column of the table."""
    page = (ROOT / "docs" / "reference" / "run-folder.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    return [path for cell in first_cells for path in re.findall(r"`([^`]+)`", cell)]


def test_every_file_of_a_finished_and_reviewed_run_is_on_the_page(reader):
    run = Path("runs/mine")
    lay_out(CandidateTable.open(run))
    store = DecisionStore(run)
    store.decide(np.flatnonzero(store.table.labels == 1).tolist(), "spurious")
    files = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
    paths = named()
    missing = [file for file in files if not any(file == p or (p.endswith("/") and file.startswith(p)) for p in paths)]
    assert not missing
    absent = {path for path in paths if not (run / path).exists()}
    sometimes = {"swap_only/", "exchange_only/", "report/insertions.png"}  # the last where training freed an answer
    assert set(paths) >= CONTROLS and absent - CONTROLS <= sometimes
