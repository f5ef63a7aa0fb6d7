"""Training sets of every kind: the right labels reach the loss, or one sentence refuses; streams train as sets do."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from score_runs import assert_same, square_vit, weights
from tiny import square_images, square_samples, tiny_processor, tiny_vit
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_score.baselines import JTTConfig, JTTTrainer
from hf_score.data import ImageCollator, load_data
from hf_score.data.exchange import beginning_of
from hf_score.detection import find_candidates, scan
from hf_score.errors import DataError, HFScoreError
from hf_score.training import BaseConfig, BaseTrainer, SCOREConfig, SCORETrainer

from .python_inputs import CLASSES, LABELS, PICTURES, PYTHON_INPUTS, WORDS, Pairs, Stream, rows, stream, table

PIXELS = ImageCollator(tiny_processor())([{"image": image} for image in PICTURES])["pixel_values"]


def fields(folder, **changes):
    defaults = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 1,
        "per_device_train_batch_size": 6,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    return {**defaults, **changes}


def trainer(folder, train_dataset, *, model=None, eval_dataset=None, **changes):
    config = BaseConfig(**fields(folder, **changes))
    model = model or tiny_vit()
    return BaseTrainer(
        model, config, train_dataset=train_dataset, eval_dataset=eval_dataset, processing_class=tiny_processor()
    )


def seen_by(model):
    """The keywords of the model's forward passes."""
    batches = []
    model.register_forward_pre_hook(lambda module, args, kwargs: batches.append(kwargs), with_kwargs=True)
    return batches


def assert_each_has_its_label(pixel_values, labels):
    """Every picture is there once, and has the label that it was made with."""
    distances = (pixel_values[:, None] - PIXELS[None]).abs().flatten(2).amax(2)
    which = distances.argmin(1)
    assert distances.amin(1).max() < 1e-5 and sorted(which.tolist()) == list(range(len(PICTURES)))
    assert labels.tolist() == [LABELS[i] for i in which]


@pytest.mark.parametrize("row", PYTHON_INPUTS, ids=lambda row: row.name)
def test_the_right_labels_reach_the_loss_or_one_sentence_refuses(row, tmp_path):
    what, _, words = row.expected.partition(": ")
    (tmp_path / "data").mkdir()
    given = row.make(tmp_path / "data")
    if what == "refused":
        with pytest.raises(HFScoreError, match=words) as caught:
            trainer(tmp_path, **given)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
        return
    model = tiny_vit()
    batches = seen_by(model)
    trainer(tmp_path, model=model, **{"num_train_epochs": 1, **given}).train()
    assert len(batches) == 1
    assert_each_has_its_label(batches[0]["pixel_values"], batches[0]["labels"])
    assert batches[0].keys() <= {"pixel_values", "labels", "num_items_in_batch"}


SCANNED = [row for row in PYTHON_INPUTS if row.expected == "read" and "torch IterableDataset" not in row.name]


@pytest.mark.parametrize("row", SCANNED, ids=lambda row: row.name)
def test_a_scan_reads_what_training_reads(row, tmp_path):
    given = row.make(tmp_path)["train_dataset"]
    prepared = "pixel_values" in row.name or "with_transform" in row.name
    found = scan(tiny_vit(), given, processor=None if prepared else tiny_processor(), num_candidates=6)
    hits = [hit for of_class in found.hits.values() for hit in of_class]
    assert not found.unreadable and len(hits) == 6
    if "ImageFolder" not in row.name:  # whose order is that of its folders
        assert {hit.position: hit.label for hit in hits} == dict(enumerate(LABELS))


# ---- Evaluation and prediction ----


@pytest.mark.parametrize("make", [lambda: table(WORDS), lambda: rows(WORDS), lambda: Pairs(rows(WORDS))])
def test_evaluation_sets_of_any_kind_are_read(make, tmp_path):
    model = tiny_vit()
    with torch.no_grad():
        expected = (model(PIXELS).logits.argmax(1) == torch.tensor(LABELS)).float().mean()
    ours = trainer(tmp_path, table(), model=model, eval_dataset={"a": make(), "b": table()})
    metrics = ours.evaluate()
    assert metrics["eval_a_accuracy"] == metrics["eval_b_accuracy"] == pytest.approx(float(expected))
    assert ours.evaluate(make())["eval_accuracy"] == pytest.approx(float(expected))


def test_groups_of_an_evaluation_set_in_a_list_are_reported_and_cannot_choose(tmp_path):
    grouped = rows(WORDS, group=[0, 1, 1, 0, 1, 0])
    metrics = trainer(tmp_path, table(), eval_dataset=grouped).evaluate()
    assert 0 <= metrics["eval_worst_group_accuracy"] <= 1
    choosing = {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}
    with pytest.raises(DataError, match="leaks the groups"):
        trainer(tmp_path, table(), eval_dataset=grouped, **choosing, metric_for_best_model="selection")


@pytest.mark.parametrize("given", [PICTURES, table(None), Stream(PICTURES)], ids=["list", "Dataset", "stream"])
def test_sets_without_labels_are_predicted(given, tmp_path):
    model = tiny_vit()
    predicted = trainer(tmp_path, table(), model=model).predict(given)
    assert predicted.label_ids is None
    with torch.no_grad():
        np.testing.assert_allclose(predicted.predictions, model(PIXELS).logits, atol=1e-5)
    with pytest.raises(DataError, match="has no label"):
        trainer(tmp_path, table(), eval_dataset=given)


def test_all_of_load_data_is_no_training_set(tmp_path):
    data = load_data({"train": table(), "test": table()}, class_names=CLASSES, held_out=0.34)
    with pytest.raises(DataError, match=r"such as data\.train"):
        trainer(tmp_path, data)
    assert len(trainer(tmp_path, data.train).train_dataset) == len(data.train)


# ---- Streams ----


def squares(count=64):
    """`square_images` as a table."""
    images = square_images(count)
    return Dataset.from_dict({"pixel_values": images.pixel_values.numpy(), "label": images.labels.tolist()})


def test_without_samples_a_stream_trains_to_the_bit_as_with_trainer(tmp_path):
    data, changes = squares().to_iterable_dataset().shuffle(seed=3, buffer_size=16), {"max_steps": 12}
    arguments = TrainingArguments(**fields(tmp_path, **changes, remove_unused_columns=False))
    theirs = Trainer(tiny_vit(), arguments, train_dataset=data, data_collator=ImageCollator())
    config = SCOREConfig(**fields(tmp_path, **changes, score_lambda=0.0))
    ours = SCORETrainer(tiny_vit(), config, train_dataset=data)
    for one in (theirs, ours):
        one.train()
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (theirs, ours)]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    ours_after = ours.model.state_dict()
    assert all(torch.equal(value, ours_after[name]) for name, value in theirs.model.state_dict().items())


@pytest.mark.parametrize("form", ["exchange", "paper"])
def test_score_learns_from_a_stream(form, tmp_path, caplog):
    config = SCOREConfig(
        **fields(tmp_path, max_steps=24, per_device_train_batch_size=16, score_batch_size=4, score_form=form)
    )
    ours = SCORETrainer(
        square_vit(),
        config,
        train_dataset=squares().to_iterable_dataset(),
        eval_dataset=squares(16).to_iterable_dataset(),
        spurious_samples=square_samples(),
    )
    assert "as often as they come" in caplog.text and not ours.args.class_balanced
    ours.train()
    logged = [entry for entry in ours.state.log_history if "loss" in entry]
    assert logged[-1]["loss"] < 0.8 * logged[0]["loss"]
    assert all(entry["penalty"] > 0 for entry in logged[:4])
    assert 0 <= ours.evaluate()["eval_selection"] <= 1


def test_partners_from_a_stream_are_of_every_class_though_it_is_sorted(tmp_path):
    items = sorted(rows(), key=lambda item: item["label"])
    adapted = trainer(tmp_path, Stream([*items[:3] * 20, *items[3:]])).train_dataset
    beginning = beginning_of(adapted, ImageCollator(tiny_processor()), size=4)
    assert beginning.labels.tolist() == [0, 0, 1, 1]
    distances = (beginning.pixel_values[:, None] - PIXELS[None]).abs().flatten(2).amax(2)
    assert [LABELS[i] for i in distances.argmin(1)] == [0, 0, 1, 1]


def test_a_label_that_comes_late_in_a_stream_is_refused_and_not_left_out(tmp_path):
    """-100 would be ignored by cross-entropy."""
    with pytest.raises(DataError, match="Item 5 of the training set has the label -100"):
        trainer(tmp_path, Stream(rows([0, 1, 1, 0, 1, -100]))).train()


def test_a_method_that_looks_at_all_training_images_refuses_a_stream(tmp_path):
    with pytest.raises(DataError, match="looks at all training images"):
        JTTTrainer(
            tiny_vit(), JTTConfig(**fields(tmp_path)), train_dataset=stream(table()), reference_model=tiny_vit()
        )


def test_find_candidates_maps_words_by_the_models_classes():
    found = find_candidates(tiny_vit(), table(WORDS), processor=tiny_processor(), layer="block1")
    assert dict(zip(found.position.tolist(), found.labels.tolist(), strict=True)) == dict(enumerate(LABELS))


def test_another_model_maps_words_to_its_own_ids(tmp_path):
    turned = {"id2label": {0: "square", 1: "plain"}, "label2id": {"square": 0, "plain": 1}}
    model = tiny_vit()
    model.config.update(turned)
    batches = seen_by(model)
    trainer(tmp_path, table(WORDS), model=model).train()
    assert_each_has_its_label(batches[0]["pixel_values"], 1 - batches[0]["labels"])
    with pytest.raises(HFScoreError, match="differ"):
        trainer(tmp_path, table(feature=ClassLabel(names=CLASSES)), model=model)


class Read(torch.utils.data.Dataset):
    """Items made when they are asked for; `read` has those that this process made."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 22

    def __getitem__(self, item: int) -> dict:
        self.read.append(item)
        return {"image": PICTURES[item % 6], "label": LABELS[item % 6]}


class Begun(TrainerCallback):
    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        train_dataloader.dataset.base.read.clear()


@pytest.mark.parametrize("form", ["exchange", "paper"])
def test_workers_read_all_images_and_change_nothing(tmp_path, form):
    """Over epochs whose last step is shorter than the others."""
    found = []
    for workers in (0, 2):
        images, made = Read(), fields(tmp_path, dataloader_num_workers=workers, max_steps=7, score_form=form)
        made |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "score_exchange_weight": 1.0}
        torch.manual_seed(0)
        ours = SCORETrainer(
            square_vit(),
            SCOREConfig(**made),
            train_dataset=images,
            processing_class=tiny_processor(),
            spurious_samples=square_samples(),
            callbacks=[Begun()],
        )
        ours.train()
        found.append(weights(ours.model))
        assert bool(images.read) == (workers == 0)
    assert_same(*found)


def test_labels_of_a_data_set_that_gives_them_with_its_images_are_read_once(tmp_path):
    images = Read()
    made = SCOREConfig(**fields(tmp_path))
    ours = SCORETrainer(square_vit(), made, train_dataset=images, spurious_samples=square_samples())
    images.read.clear()
    assert ours.sample_weights() is not None and ours._partners.classes.tolist() == ours.train_dataset["label"]
    assert ours.train_dataset["idx"] == list(range(22))
    assert len(images.read) < 22 + 5  # the first is looked at for what it has
