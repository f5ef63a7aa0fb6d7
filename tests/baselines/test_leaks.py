"""No baseline's training depends on supervision that it did not declare, and it does on what it declared."""

import csv

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import set_seed

from hf_score.baselines import BASELINES, SUPERVISION_KINDS, Supervision
from hf_score.baselines.base import BaselineTrainer
from hf_score.bench.job import GroupedPixels
from hf_score.data import load_data, preprocess
from hf_score.errors import DataError

TRAIN, VALIDATION = tiny.square_images(24), tiny.square_images(16, seed=5)


def supervision(variant: int) -> dict:
    """Every kind of supervision; another variant says something else about the same images."""
    generator = torch.Generator().manual_seed(variant)
    groups = 2 * TRAIN.labels + torch.randint(2, (24,), generator=generator)
    validation_groups = 2 * VALIDATION.labels + (torch.arange(16) // 2 % (2 + variant) == 0).long()
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[8 * variant : 8 * variant + 8] = True
    samples = tiny.square_samples(4, seed=1 + variant)
    samples.idx[:] = torch.tensor([1, 3, 5, 7]) + 8 * variant
    return {
        "samples": samples,
        "regions": lambda idx: region.numpy() if idx % 2 else None,
        "validation": GroupedPixels(VALIDATION.pixel_values, VALIDATION.labels, VALIDATION.idx, validation_groups),
        "train_groups": dict(zip(TRAIN.idx.tolist(), groups.tolist(), strict=True)),
    }


def weights_after(kind: type[BaselineTrainer], folder, given: dict) -> torch.Tensor:
    config = kind.config_class(
        folder,
        num_train_epochs=1,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    set_seed(0)
    trainer = kind(
        tiny.tiny_vit(),
        config,
        supervision=Supervision(**given),
        reference_model=tiny.tiny_vit(seed=1),
        train_dataset=TRAIN,
        eval_dataset=tiny.square_images(16, seed=3),
    )
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("kind", BASELINES.values(), ids=list(BASELINES))
def test_training_depends_on_what_is_declared_alone(kind, tmp_path):
    one, other = supervision(0), supervision(1)
    first = weights_after(kind, tmp_path, one)
    undeclared = {name: other[name] if name not in kind.supervision_kinds else one[name] for name in SUPERVISION_KINDS}
    assert torch.equal(first, weights_after(kind, tmp_path, undeclared))
    for name in kind.supervision_kinds:
        assert not torch.equal(first, weights_after(kind, tmp_path, {**one, name: other[name]})), name


def image_folder(folder, planted: str, seed: int):
    """A small image folder; `planted` is a column of group labels in every split."""
    generator = np.random.default_rng(0)
    random = np.random.default_rng(seed)
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        with (folder / split / "metadata.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", "label", planted])
            for n in range(24):
                pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"{n}.png")
                # The test split keeps its groups: it is evaluated by them.
                attribute = n // 2 % 2 if split == "test" else int(random.integers(2))
                writer.writerow([f"{n}.png", n % 2, attribute if planted == "spurious" else 2 * (n % 2) + attribute])
    return folder


@pytest.mark.parametrize("planted", ["group", "spurious"])
def test_a_planted_column_of_groups_reaches_no_training_view(planted, tmp_path):
    views = []
    for seed in (1, 2):
        data = load_data(image_folder(tmp_path / f"{planted}-{seed}", planted, seed))
        assert data.train_groups is None
        for view in (data.train, data.held_out):
            assert set(view.column_names) == {"idx", "image", "label"}
        views.append(preprocess(data.train, tiny.tiny_processor()))
    assert torch.equal(views[0].pixel_values, views[1].pixel_values)
    assert torch.equal(views[0].labels, views[1].labels)


@pytest.mark.parametrize("kind", BASELINES.values(), ids=list(BASELINES))
def test_a_training_set_with_groups_is_refused(kind, tmp_path):
    with_groups = GroupedPixels(TRAIN.pixel_values, TRAIN.labels, TRAIN.idx, torch.zeros(24, dtype=torch.long))
    config = kind.config_class(tmp_path, report_to="none", use_cpu=True)
    with pytest.raises(DataError, match="training set has the column group"):
        kind(
            tiny.tiny_vit(),
            config,
            supervision=Supervision(**supervision(0)),
            reference_model=tiny.tiny_vit(seed=1),
            train_dataset=with_groups,
        )


@pytest.mark.parametrize("name", ["group_dro", "rrr", "rr_clarc"])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(name, tmp_path):
    """With what the method keeps from step to step, or measured on the starting model."""
    kind = BASELINES[name]
    found = []
    for folder, checkpoint in (("whole", None), ("again", tmp_path / "whole" / "checkpoint-4")):
        config = kind.config_class(
            tmp_path / folder,
            max_steps=6,
            learning_rate=1e-2,
            per_device_train_batch_size=8,
            report_to="none",
            save_strategy="steps",
            save_steps=4,
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = kind(tiny.tiny_vit(), config, supervision=Supervision(**supervision(0)), train_dataset=TRAIN)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        assert (tmp_path / "whole" / "checkpoint-4" / f"{name}_state.safetensors").is_file()
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*found)
