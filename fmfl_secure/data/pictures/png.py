"""PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile
from typing_extensions import override

from fmfl_secure.data.pictures.base import partial
from fmfl_secure.data.pictures.pillow import PillowForm, both_bytes, sixteen_bits, unpacked

_GREY_AND_ALPHA = "LA;16B"

_CHANNELS: Mapping[int, int] = MappingProxyType({0: 1, 2: 3, 3: 1, 4: 2, 6: 4})
# Where each pass of an interlaced picture begins, and its steps: PNG, 8.2.
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
_BLOCK = 1 << 20  # bytes unpacked at a time


class Png(PillowForm):
    """8 bits and 16, in grey and in colour, with transparency or without."""

    name: ClassVar[str] = "PNG"
    format: ClassVar[str] = "PNG"
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    known_by: ClassVar[str] = "its signature of 8 bytes"
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "of 16 bits, in grey or colour",
            "scaled: 0 to 65535 become black and white, or what `task.image_window` says",
        ),
    )

    @override
    def begins(self, head: bytes) -> bool:
        return head.startswith(b"\x89PNG\r\n\x1a\n")

    @override
    def require_whole(self, data: bytes) -> None:
        """Pillow makes a black rest of pixels that are not there."""
        try:
            whole = _is_whole(data)
        except (
            zlib.error,
            struct.error,
            KeyError,
        ):  # a wrong sum at the end, which Pillow forgives
            whole = False
        if not whole:
            raise partial("PNG")

    @override
    def deep(self, image: ImageFile.ImageFile, data: bytes) -> tuple[NDArray[Any], str] | None:
        layout = sixteen_bits(image)
        if not layout:
            return super().deep(image, data)
        if layout == _GREY_AND_ALPHA:
            # Four bytes a pixel, as four channels of 8 bits have.
            four = unpacked(self, data, "RGBA").astype(np.uint16)
            return four[..., ::2] << 8 | four[..., 1::2], "LA;16"
        return both_bytes(self, data, layout), layout[:-1]


def _is_whole(data: bytes) -> bool:
    """Whether there are as many bytes of pixels as the header says."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS[colour]
    expected = 0
    for x, y, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)
    unpacker, found = zlib.decompressobj(), 0
    for body in _pixel_chunks(data):
        rest = body
        while found < expected and rest:
            found += len(unpacker.decompress(rest, _BLOCK))
            rest = unpacker.unconsumed_tail
    return found >= expected


def _pixel_chunks(data: bytes) -> Iterator[bytes]:
    """The bodies of a file's IDAT chunks."""
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length
