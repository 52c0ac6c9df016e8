"""TIFF: the form with the most ways to hold a picture, and so the most that are refused."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile
from PIL import TiffImagePlugin as Tiff
from typing_extensions import override

from fmfl_secure.data.pictures.base import partial, unusable
from fmfl_secure.data.pictures.depth import Window
from fmfl_secure.data.pictures.pillow import PillowForm, both_bytes, sixteen_bits

_UNSIGNED, _SIGNED = 1, 2
_WHITE_IS_ZERO = 0
_SEPARATE = 2


class TaggedImage(PillowForm):
    """Grey of 1 to 32 bits, floats, and colour of 8 and 16 bits."""

    name: ClassVar[str] = "TIFF"
    format: ClassVar[str] = "TIFF"
    suffixes: ClassVar[tuple[str, ...]] = (".tif", ".tiff")
    known_by: ClassVar[str] = "`II*` or `MM*` with its zero"
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "of 12 or 16 bits, in grey or colour",
            "scaled: the range of as many bits, or what `task.image_window` says",
        ),
        (
            "of 32 bits, of floats, or of 16 bits with a sign",
            (
                "refused, as such a file does not say what is white; read with "
                "`task.image_window`, such as `[0.0, 1.0]`. A value that is no number is refused"
            ),
        ),
        ("whose zero is white", "turned around"),
        (
            (
                "of 8 bits with a sign; of 16 bits in separate planes, of CMYK, or with colours "
                "multiplied by their opacity"
            ),
            "refused: Pillow reads other values than the file's",
        ),
    )

    @override
    def begins(self, head: bytes) -> bool:
        return head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))

    @override
    def deep(self, image: ImageFile.ImageFile, data: bytes) -> tuple[NDArray[Any], str] | None:
        _require_covered(image)
        tags = _tags(image)
        bits, layout = _bits(tags), sixteen_bits(image)
        if tags.get(Tiff.SAMPLEFORMAT, (_UNSIGNED,))[0] == _SIGNED and bits == 8:
            raise _misread("8 bits with a sign")
        if bits <= 8:
            return super().deep(image, data)
        channels = len(tags.get(Tiff.BITSPERSAMPLE, (1,)))
        if tags.get(Tiff.PLANAR_CONFIGURATION, 1) == _SEPARATE and channels > 1:
            raise _misread(f"{bits} bits in separate planes")
        if layout:
            if layout.startswith(("CMYK", "RGBa")):
                raise _misread(f"16 bits as {layout.split(';')[0]}")
            values, mode = both_bytes(self, data, layout), layout[:-1]
            return values, mode
        found = super().deep(image, data)
        if found is None:
            raise _misread(f"{bits} bits")
        values, mode = found
        if tags.get(Tiff.SAMPLEFORMAT, (_UNSIGNED,))[0] == _UNSIGNED and values.dtype == np.int32:
            values = values.view(np.uint32)
        return values, mode

    @override
    def span(self, image: ImageFile.ImageFile, mode: str) -> Window | None:
        tags = _tags(image)
        return (0.0, 2.0 ** _bits(tags) - 1) if "16" in mode else None

    def _shades(
        self, image: ImageFile.ImageFile, values: NDArray[Any], mode: str, window: Window | None
    ) -> NDArray[np.uint8]:
        shades = super()._shades(image, values, mode, window)
        # Pillow turns this around for 8 bits, and not for more.
        white_is_zero = _tags(image).get(Tiff.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
        return 255 - shades if white_is_zero else shades


def _require_covered(image: ImageFile.ImageFile) -> None:
    """Of strips or tiles that leave some of it out, Pillow makes a picture with a black rest."""
    boxes = {tuple(tile.extents or ()) for tile in image.tile}
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes if len(box) == 4)
    if area < image.width * image.height:
        raise partial("TIFF")


def _tags(image: ImageFile.ImageFile) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def _bits(tags: Any) -> int:
    return int(max(tags.get(Tiff.BITSPERSAMPLE, (1,))))


def _misread(what: str) -> Exception:
    return unusable(
        f"a TIFF of {what} is not read as it is",
        "export 8 or 16 bits, unsigned, with the channels of a pixel side by side",
        "TIFF that is not read as it is",
    )
