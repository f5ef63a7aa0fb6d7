"""Decisions are on disk when a call returns, and nobody's are lost: not by tabs, nor by a process that is killed."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from judged_run import FINGERPRINTS

from hf_score import HFScoreError, files
from hf_score.detection import Decision, Selection
from hf_score.review import CandidateTable, DecisionStore


def verdicts(run: Path) -> dict[int, str]:
    return {d.idx: d.verdict for d in Selection.load(run / "selection.json").decisions}


def test_a_decision_is_in_the_file_when_the_call_returns(run):
    store = DecisionStore(run)
    assert not (run / "selection.json").exists()
    assert store.decide([3], "spurious", "a square") == [3]
    expected = Decision(1003, int(store.table.labels[3]), "spurious", "person", "a square")
    assert Selection.load(run / "selection.json", **FINGERPRINTS).decisions == (expected,)
    store.decide([1, 3], "core")
    assert verdicts(run) == {1001: "core", 1003: "core"}
    assert [store.verdict(row) for row in (0, 1, 3)] == [None, "core", "core"]


def test_progress_counts_persons_and_names_the_empty_class(run):
    store = DecisionStore(run)
    totals = [int((store.table.labels == label).sum()) for label in range(3)]
    store.decide([0, 2, 1], "unsure")
    assert store.progress() == {"shirt": (2, totals[0]), "pullover": (1, totals[1]), "coat": (0, 0)}


def test_undo_goes_back_through_this_store_and_no_further(run):
    first, second = DecisionStore(run), DecisionStore(run)
    first.decide([0], "core")
    second.decide([1, 2], "spurious")
    second.decide([0], "unsure")
    second.undo()
    assert verdicts(run) == {1000: "core", 1001: "spurious", 1002: "spurious"}
    second.undo()
    assert second.undo() == [] and not second.can_undo
    assert verdicts(run) == {1000: "core"}
    first.undo()
    assert verdicts(run) == {}


def test_undo_leaves_what_another_has_decided_since(run):
    first, second = DecisionStore(run), DecisionStore(run)
    first.decide([0, 1], "core")
    second.decide([1], "spurious")
    first.undo()
    assert verdicts(run) == {1001: "spurious"}


def test_stores_see_each_other_and_the_last_decision_wins(run):
    first, second = DecisionStore(run), DecisionStore(run)
    first.decide([0, 1], "core")
    assert second.decide([1, 2], "spurious") == [0, 1, 2]
    assert first.refresh() == [1, 2]
    assert [first.verdict(row) for row in range(4)] == ["core", "spurious", "spurious", None]


def test_many_writers_at_once_lose_nothing(run):
    stores = [DecisionStore(run) for _ in range(4)]

    def work(k):
        for row in range(k, 24, 4):
            stores[k].decide([row], "core", str(k))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = Selection.load(run / "selection.json").decisions
    assert [(d.idx, d.note) for d in found] == [(1000 + row, str(row % 4)) for row in range(24)]


def test_suggestions_are_kept_until_a_person_decides(run):
    oracle = [Decision(1000, 0, "spurious", "oracle", "0.9"), Decision(1002, 0, "core", "proposal")]
    Selection((*oracle, Decision(77, 1, "core", "oracle")), **FINGERPRINTS, created="2026-01-01").save(
        run / "selection.json"
    )
    store = DecisionStore(run)
    assert store.decision(0) == oracle[0] and store.progress()["shirt"][0] == 0
    store.decide([0], "core")
    found = Selection.load(run / "selection.json")
    assert [(d.idx, d.decided_by) for d in found.decisions] == [(1000, "person"), (1002, "proposal"), (77, "oracle")]
    assert found.created == "2026-01-01"
    store.undo()
    assert store.decision(0) == oracle[0]


@pytest.mark.parametrize("kind", FINGERPRINTS)
def test_decisions_about_something_else_are_refused_and_left_alone(run, kind):
    path = Selection((), **{**FINGERPRINTS, kind: "other"}).save(run / "selection.json")
    before = path.read_bytes()
    with pytest.raises(HFScoreError, match="decided for another"):
        DecisionStore(run)
    assert path.read_bytes() == before


def test_a_file_that_was_replaced_meanwhile_is_refused_and_left_alone(run):
    store = DecisionStore(run)
    store.decide([0], "core")
    path = run / "selection.json"
    path.write_text("{")
    with pytest.raises(HFScoreError, match="cannot be read"):
        store.decide([1], "core")
    assert path.read_text() == "{"
    path.unlink()
    assert store.decide([1], "core") == [0, 1] and verdicts(run) == {1001: "core"}


def test_wrong_rows_and_verdicts_change_nothing(run):
    store = DecisionStore(run)
    for rows, verdict in (([24], "core"), ([-1], "core"), ([0], "maybe")):
        with pytest.raises(HFScoreError):
            store.decide(rows, verdict)
    assert not (run / "selection.json").exists() and not store.can_undo


def decisions(run: Path) -> dict[int, Decision]:
    return {d.idx - 1000: d for d in Selection.load(run / "selection.json").decisions}


def test_filling_a_cluster_leaves_what_is_decided_and_every_note(run):
    store, other = DecisionStore(run), DecisionStore(run)
    other.decide([1], "core", "a sleeve")
    assert sorted(store.decide([1, 5, 9], "spurious", {5: "half of it"}, undecided_only=True)) == [1, 5, 9]
    found = decisions(run)
    assert {row: (d.verdict, d.note) for row, d in found.items()} == {
        1: ("core", "a sleeve"),
        5: ("spurious", "half of it"),
        9: ("spurious", ""),
    }
    assert store.decide([1, 5], "core", undecided_only=True) == []  # and nothing to undo but the filling
    store.undo()
    assert set(decisions(run)) == {1} and not store.can_undo


def test_a_later_verdict_keeps_the_note_that_another_tab_wrote(run):
    first, second = DecisionStore(run), DecisionStore(run)
    first.decide([1], "core", "a sleeve")
    second.decide([1], "spurious")
    assert decisions(run)[1].note == "a sleeve"
    second.decide([1], "spurious", "")  # said to be empty
    assert decisions(run)[1].note == ""


def test_the_shortcut_of_a_cluster_is_named_once_for_all_who_judge_it(run):
    first, second = DecisionStore(run), DecisionStore(run)
    first.decide([1, 5], "spurious", shortcut="blue square")
    second.decide([9], "spurious")  # cluster 1 too
    second.decide([13], "core")
    second.decide([2], "spurious")  # of cluster 2
    named = {row: d.shortcut for row, d in decisions(run).items()}
    assert named == {1: "blue square", 5: "blue square", 9: "blue square", 13: "", 2: ""}
    assert second.amend([1, 5, 9, 13, 17], shortcut="sticker") == [1, 5, 9]
    selection = Selection.load(run / "selection.json")
    assert selection.shortcuts(first.table.class_names) == {"pullover": ["sticker"]}
    first.undo()  # what was amended by another stays
    assert set(decisions(run)) == {1, 5, 9, 13, 2}
    second.amend([2], note="green")
    second.undo()  # its own verdict, amended by itself
    assert set(decisions(run)) == {1, 5, 9, 13}


def test_names_and_notes_leave_the_digest_that_training_sees(run):
    store = DecisionStore(run)
    store.decide([1, 5], "spurious")
    before = store.selection.digest
    store.amend([1, 5], note="seen", shortcut="sticker")
    assert store.selection.digest == before and store.selection.shortcuts(["a", "b"]) == {"b": ["sticker"]}


def test_what_only_others_decided_is_not_amended(run):
    Selection((Decision(1001, 1, "spurious", "oracle", "0.9"),), **FINGERPRINTS).save(run / "selection.json")
    assert DecisionStore(run).amend([1, 5], note="mine", shortcut="mine") == []
    assert decisions(run) == {1: Decision(1001, 1, "spurious", "oracle", "0.9")}


VERDICTS = ("spurious", "core", "unsure")


def decide_all(store: DecisionStore, acknowledge=lambda row: None) -> None:
    for row in range(24):
        if store.verdict(row) is None:
            store.decide([row], VERDICTS[row % 3], f"note {row}")
            acknowledge(row)


def decide_until_killed(table: CandidateTable, point: str, writes: int) -> list[int]:
    """The rows that a process acknowledged before it killed itself at a point of its nth write."""
    out, into = os.pipe()
    process = os.fork()
    if not process:
        real, count = os.replace, 0

        def replace(*arguments):
            nonlocal count
            count += 1
            if point == "before" and count == writes:
                os.kill(os.getpid(), signal.SIGKILL)  # the new content is written, and not in place yet
            real(*arguments)
            if point == "after" and count == writes:
                os.kill(os.getpid(), signal.SIGKILL)  # in place, and nobody has been told

        files.os.replace = replace
        decide_all(DecisionStore(table.run, table), lambda row: os.write(into, bytes([row])))
        os._exit(0)
    os.close(into)
    acknowledged = []
    with open(out, "rb", buffering=0) as told:
        while row := told.read(1):
            acknowledged += row
            if point == "any time" and len(acknowledged) == writes:
                os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    return acknowledged


def test_a_killed_process_leaves_all_it_acknowledged_and_can_go_on(run, make):
    undisturbed = make()
    decide_all(DecisionStore(undisturbed))
    expected = json.loads((undisturbed / "selection.json").read_text())
    table = CandidateTable.open(run)
    done: list[int] = []
    for point, writes in (("before", 4), ("after", 3), ("any time", 5)):
        done += decide_until_killed(table, point, writes)
        found = json.loads((run / "selection.json").read_text())["decisions"]
        more = len(found) - len(done)
        # A decision that is on disk may not have been acknowledged yet; never the other way round.
        assert more in {"before": [0], "after": [1], "any time": range(24)}[point]
        assert found == expected["decisions"][: len(found)]
        done += [1] * more
    decide_all(DecisionStore(run))
    resumed = json.loads((run / "selection.json").read_text())
    assert {**resumed, "created": ""} == {**expected, "created": ""}
