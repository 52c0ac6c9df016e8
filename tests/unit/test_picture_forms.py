"""Every form of picture; colour of 16 bits; what Pillow reads otherwise than it is."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from pictures_written import encode, png, png_chunk, tiff
from PIL import Image

from fmfl_secure.data import decode_image
from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.images import read_image_folder, read_picture
from fmfl_secure.data.pictures import PICTURES, form_of

GENERATOR = np.random.default_rng(20260301)


def ramp(channels: int, low: int = 0, high: int = 65535) -> np.ndarray:
    """uint16, shape (16, 24, channels), all of them different and of every byte's value."""
    values = np.linspace(low, high, 16 * 24 * channels).reshape(16, 24, channels)
    return np.rint(values).astype(np.uint16)


def shades(values: np.ndarray, low: float = 0.0, high: float = 65535.0) -> np.ndarray:
    """What the rule says, written down once more."""
    return np.rint((values.astype(float) - low).clip(0, high - low) * (255.0 / (high - low)))


@pytest.mark.parametrize("interlaced", [False, True], ids=["in order", "interlaced"])
@pytest.mark.parametrize("window", [None, (0.0, 4095.0)], ids=["range", "window"])
def test_16_bit_colour_of_png_is_scaled_from_all_its_bits(interlaced: bool, window) -> None:
    values = ramp(3, 0, 4095)
    data = png(values, interlaced=interlaced)
    found = np.asarray(decode_image(data, window)).astype(float)
    assert np.array_equal(found, shades(values, *(window or (0.0, 65535.0))))
    assert len(np.unique(found)) > (200 if window else 16)


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "deflate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("window", [None, (100.0, 1123.0)], ids=["range", "window"])
def test_16_bit_colour_of_tiff_is_scaled_from_all_its_bits(order, compressed, window) -> None:
    values = ramp(3, 100, 1123)
    found = np.asarray(decode_image(tiff(values, order=order, compressed=compressed), window))
    assert np.array_equal(found, shades(values, *(window or (0.0, 65535.0))))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_colour_with_opacity_is_laid_on_white(form: str) -> None:
    values = ramp(4)
    values[:8, :, 3], values[8:, :, 3] = 65535, 0
    data = png(values) if form == "PNG" else tiff(values, extra=(2,))
    found = np.asarray(decode_image(data))
    assert np.array_equal(found[:8], shades(values[:8, :, :3]))
    assert (found[8:] == 255).all()


def test_16_bit_grey_with_opacity_is_laid_on_white() -> None:
    values = ramp(2)
    values[:8, :, 1], values[8:, :, 1] = 65535, 0
    found = np.asarray(decode_image(png(values)))
    assert np.array_equal(found[:8, :, 0], shades(values[:8, :, 0]))
    assert (found[8:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_one_transparent_colour_of_16_bits_is_white_and_no_other(
    channels,
) -> None:
    values = ramp(channels, 0, 40_000)
    values[3, 4], values[3, 5] = 512, 513  # the same higher byte
    found = np.asarray(decode_image(png(values, absent=(512,) * channels)))
    assert (found[3, 4] == 255).all()
    assert np.array_equal(found[3, 5, :channels], shades(values[3, 5]))


def test_12_bits_of_tiff_have_the_range_of_12_bits() -> None:
    values = ramp(1, 0, 4095)[..., 0]
    even, odd = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], axis=-1)
    data = tiff(values, bits=12, packed=packed.astype(np.uint8).tobytes())
    assert np.array_equal(np.asarray(decode_image(data))[..., 0], shades(values, 0.0, 4095.0))


def test_32_bits_without_a_sign_are_read_without_one() -> None:
    values = np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32)
    found = np.asarray(decode_image(tiff(values), (0.0, 2.0**32 - 1)))[..., 0]
    assert found.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tiff(ramp(1)[..., 0].astype(np.int8)), "8 bits with a sign"),
        (tiff(ramp(3), planes=True), "16 bits in separate planes"),
        (tiff(ramp(3), planes=True, compressed=True), "16 bits in separate planes"),
        (tiff(ramp(4), extra=(1,)), "16 bits as RGBa"),
        (tiff(ramp(4), photometric=5), "16 bits as CMYK"),
    ],
    ids=["signed", "planes", "planes-deflate", "premultiplied", "CMYK"],
)
def test_what_pillow_reads_otherwise_than_it_is_is_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(UnusableValue, match=what):
        decode_image(data)


@pytest.mark.parametrize(
    "data",
    [
        tiff(ramp(1)[..., 0].astype(np.int16)),
        tiff(ramp(1)[..., 0].astype(np.int32)),
        tiff(ramp(1)[..., 0].astype(np.uint32)),
        tiff(ramp(1)[..., 0].astype(np.float32)),
    ],
    ids=["int16", "int32", "uint32", "float32"],
)
def test_what_has_no_range_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UnusableValue, match="does not say what is black and white"):
        decode_image(data)
    assert decode_image(data, (0.0, 1.0)).mode == "RGB"


def test_a_deep_tiff_whose_zero_is_white_is_turned_around() -> None:
    values = ramp(1)[..., 0]
    found = np.asarray(decode_image(tiff(values, photometric=0)))[..., 0]
    assert np.array_equal(found, 255 - shades(values))


def rgb(seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    return Image.fromarray(values)


def dicom() -> bytes:
    pytest.importorskip("pydicom")
    from dicom_written import dicom as written

    return written(np.arange(120, dtype=np.uint16).reshape(12, 10))


SAMPLES = {
    "PNG": lambda: encode(rgb(), "PNG"),
    "JPEG": lambda: encode(rgb(), "JPEG"),
    "WebP": lambda: encode(rgb(), "WEBP"),
    "BMP": lambda: encode(rgb(), "BMP"),
    "TIFF": lambda: encode(rgb(), "TIFF"),
    "GIF": lambda: encode(rgb(), "GIF"),
    "DICOM": dicom,
}


@pytest.mark.parametrize("name", PICTURES.names)
def test_every_form_is_known_by_its_content_and_read(name: str) -> None:
    data = SAMPLES[name]()
    form = PICTURES.get(name)
    assert form_of(data) is form
    assert [other.name for other in PICTURES if other.begins(data[:512])] == [name]
    assert (form.suffixes, form.known_by) != ((), "")
    picture = read_picture(data)
    assert (picture.facts.form, picture.facts.size) == (name, (10, 12))
    assert picture.facts.least <= picture.facts.greatest
    assert decode_image(bytes(picture)).tobytes() == decode_image(data).tobytes()


@pytest.mark.parametrize("name", PICTURES.names)
def test_a_file_that_ends_too_early_is_refused_by_its_form(name: str) -> None:
    data = SAMPLES[name]()
    with pytest.raises(UnusableValue, match=name) as caught:
        decode_image(data[: len(data) // 2])
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x01Bud1\0", ".DS_Store"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "Thumbs.db"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"%PDF-1.7", "PDF"),
        (b"hello", "no picture of a form that is read"),
        (b"", "no picture of a form that is read"),
    ],
    ids=["DS_Store", "Thumbs.db", "LFS", "PDF", "text", "empty"],
)
def test_what_is_no_picture_is_told_what_it_is(content: bytes, what: str) -> None:
    with pytest.raises(UnusableValue, match=what):
        decode_image(content)


def test_what_systems_leave_among_pictures_is_passed_over_with_a_word(tmp_path: Path) -> None:
    for label in ("clear", "dark"):
        place = tmp_path / label
        place.mkdir()
        (place / "a.png").write_bytes(encode(rgb(), "PNG"))
        (place / ".DS_Store").write_bytes(b"\0\0\0\x01Bud1")
        (place / "._a.png").write_bytes(b"\0\x05\x16\x07")
    (tmp_path / "dark" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    (tmp_path / "forgotten.png").write_bytes(encode(rgb(), "PNG"))
    records = read_image_folder(
        tmp_path, labels=["clear", "dark"], unit="record", on_bad_row="error"
    )
    assert len(records) == 2
    assert records.left_out.count == 0
    assert records.left_out, "so that a site's log tells of it"
    told = str(records.left_out)
    expected = ("2 times .DS_Store", "2 times ._", "1 times Thumbs.db", "1 times a file beside")
    assert all(word in told for word in expected)


def test_a_folder_among_pictures_is_told_and_not_searched(tmp_path: Path) -> None:
    for place in (tmp_path / "clear", tmp_path / "clear" / "series"):
        place.mkdir()
        (place / "a.png").write_bytes(encode(rgb(), "PNG"))
    records = read_image_folder(tmp_path, labels=["clear"], unit="record", on_bad_row="skip")
    assert len(records) == 1
    assert "1 with folder among the pictures, which is not searched (row 2)" in str(
        records.left_out
    )


def _taller_png(values: np.ndarray, interlaced: bool) -> bytes:
    """Says that it has twice as many rows."""
    data = png(values, interlaced=interlaced)
    head = data[16:29]
    head = head[:4] + (2 * len(values)).to_bytes(4, "big") + head[8:]
    return data[:8] + png_chunk(b"IHDR", head) + data[33:]


def _taller_tiff(values: np.ndarray) -> bytes:
    data = bytearray(tiff(values))
    entry = data.index(struct.pack("<HHI", 257, 4, 1))
    data[entry + 8 : entry + 12] = struct.pack("<I", 2 * len(values))
    return bytes(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_of_which_a_part_is_missing_is_refused_and_not_black(dtype) -> None:
    values = np.full((40, 110, 3), 200, dtype)
    for data in (_taller_png(values, False), _taller_tiff(values)):
        with pytest.raises(UnusableValue, match="less of the picture than its header says"):
            read_picture(data)
    with pytest.raises(UnusableValue):
        read_picture(_taller_png(values, True))


def test_a_png_whose_pixels_do_not_have_their_sum_is_refused() -> None:
    data = png(np.full((40, 110, 3), 200, np.uint8))
    at = data.index(b"IDAT")
    body = data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]
    spoiled = data[: at - 4] + png_chunk(b"IDAT", body[:-4] + b"\0\0\0\0") + png_chunk(b"IEND", b"")
    with pytest.raises(UnusableValue):
        read_picture(spoiled)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 9)])
def test_a_picture_that_is_whole_is_read_whatever_its_depth(mode: str, size) -> None:
    assert read_picture(encode(Image.new(mode, size), "PNG")).facts.size == size
    width, height = size
    grey = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    assert read_picture(png(grey, interlaced=True)).facts.size == size


def test_deep_pictures_take_bounded_memory() -> None:
    """A fuzzer's find: floats of all channels at once were gigabytes."""
    import tracemalloc

    from fmfl_secure.data.pictures.depth import lay_on_white, to_8_bits

    values = np.full((3000, 1000, 3), 515, np.uint16)
    tracemalloc.start()
    shades = to_8_bits(values, (0.0, 65535.0))
    assert shades is not None
    lay_on_white(shades, np.full((3000, 1000), 128, np.uint8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20, "the shades, 9 MB, and blocks of a million floats"
