"""A person's decisions, on disk as soon as they are made, by any number of tabs and servers at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from ..detection.selection import Decision, Selection, Verdict
from ..errors import SelectionError
from .table import CandidateTable

__all__ = ["DecisionStore"]

#: Who has the last word. What others wrote (an oracle, a proposal) is a suggestion until a person decides.
FINAL = ("person", "file")


class DecisionStore:
    """One person's hold on `run/selection.json`: decide, undo, ask.

    Each change reads the file, alters its own samples and replaces the file, all under a lock; so stores in other tabs
    or processes lose nothing, and of two decisions about a sample the later one stays. A process may die at any point:
    the file then holds every decision whose call returned.

    Args:
        run: run folder with `candidates/`.
        table: its candidates, where they are open already.

    Raises:
        SelectionError: no candidates, or `selection.json` is unreadable or about another model or data set.
    """

    def __init__(self, run: str | Path, table: CandidateTable | None = None) -> None:
        self.table = table or CandidateTable.open(run)
        self.path = Path(run) / "selection.json"
        self._row = {int(idx): row for row, idx in enumerate(self.table.idx)}
        self._actions: list[list[tuple[Decision | None, Decision]]] = []
        self._selection = self._empty()
        self._seen: tuple[int, ...] | None = None
        self.refresh()

    def decide(
        self,
        rows: Sequence[int],
        verdict: Verdict,
        notes: str | Mapping[int, str] | None = None,
        *,
        shortcut: str = "",
        undecided_only: bool = False,
    ) -> list[int]:
        """Judge these rows of the table; they are on disk when this returns.

        Args:
            rows: of the table.
            verdict: on all of them.
            notes: on all of them, or by row. A row without one keeps the note it has.
            shortcut: its name, where the verdict is spurious; default: the name that it, or its cluster, has.
            undecided_only: leave the rows that a person has decided as they are.

        Returns:
            The rows whose decision differs from what this store last knew, others' decisions included.

        Raises:
            SelectionError: no such row or verdict, or the file has become one that this run cannot use.
        """
        self._check(rows)
        by_row = dict.fromkeys(rows, notes) if isinstance(notes, str) else notes or {}
        with self._locked() as (before, decisions):
            action: list[tuple[Decision | None, Decision]] = []
            names = self._names(rows, decisions) if verdict == "spurious" else {}
            for row in rows:
                idx = int(self.table.idx[row])
                earlier = decisions.get(idx)
                if undecided_only and earlier is not None and earlier.decided_by in FINAL:
                    continue
                made = Decision(
                    idx=idx,
                    label=int(self.table.labels[row]),
                    verdict=verdict,
                    decided_by="person",
                    note=by_row.get(row, earlier.note if earlier else ""),
                    shortcut=shortcut or names.get(row, "") if verdict == "spurious" else "",
                )
                action.append((earlier, made))
            if action:
                decisions.update({made.idx: made for _, made in action})
                self._write(decisions)
        if action:
            self._actions.append(action)
        return self._differences(before)

    def amend(self, rows: Sequence[int], *, note: str | None = None, shortcut: str | None = None) -> list[int]:
        """Change the note, or the shortcut's name, of what a person has decided about these rows; verdicts stay.

        Only spurious ones have a shortcut to name. What is undecided stays so, and undo is about verdicts alone.

        Returns:
            As `decide`.
        """
        self._check(rows)
        with self._locked() as (before, decisions):
            changed = {}
            for idx in (int(self.table.idx[row]) for row in rows):
                decision = decisions.get(idx)
                if decision is None or decision.decided_by not in FINAL:
                    continue
                amended = decision if note is None else replace(decision, note=note)
                if shortcut is not None and decision.verdict == "spurious":
                    amended = replace(amended, shortcut=shortcut)
                if amended != decision:
                    changed[decision] = decisions[idx] = amended
            if changed:
                self._write(decisions)
        # It is still this store's verdict, which its undo takes back.
        self._actions = [[(earlier, changed.get(made, made)) for earlier, made in action] for action in self._actions]
        return self._differences(before)

    def undo(self) -> list[int]:
        """Take back this store's last action, except where someone has decided otherwise since.

        Returns:
            As `decide`; empty where there is nothing to take back.
        """
        if not self._actions:
            return self.refresh()
        with self._locked() as (before, decisions):
            for earlier, decision in self._actions[-1]:
                if decisions.get(decision.idx) != decision:
                    continue
                if earlier is None:
                    del decisions[decision.idx]
                else:
                    decisions[decision.idx] = earlier
            self._write(decisions)
        self._actions.pop()
        return self._differences(before)

    def refresh(self) -> list[int]:
        """Read what others have decided; returns as `decide`."""
        with self._locked() as (before, _):
            pass
        return self._differences(before)

    @property
    def can_undo(self) -> bool:
        """Whether this store has an action to take back."""
        return bool(self._actions)

    @property
    def selection(self) -> Selection:
        """All decisions, as last read or written."""
        return self._selection

    def decided_rows(self) -> list[int]:
        """The rows about which something was decided, by whomever."""
        return sorted(self._row[idx] for idx in self._decisions if idx in self._row)

    def decision(self, row: int) -> Decision | None:
        """What was decided about a row, and by whom; None where nothing was."""
        return self._decisions.get(int(self.table.idx[row]))

    def verdict(self, row: int) -> Verdict | None:
        """The verdict about a row; None where nothing was decided."""
        decision = self.decision(row)
        return None if decision is None else decision.verdict

    def progress(self) -> dict[str, tuple[int, int]]:
        """Class name to (candidates that a person decided, candidates); a class without candidates has (0, 0)."""
        progress = {label: [0, 0] for label in range(len(self.table.class_names))}
        for row, label in enumerate(self.table.labels.tolist()):
            count = progress.setdefault(label, [0, 0])
            decision = self.decision(row)
            count[0] += decision is not None and decision.decided_by in FINAL
            count[1] += 1
        return {self.table.name(label): (done, total) for label, (done, total) in progress.items()}

    @contextmanager
    def _locked(self) -> Iterator[tuple[dict[int, Decision], dict[int, Decision]]]:
        """Hold the lock; yields the decisions known before, and a copy of those in the file to alter."""
        lock = self.path.with_name(".selection.lock")
        try:
            held = FileLock(lock, poll_interval=0.01).acquire()
        except OSError as error:
            raise SelectionError(f"{lock} cannot be opened ({error}): make the run folder writable.") from None
        with held:  # the system lets go of it where the process is killed
            before = self._decisions if self._seen is not None else {}
            self._read()
            yield before, dict(self._decisions)

    def _check(self, rows: Sequence[int]) -> None:
        wrong = [row for row in rows if not 0 <= row < len(self.table)]
        if wrong:
            raise SelectionError(f"there is no candidate {wrong[0]}: the table has rows 0 to {len(self.table) - 1}.")

    def _names(self, rows: Sequence[int], decisions: Mapping[int, Decision]) -> dict[int, str]:
        """Row → the name of the shortcut that it, or else another one of its cluster, was judged to show."""
        own = {
            row: d.shortcut for idx, d in decisions.items() if d.shortcut and (row := self._row.get(idx)) is not None
        }
        cluster = self.table.cluster
        of_cluster = {int(cluster[row]): name for row, name in own.items() if cluster[row] >= 0}
        return {row: own.get(row) or of_cluster.get(int(cluster[row]), "") for row in rows}

    def _read(self) -> None:
        stamp = self._stamp()
        if stamp is None:
            self._keep(self._empty())
        elif stamp != self._seen:
            self._keep(
                Selection.load(
                    self.path,
                    dataset_fingerprint=self.table.dataset_fingerprint,
                    model_fingerprint=self.table.model_fingerprint,
                )
            )
        self._seen = stamp or ()

    def _write(self, decisions: dict[int, Decision]) -> None:
        # In the table's order, so that the file depends on what was decided and not on when.
        last = len(self.table)
        ordered = sorted(decisions.values(), key=lambda d: (self._row.get(d.idx, last), d.idx))
        selection = Selection(
            decisions=tuple(ordered),
            dataset_fingerprint=self.table.dataset_fingerprint,
            model_fingerprint=self.table.model_fingerprint,
            created=self._selection.created,
        )
        try:
            selection.save(self.path)
        except OSError as error:
            raise SelectionError(
                f"{self.path} cannot be written ({error}): nothing was saved; make room, or the folder writable."
            ) from None
        self._keep(selection)
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, ...] | None:
        """Changes whenever the file is replaced; None where there is no file."""
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return None
        return state.st_ino, state.st_mtime_ns, state.st_size

    def _keep(self, selection: Selection) -> None:
        self._selection = selection
        self._decisions = {decision.idx: decision for decision in selection.decisions}

    def _empty(self) -> Selection:
        return Selection((), self.table.dataset_fingerprint, self.table.model_fingerprint)

    def _differences(self, before: dict[int, Decision]) -> list[int]:
        now = self._decisions
        changed = [
            idx
            for idx in now.keys() | before.keys()
            # most are the very same object, which is faster to see
            if (one := now.get(idx)) is not (other := before.get(idx)) and one != other
        ]
        return sorted(self._row[idx] for idx in changed if idx in self._row)
