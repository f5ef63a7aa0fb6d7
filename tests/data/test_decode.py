"""One decoder: the right grey levels from every format, masks of every encoding, and refusals in one sentence."""

import io
import re
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from hf_score.data import load_data, open_image
from hf_score.data.decode import FormatError, decode, list_images, needs_conversion, open_mask
from hf_score.data.regions import Regions
from hf_score.errors import DataError

from .inputs import COUNTED, INPUTS, READ, hounsfield, oriented, picture, write_dicom


def grey_of(image):
    values = np.asarray(image).astype(int)
    assert (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all()
    return values[..., 0]


# ---- images ----


@pytest.mark.parametrize("case", INPUTS, ids=lambda case: case.name)
def test_inputs(case, tmp_path):
    path = case.make(tmp_path)
    if case.expected == READ:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = open_image(path, value_range=case.value_range)
        assert image.mode == "RGB"
        expected = picture(colour=case.colour).astype(int)
        found = np.asarray(image).astype(int) if case.colour else grey_of(image)
        assert np.abs(found - expected).max() <= case.tolerance
        assert np.array_equal(np.asarray(open_image(path.read_bytes(), value_range=case.value_range)), image)
        return
    with pytest.raises(DataError) as caught:
        open_image(path, value_range=case.value_range)
    message = str(caught.value)
    assert path.name in message and "\n" not in message and message.endswith(".")
    assert isinstance(caught.value, FormatError) == (case.expected != COUNTED)
    if case.expected != COUNTED:
        assert case.expected.removeprefix("refused: ") in message


@pytest.mark.parametrize("case", [case for case in INPUTS if case.expected == READ], ids=lambda case: case.name)
def test_what_is_not_converted_is_what_a_pipeline_sees(case, tmp_path):
    path = case.make(tmp_path)
    if not needs_conversion(path):
        assert np.array_equal(np.asarray(open_image(path)), np.asarray(load_image(str(path))))


def test_an_image_that_datasets_has_decoded_is_read_alike(tmp_path):
    for case in INPUTS:
        if case.expected == READ and "DICOM" not in case.name:
            with Image.open(case.make(tmp_path)) as image:
                assert np.array_equal(
                    np.asarray(open_image(image, value_range=case.value_range)),
                    np.asarray(open_image(image.filename, value_range=case.value_range)),
                )


def test_the_scaling_does_not_depend_on_the_image(tmp_path):
    """The darker half of a picture has the same grey levels with and without the brighter one."""
    deep = picture().astype(np.uint16) * 257
    dark = np.minimum(deep, 20_000)
    for values in (deep, dark):
        Image.fromarray(values).save(tmp_path / "image.png")
        found = grey_of(open_image(tmp_path / "image.png"))
        assert np.array_equal(found[deep <= 20_000], (values // 256)[deep <= 20_000])


def test_value_range_leaves_8_bits_alone():
    grey = Image.fromarray(picture())
    assert np.array_equal(np.asarray(open_image(grey, value_range=(-160, 240))), np.asarray(open_image(grey)))
    for wrong in ((5, 5), (5,), (1, 2, 3)):
        with pytest.raises(FormatError, match="two numbers, black below white"):
            open_image(grey, value_range=wrong)


def test_twelve_bits_stored_as_sixteen_are_refused_by_the_set(tmp_path):
    folder = class_folders(tmp_path, values=lambda grey: grey.astype(np.uint16) * 16)
    with pytest.raises(FormatError, match=r"values from 0 to \d+, .* 0 to 65535 .* value_range"):
        load_data(folder)
    data = load_data(folder, value_range=(0, 4080))
    assert np.abs(grey_of(data.train[0]["image"].convert("RGB")) - picture()).max() <= 1


# ---- whole data sets ----


def class_folders(folder, *, values, ending=".png", write=None):
    """Two classes of ten images, the second upside down."""
    for split in ("train", "test"):
        for label, turned in (("a", False), ("b", True)):
            home = folder / "set" / split / label
            home.mkdir(parents=True)
            for i in range(10):
                grey = values(np.flipud(picture()) if turned else picture())
                path = home / f"{label}{i}{ending}"
                if write is None:
                    Image.fromarray(grey).save(path)
                else:
                    write(path, grey)
    return folder / "set"


def test_deep_images_are_converted_once_and_for_all(tmp_path, caplog):
    folder = class_folders(tmp_path, values=lambda grey: grey.astype(np.uint16) * 257)
    for verify in (True, False):
        data = load_data(folder, verify=verify)
        for view in (data.train, data.held_out, data.test):
            image = view[0]["image"]  # as the user's own code sees it, by `datasets`
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), picture())
    assert "20 of 20 images of split 'train' are not of 8 bits" in caplog.text and "open_image(file)" in caplog.text


def test_class_folders_of_dicom(tmp_path, caplog):
    folder = class_folders(tmp_path, values=hounsfield, ending=".dcm", write=write_ct)
    (folder / "train" / "a" / "notes.txt").write_text("x")
    data = load_data(folder)
    assert data.class_names == ["a", "b"] and len(data.train) + len(data.held_out) == 20
    for view in (data.train, data.held_out, data.test):
        for row in view:
            expected = np.flipud(picture()) if row["label"] else picture()
            assert np.abs(np.asarray(row["image"]).astype(int) - expected).max() <= 1
    assert re.search(
        "1 files of split 'train' are left out, being no images or in no table; the first: .*notes.txt", caplog.text
    )


def write_ct(path, stored):
    write_dicom(path, stored, RescaleSlope=1, RescaleIntercept=0, WindowCenter=40, WindowWidth=400)


def test_dicom_named_in_a_metadata_file(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(6):
            write_ct(tmp_path / split / f"{i}.dcm", hounsfield(picture()))
        lines = "".join(f"{i}.dcm,{i % 2}\n" for i in range(6))
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{lines}")
    assert np.abs(np.asarray(load_data(tmp_path).train[0]["image"]).astype(int) - picture()).max() <= 1


def test_a_file_of_8_bits_is_left_as_it_is(tmp_path):
    data = load_data(class_folders(tmp_path, values=lambda grey: grey))
    assert data.train.data.column("image")[0].as_py()["bytes"] is None


def test_a_missing_setting_leaves_no_image_out(tmp_path):
    folder = class_folders(tmp_path, values=lambda grey: grey.astype(np.float32), ending=".tiff")
    with pytest.raises(FormatError, match=r"train/a/a0.tiff holds float numbers outside 0..1"):
        load_data(folder)
    assert len(load_data(folder, value_range=(0, 255)).train)


def test_odd_images_and_masks_are_said_once_for_each_kind(tmp_path, caplog):
    folder = class_folders(tmp_path, values=lambda grey: grey)
    Image.new("L", (64, 64), 7).save(folder / "train" / "a" / "a3.png")
    Image.fromarray(picture()).convert("RGBA").save(folder / "train" / "a" / "a4.png")
    clear = Image.new("RGBA", (64, 64))
    clear.putpixel((1, 1), (255, 0, 0, 255))
    clear.save(folder / "train" / "a" / "a5.png")
    (folder / "train" / "a" / "a6.png").write_text("<html>")
    masks = tmp_path / "masks" / "train" / "a"
    masks.mkdir(parents=True)
    for i in range(3):
        Image.new("L", (64, 64)).save(masks / f"a{i}.png")
    Image.new("L", (64, 64), 1).save(masks / "a7.png")
    data = load_data(folder, masks=tmp_path / "masks")
    assert list(data.unreadable) == [6]
    said = [record.message for record in caplog.records]
    for words in (
        "1 of 20 images of split 'train' are of one colour all over; the first: .*a3.png",
        "1 of 20 images of split 'train' are transparent in parts.*a5.png",
        "3 of 20 images of split 'train' have an empty mask.*a0.png",
        "1 of 20 images of split 'train' have a mask that covers more than 95% .*a7.png",
        "1 training images are left out.*a6.png",
    ):
        assert sum(bool(re.search(words, message)) for message in said) == 1, words
    assert len(said) == 6 and "20 images" in said[0]  # of which train and test have the same


@pytest.mark.parametrize("mask_tagged", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_and_mask_stay_aligned_whatever_the_orientation(tmp_path, orientation, mask_tagged):
    """The region is the bright corner of the image, in both files stored alike."""
    upright = np.zeros((40, 24), np.uint8)
    upright[4:12, 2:10] = 255
    stored = Image.fromarray(upright)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transposition that undoes each orientation's
    if orientation in back:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "image.jpg", quality=100, exif=exif)
    image = open_image(tmp_path / "image.jpg")
    for ending in ("png", "tiff", "jpg"):
        path = tmp_path / f"mask.{ending}"
        options = {"quality": 100} if ending == "jpg" else {}
        if mask_tagged:
            stored.save(path, exif=exif, **options)
        else:
            Image.fromarray(upright).save(path, **options)
        mask = np.asarray(open_mask(path))
        assert np.array_equal(mask == 255, upright == 255)
        assert np.array_equal(np.asarray(image)[..., 0] > 127, mask == 255)


def test_a_mask_of_the_size_before_turning_is_refused(tmp_path):
    folder = class_folders(tmp_path, values=lambda grey: grey[:, :40], ending=".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()[:, :40]).save(folder / "train" / "a" / "a0.jpg", exif=exif)
    masks = tmp_path / "masks" / "train" / "a"
    masks.mkdir(parents=True)
    Image.fromarray((picture()[:, :40] > 99).astype(np.uint8)).save(masks / "a0.png")
    with pytest.raises(DataError, match=r"size \(40, 64\), the image \(64, 40\) once it is turned upright"):
        load_data(folder, masks=tmp_path / "masks")


def test_an_upright_mask_of_a_turned_image_is_said(tmp_path, caplog):
    folder = class_folders(tmp_path, values=lambda grey: grey, ending=".jpg")
    oriented(folder / "train" / "a").rename(folder / "train" / "a" / "a0.jpg")
    masks = tmp_path / "masks" / "train" / "a"
    masks.mkdir(parents=True)
    Image.fromarray((picture() > 99).astype(np.uint8)).save(masks / "a0.png")
    load_data(folder, masks=tmp_path / "masks")
    assert "1 of 20 images of split 'train' are turned" in caplog.text


# ---- masks ----


REGION = picture() > 150


def mask_file(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def with_palette(indices, *colours):
    image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def rgba(colour_inside, colour_outside, alpha_inside, alpha_outside):
    pixels = np.where(REGION[..., None], (*colour_inside, alpha_inside), (*colour_outside, alpha_outside))
    return Image.fromarray(pixels.astype(np.uint8))


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (200, 0, 0)

MASKS = {
    "0 and 255": REGION * np.uint8(255),
    "0 and 1": REGION * np.uint8(1),
    "1 and 2": REGION + np.uint8(1),
    "boolean": REGION,
    "0 and 128": REGION * np.uint8(128),
    "16 bits, 0 and 65535": REGION * np.uint16(65535),
    "16 bits, 0 and 1": REGION * np.uint16(1),
    "RGB": np.dstack([REGION * np.uint8(255)] * 3),
    "RGB, 0 and 1": np.dstack([REGION * np.uint8(1)] * 3),
    "red on black": np.dstack([REGION * np.uint8(255), 0 * REGION, 0 * REGION]).astype(np.uint8),
    "grey with transparency": Image.fromarray(REGION * np.uint8(255)).convert("LA"),
    "opaque RGBA": rgba(WHITE, BLACK, 255, 255),
    "white on transparent": rgba(WHITE, WHITE, 255, 0),
    "black on transparent": rgba(BLACK, BLACK, 255, 0),
    "white on transparent black": rgba(WHITE, BLACK, 255, 0),
    "red on transparent black": rgba(RED, BLACK, 255, 0),
    "red on transparent white": rgba(RED, WHITE, 255, 0),
    "palette, black and red": with_palette(REGION, BLACK, RED),
    "palette, red and black": with_palette(REGION, RED, BLACK),
    "palette of greys, the wrong way round": with_palette(~REGION, WHITE, BLACK),
    "palette of one colour": with_palette(REGION, BLACK, BLACK),
}


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_encoding_give_the_same_region(tmp_path, name, invert):
    path = mask_file(tmp_path / "mask.png", MASKS[name])
    for source in (str(path), path.read_bytes()):
        mask = Regions({4: source}, invert)(4)
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), np.where(REGION ^ invert, 255, 0))


@pytest.mark.parametrize(
    "values", [REGION.astype(np.float32), REGION * np.float32(255), np.where(REGION, 1, -1).astype(np.int32)]
)
def test_masks_in_tiff_of_other_numbers(tmp_path, values):
    assert np.array_equal(np.asarray(open_mask(mask_file(tmp_path / "m.tiff", values))) == 255, REGION)


def test_masks_in_dicom(tmp_path):
    for photometric, values in (("MONOCHROME2", REGION * np.uint8(1)), ("MONOCHROME1", 255 - REGION * np.uint8(255))):
        path = write_dicom(tmp_path / "m.dcm", values.astype(np.uint8), PhotometricInterpretation=photometric)
        assert np.array_equal(np.asarray(open_mask(path)) == 255, REGION)


def blob(side=240):
    """A disc, (side, side) bool."""
    y, x = np.mgrid[:side, :side]
    return (y - 0.4 * side) ** 2 + (x - 0.55 * side) ** 2 < (0.25 * side) ** 2


@pytest.mark.parametrize("quality", [30, 60, 75, 95, 100])
def test_noise_of_jpeg_is_cut_at_the_half(tmp_path, quality):
    path = mask_file(tmp_path / "m.jpg", blob() * np.uint8(255), quality=quality)
    assert (np.asarray(open_mask(path)) == 255 * blob()).mean() > 0.998
    with Image.open(path) as noisy:
        again = mask_file(tmp_path / "m.png", noisy.convert("L"))
    assert np.array_equal(np.asarray(open_mask(again)), np.asarray(open_mask(path)))


@pytest.mark.parametrize("size", [60, 120, 480, 700])
@pytest.mark.parametrize("method", ["BILINEAR", "BICUBIC", "LANCZOS", "BOX"])
def test_soft_edges_are_cut_at_the_half(tmp_path, size, method):
    soft = Image.fromarray(blob() * np.uint8(255)).resize((size, size), Image.Resampling[method])
    found = np.asarray(open_mask(mask_file(tmp_path / "m.png", soft)))
    assert np.array_equal(found == 255, np.asarray(soft) > 127)


def test_votes_of_several_people_are_cut_at_the_half(tmp_path):
    """The masks of CUB-200-2011 add up five annotators: rings of 0, 51, ..., 255."""
    y, x = np.mgrid[:400, :400]
    radius = np.hypot(y - 180, x - 210)
    votes = sum((radius < 100 + 2 * i).astype(np.uint8) * 51 for i in range(5))
    assert np.array_equal(np.asarray(open_mask(mask_file(tmp_path / "m.png", votes))) == 255, votes > 127)


@pytest.mark.parametrize("labels", [(0, 1, 2), (0, 15, 255), (0, 85, 170), (0, 128, 255), (1, 2, 3), (0, 1, 255)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_are_refused(tmp_path, labels, dtype):
    inner = np.zeros((240, 240), int)
    inner[30:90, 30:120] = 1
    inner[120:200, 60:200] = 2
    path = mask_file(tmp_path / "m.png", np.array(labels)[inner].astype(dtype))
    with pytest.raises(DataError, match=rf"m.png has 3 values \({', '.join(map(str, labels))}\) instead of two"):
        open_mask(path)


def test_other_masks_that_are_refused(tmp_path):
    third = (picture() > 80).astype(np.uint8) + REGION
    borders = blob().astype(np.uint8) * 15
    borders[blob() ^ np.roll(blob(), 2, axis=1)] = 255  # as in PASCAL VOC
    for image, words in (
        (with_palette(third, BLACK, RED, WHITE), "has 3 values"),
        (borders, "has 3 values"),
        (Image.fromarray(np.dstack([third * np.uint8(120), third, 0 * third])), "in colours"),
        (rgba(BLACK, WHITE, 255, 0), "contradict each other"),
    ):
        with pytest.raises(DataError, match=words):
            open_mask(mask_file(tmp_path / "m.png", image))
    with pytest.raises(DataError, match="a JPEG without white"):
        open_mask(mask_file(tmp_path / "m.jpg", blob() * np.uint8(1), quality=100))
    pages = [Image.fromarray(blob() * np.uint8(255)), Image.fromarray(~blob() * np.uint8(255))]
    with pytest.raises(DataError, match="several pages that differ"):
        open_mask(mask_file(tmp_path / "m.tiff", pages[0], save_all=True, append_images=pages[1:]))
    assert np.array_equal(
        np.asarray(open_mask(mask_file(tmp_path / "m.tiff", pages[0], save_all=True, append_images=pages[:1]))),
        pages[0],
    )
    (tmp_path / "m.png").write_text("no image")
    with pytest.raises(DataError, match=r"Cannot read the mask .*m.png"):
        open_mask(tmp_path / "m.png")


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (1, 255), (255, 255)])
def test_masks_of_one_value(tmp_path, value, expected):
    mask = np.asarray(open_mask(mask_file(tmp_path / "m.png", np.full((9, 9), value, np.uint8))))
    assert (mask == expected).all()


# ---- DICOM ----


def test_windows_of_dicom(tmp_path):
    """The three functions of PS3.3 C.11.2.1.2, written out."""
    stored = hounsfield(picture()) + 1024
    x, centre, width = stored.astype(float) - 1024, 40.0, 150.0
    expected = {
        "LINEAR": ((x - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255,
        "LINEAR_EXACT": ((x - centre) / width + 0.5).clip(0, 1) * 255,
        "SIGMOID": 255 / (1 + np.exp(-4 * (x - centre) / width)),
    }
    for function, values in expected.items():
        path = write_dicom(
            tmp_path / "i.dcm",
            stored,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            WindowCenter=[centre, 600],
            WindowWidth=[width, 2000],
            VOILUTFunction=function,
        )
        assert np.abs(grey_of(open_image(path)) - values).max() <= 0.51
        header = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 40, "WindowWidth": 150}
        path = write_dicom(
            tmp_path / "i.dcm", stored, RescaleSlope=1, RescaleIntercept=-1024, VOILUTFunction=function, **header
        )
        assert np.abs(grey_of(open_image(path)) - (255 - values)).max() <= 0.51


def test_signed_ct_without_a_window_is_refused_by_the_set(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    path = write_dicom(folder / "i.dcm", hounsfield(picture()), RescaleSlope=1, RescaleIntercept=0)
    used = decode(path).used
    with pytest.raises(FormatError, match=r"values from -160 to 240, .* -32768 to 32767"):
        used.check("split 'train'")
    assert np.abs(grey_of(open_image(path, value_range=(-160, 240))) - picture()).max() <= 1


def test_dicom_without_preamble_or_ending_is_found(tmp_path):
    path = write_dicom(tmp_path / "IM0001", picture())
    bare = tmp_path / "old.dcm"
    bare.write_bytes(path.read_bytes()[132:])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    assert list_images(tmp_path) == ([path, bare], [tmp_path / "notes.txt"])
    for file in (path, bare):
        assert np.array_equal(grey_of(open_image(file)), picture())


@pytest.mark.parametrize(
    ("package", "name", "extra"), [("pydicom", "image.dcm", "medical"), ("pillow_heif", "image.heic", "heic")]
)
def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch, package, name, extra):
    next(case for case in INPUTS if case.name == ("DICOM, 8 bits" if extra == "medical" else "HEIC")).make(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FormatError, match=rf"{name} is \w+: pip install 'hf-score\[{extra}\]'"):
        open_image(tmp_path / name)


def test_pictures_at_the_limit_of_pil_are_one_sentence(tmp_path, monkeypatch):
    """PIL only warns up to twice its limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    for grey in (picture(), np.vstack([picture(), picture()])):
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "PNG")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match="more than 2000 pixels"):
                open_image(buffer.getvalue())
