"""Pictures as other programs write them, which Pillow itself does not write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}  # channels to PNG's colour type


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """As Pillow writes it."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    named = name + body
    return struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))


def png(
    values: NDArray[Any], *, absent: tuple[int, ...] = (), interlaced: bool = False, level: int = 6
) -> bytes:
    """A PNG of 8 or 16 bits.

    Args:
        values: uint8 or uint16, shape (h, w) or (h, w, channels).
        absent: The one colour that is transparent.
        interlaced: Adam7.
        level: zlib's.
    """
    values = values[..., None] if values.ndim == 2 else values
    height, width, channels = values.shape
    depth = 8 * values.dtype.itemsize
    big = values.astype(values.dtype.newbyteorder(">"))
    adam = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
            (1, 0, 2, 1)]  # fmt: skip
    passes = [big[y::dy, x::dx] for y, x, dy, dx in adam] if interlaced else [big]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    head = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[channels], 0, 0, interlaced)
    chunks = [png_chunk(b"IHDR", head)]
    if absent:
        chunks.append(png_chunk(b"tRNS", struct.pack(f">{len(absent)}H", *absent)))
    chunks += [png_chunk(b"IDAT", zlib.compress(rows, level)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(
    values: NDArray[Any],
    *,
    photometric: int | None = None,
    extra: tuple[int, ...] = (),
    planes: bool = False,
    order: str = "<",
    bits: int = 0,
    packed: bytes = b"",
    compressed: bool = False,
) -> bytes:
    """A TIFF of one strip.

    Args:
        values: Shape (h, w) or (h, w, channels), of any kind of number.
        photometric: 0 for white is zero, 1, 2 for RGB, 5 for CMYK.
        extra: What channels beyond colours are: 1 premultiplied, 2 an opacity.
        planes: Channels one after another.
        order: `<` or `>`.
        bits: Of a sample, where they are not those of the numbers.
        packed: The pixels, where they are not those of the numbers.
        compressed: Deflate, which libtiff reads.
    """
    values = values[..., None] if values.ndim == 2 else values
    height, width, channels = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    arranged = np.moveaxis(values, -1, 0) if planes else values
    body = packed or arranged.astype(values.dtype.newbyteorder(order)).tobytes()
    strips = [body]
    if planes:
        size = len(body) // channels
        strips = [body[size * c : size * (c + 1)] for c in range(channels)]
    if compressed:
        strips = [zlib.compress(strip) for strip in strips]
    depth = bits or 8 * values.dtype.itemsize
    offsets = [8 + sum(map(len, strips[:c])) for c in range(len(strips))]
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [depth] * channels),
        259: (3, [8 if compressed else 1]),
        262: (3, [(1 if channels < 3 else 2) if photometric is None else photometric]),
        273: (4, offsets),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(strip) for strip in strips]),
        284: (3, [2 if planes else 1]),
        339: (3, [kind] * channels),
    }
    if extra:
        tags[338] = (3, list(extra))
    body = b"".join(strips)
    start = 8 + len(body)
    after = start + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    for tag, (form, held) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(held)}{'H' if form == 3 else 'I'}", *held)
        if len(data) > 4:
            where = struct.pack(f"{order}I", after + len(beyond))
            beyond += data
            data = where
        entries += struct.pack(f"{order}HHI", tag, form, len(held)) + data.ljust(4, b"\0")
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return magic + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond
