"""Decisions about candidates, as a user writes them: rows in, a selection that fits the candidates out."""

import numpy as np
import pytest

from hf_score.detection import Candidates
from hf_score.errors import SelectionError


@pytest.fixture
def candidates() -> Candidates:
    """Five candidates, three of class 0, with ids 10 to 14."""
    return Candidates(
        idx=np.arange(10, 15),
        position=np.arange(5),
        labels=np.array([0, 0, 0, 1, 1]),
        logits=np.zeros(5, dtype=np.float32),
        masked_margins=np.zeros(5, dtype=np.float32),
        heatmaps=np.zeros((5, 8, 8), dtype=np.float32),
        masks=np.zeros((5, 8, 8), dtype=bool),
        shortcut_relevance=np.zeros((5, 4), dtype=np.float32),
        cluster=np.array([0, 0, 1, 2, 2]),
        dataset_fingerprint="data",
        model_fingerprint="model",
        layer="last",
    )


def test_a_person_selects_rows_and_leaves_the_others_undecided(candidates):
    selection = candidates.select([3, 0])
    assert [(d.idx, d.label, d.verdict, d.decided_by) for d in selection.decisions] == [
        (10, 0, "spurious", "person"),
        (13, 1, "spurious", "person"),
    ]
    assert (selection.dataset_fingerprint, selection.model_fingerprint) == ("data", "model")


def test_rows_may_be_a_mask_such_as_a_cluster(candidates):
    assert [d.idx for d in candidates.select(candidates.cluster == 2).spurious] == [13, 14]
    assert candidates.select([]).decisions == ()


def test_the_others_may_be_judged_in_the_same_breath_and_notes_go_with_their_candidates(candidates):
    selection = candidates.select([1], by="oracle", others="core", notes=list("abcde"))
    assert [d.verdict for d in selection.decisions] == ["core", "spurious", "core", "core", "core"]
    assert [d.note for d in selection.decisions] == list("abcde")


@pytest.mark.parametrize("row", [-1, 5])
def test_a_row_that_is_no_candidate_is_refused(candidates, row):
    with pytest.raises(SelectionError, match=f"no candidate in row {row}: give rows from 0 to 4"):
        candidates.select([0, row])
