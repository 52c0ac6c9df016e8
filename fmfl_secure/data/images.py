"""Images of a site: named in a table, or in folders by label.

An image is decoded once when it is read, so that one that cannot be is a bad row then and not an
accident in training, and is kept as the bytes it came in.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from PIL import Image, ImageOps

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.depth import RANGES, WITHOUT_RANGE, to_grey
from fmfl_secure.data.errors import (
    DataArgumentError,
    UnknownLabelError,
    UnreadableFileError,
    UnusableImageError,
)
from fmfl_secure.data.fields import RECORD_UNIT, Field, OnBadRow, Records, no_rows
from fmfl_secure.data.left_out import Tally, label_sort
from fmfl_secure.data.records import record_units

# Everything else that Pillow can open is a larger attack surface and no photograph.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_MAX_PIXELS = 64_000_000  # 256 MB decoded
_MAX_DEEP_PIXELS = 16_000_000  # 128 MB as numbers
_MAX_BYTES = 1 << 28
Window: TypeAlias = tuple[float, float] | None
_FAILURES = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_HINT = (
    "PNG, JPEG, WebP, BMP, TIFF and GIF are read; replace or remove the image, "
    'or set on_bad_row = "skip"'
)


# What an EXIF orientation asks for, so that the picture stands upright.
_UPRIGHT: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)


def decode_image(data: bytes, window: Window = None) -> Image.Image:
    """An image file's bytes as RGB of 8 bits, upright.

    Args:
        data: The file. What is transparent is laid on white; more than 8 bits of grey are scaled
            by the range of the format or by the window.
        window: What becomes black and white in pictures of one deep channel.

    Raises:
        UnusableValue: They are no image that is read here, or one that is too large, holds several
            pictures, or has no range.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                return _decoded(opened, window)
        except _FAILURES:
            pass
    raise UnusableValue(UnusableImageError, "the image cannot be decoded", _HINT)


def _decoded(opened: Image.Image, window: Window) -> Image.Image:
    deep = opened.mode in RANGES or opened.mode in WITHOUT_RANGE
    if opened.width * opened.height > (_MAX_DEEP_PIXELS if deep else _MAX_PIXELS):
        raise UnusableValue(
            UnusableImageError, "the image has too many pixels", _HINT, "image of too many pixels"
        )
    # A telephone's MPO is a photograph with previews behind it; in other files, which is meant?
    if opened.format != "MPO" and getattr(opened, "is_animated", False):
        raise UnusableValue(
            UnusableImageError,
            "the file holds several pictures",
            "write one picture a file; a stack or an animation is none",
            "file of several pictures",
        )
    opened.load()
    image: Image.Image = opened
    if deep:
        grey = to_grey(opened, window)
        if grey is None:
            raise UnusableValue(
                UnusableImageError,
                f"an image of mode {opened.mode} does not say what is black and white in it, or "
                "holds what is no number",
                "say it in task.image_window, such as [0.0, 1.0], or export 8 or 16 bits",
                "image without a range (see task.image_window)",
            )
        # Pillow turns this around for 8 bits, and not for more.
        white_is_zero = opened.format == "TIFF" and getattr(opened, "tag_v2", {}).get(262) == 0
        image = ImageOps.invert(grey) if white_is_zero else grey
    elif opened.has_transparency_data:
        own = opened.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", own.size, "white"), own)
    turn = _UPRIGHT.get(opened.getexif().get(0x0112, 1))
    return (image if turn is None else image.transpose(turn)).convert("RGB")


def image_field(argument: str, column: str, folder: Path, window: Window = None) -> Field:
    """An image's path from a folder, read as the bytes of an image that decodes."""

    def parse(value: str | None, column: str) -> bytes:
        if not value:
            raise UnusableValue(
                UnusableImageError, f"the path in column {column!r} is missing", _HINT
            )
        return _read(folder / value, window)

    return Field(argument, (column,), parse)


def read_image_folder(
    folder: Path,
    *,
    labels: Sequence[str] | None,
    unit: str,
    on_bad_row: OnBadRow,
    aliases: Sequence[tuple[str, str]] = (),
    window: Window = None,
) -> Records:
    """Images in one subfolder for each label, in order of subfolder and file name.

    Args:
        folder: Holds the subfolders; a file beside them is ignored.
        labels: Names that subfolders may have; None reads files of the folder itself, unlabelled.
        unit: Must be `record`: a folder does not say whose an image is.
        on_bad_row: What to do about an image that cannot be decoded, or a subfolder not known.
        aliases: Other names that a subfolder may have, and the label that each means.
        window: See `decode_image`.

    Returns:
        Columns of image bytes and labels, or of image bytes alone.

    Raises:
        DataError: One of its kinds.
    """
    if unit != RECORD_UNIT:
        raise DataArgumentError(
            f"the privacy unit is {unit!r} and the data are a folder, which does not name it",
            hint="write a table with the columns of path, label and unit",
            path=folder,
        )
    spelled = dict(aliases)
    images: list[bytes] = []
    found: list[str] = []
    tally = Tally()
    for number, (file, folder_name) in enumerate(_files(folder, labels), start=1):
        tally.row()
        label = spelled.get(folder_name, folder_name)
        try:
            if labels is not None and label not in labels:
                raise UnusableValue(
                    UnknownLabelError,
                    "the image's subfolder is not named after a label; expected one of "
                    f"{', '.join(map(repr, sorted(labels)))}",
                    "rename the subfolder, or complete the configured labels",
                    label_sort(label, labels),
                )
            data = _read(file, window)
        except UnusableValue as error:
            tally.fault(error.at(folder, number))
        else:
            images.append(data)
            found.append(label)
    if on_bad_row == "error":
        tally.refuse()
    if not images:
        raise no_rows(folder, tally.left_out())
    columns = (images,) if labels is None else (images, found)
    return Records(columns=columns, units=record_units(len(images)), left_out=tally.left_out())


def _files(folder: Path, labels: Sequence[str] | None) -> list[tuple[Path, str]]:
    try:
        if labels is None:
            return [(file, "") for file in sorted(folder.iterdir()) if file.is_file()]
        return [
            (file, place.name)
            for place in sorted(folder.iterdir())
            if place.is_dir()
            for file in sorted(place.iterdir())
        ]
    except OSError as error:
        raise UnreadableFileError(
            f"the folder cannot be read: {error.strerror or type(error).__name__}",
            hint="check the path and that the account running this may read the folder",
            path=folder,
        ) from None


def _read(file: Path, window: Window) -> bytes:
    """The bytes of a picture that decodes without a window: its own, or of what it became."""
    try:
        data = file.read_bytes() if file.stat().st_size <= _MAX_BYTES else None
    except (OSError, ValueError):
        data = None
    if data is None:
        raise UnusableValue(UnusableImageError, "the image cannot be read", _HINT)
    image = decode_image(data, window)
    if window is None:
        return data
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return sink.getvalue()
