"""Every method declares a grid of eight and gates, and a run in which it was idle does not pass them."""

import pytest
import tiny
import torch
from gates import idle

from hf_score.baselines import BASELINES, Supervision
from hf_score.training.base_trainer import BaseTrainer
from hf_score.training.grids import GRID_POINTS, grid_points

SCHEDULE = {"learning_rate": 2e-3, "num_train_epochs": 4}


@pytest.mark.parametrize("kind", BASELINES.values(), ids=list(BASELINES))
def test_a_grid_has_eight_points_that_can_be_run(kind, tmp_path):
    points = grid_points(kind, SCHEDULE)
    assert len(points) == GRID_POINTS == len({str(point) for point in points})
    own = kind.config_class(tmp_path, report_to="none", use_cpu=True)
    for point in points:
        kind.config_class(tmp_path, report_to="none", use_cpu=True, **{**SCHEDULE, **point})
    assert all(hasattr(own, name) for name in kind.grid)


def test_factors_are_of_the_schedule():
    class Method(BaseTrainer):
        grid = {"learning_rate": [0.5, 2.0], "num_train_epochs": [0.1, 1.0]}  # noqa: RUF012

    points = grid_points(Method, {"learning_rate": 1e-3, "num_train_epochs": 4})
    assert [tuple(point.values()) for point in points] == [(5e-4, 1), (5e-4, 4), (2e-3, 1), (2e-3, 4)]


def run(name, folder, **changes):
    data = tiny.square_images(48)
    groups = {int(i): int(2 * label + (i % 8 < 2)) for i, label in zip(data.idx, data.labels, strict=True)}
    kind = BASELINES[name]
    config = kind.config_class(
        folder,
        num_train_epochs=2,
        learning_rate=1e-3,
        per_device_train_batch_size=16,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **changes,
    )
    trainer = kind(tiny.tiny_vit(), config, train_dataset=data, supervision=Supervision(train_groups=groups))
    torch.manual_seed(0)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("name", "changes", "failing"),
    [
        ("group_dro", {"group_dro_step_size": 0.01}, "group_weight_range"),
        ("prusc", {"prusc_learning_rate": 1e-6}, "pruned_share"),
        ("rr_clarc", {"rr_clarc_layer": "last"}, "positions_with_gradient"),
    ],
)
def test_an_idle_method_does_not_pass_its_gates(name, changes, failing, tmp_path):
    assert failing in idle(run(name, tmp_path, **changes))


@pytest.mark.parametrize("name", ["group_dro", "prusc", "rr_clarc"])
def test_in_six_steps_the_defaults_are_not_idle(name, tmp_path):
    found = set(idle(run(name, tmp_path)))
    assert not found - {"penalty_left"}  # of two classes' noise images, which have no artefact
