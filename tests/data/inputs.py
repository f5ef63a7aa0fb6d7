"""Image files of every format people bring, made from one real picture: what each is, and what happens to it.

`tests/data/test_decode.py` walks this list.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import load_dataset
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

import hf_score

READ = "read"
#: The training split goes on without the file, and says how many were left out; the others stop.
COUNTED = "skipped and counted"


class Input(NamedTuple):
    """One kind of file.

    Attributes:
        name: what it is, in words.
        make: writes it into a folder and returns its path.
        expected: `READ`, `COUNTED`, or "refused: " and a part of the sentence.
        colour: whether the picture in it is in colour.
        value_range: the setting it is read with.
        tolerance: grey levels by which it may differ from the picture.
    """

    name: str
    make: Callable[[Path], Path]
    expected: str = READ
    colour: bool = False
    value_range: tuple[float, float] | None = None
    tolerance: int = 1


def picture(*, colour: bool = False) -> np.ndarray:
    """Four real photographs of shoes and shirts side by side, (64, 64) or, tinted, (64, 64, 3), uint8."""
    folder = Path(hf_score.__file__).parent / "data" / "registry" / "fashion_patch"
    images = load_dataset("parquet", data_files=str(folder / "test.parquet"), split="train")["image"][:4]
    tiles = [np.asarray(image.convert("L")) for image in images]
    grey = np.block([tiles[:2], tiles[2:]])
    grey = np.maximum(grey, np.linspace(0, 255, grey.shape[1]).astype(np.uint8)[None] // 4)
    if not colour:
        return grey
    return np.stack([grey, 255 - grey, np.roll(grey, 7, axis=0)], axis=-1)


def of(mode: str, ending: str, *, colour: bool = False, **options) -> Callable[[Path], Path]:
    """A maker of the picture in a mode of PIL."""

    def make(folder: Path) -> Path:
        path = folder / f"image{ending}"
        Image.fromarray(picture(colour=colour)).convert(mode).save(path, **options)
        return path

    return make


def values(change: Callable[[np.ndarray], np.ndarray], ending: str = ".tiff", **tags: int) -> Callable[[Path], Path]:
    """A maker of the grey picture with its numbers changed; `tags` are those of TIFF, by their number: `t262=0`."""

    def make(folder: Path) -> Path:
        path = folder / f"image{ending}"
        extra = ImageFileDirectory_v2()
        for tag, value in tags.items():
            extra[int(tag[1:])] = value
        Image.fromarray(change(picture())).save(path, **({"tiffinfo": extra} if tags else {}))
        return path

    return make


def bare_tiff(content: np.ndarray, bits: int, sample_format: int, photometric: int = 1) -> bytes:
    """An uncompressed TIFF of one strip, for what PIL cannot write; `content` are bytes, (H, W of the picture)."""
    height, width = picture().shape
    data = content.tobytes()
    samples = content.shape[2] if content.ndim == 3 else 1
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    entries += [(273, 4, 8), (277, 3, samples), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format)]
    directory = len(entries).to_bytes(2, "little")
    after = 8 + len(data) + 2 + 12 * len(entries) + 4
    extra = b""
    for tag, kind, value in entries:
        count = samples if tag in (258, 339) else 1
        field = value.to_bytes(2 if kind == 3 else 4, "little") * count
        if len(field) > 4:
            extra, field = extra + field, (after + len(extra)).to_bytes(4, "little")
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        directory += field.ljust(4, b"\0")
    return b"II*\0" + (8 + len(data)).to_bytes(4, "little") + data + directory + b"\0" * 4 + extra


def written(content: Callable[[], bytes], ending: str) -> Callable[[Path], Path]:
    """A maker of a file with this content."""

    def make(folder: Path) -> Path:
        path = folder / f"image{ending}"
        path.write_bytes(content())
        return path

    return make


def encoded(mode: str, kind: str, *, colour: bool = False, **options) -> bytes:
    """The picture as bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(picture(colour=colour)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def twelve_bit_tiff() -> bytes:
    """Two pixels in three bytes, most significant bits first."""
    pairs = (picture().astype(np.uint16) << 4).reshape(-1, 2)
    a, b = pairs[:, 0], pairs[:, 1]
    packed = np.stack([a >> 4, ((a & 15) << 4) | (b >> 8), b & 255], axis=1).astype(np.uint8)
    return bare_tiff(packed, 12, 1)


def sixteen_bit_colours(ending: str) -> bytes:
    """RGB of 16 bits a colour as TIFF or PNG, which PIL reads and cannot write."""
    deep = picture(colour=True).astype(np.uint16) * 257
    if ending == ".tiff":
        return bare_tiff(deep, 16, 1, photometric=2)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = deep.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in deep)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def dicom(change: Callable[[np.ndarray], np.ndarray] = lambda grey: grey, **elements) -> Callable[[Path], Path]:
    """A maker of a DICOM file of the picture with its numbers changed; `elements` are set last."""

    def make(folder: Path) -> Path:
        return write_dicom(folder / "image.dcm", change(picture()), **elements)

    return make


def write_dicom(path: Path, pixels: np.ndarray, **elements) -> Path:
    """A real DICOM file, (H, W) or (H, W, 3); further elements by their keyword, None takes one out."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Modality = "OT"
    header.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 and pixels.shape[2] == 3 else 1
    header.PhotometricInterpretation = "RGB" if header.SamplesPerPixel == 3 else "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape[:2] if pixels.ndim == 2 or header.SamplesPerPixel == 3 else (0, 0)
    if header.SamplesPerPixel == 3:
        header.PlanarConfiguration = 0
    elif pixels.ndim == 3:  # frames
        header.NumberOfFrames, header.Rows, header.Columns = pixels.shape
    header.BitsAllocated = 8 * pixels.dtype.itemsize
    header.BitsStored, header.HighBit = header.BitsAllocated, header.BitsAllocated - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    header.HighBit = header.BitsStored - 1
    header.save_as(path, enforce_file_format=True)
    return path


def heic(folder: Path) -> Path:
    from pillow_heif import from_pillow

    path = folder / "image.heic"
    from_pillow(Image.fromarray(picture())).save(path, quality=100)
    return path


def oriented(folder: Path) -> Path:
    """A JPEG that has to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = folder / "image.jpg"
    Image.fromarray(np.rot90(picture())).save(path, quality=100, exif=exif)
    return path


def transparent(folder: Path) -> Path:
    """A PNG whose left half is transparent; the colours stay under it."""
    alpha = np.full(picture().shape, 255, np.uint8)
    alpha[:, :32] = 0
    path = folder / "image.png"
    Image.fromarray(np.dstack([picture(colour=True), alpha])).save(path)
    return path


def frames(ending: str, **options) -> Callable[[Path], Path]:
    """A maker of the picture, followed by its mirror image."""

    def make(folder: Path) -> Path:
        path = folder / f"image{ending}"
        image = Image.fromarray(picture())
        image.save(path, save_all=True, append_images=[image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], **options)
        return path

    return make


def truncated(mode: str, kind: str, ending: str) -> Callable[[Path], Path]:
    return written(lambda: (content := encoded(mode, kind))[: len(content) * 2 // 3], ending)


def bomb() -> bytes:
    """A PNG of 16,000 × 16,000 black pixels in 31 kB."""
    buffer = io.BytesIO()
    Image.new("1", (16_000, 16_000)).save(buffer, "PNG")
    return buffer.getvalue()


def two_frames(folder: Path) -> Path:
    """DICOM with a second frame that is the first one's negative."""
    return write_dicom(folder / "image.dcm", np.stack([picture(), 255 - picture()]))


def hounsfield(grey: np.ndarray) -> np.ndarray:
    """The picture as CT: -160 is black and 240 white."""
    return (grey.astype(np.float64) / 255 * 400 - 160).round().astype(np.int16)


INPUTS = [
    # 8 bits: as `transformers.pipeline` reads them
    Input("PNG, grey, 8 bits", of("L", ".png"), tolerance=0),
    Input("PNG, RGB, 8 bits", of("RGB", ".png", colour=True), colour=True, tolerance=0),
    Input("PNG, grey with transparency", of("LA", ".png"), tolerance=0),
    Input("PNG, RGBA, opaque", of("RGBA", ".png", colour=True), colour=True, tolerance=0),
    Input("PNG, RGBA, transparent in parts", transparent, colour=True, tolerance=0),
    Input("PNG, palette", of("P", ".png"), tolerance=0),
    Input("JPEG, grey", of("L", ".jpg", quality=100), tolerance=3),
    Input("JPEG, RGB", of("RGB", ".jpg", colour=True, quality=100, subsampling=0), colour=True, tolerance=6),
    Input("JPEG, CMYK", of("CMYK", ".jpg", colour=True, quality=100, subsampling=0), colour=True, tolerance=8),
    Input("JPEG with EXIF orientation", oriented, tolerance=3),
    Input("TIFF, CMYK", of("CMYK", ".tiff", colour=True), colour=True, tolerance=0),
    Input("TIFF, LZW", of("RGB", ".tiff", colour=True, compression="tiff_lzw"), colour=True, tolerance=0),
    Input("TIFF, 8 bits, white is zero", values(lambda grey: grey, t262=0), tolerance=0),
    Input("BMP", of("RGB", ".bmp", colour=True), colour=True, tolerance=0),
    Input("WebP, lossless", of("RGB", ".webp", colour=True, lossless=True), colour=True, tolerance=0),
    Input("AVIF", of("L", ".avif", quality=100), tolerance=4),
    Input("JPEG 2000", of("L", ".jp2"), tolerance=0),
    Input("PGM", of("L", ".pgm"), tolerance=0),
    Input("HEIC", heic, tolerance=8),
    Input("GIF, animated: the first frame", frames(".gif"), tolerance=0),
    Input("WebP, animated: the first frame", frames(".webp", lossless=True), tolerance=0),
    Input("PNG, animated: the first frame", frames(".png"), tolerance=0),
    Input("TIFF of several pages: the first page", frames(".tiff"), tolerance=0),
    # more than 8 bits, declared
    Input("PNG, grey, 16 bits", values(lambda grey: grey.astype(np.uint16) * 257, ".png")),
    Input("PNG, RGB, 16 bits a colour", written(lambda: sixteen_bit_colours(".png"), ".png"), colour=True),
    Input("TIFF, grey, 12 bits", written(twelve_bit_tiff, ".tiff")),
    Input("TIFF, grey, 16 bits", values(lambda grey: grey.astype(np.uint16) * 257)),
    Input("TIFF, 16 bits, white is zero", values(lambda grey: (255 - grey).astype(np.uint16) * 257, t262=0)),
    Input("TIFF, RGB, 16 bits a colour", written(lambda: sixteen_bit_colours(".tiff"), ".tiff"), colour=True),
    Input("TIFF, float, 0 to 1", values(lambda grey: grey.astype(np.float32) / 255)),
    # numbers that say nothing about black and white
    Input(
        "TIFF, 12 bits stored as 16, with value_range",
        values(lambda grey: grey.astype(np.uint16) * 16),
        value_range=(0, 4080),
    ),
    Input(
        "TIFF, signed 16 bits (CT)",
        written(lambda: bare_tiff(hounsfield(picture()), 16, 2), ".tiff"),
        "refused: signed whole numbers",
    ),
    Input(
        "TIFF, signed 16 bits (CT), with value_range",
        written(lambda: bare_tiff(hounsfield(picture()), 16, 2), ".tiff"),
        value_range=(-160, 240),
    ),
    Input(
        "TIFF, signed 8 bits",
        written(lambda: bare_tiff((picture().astype(np.int16) - 128).astype(np.int8), 8, 2), ".tiff"),
        "refused: signed whole numbers",
    ),
    Input(
        "TIFF, signed 8 bits, with value_range",
        written(lambda: bare_tiff((picture().astype(np.int16) - 128).astype(np.int8), 8, 2), ".tiff"),
        value_range=(-128, 127),
    ),
    Input("TIFF, 32 bits", values(lambda grey: grey.astype(np.int32)), "refused: signed whole numbers"),
    Input(
        "TIFF, unsigned 32 bits",
        written(lambda: bare_tiff(picture().astype(np.uint32), 32, 1), ".tiff"),
        "refused: 32-bit whole numbers",
    ),
    Input(
        "TIFF, float, 0 to 255", values(lambda grey: grey.astype(np.float32)), "refused: float numbers outside 0..1"
    ),
    Input(
        "TIFF, float, 0 to 255, with value_range",
        values(lambda grey: grey.astype(np.float32)),
        value_range=(0, 255),
    ),
    Input("TIFF, float, CT", values(lambda grey: hounsfield(grey).astype(np.float32)), "refused: give value_range"),
    # DICOM
    Input("DICOM, 8 bits", dicom(), tolerance=0),
    Input("DICOM, RGB", lambda folder: write_dicom(folder / "i.dcm", picture(colour=True)), colour=True, tolerance=0),
    Input("DICOM, 12 bits", dicom(lambda grey: grey.astype(np.uint16) << 4, BitsStored=12)),
    Input(
        "DICOM, MONOCHROME1",
        dicom(
            lambda grey: 4095 - (grey.astype(np.uint16) << 4), BitsStored=12, PhotometricInterpretation="MONOCHROME1"
        ),
    ),
    Input(
        "DICOM, CT with slope, intercept and window",
        dicom(
            lambda grey: hounsfield(grey) + 1024,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            WindowCenter=40,
            WindowWidth=400,
        ),
    ),
    Input(
        "DICOM, CT with value_range instead of its window",
        dicom(hounsfield, RescaleSlope=1, RescaleIntercept=0, WindowCenter=600, WindowWidth=10),
        value_range=(-160, 240),
    ),
    Input(
        "DICOM, several frames: the first",
        two_frames,
    ),
    Input("DICOM without pixels", dicom(PixelData=None), COUNTED),
    # what cannot be read
    Input("PNG, truncated", truncated("L", "PNG", ".png"), COUNTED),
    Input("JPEG, truncated", truncated("L", "JPEG", ".jpg"), COUNTED),
    Input("TIFF, truncated", truncated("L", "TIFF", ".tiff"), COUNTED),
    Input("GIF, truncated", truncated("L", "GIF", ".gif"), COUNTED),
    Input("WebP, truncated", truncated("L", "WEBP", ".webp"), COUNTED),
    Input("an empty file", written(bytes, ".png"), COUNTED),
    Input("a web page named .jpg", written(lambda: b"<html>404</html>", ".jpg"), COUNTED),
    Input(
        "TIFF, float with values that are no numbers",
        values(lambda grey: np.where(grey > 250, np.nan, 0).astype(np.float32)),
        COUNTED,
    ),
    Input("a picture of 256 million pixels", written(bomb, ".png"), COUNTED),
]
