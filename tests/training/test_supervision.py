"""A method reads what it declares, and nothing else."""

import re

import pytest

from hf_score.baselines import BASELINES, SUPERVISION_KINDS, ERMTrainer, Supervision
from hf_score.errors import SupervisionError

EVERYTHING = {
    "samples": object(),
    "regions": lambda idx: None,
    "validation": [1],
    "train_groups": {0: 1},
}


@pytest.mark.parametrize("kind", SUPERVISION_KINDS)
def test_reads_what_it_declares_and_nothing_else(kind):
    given = Supervision(**EVERYTHING).declared_by("my method", [kind])
    assert getattr(given, kind) is EVERYTHING[kind]
    for other in set(SUPERVISION_KINDS) - {kind}:
        with pytest.raises(SupervisionError, match=f"my method asks for .*{other}.*declares {kind}"):
            getattr(given, other)


def test_undeclared_supervision_is_not_even_kept():
    given = Supervision(**EVERYTHING).declared_by("my method", [])
    assert not any(value is thing for value in vars(given)["_given"].values() for thing in EVERYTHING.values())


def test_declared_supervision_that_is_missing_is_named():
    with pytest.raises(SupervisionError, match=r"my method needs groups of the training set.*train_groups="):
        Supervision().declared_by("my method", ["train_groups"])


@pytest.mark.parametrize("trainer", BASELINES.values(), ids=list(BASELINES))
def test_every_baseline_says_what_it_is(trainer):
    assert BASELINES[trainer.name] is trainer
    assert [other for other in BASELINES.values() if other.title == trainer.title] == [trainer]
    assert re.fullmatch(
        r"Vapnik, 1991|Ahsan et al., 2026|ours, after .+|\S.+, (19|20)\d\d, arXiv \d{4}\.\d{5}", trainer.paper
    )
    assert set(trainer.supervision_kinds) <= set(SUPERVISION_KINDS)
    assert trainer.supervision_kinds == () or "upervision" in trainer.__doc__


def test_a_trainer_cannot_reach_what_it_did_not_declare(tmp_path):
    trainer = ERMTrainer.__new__(ERMTrainer)
    trainer.supervision = Supervision(**EVERYTHING).declared_by(ERMTrainer.title, ERMTrainer.supervision_kinds)
    with pytest.raises(SupervisionError, match="ERM asks for"):
        trainer.train_groups()
