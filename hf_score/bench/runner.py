"""Running a plan: what is missing from the rows, in this process or in several, with progress."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ..errors import HFScoreError
from .job import Job, fingerprint_of
from .plan import Cell, Plan
from .rows import RowFile

__all__ = ["run_plan"]


def run_plan(
    plan: Plan,
    rows: str | Path,
    *,
    cache: str | Path,
    workers: int = 1,
    only: Mapping[str, list[str]] | None = None,
) -> RowFile:
    """Run every cell of a plan that has no row yet.

    A cell that fails is reported and tried again the next time; the others go on. Stopping loses the cells that are
    running and nothing else.

    Args:
        plan: the plan.
        rows: parquet file of the rows.
        cache: folder of images, ERM models and candidates, safe to delete.
        workers: processes; the CPU's threads are shared among them.
        only: see `Plan.cells`.

    Raises:
        HFScoreError: some cells failed, `only` matches none, or there are no workers.
    """
    if workers < 1:
        raise HFScoreError(f"{workers} workers run nothing: give at least 1.")
    store = RowFile(rows)
    cells = {cell.key: cell for cell in plan.cells(only)}
    keys = _keys_of_these_data(plan, store, cells)
    missing = [cell for key, cell in cells.items() if key not in keys]
    total, done, failed = len(missing), 0, []
    print(f"{len(store.rows)} rows in {store.path}, {total} runs to do", flush=True)
    began = time.monotonic()
    for cell, row, test, problem in _outcomes(plan, missing, Path(cache), workers):
        done += 1
        point = "".join(f", {name} {value}" for name, value in cell.grid_point.items() if value is not None)
        where = f"[{done}/{total}] {cell.dataset}, {cell.model}, seed {cell.seed}, {cell.title}{point}"
        if row is None:
            failed.append(where)
            print(f"{where}: FAILED\n{problem}", flush=True)
            continue
        store.add(row, test)
        left = (time.monotonic() - began) / done * (total - done)
        print(
            f"{where}: {_in_words(row)}, average {100 * row['accuracy']:.1f} %, "
            f"{row['wall_seconds']:.0f} s; {left / 60:.0f} min left",
            flush=True,
        )
    if failed:
        raise HFScoreError(f"{len(failed)} of {total} runs failed, first {failed[0]}: see above, and run it again.")
    return store


def _in_words(row: Mapping[str, Any]) -> str:
    """The worst group, or what is known without groups; or that the method did nothing."""
    if row["inactive"]:
        return f"inactive ({row['inactive']})"
    if row["worst_group_accuracy"] is None:
        return f"reliance {json.loads(row['verdict'])['outcome']}"
    return f"worst group {100 * row['worst_group_accuracy']:.1f} %"


def _keys_of_these_data(plan: Plan, store: RowFile, cells: Mapping[str, Cell]) -> set[str]:
    """The keys of rows whose data set is still what it was: a plan says where data are, a row which they were."""
    there = [cells[key] for key in cells if key in store.keys]
    now = {name: fingerprint_of(plan.datasets[name]) for name in dict.fromkeys(cell.dataset for cell in there)}
    was = dict(zip(store.rows["key"], store.rows["fingerprint"], strict=True)) if there else {}
    same = {cell.key for cell in there if was[cell.key] == now[cell.dataset]}
    if len(same) < len(there):
        print(f"{len(there) - len(same)} rows are of data that have changed: they are run again", flush=True)
    return same


#: The cell, its row, the test set of the row; or why there is none.
_Outcome = tuple[Cell, dict[str, Any] | None, dict[str, Any] | None, str]


def _outcomes(plan: Plan, cells: list[Cell], cache: Path, workers: int) -> Iterator[_Outcome]:
    # Cells of one job follow each other, so that its data are loaded once. Stable: rounds and seeds keep their order.
    order = {job: position for position, job in enumerate(dict.fromkeys(map(_job_of, cells)))}
    portions = [list(portion) for _, portion in groupby(sorted(cells, key=lambda c: order[_job_of(c)]), key=_job_of)]
    if workers == 1:
        for portion in portions:
            yield from _work(plan, portion, cache)
        return
    context = torch.multiprocessing.get_context("spawn")
    todo, outcomes = context.Queue(), context.Queue()
    for portion in portions:
        todo.put(portion)
    for _ in range(workers):
        todo.put(None)
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // workers)))
    processes = [
        context.Process(target=_serve, args=(plan, cache, threads, todo, outcomes), daemon=True)
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    left = len(cells)
    while left:
        if outcomes.empty() and not any(process.is_alive() for process in processes):
            raise HFScoreError(f"the worker processes are gone with {left} runs left (out of memory?): run it again.")
        try:
            yield outcomes.get(timeout=5)
        except queue.Empty:
            continue
        left -= 1
    for process in processes:
        process.join()


def _job_of(cell: Cell) -> tuple[int, int, str, str]:
    return cell.round, cell.seed, cell.dataset, cell.model


def _serve(plan: Plan, cache: Path, threads: int, todo: Any, outcomes: Any) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_go_with_parent, daemon=True).start()
    while (portion := todo.get()) is not None:
        for outcome in _work(plan, portion, cache):
            outcomes.put(outcome)


def _go_with_parent() -> None:
    """A worker must not run on when the parent was killed and could not say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(plan: Plan, cells: list[Cell], cache: Path) -> Iterator[_Outcome]:
    job: Job | None = None
    for cell in cells:
        try:
            job = job or Job(plan, cell.dataset, cell.model, cell.seed, cache)
            yield cell, job.run(cell), job.test_set, ""
        except HFScoreError as error:
            yield cell, None, None, str(error)
        except Exception:  # one method's failure must not stop the night's runs
            yield cell, None, None, traceback.format_exc()
