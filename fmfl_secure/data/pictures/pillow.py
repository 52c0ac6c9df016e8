"""Forms that Pillow decodes, and what it decodes to fewer bits than there are.

`data.pictures.png`, `data.pictures.tiff` and `data.pictures.eight_bits` are its forms; each
decodes by `opened`, then `deep` where a file has more than 8 bits.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from typing_extensions import override

from fmfl_secure.data.pictures.base import (
    Decoded,
    PictureForm,
    require_size,
    shaded,
    unusable,
    wrong_size,
)
from fmfl_secure.data.pictures.depth import SIXTEEN_BITS, Window, lay_on_white

_FAILURES = (
    OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError,
    ZeroDivisionError, AttributeError, AssertionError, RuntimeError, MemoryError, struct.error,
    zlib.error,
)  # fmt: skip
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
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
# What holds of every form that Pillow decodes, for the documents.
RULES: tuple[tuple[str, str], ...] = (
    ("with an EXIF orientation", "turned upright"),
    ("with transparent pixels", "laid on white"),
    ("of several frames or pages", "refused: one picture a file"),
    ("of which a part is missing (PNG, TIFF, BMP, GIF)", "refused: the rest would be black"),
)
_DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})


class PillowForm(PictureForm):
    """A form by Pillow's name for it."""

    format: ClassVar[str]

    @override
    def decode(self, data: bytes, window: Window | None) -> Decoded:
        with warnings.catch_warnings():
            # Pillow warns with tags and values of the file, which are somebody's.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            fault = unusable(
                f"the image is not readable as {self.name}", "check that it is complete"
            )
            try:
                with self.opened(data) as image:
                    return self._upright(image, data, window)
            except _BOMBS:
                fault = wrong_size()
            except _FAILURES:
                pass
        raise fault

    def opened(self, data: bytes) -> ImageFile.ImageFile:
        """The picture with its header read and no pixel."""
        image: ImageFile.ImageFile = Image.open(io.BytesIO(data), formats=(self.format,))
        return image

    def deep(self, image: ImageFile.ImageFile, data: bytes) -> tuple[NDArray[Any], str] | None:
        """Returns the file's own numbers where they are more than 8 bits of a channel.

        Returns:
            Numbers of shape (h, w, channels), and the mode they are of; None where 8 bits hold
            all.

        Raises:
            UnusableValue: Pillow does not read all of it.
        """
        if image.mode not in _DEEP_MODES:
            return None
        del data
        return np.asarray(image)[..., None], image.mode

    def span(self, image: ImageFile.ImageFile, mode: str) -> Window | None:
        """The range of the format, where it has one: what is black, and what is white."""
        del image
        return SIXTEEN_BITS if "16" in mode else None

    def _upright(self, image: ImageFile.ImageFile, data: bytes, window: Window | None) -> Decoded:
        # Pillow's own mode of a deep picture may be one of 8 bits: what it decodes of it.
        wide = image.mode in _DEEP_MODES or bool(sixteen_bits(image))
        require_size(image.width, image.height, deep=wide)
        # A telephone's MPO is a photograph with previews behind it; in other files, which is meant?
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise unusable(
                "the file holds several pictures",
                "write one picture a file; a stack or an animation is none",
                "file of several pictures",
            )
        found = self.deep(image, data)
        if found is None:
            flat, mode, stored = _flat(image), image.mode, None
        else:
            values, mode = found
            shades = self._shades(image, values, mode, window)
            flat = Image.fromarray(shades if shades.shape[2] > 1 else shades[..., 0])
            stored = float(values.min()), float(values.max())
        turn = _UPRIGHT.get(image.getexif().get(0x0112, 1))
        upright = flat if turn is None else flat.transpose(turn)
        return Decoded(upright.convert("RGB"), mode, stored)

    def _shades(
        self, image: ImageFile.ImageFile, values: NDArray[Any], mode: str, window: Window | None
    ) -> NDArray[np.uint8]:
        """Numbers of shape (h, w, channels), the last one an opacity where there are 2 or 4."""
        bounds = window or self.span(image, mode)
        channels = values.shape[2]
        colours = channels - 1 if channels in {2, 4} else channels
        shades = shaded(values[..., :colours], bounds, f"mode {mode}")
        if colours < channels:
            lay_on_white(shades, shaded(values[..., -1], SIXTEEN_BITS, f"mode {mode}"))
        absent = image.info.get("transparency")
        if isinstance(absent, int | tuple):  # PNG's one colour that is transparent
            shades[(values[..., :colours] == np.array(absent)).all(axis=-1)] = 255
        return shades


def sixteen_bits(image: ImageFile.ImageFile) -> str:
    """How Pillow is about to unpack 16 bits of several channels to 8; empty where it is not."""
    layouts = {_layout(tile) for tile in image.tile}
    return next((one for one in layouts if ";16" in one and not one.startswith("I;")), "")


def both_bytes(form: PillowForm, data: bytes, layout: str) -> NDArray[np.uint16]:
    """16 bits of several channels, which Pillow has no mode for.

    It unpacks the higher byte of each pair, and says so in the tile's raw mode. The same file in
    the other byte order gives the lower one.

    Args:
        form: Opens the file.
        data: The file.
        layout: Its raw mode.

    Returns:
        Shape (h, w, channels).
    """
    orders = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    high = unpacked(form, data, layout)
    low = unpacked(form, data, layout[:-1] + orders[layout[-1]])
    return high.astype(np.uint16) * np.uint16(256) + low


def unpacked(form: PillowForm, data: bytes, layout: str) -> NDArray[np.uint8]:
    """A file's pixels as bytes of shape (h, w, channels), unpacked by another raw mode."""
    with form.opened(data) as image:
        image.tile = [_with_layout(tile, layout) for tile in image.tile]
        return np.array(image)


def _layout(tile: Any) -> str:
    args = tile.args
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _with_layout(tile: Any, layout: str) -> Any:
    args = tile.args
    return tile._replace(args=(layout, *args[1:]) if isinstance(args, tuple) else layout)


def _flat(image: Image.Image) -> Image.Image:
    """A picture of 8 bits a channel, laid on white where it is transparent."""
    image.load()
    if not image.has_transparency_data:
        return image
    own = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", own.size, "white"), own)
