"""Images of a site: named in a table, or in folders by label.

An image is decoded once when it is read, so that one that cannot be is a bad row then and not an
accident in training, and is kept as the bytes it came in.

Tasks of pictures (`tasks.image_classification`) read a table with `image_field` or a folder with
`read_image_folder`, and decode the kept bytes again, batch by batch, with `decode_image`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmfl_secure.data._source import CellKind, UnusableValue
from fmfl_secure.data.errors import DataArgumentError, NullUnitError, UnknownLabelError
from fmfl_secure.data.fields import RECORD_UNIT, Field, OnBadRow, Records, no_rows
from fmfl_secure.data.formats.base import unreadable
from fmfl_secure.data.formats.foreign import left_by_a_system
from fmfl_secure.data.left_out import Tally, label_sort
from fmfl_secure.data.pictures.base import MAX_BYTES, Decoded, require_size, shaded, unusable
from fmfl_secure.data.pictures.depth import SIXTEEN_BITS, Window, lay_on_white
from fmfl_secure.data.pictures.dicom import PERSON, Dicom, installed, person_of
from fmfl_secure.data.pictures.registry import SUFFIXES, decode, form_of, require_read
from fmfl_secure.data.records import grouped_units, record_units
from fmfl_secure.data.stored import StoredPicture
from fmfl_secure.data.unit_ids import unit_id
from fmfl_secure.extras import how_to_install
from fmfl_secure.outside import is_file, read_regular
from fmfl_secure.settings.types import UnitRule

# Of numbers, what is black and white by their type.
_SPANS: Mapping[str, Window] = MappingProxyType(
    {"uint8": (0.0, 255.0), "uint16": SIXTEEN_BITS, "bool": (0.0, 1.0)}
)


@dataclass(frozen=True, slots=True, repr=False)
class PictureFacts:
    """Form, size and range of one picture. Private: has no useful repr.

    Attributes:
        form: Its entry in `PICTURES`.
        mode: How the file holds it.
        size: Width and height in pixels, upright.
        least: The least value that the file holds.
        greatest: The greatest.
        flat: Whether it is of one colour once it is read.
    """

    form: str
    mode: str
    size: tuple[int, int]
    least: float
    greatest: float
    flat: bool

    def __repr__(self) -> str:
        return "PictureFacts(<private>)"


class EncodedPicture(bytes):
    """A picture file of 8 bits that decodes: the site's own, or what it was turned into.

    Attributes:
        facts: What the site's own was.
        person: Whose it is, where it says so.
    """

    facts: PictureFacts
    person: str | None

    @classmethod
    def of(cls, own: bytes, form: str, decoded: Decoded, stored: Window) -> EncodedPicture:
        """A file's bytes with what is known of them."""
        picture = cls(own)
        image = decoded.image
        flat = bool((np.ptp(np.asarray(image), axis=(0, 1)) == 0).all())
        picture.facts = PictureFacts(form, decoded.mode, image.size, *stored, flat)
        picture.person = decoded.person
        return picture


def decode_image(data: bytes, window: Window | None = None) -> Image.Image:
    """A picture file's bytes as RGB of 8 bits, upright.

    Args:
        data: The file. What is transparent is laid on white; more than 8 bits are scaled by the
            range of the format or by the window.
        window: What becomes black and white in pictures of more than 8 bits.

    Raises:
        UnusableValue: They are no picture that is read here, or one that is too large, holds
            several, or has no range.
    """
    return decode(data, window).image


def read_picture(data: bytes, window: Window | None = None) -> EncodedPicture:
    """A picture that decodes without a window: its own bytes, or those of what it became.

    Nothing of a DICOM header is in what is returned, but for whose it is.

    Args:
        data: The file.
        window: See `decode_image`.

    Raises:
        UnusableValue: See `decode_image`.
    """
    form = form_of(data)
    decoded = form.decode(data, window)
    form.require_whole(data)
    image = decoded.image
    if decoded.stored is None:
        own = data
        values = np.asarray(image)
        stored = float(values.min()), float(values.max())
    else:
        own, stored = _png(image), decoded.stored
    return EncodedPicture.of(own, form.name, decoded, stored)


def read_pixels(values: NDArray[Any], window: Window | None = None) -> EncodedPicture:
    """A picture of numbers, as arrays have it; scaled as files are.

    Args:
        values: Shape (h, w) or (h, w, channels) of 1, 3 or 4: grey, RGB, RGB with its opacity.
        window: What becomes black and white, where they are no uint8.

    Raises:
        UnusableValue: They are no picture, or do not say what is white.
    """
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] not in {1, 3, 4}:
        raise unusable("the numbers have no shape of a picture")
    require_size(values.shape[1], values.shape[0], deep=values.dtype != np.uint8)
    span = _SPANS.get(values.dtype.name)
    bounds = span if values.dtype == np.uint8 else window or span
    shades = shaded(values[..., :3], bounds, f"the type {values.dtype.name}")
    if values.shape[2] == 4:
        lay_on_white(shades, shaded(values[..., 3], span, f"the type {values.dtype.name}"))
    image = Image.fromarray(shades if shades.shape[2] > 1 else shades[..., 0]).convert("RGB")
    decoded = Decoded(image, f"{values.dtype.name}, {values.shape[2]} channels")
    stored = float(values.min()), float(values.max())
    return EncodedPicture.of(_png(image), "numbers", decoded, stored)


def _png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return sink.getvalue()


def image_field(argument: str, column: str, folder: Path, window: Window | None = None) -> Field:
    """An image that the table holds, or its path from a folder: as bytes that decode."""

    def parse(value: str | None, column: str) -> EncodedPicture:
        content = value.content if isinstance(value, StoredPicture) else None
        if isinstance(content, bytes):
            return read_picture(content, window)
        if content is not None:
            return read_pixels(content, window)
        if not value:
            raise unusable(f"the picture or its path in column {column!r} is missing")
        return _read(folder / value, window)

    def is_picture(value: str | None) -> bool:
        content = value.content if isinstance(value, StoredPicture) else None
        if content is None and value:
            file = folder / value
            if not is_file(file) and file.suffix.lower() not in SUFFIXES:
                return False  # whatever it is, such as a note
            content = _bytes_of(file)
        if isinstance(content, bytes):
            require_read(content)
        return content is not None

    takes: tuple[CellKind, ...] = ("text", "bytes", "picture")
    return Field(argument, (column,), parse, takes=takes, is_picture=is_picture)


def read_image_folder(
    folder: Path,
    *,
    labels: Sequence[str] | None,
    unit: str,
    on_bad_row: OnBadRow,
    aliases: Sequence[tuple[str, str]] = (),
    unit_rules: Collection[UnitRule] = (),
    window: Window | None = None,
) -> Records:
    """Images in one subfolder for each label, in order of subfolder and file name.

    Args:
        folder: Holds the subfolders; a file beside them is passed over, and counted.
        labels: Names that subfolders may have; None reads files of the folder itself, unlabelled.
        unit: `record`; or `PatientID` where the pictures are DICOM, whose headers say it.
        on_bad_row: What to do about an image that cannot be decoded, or a subfolder not known.
        aliases: Other names that a subfolder may have, and the label that each means.
        unit_rules: Which differences between patients' ids are of no account besides.
        window: See `decode_image`.

    Returns:
        Columns of image bytes and labels, or of image bytes alone.

    Raises:
        DataError: One of its kinds.
    """
    require_folder_unit(folder, unit)
    spelled = dict(aliases)
    images: list[EncodedPicture] = []
    found: list[str] = []
    people: list[str] = []
    tally = Tally()
    for number, (file, folder_name) in enumerate(
        _files(folder, tally, by_label=labels is not None), start=1
    ):
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
            picture = _read(file, window)
            person = "" if unit == RECORD_UNIT else _person(picture.person, unit_rules)
        except UnusableValue as error:
            tally.fault(error.at(folder, number))
        else:
            images.append(picture)
            found.append(label)
            people.append(person)
    if on_bad_row == "error":
        tally.refuse()
    if not images:
        raise no_rows(folder, tally)
    columns: tuple[list[Any], ...] = (images,) if labels is None else (images, found)
    units = record_units(len(images)) if unit == RECORD_UNIT else grouped_units(people)
    ids = () if unit == RECORD_UNIT else tuple(dict.fromkeys(people))
    return Records(columns=columns, units=units, left_out=tally.left_out(), ids=ids)


def require_folder_unit(folder: Path, unit: str) -> None:
    """Refuse a unit that a folder of pictures cannot name; looks at no picture.

    Raises:
        DataArgumentError: It is another column, or DICOM is not read here.
    """
    if unit == RECORD_UNIT or (unit == PERSON and installed()):
        return
    if unit == PERSON:
        raise DataArgumentError(
            f"the privacy unit is {PERSON!r} of DICOM files, and the extra dicom is not installed",
            hint=how_to_install("dicom"),
            path=folder,
        )
    raise DataArgumentError(
        f"the privacy unit is {unit!r} and the data are a folder, which does not name it",
        hint="write a table with the columns of path, label and unit; of DICOM files, "
        f"{PERSON!r} is read from each",
        path=folder,
    )


def check_forms(folder: Path) -> None:
    """Require of a folder's pictures that there are any, and one of a form that is read.

    Nothing but the first bytes of files has a say, in whatever subfolder they are.

    Raises:
        EmptyFileError: There are none.
        UnreadableFileError: The folder or a subfolder cannot be listed.
    """
    tally = Tally()
    for number, (file, _) in enumerate(_files(folder, tally, by_label=True), start=1):
        tally.row()
        try:
            require_read(_bytes_of(file))
        except UnusableValue as error:
            tally.fault(error.at(folder, number))
        else:
            return
    raise no_rows(folder, tally)


def people_of(folder: Path) -> Iterator[str]:
    """Whose each DICOM picture in a folder's subfolders is, as its header spells it."""
    for file, _ in _files(folder, Tally(), by_label=True):
        with contextlib.suppress(UnusableValue):
            data = _bytes_of(file)
            person = person_of(data) if isinstance(form_of(data), Dicom) else None
            if person is not None:
                yield person


def _person(person: str | None, unit_rules: Collection[UnitRule]) -> str:
    if person is None:
        raise UnusableValue(
            NullUnitError,
            f"the picture does not say whose it is: no DICOM file with a {PERSON}",
            "every picture must say whose it is, or the budget cannot protect that person; write "
            "a table with the columns of path, label and unit",
        )
    return unit_id(person, unit_rules, column=PERSON)


def _files(folder: Path, tally: Tally, *, by_label: bool) -> list[tuple[Path, str]]:
    """Files and the names of their subfolders; what is no row is passed over with a word."""
    found: list[tuple[Path, str]] = []
    try:
        for place in sorted(folder.iterdir()):
            if not place.is_dir():
                found.append((place, ""))
            elif by_label:
                found += [(file, place.name) for file in sorted(place.iterdir())]
    except OSError as error:
        raise unreadable(folder, error) from None
    records = []
    for file, name in found:
        no_row = left_by_a_system(file.name)
        if by_label and not no_row and not name:
            no_row = "a file beside the labels' subfolders"
        if no_row:
            tally.beside(no_row)
        else:
            records.append((file, name))
    return records


def _bytes_of(file: Path) -> bytes:
    fault = unusable("the image cannot be read")
    try:
        if file.stat().st_size <= MAX_BYTES:
            return read_regular(file)
    except IsADirectoryError:
        fault = unusable(
            "a folder lies among the pictures",
            "put its pictures beside it: a label's subfolder is not searched further",
            "folder among the pictures, which is not searched",
        )
    except (OSError, ValueError):  # whose text has the path in it, and so the row's value
        pass
    raise fault


def _read(file: Path, window: Window | None) -> EncodedPicture:
    return read_picture(_bytes_of(file), window)
