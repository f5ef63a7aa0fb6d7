"""DICOM files to grey or colour, with `pydicom` (extra `medical`): rescaled, windowed and the right way round."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from ..errors import DataError
from .scaling import FormatError, UsedRange, scaled

__all__ = ["is_dicom", "read_dicom"]


def is_dicom(content: bytes, name: str) -> bool:
    """Whether a file is DICOM, by its preamble; for files without one, from old devices, by the ending of the name."""
    return content[128:132] == b"DICM" or name.lower().endswith((".dcm", ".dicom"))


@overload
def read_dicom(
    content: bytes, name: str, value_range: Sequence[float] | None = None
) -> tuple[Image.Image, bool, UsedRange | None]: ...
@overload
def read_dicom(content: bytes, name: str, *, raw: Literal[True]) -> tuple[np.ndarray, float, bool]: ...
def read_dicom(
    content: bytes, name: str, value_range: Sequence[float] | None = None, *, raw: bool = False
) -> tuple[Any, Any, Any]:
    """The first frame in RGB, whether there are more, and what its values use of the declared range.

    With `raw`, for masks: the stored numbers (H, W), the highest that can be stored, whether there are more frames.

    The order is that of the standard (PS3.3 C.11): slope and intercept, then `value_range` where given, else the VOI
    look-up table or the first window, else the range of the stored bits; MONOCHROME1 is inverted last.

    Raises:
        FormatError: `pydicom` or a decompressor is missing.
        DataError: there is no picture in the file.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
    except ImportError:
        raise FormatError(f"The image {name} is DICOM: pip install 'hf-score[medical]'.") from None
    header = pydicom.dcmread(io.BytesIO(content), force=True)
    if "PixelData" not in header and "FloatPixelData" not in header and "DoubleFloatPixelData" not in header:
        raise DataError(f"Cannot read the image {name} (a DICOM file without pixels); remove it.")
    frames = int(header.get("NumberOfFrames") or 1) > 1
    try:
        values = pixel_array(header, index=0)
    except (RuntimeError, NotImplementedError) as error:
        syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
        if syntax is None or not syntax.is_compressed or "missing" not in str(error):
            raise
        raise FormatError(
            f"The image {name} is compressed as {syntax.name}, which pydicom cannot read alone: pip install pylibjpeg "
            "pylibjpeg-libjpeg pylibjpeg-openjpeg."
        ) from error
    photometric, bits = str(header.get("PhotometricInterpretation", "MONOCHROME2")), int(header.get("BitsStored") or 8)
    if raw:
        if values.ndim != 2:
            raise DataError(f"The mask {name} is in colours; save it in black and white, white inside the region.")
        full = 2.0**bits - 1
        return (full - values if photometric == "MONOCHROME1" else values), full, frames
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, header)
        bits = 8 * values.dtype.itemsize
    if values.ndim == 3:  # pydicom has made RGB of YBR
        return Image.fromarray((values >> (bits - 8) if bits > 8 else values).astype(np.uint8)), frames, None
    eight, used = _grey(apply_modality_lut(values, header), values.dtype, header, bits, value_range, name)
    return Image.fromarray(255 - eight if photometric == "MONOCHROME1" else eight).convert("RGB"), frames, used


def _grey(
    values: np.ndarray, stored: np.dtype, header: Any, bits: int, value_range: Sequence[float] | None, name: str
) -> tuple[np.ndarray, UsedRange | None]:
    if value_range is None:
        shares = _windowed(values, header)
        if shares is not None:
            return (shares * 255).round().astype(np.uint8), None
    signed = bool(header.get("PixelRepresentation", 0))
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.float64)
    if "ModalityLUTSequence" in header:
        declared = (0.0, 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    else:
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        declared = (intercept + slope * ends[0], intercept + slope * ends[1])
    if stored.kind == "f":
        return scaled(values, None, value_range, name=name, kind="float numbers")
    eight, used = scaled(values, declared, value_range, name=name, kind="")
    return eight, used if bits > 8 else None


def _windowed(values: np.ndarray, header: Any) -> np.ndarray | None:
    """Shares from black to white by the look-up table or the first window, PS3.3 C.11.2.1.2; None without one."""
    if header.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi

        return apply_voi(values, header) / (2.0 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR")
    values = values.astype(np.float64)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width <= 0:  # a width of 1 is a threshold
        return (values > centre).astype(np.float64)
    return ((values - centre) / width + 0.5).clip(0, 1)


def _first(value: Any) -> float | None:
    """The first of one or several numbers."""
    if value is None or value == "":
        return None
    return float(value) if isinstance(value, int | float | str) else float(value[0])
