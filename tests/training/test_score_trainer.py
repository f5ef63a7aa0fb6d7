"""SCORETrainer against Trainer, against itself (accumulation, processes, resume), and against group labels."""

import json

import numpy as np
import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from processes import run_as_one_of, run_as_one_of_two
from safetensors.torch import load_file, save_file
from score_runs import assert_same, config, score_trainer, square_vit, weights
from tiny import square_images, square_samples, tiny_processor, tiny_vit
from transformers import (
    AutoModelForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    Trainer,
    TrainingArguments,
)

from hf_score import HFScoreError, SCOREConfig, SCORETrainer
from hf_score.data import ImageCollator
from hf_score.errors import DataError, ModelError
from hf_score.evaluation import SELECTION, group_metrics


def small_resnet(seed: int = 0) -> TimmWrapperForImageClassification:
    torch.manual_seed(seed)
    pretrained = timm.get_pretrained_cfg("test_resnet").to_dict()
    return TimmWrapperForImageClassification(
        TimmWrapperConfig(architecture="test_resnet", num_labels=2, pretrained_cfg=pretrained)
    )


@pytest.mark.parametrize("make_model", [lambda: tiny_vit(hidden_dropout_prob=0.1), small_resnet])
def test_without_samples_training_is_bit_identical_to_trainer(tmp_path, make_model):
    ours = score_trainer(tmp_path / "a", model=make_model(), score_lambda=0.0, gradient_accumulation_steps=2)
    ours.train()
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "b"),
        use_cpu=True,
        max_steps=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_steps=1,
    )
    base = Trainer(
        model=make_model(), args=arguments, train_dataset=square_images(), data_collator=ImageCollator(None)
    )
    base.train()
    assert_same(weights(ours.model), weights(base.model))
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (ours, base)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("exchange", [0.0, 1.0])
@pytest.mark.parametrize("form", ["exchange", "paper"])
def test_accumulating_gradients_does_not_change_the_result(tmp_path, exchange, form):
    """SGD, because Adam divides by gradients that are nearly zero and so magnifies rounding."""
    results = []
    for size, steps in ((8, 1), (4, 2)):
        trainer = score_trainer(
            tmp_path / f"{steps}",
            optim="sgd",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            score_exchange_weight=exchange,
            score_form=form,
        )
        trainer.train()
        results.append(weights(trainer.model))
    assert_same(*results, rtol=1e-4, atol=1e-6)


def distance(a: dict, b: dict) -> float:
    return float(torch.stack([(a[name].double() - b[name].double()).square().sum() for name in a]).sum().sqrt())


@pytest.mark.parametrize(("form", "samples"), [("exchange", 5), ("paper", 5), ("both", 2)])
def test_samples_of_a_step_are_the_same_however_many_micro_batches_share_them(tmp_path, form, samples):
    """Shares of unequal size, and none for some: the mean over the step is the mean over its samples."""
    found, logged, start = [], [], weights(square_vit())
    for micro_batches in (1, 2, 3, 4):
        trainer = score_trainer(
            tmp_path / f"{micro_batches}",
            optim="sgd",
            learning_rate=0.1,
            max_steps=2,
            per_device_train_batch_size=12 // micro_batches,
            gradient_accumulation_steps=micro_batches,
            score_batch_size=samples,
            score_form=form,
        )
        trainer.train()
        found.append(weights(trainer.model))
        logged.append([entry["penalty"] for entry in trainer.state.log_history if "penalty" in entry])
    for other, penalties in zip(found[1:], logged[1:], strict=True):
        assert distance(found[0], other) < 1e-5 * distance(found[0], start)
        assert penalties == pytest.approx(logged[0], rel=1e-4)


@pytest.mark.parametrize(("form", "weight", "images"), [("exchange", 1.0, 28), ("paper", 0.0, 13), ("both", 0.0, 33)])
def test_images_of_a_step_are_counted_as_they_go_through_the_network(tmp_path, form, weight, images, capsys):
    trainer = score_trainer(
        tmp_path,
        max_steps=1,
        score_batch_size=5,
        score_form=form,
        score_exchange_weight=weight,
        score_refresh_steps=0,
    )
    seen = []

    def note(module, args, kwargs) -> None:
        if module.training:
            seen.append(len(kwargs["pixel_values"]))

    with trainer.model.register_forward_pre_hook(note, with_kwargs=True):
        trainer.train()
    assert sum(seen) == sum(trainer.args.images_per_step.values()) == images
    assert f"{images} images" in capsys.readouterr().out


def test_samples_are_at_most_as_many_as_images_unless_it_is_said(tmp_path):
    def samples(**fields):
        return score_trainer(tmp_path, **{"score_batch_size": None, **fields}).args.score_batch_size

    assert samples(per_device_train_batch_size=6) == 6
    assert samples(per_device_train_batch_size=6, gradient_accumulation_steps=2) == 12
    assert samples(per_device_train_batch_size=32) == 16
    assert samples(per_device_train_batch_size=6, score_batch_size=9) == 9


@pytest.mark.parametrize("granularity", ["channel", "spatial"])
@pytest.mark.parametrize("strength", ["activation", "contribution"])
def test_penalty_starts_at_one_and_training_lowers_it(tmp_path, granularity, strength):
    trainer = score_trainer(
        tmp_path,
        score_granularity=granularity,
        score_form="paper",
        score_neuron_strength=strength,
        class_balanced=False,
        score_batch_size=6,
        score_refresh_steps=0,
        max_steps=12,
        score_lambda=3.0,
    )
    trainer.train()
    penalties = [entry["penalty"] for entry in trainer.state.log_history if "penalty" in entry]
    assert penalties[0] == pytest.approx(1.0, abs=1e-3)  # 8 samples, 2 held out: one step sees the other 6
    assert 0 <= penalties[-1] < 0.9
    assert min(penalties) >= 0


def test_margin_difference_starts_near_one_and_training_lowers_it(tmp_path):
    trainer = score_trainer(tmp_path, eval_dataset=square_images(seed=3), max_steps=30, learning_rate=3e-3)
    before = trainer.evaluate()
    trainer.train()
    penalties = [entry["penalty"] for entry in trainer.state.log_history if "penalty" in entry]
    after = trainer.evaluate()
    assert before["eval_reliance"] == 1 and after["eval_reliance"] < 0.3
    assert np.mean(penalties[-5:]) < 0.5 * penalties[0]
    estimates = after["eval_worst_class_accuracy"], after[f"eval_estimate_{SELECTION}"]
    assert after["eval_selection"] == min(estimates)


def margin_by_hand(logits, label) -> float:
    numbers = logits.tolist()
    return numbers[label] - max(value for k, value in enumerate(numbers) if k != label)


def test_the_first_margin_penalty_by_hand(tmp_path):
    """What each pair's region changes, pair by pair, over the same on the starting model with every sample once."""
    trainer = score_trainer(tmp_path, max_steps=1, score_batch_size=4, freeze_batch_norm=True)
    model, samples, partners = square_vit(), trainer.spurious_samples, trainer._partners

    def mean_change(rows, draws) -> float:
        changes = []
        for row, draw in zip(rows, draws, strict=True):
            image, mask, label = samples.pixel_values[row], samples.masks[row], int(samples.labels[row])
            (partner,), _ = partners.draw([label], [draw])
            for inside, around in ((image, image), (image, partner)):
                other = partner if inside is around else around
                pair = torch.stack([torch.where(mask, inside, around), torch.where(mask, other, around)])
                with torch.no_grad():
                    logits = model(pixel_values=pair).logits
                changes.append(abs(margin_by_hand(logits[0], label) - margin_by_hand(logits[1], label)))
        return sum(changes) / len(changes)

    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(trainer.args.seed))
    expected = mean_change(order[:4].tolist(), range(4)) / mean_change(range(len(samples)), range(len(samples)))
    trainer.train()
    assert trainer.state.log_history[0]["penalty"] == pytest.approx(expected, rel=1e-4)


# ---- What samples do ----


def test_samples_with_lambda_zero_train_by_their_copies(tmp_path):
    found = {}
    for name, fields in {
        "copies": {"score_lambda": 0.0},
        "nearly": {"score_lambda": 1e-9},
        "none": {"score_lambda": 0.0, "score_exchange_weight": 0.0},
    }.items():
        trainer = score_trainer(tmp_path / name, optim="sgd", learning_rate=0.1, samples=square_samples(), **fields)
        trainer.train()
        found[name] = weights(trainer.model)
    assert_same(found["copies"], found["nearly"], rtol=1e-5, atol=1e-7)
    assert any((found["copies"][name] - value).abs().max() > 1e-3 for name, value in found["none"].items())


@pytest.mark.parametrize("fields", [{"score_lambda": 1.0}, {"score_lambda": 0.0}])
def test_samples_that_train_turn_balance_on_and_batch_norm_off(tmp_path, fields):
    on = score_trainer(tmp_path, samples=square_samples(), **fields).args
    assert on.class_balanced is True and on.freeze_batch_norm is True
    off = score_trainer(tmp_path, samples=square_samples(), class_balanced=False, freeze_batch_norm=False, **fields)
    assert off.args.class_balanced is False and off.args.freeze_batch_norm is False


def test_a_configuration_serves_several_trainers(tmp_path):
    """What one trainer decides does not reach the next one."""
    args = config(tmp_path, score_lambda=0.0)
    made = [
        SCORETrainer(tiny_vit(), args, train_dataset=square_images(), spurious_samples=samples).args.class_balanced
        for samples in (square_samples(), None)
    ]
    assert made == [True, False] and args.class_balanced is None


def test_samples_that_only_measure_leave_training_to_trainer(tmp_path):
    fields = {"score_lambda": 0.0, "score_exchange_weight": 0.0, "eval_dataset": square_images(seed=3)}
    measured = score_trainer(tmp_path / "a", samples=square_samples(), **fields)
    measured.train()
    without = score_trainer(tmp_path / "b", **fields)
    without.train()
    assert_same(weights(measured.model), weights(without.model))
    assert measured.args.class_balanced is False and measured.args.freeze_batch_norm is False
    assert 0 < measured.evaluate()["eval_reliance"] != 1 and "eval_reliance" not in without.evaluate()


@pytest.mark.parametrize("form", ["exchange", "paper"])
def test_a_penalty_with_nothing_to_penalise_is_refused(tmp_path, form):
    samples = square_samples()
    samples.masks.zero_()
    if form == "paper":
        samples.pixel_values.zero_()
    model = square_vit()
    if form == "paper":  # nothing speaks for the class
        torch.nn.init.zeros_(model.classifier.weight)
    trainer = score_trainer(tmp_path, model=model, samples=samples, score_form=form)
    with pytest.raises(HFScoreError, match=r"starting model is 0 for all 6 spurious-positive samples .* look at"):
        trainer.train()
    assert trainer.state.global_step == 0
    only_copies = {"score_lambda": 0.0, "score_exchange_weight": 1.0}
    copies = score_trainer(tmp_path, model=model, samples=samples, score_form=form, **only_copies)
    copies.train()  # asks for no penalty


def first_batch(trainer) -> torch.Tensor:
    """What the model sees first while it trains, of as many images as a batch has."""
    seen = []

    def note(module, args, kwargs) -> None:
        if module.training and len(kwargs["pixel_values"]) == trainer.args.per_device_train_batch_size:
            seen.append(kwargs["pixel_values"].clone())

    with trainer.model.register_forward_pre_hook(note, with_kwargs=True):
        trainer.train()
    return seen[0]


def test_training_images_take_a_region_from_their_own_class_where_copies_are_made(tmp_path):
    def batch(**fields):
        return first_batch(score_trainer(tmp_path, max_steps=1, **fields))

    exchanged, unchanged = batch(), batch(score_own_class_exchange=False)
    inside = square_samples().masks.any(dim=0)
    assert torch.equal(exchanged[:, :, ~inside], unchanged[:, :, ~inside])
    assert (exchanged != unchanged)[:, :, inside].flatten(1).any(dim=1).float().mean() > 0.5
    assert torch.equal(batch(score_form="paper", score_exchange_weight=0.0), unchanged)


def test_masks_of_everything_except_the_object_leave_training_images_as_they_are(tmp_path):
    def batch(**fields):
        trainer = score_trainer(tmp_path, max_steps=1, **fields)
        trainer.spurious_samples.masks.logical_not_()
        return first_batch(trainer)

    assert torch.equal(batch(), batch(score_own_class_exchange=False))


@pytest.mark.parametrize("form", ["exchange", "paper"])
def test_a_sample_without_weight_is_not_penalised(tmp_path, form):
    """Weights multiply λ: with all of them doubled the penalty is twice as large, with all of them 0 there is none."""
    penalties = {}
    for weight in (0.0, 1.0, 2.0):
        trainer = score_trainer(tmp_path, score_form=form, score_exchange_weight=0.0, max_steps=1)
        trainer.spurious_samples.weights.fill_(weight)
        trainer.train()
        penalties[weight] = trainer.state.log_history[0]["penalty"]
    assert penalties[0.0] == 0.0
    assert penalties[1.0] > 0.5
    assert penalties[2.0] == pytest.approx(2 * penalties[1.0], rel=1e-5)


def test_penalty_alone_trains_nothing_above_the_probe_layer(tmp_path):
    trainer = score_trainer(tmp_path, score_exchange_weight=0.0, score_form="paper")
    trainer.current_gradient_accumulation_steps = 1
    penalties, copies = trainer.penalty(trainer.model, trainer._draw(0), step=0)
    penalties["neurons"].backward()
    touched = {name for name, p in trainer.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert copies == 0
    assert any(".0." in name for name in touched) and any(".1." in name for name in touched)
    assert not any(".2." in name or name.startswith("classifier") for name in touched), touched


def test_no_hook_and_no_forward_stays_on_the_model(tmp_path):
    trainer = score_trainer(tmp_path)
    before = {name: dict(m._forward_hooks) for name, m in trainer.model.named_modules()}
    trainer.train()
    assert {name: dict(m._forward_hooks) for name, m in trainer.model.named_modules()} == before


@pytest.mark.parametrize("penalty", [{}, {"score_refresh_steps": 0}, {"score_refresh_steps": 3}])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(tmp_path, penalty):
    fields = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **penalty}
    if penalty:
        fields["score_form"] = "paper"
    whole = score_trainer(tmp_path / "whole", **fields)
    whole.train()
    again = score_trainer(tmp_path / "again", model=square_vit(seed=5), **fields)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert_same(weights(again.model), weights(whole.model))


@pytest.mark.parametrize("form", ["exchange", "paper"])
def test_a_checkpoint_of_the_release_before_goes_on(tmp_path, form):
    """Its score_state.safetensors had one layout for both penalties."""
    fields = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4, "score_form": form}
    whole = score_trainer(tmp_path / "whole", **fields)
    whole.train()
    path = tmp_path / "whole" / "checkpoint-4" / "score_state.safetensors"
    state = {name: value for name, value in load_file(path).items() if name not in ("sufficient", "share")}
    of_penalty = {"relevance", "total"} if form == "paper" else set()
    save_file({"relevance_step": torch.tensor(-1), **state}, path)
    assert load_file(path).keys() == {"scale", "starting_reliance", "relevance_step"} | of_penalty
    again = score_trainer(tmp_path / "again", model=square_vit(seed=5), **fields)
    again.train(resume_from_checkpoint=str(path.parent))
    assert_same(weights(again.model), weights(whole.model))


def test_resuming_without_the_shortcut_relevance_is_refused(tmp_path):
    fields = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    score_trainer(tmp_path, **fields).train()
    (tmp_path / "checkpoint-2" / "score_state.safetensors").unlink()
    with pytest.raises(ModelError, match=r"score_state\.safetensors is missing"):
        score_trainer(tmp_path, **fields).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_load_best_gives_the_weights_of_the_best_checkpoint(tmp_path):
    trainer = score_trainer(
        tmp_path,
        eval_dataset=square_images(seed=3),
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="selection",
        greater_is_better=True,
    )
    trainer.train()
    scores = [e["eval_selection"] for e in trainer.state.log_history if "eval_selection" in e]
    assert len(scores) == 4 and trainer.state.best_metric == max(scores)
    saved = AutoModelForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert_same(weights(trainer.model), weights(saved))


def test_batch_norm_statistics_stay_while_the_penalty_is_on(tmp_path):
    def statistics(model):
        return {k: v for k, v in weights(model).items() if "running" in k}

    start = statistics(small_resnet())
    frozen = score_trainer(tmp_path / "a", model=small_resnet(), score_layer="stage2")
    frozen.train()
    assert_same(statistics(frozen.model), start)
    free = score_trainer(tmp_path / "b", model=small_resnet(), score_layer="stage2", freeze_batch_norm=False)
    free.train()
    assert any(not torch.equal(value, start[name]) for name, value in statistics(free.model).items())


def test_bf16_trains_and_explains_in_float32(tmp_path):
    trainer = score_trainer(tmp_path, bf16=True, score_form="paper")
    trainer.train()
    assert trainer.extra_state()["relevance"].dtype == torch.float32
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in trainer.model.parameters())


@pytest.mark.slow
def test_a_compiled_model_trains(tmp_path):
    trainer = score_trainer(tmp_path, torch_compile=True)
    trainer.train()
    assert trainer.state.global_step == 4


# ---- Group labels have no way in ----


def with_column(name: str) -> Dataset:
    images = square_images(8)
    columns = {"pixel_values": images.pixel_values.tolist(), "label": images.labels.tolist(), name: [0, 1] * 4}
    return Dataset.from_dict(columns)


@pytest.mark.parametrize("column", ["group", "spurious", "place", "any_attribute"])
def test_a_training_set_with_a_group_or_attribute_is_refused(tmp_path, column):
    with pytest.raises(DataError, match=f"column {column}"):
        score_trainer(tmp_path, train_dataset=with_column(column))


@pytest.mark.parametrize("metric", ["worst_group_accuracy", "eval_mean_group_accuracy", "eval_weighted_accuracy"])
def test_a_group_metric_cannot_choose_the_checkpoint(tmp_path, metric):
    with pytest.raises(HFScoreError, match="needs group labels"):
        config(tmp_path, metric_for_best_model=metric)
    assert config(tmp_path, metric_for_best_model=metric, allow_group_oracle=True).metric_for_best_model == metric


def test_a_set_balanced_by_group_cannot_choose_the_checkpoint(tmp_path):
    choosing = {
        "save_strategy": "steps",
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "eval_dataset": with_column("group"),
    }
    with pytest.raises(DataError, match="leaks the groups"):
        score_trainer(tmp_path, **choosing)
    score_trainer(tmp_path, **choosing, allow_group_oracle=True)


def test_evaluating_a_set_with_groups_adds_group_metrics(tmp_path):
    dataset = with_column("group")
    trainer = score_trainer(tmp_path, eval_dataset=dataset, group_names=["without", "with"])
    metrics = trainer.evaluate()
    logits = trainer.predict(dataset).predictions
    expected = group_metrics(
        logits.argmax(-1), np.array(dataset["label"]), np.array(dataset["group"]), group_names=["without", "with"]
    )
    assert metrics["eval_worst_group_accuracy"] == expected["worst_group_accuracy"]
    assert "eval_selection" not in metrics  # a set with groups offers nothing to choose by


def test_a_token_in_the_arguments_is_refused(tmp_path):
    with pytest.raises(HFScoreError, match="HF_TOKEN"):
        config(tmp_path, hub_token="hf_secret")


def test_controls_of_the_neurons_without_a_penalty_on_them_are_refused(tmp_path):
    with pytest.raises(HFScoreError, match="controls of the penalty on neurons"):
        config(tmp_path, score_random_neurons=True)


def test_a_training_set_of_one_class_is_refused(tmp_path):
    images = square_images()
    images = type(images)(images.pixel_values, torch.ones_like(images.labels), images.idx)
    with pytest.raises(HFScoreError, match="one class"):
        score_trainer(tmp_path, train_dataset=images).train()


def test_a_penalty_without_samples_is_refused(tmp_path):
    with pytest.raises(HFScoreError, match="no spurious-positive samples"):
        SCORETrainer(model=tiny_vit(), args=config(tmp_path), train_dataset=square_images())


# ---- Classes and processes ----


@pytest.mark.parametrize(("fields", "seed"), [({"data_seed": 0}, 0), ({"data_seed": 5}, 5), ({}, 7)])
def test_the_data_seed_draws_the_images(tmp_path, fields, seed):
    trainer = score_trainer(tmp_path, seed=7, class_balanced=True, score_lambda=0.0, **fields)
    drawn = list(trainer._get_train_sampler(trainer.train_dataset))
    expected = torch.multinomial(
        torch.ones(32), 32, replacement=True, generator=torch.Generator().manual_seed(seed * 1_000_003)
    )
    assert drawn == expected.tolist()


def test_class_balanced_draws_classes_equally_and_anew_each_epoch(tmp_path):
    images = square_images(400)
    rare = torch.arange(400) < 40
    images = type(images)(images.pixel_values[:, :, :4, :4], rare.long(), images.idx)
    trainer = score_trainer(tmp_path, train_dataset=images, class_balanced=True, score_lambda=0.0)
    loader = trainer.get_train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        epochs.append(torch.cat([batch["labels"] for batch in loader]))
    assert all(len(labels) == 400 and 0.42 < labels.float().mean() < 0.58 for labels in epochs)
    assert not torch.equal(*epochs)


FORMS = ("exchange", "paper", "both")


def train_on_a_global_batch_of_eight(folder, processes):
    """Leaves the weights after three steps and the number of rows it predicts, for each form."""
    for form in FORMS:
        trainer = score_trainer(
            folder, optim="sgd", per_device_train_batch_size=8 // processes, max_steps=3, score_form=form
        )
        assert trainer.accelerator.num_processes == processes
        trainer.train()
        rows = len(trainer.predict(trainer.train_dataset).predictions)
        found = {name: value.contiguous() for name, value in weights(trainer.model).items()}
        save_file({**found, "rows": torch.tensor(rows)}, folder / f"{form}.safetensors")


def test_two_processes_give_the_result_of_one_with_the_same_global_batch(tmp_path):
    folders = [tmp_path / name for name in ("first", "second", "one")]
    for folder in folders:
        folder.mkdir()
    run_as_one_of_two(train_on_a_global_batch_of_eight, lambda rank: (folders[rank], 2))
    train_on_a_global_batch_of_eight(folders[2], 1)
    for form in FORMS:
        first, second, one = (load_file(folder / f"{form}.safetensors") for folder in folders)
        assert one["rows"] == 32
        assert_same(one, first, rtol=1e-4, atol=1e-6)
        assert_same(one, second, rtol=1e-4, atol=1e-6)


def train_on_a_global_batch_of_twelve(folder, processes):
    trainer = score_trainer(
        folder,
        optim="sgd",
        learning_rate=0.1,
        per_device_train_batch_size=12 // processes,
        max_steps=2,
        score_form="both",
    )
    trainer.train()
    found = {name: value.contiguous() for name, value in weights(trainer.model).items()}
    logged = [entry["penalty"] for entry in trainer.state.log_history if "penalty" in entry]
    save_file({**found, "logged": torch.tensor(logged)}, folder / "found.safetensors")


def test_three_processes_share_samples_that_three_does_not_divide(tmp_path):
    folders = [tmp_path / name for name in ("first", "second", "third", "one")]
    for folder in folders:
        folder.mkdir()
    run_as_one_of(3, train_on_a_global_batch_of_twelve, lambda rank: (folders[rank], 3))
    train_on_a_global_batch_of_twelve(folders[3], 1)
    *of_three, one = (load_file(folder / "found.safetensors") for folder in folders)
    logged, start = one.pop("logged"), weights(square_vit())
    for found in of_three[:1]:  # those of the others are never written down
        torch.testing.assert_close(found["logged"], logged, rtol=1e-4, atol=0)
    for found in of_three:
        del found["logged"]
        assert distance(one, found) < 1e-5 * distance(one, start)


def test_training_arguments_survive_json(tmp_path):
    fields = config(tmp_path).own_fields()
    assert json.loads(json.dumps(fields)) == fields and fields["score_lambda"] == 3.0


def test_a_model_can_be_named_and_is_loaded_for_the_training_sets_classes(tmp_path):
    tiny_vit().save_pretrained(tmp_path / "vit")
    tiny_processor().save_pretrained(tmp_path / "vit")
    images = [Image.fromarray(np.full((20, 30, 3), 60 * i, dtype=np.uint8)) for i in range(4)]
    features = Features(idx=Value("int64"), image=ImageFeature(), label=ClassLabel(names=["a", "b", "c"]))
    rows = {"idx": range(4), "image": images, "label": [0, 1, 2, 0]}
    config = SCOREConfig(str(tmp_path / "out"), score_lambda=0.0, max_steps=1, use_cpu=True, report_to="none")
    trainer = SCORETrainer(str(tmp_path / "vit"), config, train_dataset=Dataset.from_dict(rows, features=features))
    assert trainer.model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert trainer.train().global_step == 1
