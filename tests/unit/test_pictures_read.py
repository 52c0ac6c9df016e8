"""Pictures as they come: deep, turned, transparent, in stacks, too large."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from fmfl_secure.data import decode_image
from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.images import read_image_folder
from fmfl_secure.settings.tasks import ImageClassificationSection

RAMP = np.linspace(0.2, 0.5, 32 * 32).reshape(32, 32)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def grey(data: bytes, window=None) -> np.ndarray:
    values = np.asarray(decode_image(data, window))
    assert (values[..., 0] == values[..., 1]).all()
    return values[..., 0].astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_by_the_range_of_the_format(kind: str) -> None:
    data = encode(Image.fromarray((RAMP * 65535).astype(np.uint16)), kind)
    assert np.abs(grey(data) - RAMP * 255).max() <= 1


def test_12_bits_in_16_keep_their_order_and_a_window_spreads_them() -> None:
    data = encode(Image.fromarray((RAMP * 4095).astype(np.uint16)))
    plain = grey(data)
    assert (plain.min(), plain.max()) == (3, 8), "the lowest sixteenth, and not clipped to white"
    assert np.abs(grey(data, (0, 4095)) - RAMP * 255).max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_what_has_no_range_is_refused_without_a_window(dtype) -> None:
    data = encode(Image.fromarray((RAMP * 1000).astype(dtype)), "TIFF")
    with pytest.raises(UnusableValue, match="does not say what is black and white") as caught:
        decode_image(data)
    assert "image_window" in caught.value.hint
    assert np.abs(grey(data, (0, 1000)) - RAMP * 255).max() <= 1


def test_what_is_no_number_is_refused_with_a_window_too() -> None:
    values = RAMP.astype(np.float32)
    values[3, 4] = np.nan
    with pytest.raises(UnusableValue, match="no number"):
        decode_image(encode(Image.fromarray(values), "TIFF"), (0.0, 1.0))


def test_a_deep_tiff_whose_zero_is_white_is_turned_around() -> None:
    data = encode(Image.fromarray((RAMP * 65535).astype(np.uint16)), "TIFF", tiffinfo={262: 0})
    if Image.open(io.BytesIO(data)).tag_v2[262] != 0:
        pytest.skip("this Pillow writes no such file")
    assert np.abs(255 - grey(data) - RAMP * 255).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photographs_are_turned_upright(orientation: int, kind: str) -> None:
    from PIL import ImageOps

    values = np.zeros((16, 32, 3), np.uint8)
    values[:8, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(values), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found = decode_image(data)
    assert found.size == ((32, 16) if orientation < 5 else (16, 32))
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_what_is_transparent_is_laid_on_white() -> None:
    values = np.zeros((4, 4, 4), np.uint8)
    values[:2, :, 3] = 255
    found = np.asarray(decode_image(encode(Image.fromarray(values))))
    assert (found[:2] == 0).all()
    assert (found[2:] == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_a_file_of_several_pictures_is_refused(kind: str) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (0, 90, 200)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UnusableValue, match="several pictures"):
        decode_image(data)


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_a_bomb_is_refused_before_it_is_decoded(mode: str) -> None:
    import struct
    import tracemalloc

    side, depth = 60_000, 8 if mode == "L" else 16

    def chunk(name: bytes, body: bytes) -> bytes:
        named = name + body
        return struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))

    head = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    tracemalloc.start()
    with pytest.raises(UnusableValue, match="too many pixels"):
        decode_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_strip_is_refused_of_which_a_processor_would_make_gigabytes() -> None:
    for size in ((101, 1), (1, 101), (201, 2), (1_000_000, 1)):
        with pytest.raises(UnusableValue, match="more than 100 times the other"):
            decode_image(encode(Image.new("L", size)))
    for size in ((100, 1), (1, 100), (200, 2)):
        assert decode_image(encode(Image.new("L", size))).size == size


def test_a_window_is_applied_where_pictures_are_read(tmp_path: Path) -> None:
    (tmp_path / "clear").mkdir()
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "clear" / "x.tiff")
    records = read_image_folder(
        tmp_path, labels=["clear"], unit="record", on_bad_row="error", window=(0.0, 1.0)
    )
    assert np.abs(grey(records.columns[0][0]) - RAMP * 255).max() <= 1


def test_a_window_that_does_not_open_is_refused() -> None:
    section = {"kind": "image-classification", "labels": ["a", "b"], "image_window": [1, 1]}
    with pytest.raises(msgspec.ValidationError, match="below white"):
        msgspec.convert(section, ImageClassificationSection)
