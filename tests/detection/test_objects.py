"""Masks of all but the object: `ObjectFinder`, and `find_candidates` with anything that finds objects."""

import numpy as np
import pytest
import tiny
import torch

from hf_score.baselines import ERMTrainer
from hf_score.baselines.base import BaselineConfig
from hf_score.data import to_uint8
from hf_score.detection import ObjectFinder, find_candidates

SQUARE = np.zeros((32, 32), dtype=bool)
SQUARE[:8, :8] = True


@pytest.fixture(scope="module")
def knows_squares(tmp_path_factory):
    """A model that was trained to name squares."""
    config = BaselineConfig(
        output_dir=str(tmp_path_factory.mktemp("model")),
        num_train_epochs=30,
        learning_rate=2e-3,
        per_device_train_batch_size=16,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = ERMTrainer(tiny.tiny_vit(), config, train_dataset=tiny.square_images(64))
    trainer.train()
    return trainer.model.eval()


@pytest.fixture(scope="module")
def images():
    """Squares that the model has not seen, as pictures."""
    data = tiny.square_images(16, seed=3)
    return to_uint8(data.pixel_values[data.labels == 1].clamp(-1, 1), tiny.tiny_processor())


def test_the_object_is_what_the_model_names(knows_squares, images):
    found = ObjectFinder(knows_squares, tiny.tiny_processor(), share=0.5)(images).numpy()
    assert found.shape == (8, 32, 32) and found.dtype == bool
    assert found[:, SQUARE].mean() > found[:, ~SQUARE].mean() + 0.3


def test_more_share_is_more_of_the_image(knows_squares, images):
    small, large = (ObjectFinder(knows_squares, tiny.tiny_processor(), share=share)(images) for share in (0.4, 0.8))
    assert (small <= large).all() and large.float().mean() > small.float().mean()


def test_it_does_not_depend_on_the_batch_and_takes_images_of_any_size(knows_squares, images):
    whole, single = (
        ObjectFinder(knows_squares, tiny.tiny_processor(), batch_size=size)(images).float() for size in (8, 1)
    )
    assert (whole != single).float().mean() < 1e-3
    larger = ObjectFinder(knows_squares, tiny.tiny_processor())(images.repeat(2, axis=1).repeat(2, axis=2))
    assert larger.shape == (8, 64, 64)
    assert larger[:, :16, :16].float().mean() > larger[:, 16:, 16:].float().mean()


def test_the_model_is_left_as_it_was(knows_squares, images):
    before = {name: value.clone() for name, value in knows_squares.state_dict().items()}
    ObjectFinder(knows_squares, tiny.tiny_processor())(images[:2])
    assert not knows_squares.training
    assert all(torch.equal(value, before[name]) for name, value in knows_squares.state_dict().items())


def test_masks_are_all_but_what_is_found_in_the_images_as_the_model_sees_them():
    data, seen = tiny.square_images(12), []

    def find_object(images):
        seen.append(images)
        return torch.from_numpy(images[..., 0] > 128)

    found = find_candidates(
        tiny.tiny_vit(),
        data,
        dataset_fingerprint="data",
        processor=tiny.tiny_processor(),
        num_candidates=4,
        batch_size=4,
        find_object=find_object,
    )
    images = np.stack([np.asarray(image) for image in found.images])
    assert np.array_equal(np.concatenate(seen), images)
    assert np.array_equal(found.masks, ~(images[..., 0] > 128))
