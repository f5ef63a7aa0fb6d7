"""Images to tensors: colour modes, batches, collating, and masks that follow their image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor
from transformers.image_utils import load_image
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from hf_score.data import ImageCollator, load_data, preprocess, preprocess_mask, to_model_size, to_rgb, to_uint8

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def timm_processor(**changes):
    cfg = {"input_size": (3, 24, 24), "crop_pct": 0.8, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    return TimmWrapperImageProcessor({**cfg, **changes})


def vit_processor(**changes):
    return ViTImageProcessor(**{"size": {"height": 24, "width": 24}, "image_mean": MEAN, "image_std": STD, **changes})


@pytest.fixture(scope="module")
def data():
    return load_data("fashion_patch", num_train=50)


# ---- to_rgb ----


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "RGB"])
def test_every_mode_becomes_what_the_pipeline_sees(mode):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5).convert(mode)
    assert to_rgb(image).mode == "RGB"
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(load_image(image)))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    assert np.asarray(to_rgb(Image.open(buffer)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, format="JPEG", exif=exif)
    assert to_rgb(Image.open(buffer)).size == (6, 8)


# ---- preprocess and the collator ----


@pytest.mark.parametrize("make", [timm_processor, vit_processor])
def test_batches_equal_single_images(data, make):
    processor = make()
    pixels = preprocess(data.test.select(range(10)), processor, batch_size=4)
    assert pixels.pixel_values.shape == (10, 3, 24, 24)
    assert pixels.pixel_values.dtype == torch.float32
    alone = processor(images=data.test[7]["image"], return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(pixels[7]["pixel_values"], alone)
    assert pixels.labels.tolist() == data.test["label"][:10]
    assert len(pixels) == 10


def test_idx_is_carried(data):
    pixels = preprocess(data.train, vit_processor())
    assert pixels.idx.tolist() == data.train["idx"][:]
    assert pixels[3]["idx"] == data.train[3]["idx"]


def test_collator_reads_images_and_tensors_alike_and_drops_the_rest(data):
    processor = vit_processor()
    rows = data.test.select(range(4))
    from_images = ImageCollator(processor)([rows[i] for i in range(4)])
    pixels = preprocess(rows, processor)
    from_tensors = ImageCollator()([pixels[i] for i in range(4)])
    assert set(from_images) == set(from_tensors) == {"pixel_values", "labels"}
    assert torch.equal(from_images["pixel_values"], from_tensors["pixel_values"])
    assert from_images["labels"].tolist() == from_tensors["labels"].tolist() == rows["label"][:]
    assert from_images["labels"].dtype == torch.int64


# ---- preprocess_mask ----


def denormalised(image, processor):
    """What the processor makes of the image's first channel, its normalisation undone."""
    values = processor(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"][0, 0]
    return (values * STD[0] + MEAN[0]).clamp(0, 1)


@pytest.mark.parametrize(
    "processor",
    [
        timm_processor(),
        timm_processor(interpolation="bilinear", crop_pct=1.0),
        timm_processor(crop_mode="squash"),
        vit_processor(),
        vit_processor(size={"shortest_edge": 30}, do_center_crop=True, crop_size={"height": 24, "width": 24}),
    ],
    ids=["timm", "timm-bilinear", "timm-squash", "vit", "vit-crop"],
)
@pytest.mark.parametrize("size", [(32, 32), (50, 40), (20, 28)])
def test_a_mask_goes_where_its_image_goes(processor, size):
    mask = Image.new("L", size)
    mask.paste(255, (3, 5, 15, 17))
    resized = preprocess_mask(mask, processor)
    assert resized.shape == (24, 24)
    assert torch.allclose(resized, denormalised(mask, processor), atol=1e-6)
    assert 0 < resized.mean() < 1


def test_empty_and_full_masks():
    for value in (0, 255):
        resized = preprocess_mask(Image.new("L", (40, 40), value), vit_processor())
        assert torch.equal(resized, torch.full((24, 24), value / 255))


def test_padding_is_outside_the_region():
    """A centre crop larger than the image pads it."""
    processor = vit_processor(do_resize=False, do_center_crop=True, crop_size={"height": 24, "width": 24})
    resized = preprocess_mask(Image.new("L", (16, 16), 255), processor)
    assert resized.sum() == 16 * 16
    assert resized[0].sum() == 0


@pytest.mark.parametrize("make", [timm_processor, vit_processor])
def test_stretched_images_are_whole_and_come_back_as_they_were(make):
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    pixel_values = to_model_size(images, make())
    expected = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(
        STD
    )[:, None, None]
    torch.testing.assert_close(pixel_values, expected, atol=1e-5, rtol=0)
    assert np.array_equal(to_uint8(pixel_values, make()), images)


def test_stretched_images_have_the_models_size_and_keep_their_edges():
    images = np.zeros((1, 60, 40, 3), dtype=np.uint8)
    images[:, :, 20:] = 255
    seen = to_uint8(to_model_size(images, timm_processor()), timm_processor())
    assert seen.shape == (1, 24, 24, 3)
    assert (seen[:, :, :10] == 0).all() and (seen[:, :, 14:] == 255).all()
