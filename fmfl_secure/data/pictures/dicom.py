"""DICOM, through pydicom: an extra, and read without a word of its header reaching anybody.

What comes out is a picture of 8 bits, and where it is asked for, whose it is. pydicom warns and
logs with values of the header; both are held back here, and no exception of it is passed on.

`data.pictures.registry` holds its one entry, `Dicom`, and `data.images` asks `person_of` where the
unit is the patient that the header names.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.pictures.base import Decoded, PictureForm, require_size, shaded, unusable
from fmfl_secure.data.pictures.depth import Window
from fmfl_secure.extras import how_to_install

PERSON = "PatientID"
_PREAMBLE = 128
_FIRST_OF_HEADER = 0x00030000  # tags below are of the file, not of the picture
_FAILURES = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, TypeError, ValueError,
    AssertionError, RuntimeError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RUN_LENGTHS = "1.2.840.10008.1.2.5"
# A pair of bytes becomes 128: so large may a packed picture be that unpacks within 1 GiB.
_LARGEST_RUN_LENGTHS = 1 << 24  # bytes
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})


class Dicom(PictureForm):
    """One picture of a patient's study."""

    name: ClassVar[str] = "DICOM"
    suffixes: ClassVar[tuple[str, ...]] = (".dcm",)
    known_by: ClassVar[str] = "`DICM` behind 128 bytes"
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "of grey (MONOCHROME1 and 2)",
            (
                "rescaled as its header says (slope and intercept, or the modality's table), "
                "then windowed: by `task.image_window`, in the modality's units, such as "
                "`[-160, 240]` Hounsfield; else by the header's table or its first window; else by "
                "the range of its stored bits. MONOCHROME1 is turned around"
            ),
        ),
        ("of colour (RGB, YBR, palette)", "RGB"),
        ("of several frames, or of an enhanced object", "refused: which frame is meant?"),
        (
            "compressed in a way that no decoder is installed for",
            (
                "refused by the name of its transfer syntax. RLE, JPEG of 8 bits and JPEG 2000 "
                "need nothing besides the extra; `pylibjpeg` or `python-gdcm` decode the others"
            ),
        ),
        ("in a deflated file", "refused: it may unpack to any size"),
        ("without the extra `dicom`", "refused"),
    )

    @override
    def begins(self, head: bytes) -> bool:
        return head[_PREAMBLE : _PREAMBLE + 4] == b"DICM"

    @override
    def require_extra(self) -> None:
        _require_pydicom()

    @override
    def decode(self, data: bytes, window: Window | None) -> Decoded:
        _require_pydicom()
        decoded = None
        with _in_silence():
            try:
                decoded = _decoded(data, window)
            except UnusableValue:
                raise
            except _FAILURES:
                decoded = None
        if decoded is None:
            raise unusable("the file is not readable as DICOM", "check that it is complete")
        return decoded


def person_of(data: bytes) -> str | None:
    """Whose picture a DICOM file holds, by its header; None where it does not say.

    Raises:
        UnusableValue: It is no DICOM file that can be read.
    """
    _require_pydicom()
    from pydicom import dcmread  # noqa: PLC0415

    with _in_silence():
        try:
            _require_transfer_syntax(data)
            found = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=[PERSON])
            return _person(found)
        except UnusableValue:
            raise
        except _FAILURES:
            pass
    raise unusable("the file is not readable as DICOM", "check that it is complete")


def installed() -> bool:
    """Whether DICOM can be read here."""
    return importlib.util.find_spec("pydicom") is not None


def _require_pydicom() -> None:
    if not installed():
        raise unusable(
            "DICOM is read with the extra dicom, which is not installed",
            how_to_install("dicom"),
            "DICOM, without the extra dicom",
        )


@contextmanager
def _in_silence() -> Iterator[None]:
    """Neither a warning nor a log line of pydicom: both quote the header."""
    logger = logging.getLogger("pydicom")
    passed_on = logger.propagate
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        logger.propagate = passed_on


def _decoded(data: bytes, window: Window | None) -> Decoded:
    from pydicom import dcmread  # noqa: PLC0415
    from pydicom.pixels import pixel_array  # noqa: PLC0415

    syntax = _require_transfer_syntax(data)
    header: Any = dcmread(io.BytesIO(data))
    kind = _require_one_picture(header)
    require_size(int(header.Columns), int(header.Rows), deep=True)
    packed = len(header.get("PixelData") or b"")
    if syntax == _RUN_LENGTHS and packed > _LARGEST_RUN_LENGTHS:
        raise unusable(f"more than {_LARGEST_RUN_LENGTHS} bytes of run lengths are not unpacked")
    pixels = pixel_array(header, index=0)
    require_size(pixels.shape[1], pixels.shape[0], deep=True)
    read = _grey if kind in _GREY else _colour
    shades, stored = read(header, pixels, window)
    bits = int(header.get("BitsStored") or 8 * pixels.dtype.itemsize)
    image = Image.fromarray(shades).convert("RGB")
    return Decoded(image, f"{kind}, {bits} bits", stored, _person(header))


def _require_transfer_syntax(data: bytes) -> str:
    """How the pixels are packed; refused here where nothing can unpack them, or not within bounds.

    Of the file's own tags alone: pydicom would unpack a deflated file to any size.
    """
    from pydicom.filereader import read_dataset  # noqa: PLC0415
    from pydicom.pixels import get_decoder  # noqa: PLC0415
    from pydicom.uid import UID  # noqa: PLC0415

    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise unusable("the file is not readable as DICOM", "check that it is complete")
    file = io.BytesIO(data)
    file.seek(_PREAMBLE + 4)
    tags: Any = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag >= _FIRST_OF_HEADER,
    )
    syntax = UID(str(tags.get("TransferSyntaxUID") or ""))
    try:
        decodes = syntax != _DEFLATED and get_decoder(syntax).is_available
    except NotImplementedError:
        decodes = False
    if decodes:
        return str(syntax)
    # A name of the standard's own, or nothing: what the file says could be anything.
    named = syntax.name if syntax.is_transfer_syntax and syntax.name != syntax else "one unknown"
    raise unusable(
        f"no decoder is installed for the DICOM file's transfer syntax, {named}",
        "export it uncompressed, or install pylibjpeg with its plugins, or python-gdcm",
        f"DICOM in a transfer syntax without a decoder ({named})",
    )


def _require_one_picture(header: Any) -> str:
    """Its photometric interpretation, of those that are read."""
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise unusable("the DICOM file holds no picture", sort="DICOM without a picture")
    enhanced = {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"}
    if int(header.get("NumberOfFrames") or 1) != 1 or any(name in header for name in enhanced):
        raise unusable(
            "the DICOM file holds several pictures, or an enhanced object",
            "write one picture a file: which frame is meant, and by which of its windows?",
            "DICOM of several pictures",
        )
    kind = str(header.get("PhotometricInterpretation") or "").strip()
    shape = str(header.get("PresentationLUTShape") or "").strip()
    against = {"MONOCHROME1": "IDENTITY", "MONOCHROME2": "INVERSE"}.get(kind)
    if kind not in _GREY | _COLOUR or (shape and shape == against):
        raise unusable(
            "the DICOM file does not say in a way known here what is black and what white",
            "export it as MONOCHROME1, MONOCHROME2, RGB, YBR or PALETTE COLOR",
            "DICOM of another photometric interpretation",
        )
    return kind


def _grey(
    header: Any, pixels: NDArray[Any], window: Window | None
) -> tuple[NDArray[np.uint8], Window]:
    """Modality's units, then the window, then turned around where white is zero."""
    from pydicom.pixels import apply_modality_lut, apply_voi  # noqa: PLC0415

    values = apply_modality_lut(pixels, header)
    stored = float(values.min()), float(values.max())
    bounds = window
    if window is None and header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        bounds = 0.0, 2.0 ** int(table.LUTDescriptor[2]) - 1
        values = apply_voi(np.rint(values).astype(np.int32), header)
    elif window is None and header.get("WindowWidth") is not None:
        values, bounds = _windowed(header, values)
    elif window is None:
        bounds = _range_of(header)
    shades = shaded(values, bounds, "DICOM")
    white_is_zero = str(header.PhotometricInterpretation).strip() == "MONOCHROME1"
    return (255 - shades if white_is_zero else shades), stored


def _windowed(header: Any, values: NDArray[Any]) -> tuple[NDArray[Any], Window]:
    """By the first window of the header: DICOM part 3, C.11.2.1.2 and C.11.2.1.3."""
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR").strip()
    if function == "LINEAR" and width > 1:
        return values, (centre - width / 2, centre + width / 2 - 1)
    if function == "LINEAR_EXACT" and width > 0:
        return values, (centre - width / 2, centre + width / 2)
    if function == "SIGMOID" and width > 0:
        steep = np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)  # within a float's range
        return 1.0 / (1.0 + np.exp(steep)), (0.0, 1.0)
    raise unusable(
        "the DICOM file's window is none of LINEAR, LINEAR_EXACT and SIGMOID with a width",
        "say it in task.image_window",
        "DICOM with a window that is none",
    )


def _range_of(header: Any) -> Window | None:
    """Returns the range that its stored bits can hold, in the modality's units; None for floats."""
    from pydicom.pixels import apply_modality_lut  # noqa: PLC0415

    if "PixelData" not in header:
        return None
    if header.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits = int(header.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if _signed(header) else (0, 2**bits - 1)
    ends = sorted(float(end) for end in apply_modality_lut(np.array([low, high]), header))
    return ends[0], ends[1]


def _colour(
    header: Any, pixels: NDArray[Any], window: Window | None
) -> tuple[NDArray[np.uint8], Window]:
    """Three channels of as many bits as are stored, or of a palette's."""
    from pydicom.pixels import apply_color_lut  # noqa: PLC0415

    if str(header.PhotometricInterpretation).strip() == "PALETTE COLOR":
        values = apply_color_lut(pixels, header)
        bits = 8 * values.dtype.itemsize
    else:
        values, bits = pixels, int(header.BitsStored)
    if values.ndim != 3 or values.shape[2] != 3 or _signed(header):
        raise unusable("the DICOM file's colours are not three, or have a sign")
    bounds = (0.0, 2.0**bits - 1) if window is None or bits <= 8 else window
    stored = float(values.min()), float(values.max())
    return shaded(values, bounds, "DICOM"), stored


def _signed(header: Any) -> bool:
    return int(header.get("PixelRepresentation") or 0) == 1


def _first(value: Any) -> float:
    return float(value if isinstance(value, int | float) else value[0])


def _person(header: Any) -> str | None:
    """As text; several values, or none, are nobody's id."""
    value = header.get(PERSON)
    return value if isinstance(value, str) and value.strip() else None
