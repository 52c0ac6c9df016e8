"""Shows a site its pictures, in counts and on one sheet: for the site's eyes alone.

`Federation.check_pictures` (`api`) asks the task, whose base `tasks.adapter_task` reads the site's
pictures and counts them with `check_pictures`.
"""

from __future__ import annotations

import io
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from fmfl_secure.data.errors import OutputError
from fmfl_secure.data.fields import Records
from fmfl_secure.data.images import EncodedPicture, decode_image
from fmfl_secure.errors import RunError, is_passing, os_failure

_ACROSS = 8  # pictures in a row of the sheet
_SIDE = 112  # pixels of each
_CAPTION = 14  # pixels below it, for its number
_COMMONEST = 3  # sizes named


@dataclass(frozen=True, slots=True, repr=False)
class PictureKind:
    """Pictures of one form and mode. Private: has no useful repr.

    Attributes:
        form: `PNG`, `DICOM`, ...
        mode: How the files hold them: `L`, `RGB`, `I;16`, ...
        pictures: How many.
        least: The least value that any of their files holds.
        greatest: The greatest.
        flat: How many are of one colour once they are read.
    """

    form: str
    mode: str
    pictures: int
    least: float
    greatest: float
    flat: int

    def __str__(self) -> str:
        told = (
            f"{self.pictures} of {self.form}, {self.mode}: values {self.least:g} to "
            f"{self.greatest:g}"
        )
        return f"{told}; {self.flat} are of one colour once they are read" if self.flat else told

    def __repr__(self) -> str:
        return "PictureKind(<private>)"


@dataclass(frozen=True, slots=True, repr=False)
class PictureCheck:
    """Counts over all pictures of a site. Private: has no useful repr.

    Attributes:
        kinds: By form and mode, the commonest first.
        sizes: How many of each width and height, upright, the commonest first.
        passed_over: Files that are no rows, in a sentence; empty where there are none.
        pictures: Themselves, in order.
    """

    kinds: tuple[PictureKind, ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    passed_over: str
    pictures: Sequence[EncodedPicture]

    def __str__(self) -> str:
        lines = [str(kind) for kind in self.kinds]
        named = [f"{count} of {w} x {h}" for (w, h), count in self.sizes[:_COMMONEST]]
        more = len(self.sizes) - _COMMONEST
        if named:
            rest = f", and {more} other sizes" if more > 0 else ""
            lines.append(f"pixels: {', '.join(named)}{rest}")
        return "\n".join([*lines, self.passed_over] if self.passed_over else lines)

    def __repr__(self) -> str:
        return "PictureCheck(<private>)"

    def write_contact_sheet(self, path: Path, *, most: int = 64) -> None:
        """Write pictures as a model's processor is given them, small and numbered, as one PNG.

        Only who owns the file can read it (mode 0600). Pictures beyond `most` are left out evenly.

        Args:
            path: Where to; what is there is replaced.
            most: How many at most.

        Raises:
            OutputError: It cannot be written, or there is no picture.
        """
        if not self.pictures:
            raise OutputError("there is no picture to put on a contact sheet", path=path)
        step = -(-len(self.pictures) // most)
        chosen = range(0, len(self.pictures), step)
        rows = -(-len(chosen) // _ACROSS)
        across = min(_ACROSS, len(chosen))
        sheet = Image.new("RGB", (across * _SIDE, rows * (_SIDE + _CAPTION)), "white")
        draw = ImageDraw.Draw(sheet)
        for place, index in enumerate(chosen):
            small = decode_image(bytes(self.pictures[index]))
            small.thumbnail((_SIDE - 4, _SIDE - 4))
            left, top = place % _ACROSS * _SIDE, place // _ACROSS * (_SIDE + _CAPTION)
            sheet.paste(small, (left + 2, top + 2))
            draw.text((left + 2, top + _SIDE), str(index + 1), fill="black")
        sink = io.BytesIO()
        sheet.save(sink, format="PNG")
        _write_privately(path, sink.getvalue())


def check_pictures(records: Records) -> PictureCheck:
    """Counts the pictures among a site's records; none where they have none."""
    pictures = [
        value for column in records.columns for value in column if isinstance(value, EncodedPicture)
    ]
    kinds: dict[tuple[str, str], list[EncodedPicture]] = {}
    for picture in pictures:
        kinds.setdefault((picture.facts.form, picture.facts.mode), []).append(picture)
    sizes = Counter(picture.facts.size for picture in pictures)
    found = [
        PictureKind(
            form,
            mode,
            len(members),
            min(one.facts.least for one in members),
            max(one.facts.greatest for one in members),
            sum(one.facts.flat for one in members),
        )
        for (form, mode), members in kinds.items()
    ]
    return PictureCheck(
        kinds=tuple(sorted(found, key=lambda kind: -kind.pictures)),
        sizes=tuple(sizes.most_common()),
        passed_over=records.left_out.passed_over,
        pictures=pictures,
    )


def _write_privately(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if is_passing(error):
            raise os_failure(
                RunError, f"{path}: the contact sheet cannot be written", error
            ) from None
        raise OutputError(
            f"the contact sheet cannot be written: {error.strerror or type(error).__name__}",
            hint="name a file in a folder that is there and writable",
            path=path,
        ) from None
