"""How long training with `patience` goes on, which weights it ends with, and that an interruption changes nothing."""

import pytest
import torch
from tiny import square_images, square_samples, tiny_processor, tiny_vit
from transformers import TrainerCallback

from hf_score import HFScoreError, SCOREConfig, SCORETrainer
from hf_score.baselines import CBLLRTrainer
from hf_score.baselines.last_layer import CBLLRConfig
from hf_score.errors import DataError
from hf_score.evaluation import SELECTION
from hf_score.training import BaseConfig, BaseTrainer
from hf_score.training.convergence import TOLERANCE, has_converged


def options(folder, **fields):
    given = {"output_dir": str(folder), "use_cpu": True, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    return {**given, "logging_strategy": "no", "report_to": "none", "disable_tqdm": True, **fields}


def trainer(folder, values=(), callbacks=(), **fields):
    """ERM whose estimates are these, one after the other."""
    estimates = iter(values)
    return BaseTrainer(
        tiny_vit(),
        BaseConfig(**options(folder, **fields)),
        train_dataset=square_images(16),
        eval_dataset=square_images(8, seed=5),
        estimates=(lambda model: {SELECTION: next(estimates)}) if values else None,
        compute_metrics=None,
        callbacks=list(callbacks),
        processing_class=tiny_processor(),
    )


class Weights(TrainerCallback):
    """The weights after each epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, torch.Tensor]] = []

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.epochs.append({name: value.detach().clone() for name, value in model.state_dict().items()})


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("values", "converged"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.4], False),
        ([0.5, 0.4, 0.4], True),
        ([0.5, 0.5, 0.5 + TOLERANCE], True),
        ([0.5, 0.4, 0.6], False),
        ([0.5, 0.6, 0.4], False),
        ([0.1, 0.9, 0.2, 0.3], True),
    ],
)
def test_two_evaluations_without_a_better_one_are_enough(values, converged):
    assert has_converged(values, 2) is converged


@pytest.mark.parametrize("save_strategy", ["no", "epoch", "steps"])
def test_training_stops_and_ends_with_the_first_of_the_best_weights(tmp_path, save_strategy):
    kept = Weights()
    values = [0.2, 0.4, 0.4, 0.1, 0.9]
    patient = trainer(tmp_path, values, [kept], num_train_epochs=5, patience=2, save_strategy=save_strategy)
    patient.train()
    assert len(kept.epochs) == 4
    assert same(patient.model.state_dict(), kept.epochs[1])
    assert not same(kept.epochs[1], kept.epochs[2])


def test_the_most_epochs_are_a_bound_and_the_path_is_that_of_training_to_the_end(tmp_path):
    patient, undisturbed = Weights(), Weights()
    rising = trainer(tmp_path / "a", [0.1, 0.2, 0.3], [patient], num_train_epochs=3, patience=1)
    rising.train()
    trainer(tmp_path / "b", callbacks=[undisturbed], num_train_epochs=3, save_strategy="no").train()
    assert len(patient.epochs) == 3
    assert all(map(same, patient.epochs, undisturbed.epochs))
    assert same(rising.model.state_dict(), undisturbed.epochs[2])


def score(folder, **fields):
    return SCORETrainer(
        tiny_vit(),
        SCOREConfig(
            **options(folder, num_train_epochs=8, patience=2, save_total_limit=20, learning_rate=3e-3, **fields)
        ),
        train_dataset=square_images(16),
        eval_dataset=square_images(12, seed=5),
        spurious_samples=square_samples(),
        processing_class=tiny_processor(),
    )


def test_stopped_and_continued_is_undisturbed_bit_by_bit(tmp_path):
    whole = score(tmp_path / "whole")
    whole.train()
    steps = whole.state.global_step
    evaluations = [entry["eval_selection"] for entry in whole.state.log_history if "eval_selection" in entry]
    assert 3 <= len(evaluations) < 8
    per_epoch = steps // len(evaluations)
    for done in (1, len(evaluations)):  # the last: it had converged, and only its end was missing
        again = score(tmp_path / "whole")
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{done * per_epoch}"))
        assert again.state.global_step == steps
        assert [e["eval_selection"] for e in again.state.log_history if "eval_selection" in e] == evaluations
        assert same(again.model.state_dict(), whole.model.state_dict())


def test_groups_cannot_say_when(tmp_path):
    with_groups = [{**item, "group": 0} for item in square_images(8)]
    with pytest.raises(DataError, match="group"):
        BaseTrainer(
            tiny_vit(),
            BaseConfig(**options(tmp_path, patience=1)),
            train_dataset=square_images(16),
            eval_dataset=with_groups,
            processing_class=tiny_processor(),
        )


def test_patience_without_anything_to_go_by_is_refused(tmp_path):
    with pytest.raises(HFScoreError, match="patience is 0"):
        BaseConfig(**options(tmp_path, patience=0))
    with pytest.raises(HFScoreError, match="patience is 2, and there is no"):
        BaseTrainer(
            tiny_vit(),
            BaseConfig(**options(tmp_path, patience=2)),
            train_dataset=square_images(16),
            processing_class=tiny_processor(),
        )


def test_a_method_without_epochs_takes_no_notice(tmp_path):
    head = CBLLRTrainer(
        tiny_vit(),
        CBLLRConfig(**options(tmp_path, patience=1, save_strategy="no")),
        train_dataset=square_images(16),
        eval_dataset=square_images(8, seed=5),
        processing_class=tiny_processor(),
    )
    head.train()
    assert 0 <= head.evaluate()["eval_selection"] <= 1
