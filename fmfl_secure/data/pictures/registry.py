"""All forms of pictures, and which of them a file is of: its content says, whatever its name."""

from __future__ import annotations

from typing import Final

from fmfl_secure.data.formats.foreign import HEAD_BYTES, recognise
from fmfl_secure.data.pictures.base import Decoded, PictureForm, unusable
from fmfl_secure.data.pictures.depth import Window
from fmfl_secure.data.pictures.dicom import Dicom
from fmfl_secure.data.pictures.eight_bits import Bitmap, Gif, Jpeg, WebP
from fmfl_secure.data.pictures.png import Png
from fmfl_secure.data.pictures.tiff import TaggedImage
from fmfl_secure.registry import Registry

# Everything else that Pillow can open is a larger attack surface and no photograph.
PICTURES: Final[Registry[PictureForm]] = Registry(
    "form of picture",
    (Png(), Jpeg(), WebP(), Bitmap(), TaggedImage(), Gif(), Dicom()),
)
# Ends of file names by which a path is one of a picture.
SUFFIXES: Final = frozenset(suffix for form in PICTURES for suffix in form.suffixes)


def form_of(data: bytes) -> PictureForm:
    """The form that a picture is of.

    Raises:
        UnusableValue: None that is read here. Says what it is, where that can be seen.
    """
    head = data[:HEAD_BYTES]
    for form in PICTURES:
        if form.begins(head):
            return form
    known = f"{', '.join(PICTURES.names)} are read"
    found = recognise(head)
    if found is not None:
        raise unusable(
            f"the file is {found.name}, and no picture",
            f"{found.advice}; {known}",
            f"what is no picture: {found.name}",
        )
    raise unusable(
        "the file is no picture of a form that is read here",
        f'{known}; replace or remove it, or set on_bad_row = "skip"',
    )


def require_read(data: bytes) -> None:
    """Refuse a picture by its first bytes: of no form that is read, or not without an extra.

    Raises:
        UnusableValue: It is. What else may be wrong with it is not looked at.
    """
    form_of(data).require_extra()


def decode(data: bytes, window: Window | None = None) -> Decoded:
    """A picture of any form; see `PictureForm.decode`.

    Raises:
        UnusableValue: It cannot be read.
    """
    return form_of(data).decode(data, window)
