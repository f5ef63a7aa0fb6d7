"""The one decoder of images and masks: whatever a file holds becomes upright RGB of 8 bits, a mask black and white.

How numbers are scaled depends on what the file declares (bits, window) or on `value_range`, a setting of the whole
data set; never on the values of one picture, which would make the same tissue or the same light differ from image to
image. What neither declares is refused.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageSequence, TiffImagePlugin

from ..errors import DataError, first_line
from .dicom import is_dicom, read_dicom
from .mask_values import mask_values, region_of
from .scaling import FormatError, UsedRange, scaled

__all__ = [
    "READABLE_SUFFIXES",
    "REMARKS",
    "DecodedImage",
    "FormatError",
    "decode",
    "is_turned",
    "list_images",
    "needs_conversion",
    "open_image",
    "open_mask",
]

#: Endings of the files that can be read, in lower case; `.dcm` and `.heic` with the extras `medical` and `heic`.
READABLE_SUFFIXES = frozenset(
    f".{ending}"
    for endings in (
        "apng avif bmp dcm dib dicom gif heic heif ico j2k jfif jp2 jpe jpeg jpg jpx",
        "pbm pcx pgm png pnm ppm sgi tga tif tiff webp",
    )
    for ending in endings.split()
)

#: What `DecodedImage.remarks` can hold, as the end of the sentence "... images ...".
REMARKS = {
    "constant": "are of one colour all over",
    "frames": "have several pages or frames, of which the first is used",
    "transparent": "are transparent in parts: the colours under the transparency are used, as `pipeline` does",
    "converted": "are not of 8 bits, or are DICOM or HEIC, and are converted: `transformers.pipeline` has to be given "
    "`hf_score.data.open_image(file)` instead of such a file",
}

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_OPENING = threading.Lock()

Source = str | Path | bytes | Mapping[str, Any] | Image.Image


@dataclass(frozen=True)
class DecodedImage:
    """An image, and what is to be said about it.

    Attributes:
        image: upright, mode RGB.
        remarks: keys of `REMARKS`.
        turned: its file has an EXIF orientation other than upright.
        used: what the values take up of the range that the file declares, where that range has scaled them.
    """

    image: Image.Image
    remarks: tuple[str, ...] = ()
    turned: bool = False
    used: UsedRange | None = None


def open_image(source: Source, *, value_range: Sequence[float] | None = None) -> Image.Image:
    """The image upright (EXIF orientation applied) in mode RGB, 8 bits.

    For 8-bit images this is what `transformers.pipeline` makes of the file: palettes, CMYK and grey become RGB, and
    transparency is dropped (the colours under it are used). For others it is not: a stock `pipeline` clips 16-bit
    grey and float images to 0..255 and cannot read DICOM. Give it `open_image(file)` there, so that the saved model
    sees what it was trained on.

    Grey images of 9 to 16 bits are scaled by the bits that the file declares, float images by 0..1. Signed, 32-bit
    and other float images need `value_range`. DICOM (extra `medical`): rescale slope and intercept, then
    `value_range` if given, else the first window, else the stored bits; MONOCHROME1 is inverted. Of several pages or
    frames the first is used.

    Args:
        source: a path, the bytes of a file, a value of an undecoded `datasets.Image` column, or a PIL image.
        value_range: the numbers that are black and white in images of more than 8 bits, in Hounsfield units for CT;
            8-bit images are not changed by it.

    Raises:
        FormatError: the numbers cannot be scaled without `value_range`, or a package is missing.
        DataError: the file is broken, too large, or of a format that cannot be read.
    """
    return _decode(source, value_range, _name_of(source))[0]


def decode(source: Source, *, value_range: Sequence[float] | None = None, name: str | None = None) -> DecodedImage:
    """As `open_image`, with what is to be said about the image; `name` says in errors which one it is."""
    image, about = _decode(source, value_range, name or _name_of(source))
    said = {
        "constant": all(low == high for low, high in image.getextrema()),  # type: ignore[misc]
        "frames": about.frames,
        "transparent": _is_transparent(about.image),
        "converted": about.converted,
    }
    return DecodedImage(image, tuple(kind for kind in REMARKS if said[kind]), about.turned, about.used)


def needs_conversion(source: Source) -> bool:
    """Whether `datasets` and `transformers.pipeline` would make something else of a file: by its header alone.

    False for a broken file.
    """
    try:
        if isinstance(source, Mapping) and source.get("bytes") is None:
            source = source["path"]
        with io.BytesIO(_content(source)) if isinstance(source, Mapping | bytes) else open(source, "rb") as file:  # type: ignore[arg-type]
            head = file.read(132)
            if is_dicom(head, _name_of(source)) or _is_heif(head):
                return True
            file.seek(0)
            with Image.open(file) as image:
                return _is_deep(image)
    except Exception:  # decoders raise whatever they like on a broken file
        return False


def is_turned(source: Source) -> bool:
    """Whether a file that can be read has an EXIF orientation other than upright."""
    content = _content(source)
    if isinstance(content, bytes) and is_dicom(content, _name_of(source)):
        return False
    return _read(content, _name_of(source)).turned


def open_mask(source: Source, *, name: str | None = None) -> Image.Image:
    """The mask upright in mode L: 255 inside the region, 0 outside.

    Of two values, whatever they are (0 and 1, 0 and 255, palette indices, 16 bits), the higher is inside. A palette of
    greys counts as its greys, one of colours as its indices. Where alone the transparency varies, it is the mask; with
    colours, what is transparent is outside. Edges made soft by resizing or by JPEG are cut at the half. Empty masks
    are empty, and masks of one other value are inside all over.

    Args:
        source: see `open_image`.
        name: says in errors which mask it is.

    Raises:
        DataError: it is broken, has more values than a region has (a label map), or differing pages.
    """
    name = name or _name_of(source)
    try:
        content = _content(source)
        if isinstance(content, bytes) and is_dicom(content, name):
            stored, highest, frames = read_dicom(content, name, raw=True)
            if frames:
                raise DataError(f"The mask {name} has several frames; save one mask for each image.")
            return region_of(stored, highest, name)
        picture = _read(content, name, frames_alike=True)
        values, full = mask_values(picture.image, name)
        if full is not None and picture.white_is_zero:
            values = full - values
        return region_of(values, full, name, lossy=picture.format in {"JPEG", "MPO"})
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever they like on a broken file
        raise DataError(f"Cannot read the mask {name} ({first_line(error)}); replace it.") from error


def list_images(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The files below `folder` that `open_image` reads, and all others but hidden ones, both sorted.

    DICOM files often have no ending: those are told by their content.
    """
    files = [path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith(".")]
    files.sort(key=Path.as_posix)  # the order of `datasets`
    images = [path for path in files if path.suffix.lower() in READABLE_SUFFIXES or _is_bare_dicom(path)]
    known = set(images)
    return images, [path for path in files if path not in known]


# ---- Files ----


@dataclass(frozen=True)
class _Picture:
    """An opened file: the picture upright as it is stored, and what only the file knows."""

    image: Image.Image
    format: str | None
    converted: bool = False  # PIL alone would make something else of it
    bits: int | None = None  # of unsigned whole numbers of more than 8
    signed: bool = False
    white_is_zero: bool = False  # and Pillow has not inverted it
    halved: bool = False  # of colours with 16 bits, Pillow gives the upper 8
    frames: bool = False
    turned: bool = False
    used: UsedRange | None = None


def _name_of(source: Source) -> str:
    if isinstance(source, Mapping):
        source = source.get("path") or b""
    elif isinstance(source, Image.Image):
        source = getattr(source, "filename", "") or b""
    return "in memory" if isinstance(source, bytes) else str(source)


def _content(source: Source) -> bytes | Image.Image:
    if isinstance(source, Mapping):
        return source["bytes"] if source.get("bytes") is not None else Path(source["path"]).read_bytes()
    return source if isinstance(source, bytes | Image.Image) else Path(source).read_bytes()


def _is_bare_dicom(path: Path) -> bool:
    if path.suffix:
        return False
    with open(path, "rb") as file:
        return is_dicom(file.read(132), "")


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS and b"avif" not in content[8:64]


def _open(content: bytes, name: str) -> Image.Image:
    if _is_heif(content):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise FormatError(f"The image {name} is HEIC: pip install 'hf-score[heic]', or save it as PNG.") from None
        register_heif_opener()
    try:
        # Filters of warnings belong to the whole process; the lock keeps our own threads apart.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"The image {name} has more than {Image.MAX_IMAGE_PIXELS} pixels, which PIL takes for an attack: make it "
            "smaller, or raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from None
    except Image.UnidentifiedImageError:
        raise ValueError("its format is not known") from None


def _read(content: bytes | Image.Image, name: str, *, frames_alike: bool = False) -> _Picture:
    file = content if isinstance(content, Image.Image) else _open(content, name)
    tags = getattr(file, "tag_v2", {})
    grey = file.mode in {"L", "F"} or file.mode.startswith("I")
    bits = None
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in {"PNG", "PPM"}):
        bits = (tags.get(TiffImagePlugin.BITSPERSAMPLE) or (16,))[0]
    about: dict[str, Any] = {
        "format": file.format,
        "converted": _is_deep(file) or file.format == "HEIF",
        "bits": bits,
        "signed": _is_signed(file),
        "white_is_zero": grey
        and file.mode != "L"  # of 8 bits, which Pillow inverts
        and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0,
        "halved": not grey and any(";16" in str(tile[3]) for tile in getattr(file, "tile", ())),
        # The second picture in a photograph is its preview.
        "frames": file.format != "MPO" and bool(getattr(file, "is_animated", False)),
        "turned": file.getexif().get(ExifTags.Base.Orientation, 1) != 1,
    }
    if about["frames"] and frames_alike and isinstance(content, bytes):
        frames = ImageSequence.all_frames(file)
        if any(frame.tobytes() != frames[0].tobytes() for frame in frames):
            raise DataError(f"The mask {name} has several pages that differ; save one mask for each image.")
        file.seek(0)
    file.load()
    return _Picture(ImageOps.exif_transpose(file) if about["turned"] else file, **about)


# ---- Values ----


def _decode(source: Source, value_range: Sequence[float] | None, name: str) -> tuple[Image.Image, _Picture]:
    """The image in RGB, and the picture that it was made from."""
    if value_range is not None and (len(value_range) != 2 or not value_range[0] < value_range[1]):
        raise FormatError(
            f"value_range is {tuple(value_range)}, but has to be two numbers, black below white; correct it."
        )
    try:
        content = _content(source)
        if isinstance(content, bytes) and is_dicom(content, name):
            image, frames, used = read_dicom(content, name, value_range)
            return image, _Picture(image, "DICOM", frames=frames, converted=True, used=used)
        picture = _read(content, name)
        if picture.converted and picture.format != "HEIF":
            image, used = _scaled(picture, value_range, name)
            return image, replace(picture, used=used)
        image = picture.image
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # the same colours, without a warning of PIL's
        image = image.convert("RGB")
        if not picture.halved:
            return image, picture
        if value_range is not None:
            raise FormatError(f"The image {name} has 16 bits a colour, which value_range cannot scale; convert it.")
        extrema = np.array(image.getextrema())
        return image, replace(picture, used=UsedRange(257.0 * extrema.min(), 257.0 * extrema.max(), 0, 65535))
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever they like on a broken file
        raise DataError(f"Cannot read the image {name} ({first_line(error)}); replace or remove it.") from error


def _is_signed(file: Image.Image) -> bool:
    return 2 in (getattr(file, "tag_v2", {}).get(TiffImagePlugin.SAMPLEFORMAT) or ())


def _is_deep(file: Image.Image) -> bool:
    """Whether the numbers are other than 8 bits, so that PIL would clip them."""
    return file.mode == "F" or file.mode.startswith("I") or (file.mode == "L" and _is_signed(file))


def _scaled(picture: _Picture, value_range: Sequence[float] | None, name: str) -> tuple[Image.Image, UsedRange | None]:
    image, values = picture.image, np.asarray(picture.image)
    declared, kind = None, "32-bit whole numbers"
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise ValueError("some of its values are no numbers")
        kind = "float numbers outside 0..1"
        if values.min() >= 0 and values.max() <= 1:
            declared = (0.0, 1.0)
    elif picture.signed or picture.format == "FITS":
        kind = "signed whole numbers"
        values = values.view(np.int8) if image.mode == "L" else values
    elif picture.bits is not None:
        declared = (0.0, 2.0**picture.bits - 1)
    eight, used = scaled(values, declared, value_range, name=name, kind=kind)
    return Image.fromarray(255 - eight if picture.white_is_zero else eight).convert("RGB"), used


def _is_transparent(image: Image.Image) -> bool:
    if image.mode not in {"RGBA", "LA", "PA"} and "transparency" not in image.info:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return lowest < 255  # type: ignore[operator]
