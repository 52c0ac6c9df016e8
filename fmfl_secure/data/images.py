"""Images of a site: named in a table, or in folders by label.

An image is decoded once when it is read, so that one that cannot be is a bad row then and not an
accident in training, and is kept as the bytes it came in.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fmfl_secure.data._source import UnusableValue
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
_FAILURES = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_HINT = (
    "PNG, JPEG, WebP, BMP, TIFF and GIF are read; replace or remove the image, "
    'or set on_bad_row = "skip"'
)


def decode_image(data: bytes) -> Image.Image:
    """An image file's bytes as RGB.

    Raises:
        UnusableValue: They are no image that is read here, or one that is too large.
    """
    image = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                if opened.width * opened.height <= _MAX_PIXELS:
                    image = opened.convert("RGB")
        except _FAILURES:
            image = None
    if image is None:
        raise UnusableValue(UnusableImageError, "the image cannot be decoded", _HINT)
    return image


def image_field(argument: str, column: str, folder: Path) -> Field:
    """An image's path from a folder, read as the bytes of an image that decodes."""

    def parse(value: str | None, column: str) -> bytes:
        if not value:
            raise UnusableValue(
                UnusableImageError, f"the path in column {column!r} is missing", _HINT
            )
        return _read(folder / value)

    return Field(argument, (column,), parse)


def read_image_folder(
    folder: Path,
    *,
    labels: Sequence[str] | None,
    unit: str,
    on_bad_row: OnBadRow,
    aliases: Sequence[tuple[str, str]] = (),
) -> Records:
    """Images in one subfolder for each label, in order of subfolder and file name.

    Args:
        folder: Holds the subfolders; a file beside them is ignored.
        labels: Names that subfolders may have; None reads files of the folder itself, unlabelled.
        unit: Must be `record`: a folder does not say whose an image is.
        on_bad_row: What to do about an image that cannot be decoded, or a subfolder not known.
        aliases: Other names that a subfolder may have, and the label that each means.

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
            data = _read(file)
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


def _read(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except (OSError, ValueError):
        data = None
    if data is None:
        raise UnusableValue(UnusableImageError, "the image cannot be read", _HINT)
    decode_image(data)
    return data
