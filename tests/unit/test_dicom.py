"""DICOM: what is black and what is white, whose it is, and that its header reaches nobody."""

from __future__ import annotations

import logging
import struct
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_written import SECRET, dicom, smooth
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from fmfl_secure.data import check_units, decode_image
from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.errors import DataArgumentError, DataError, NullUnitError
from fmfl_secure.data.headers import check_image_folder
from fmfl_secure.data.images import read_image_folder, read_picture

HU = smooth(-1024, 3071)  # a CT's 12 bits, in Hounsfield units


def grey(data: bytes, window=None) -> np.ndarray:
    values = np.asarray(decode_image(data, window))
    assert (values[..., 0] == values[..., 2]).all()
    return values[..., 0].astype(int)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(int)


@pytest.fixture
def ct() -> bytes:
    return dicom((HU + 1024).astype(np.uint16), bits=12, RescaleSlope=1, RescaleIntercept=-1024)


def test_without_a_window_the_range_of_the_stored_bits_is_black_and_white(ct: bytes) -> None:
    assert np.abs(grey(ct) - scaled(HU, -1024, 3071)).max() == 0


def test_a_declared_window_is_in_the_units_of_the_modality(ct: bytes) -> None:
    assert np.array_equal(grey(ct, (-160.0, 240.0)), scaled(HU, -160, 240))


def test_a_declared_window_comes_before_the_header_s() -> None:
    data = dicom(HU, WindowCenter=1000, WindowWidth=10)
    assert np.array_equal(grey(data, (-160.0, 240.0)), scaled(HU, -160, 240))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_header_s_window_is_the_one_that_pydicom_computes(function: str) -> None:
    tags = {"WindowCenter": [40, 500], "WindowWidth": [400, 2000], "VOILUTFunction": function}
    data = dicom(HU, RescaleSlope=2, RescaleIntercept=-10, **tags)
    header = Dataset()
    for keyword, value in {**tags, "BitsStored": 16, "PixelRepresentation": 1}.items():
        setattr(header, keyword, value)
    header.PhotometricInterpretation = "MONOCHROME2"
    expected = apply_windowing(HU * 2.0 - 10, header)
    expected = np.rint((expected + 2**15) / (2**16 - 1) * 255)
    assert np.abs(grey(data) - expected).max() <= 1


def test_monochrome1_is_the_same_turned_around(ct: bytes) -> None:
    del ct
    assert np.array_equal(grey(dicom(HU, kind="MONOCHROME1")), 255 - grey(dicom(HU)))


def test_signed_numbers_have_a_signed_range() -> None:
    assert np.array_equal(grey(dicom(HU, bits=13)), scaled(HU, -4096, 4095))


def table(values: np.ndarray, first: int, bits: int = 16) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = values.astype(np.uint16).tolist()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "SS" if first < 0 else "US", "US"
    item.ModalityLUTType = "US"
    return [item]


def test_a_modality_table_and_a_window_s_table_are_looked_up() -> None:
    pixels = smooth(0, 255, np.uint16)
    squares = np.arange(256) ** 2
    assert np.array_equal(
        grey(dicom(pixels, ModalityLUTSequence=table(squares, 0))),
        scaled(pixels.astype(float) ** 2, 0, 65535),
    )
    shifted = dicom(
        pixels, RescaleSlope=1, RescaleIntercept=-100, VOILUTSequence=table(squares, -100)
    )
    assert np.array_equal(grey(shifted), scaled(pixels.astype(float) ** 2, 0, 65535))


def test_colour_of_8_and_of_16_bits() -> None:
    values = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode_image(dicom(values, kind="RGB"))), values)
    deep = values.astype(np.uint16) * 257
    assert np.array_equal(np.asarray(decode_image(dicom(deep, kind="RGB"))), values)


def test_run_lengths_are_unpacked() -> None:
    pixels = smooth(0, 4095, np.uint16)
    packed = dicom(pixels, bits=12, syntax=RLELossless, compress=True)
    assert np.array_equal(grey(packed), grey(dicom(pixels, bits=12)))


def swapped(old: bytes, new: bytes) -> bytes:
    """A file with some of its bytes exchanged."""
    data = dicom(HU, RescaleSlope=1, RescaleIntercept=0)
    assert old in data
    return data.replace(old, new)


FRAMES = np.stack([smooth(0, 99, np.uint16)] * 2)
ENHANCED = [Dataset()]
REFUSED = {
    "frames": (lambda: dicom(FRAMES), "several pictures"),
    "enhanced": (lambda: dicom(HU, SharedFunctionalGroupsSequence=ENHANCED), "enhanced"),
    "JPEG-LS": (lambda: dicom(HU, syntax=JPEGLSLossless), "JPEG-LS Lossless"),
    "JPEG lossless": (lambda: dicom(HU, syntax=JPEGLossless), "JPEG Lossless"),
    "video": (lambda: dicom(HU, syntax=MPEG2MPML), "MPEG2"),
    "private": (lambda: swapped(b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.ZANZIBAR.1"), "one unknown"),
    "deflated": (lambda: dicom(HU, syntax=DeflatedExplicitVRLittleEndian), "Deflated"),
    "palette": (lambda: dicom(HU, kind="PALETTE COLOR"), "not readable as DICOM"),
    "photometric": (lambda: dicom(HU, kind=SECRET), "what is black and what white"),
    "inverse": (lambda: dicom(HU, PresentationLUTShape="INVERSE"), "what is black and what white"),
    "width": (lambda: dicom(HU, WindowCenter=1, WindowWidth=0), "window is none of"),
    "function": (
        lambda: dicom(HU, WindowCenter=1, WindowWidth=9, VOILUTFunction=SECRET),
        "window is none of",
    ),
    "no picture": (lambda: swapped(b"\xe0\x7f\x10\x00OW", b"\xe1\x7f\x10\x00OW"), "no picture"),
    "slope": (lambda: swapped(b"DS\x04\x001.0 \xe0", b"DS\x04\x00ZANZ\xe0"), "not readable"),
    "short": (lambda: dicom(HU)[:-99], "not readable as DICOM"),
    "head only": (lambda: dicom(HU)[:132], "transfer syntax"),
    "too many pixels": (
        lambda: dicom(HU, Rows=65535, Columns=65535), "too many pixels",
    ),
    "columns": (lambda: dicom(HU, Columns=77), "not readable as DICOM"),
}  # fmt: skip


def everything_told(act) -> str:
    """What a call says, warns, logs or raises, with its traceback and every cause."""
    logs: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logs.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                told = repr(act())
            except (UnusableValue, DataError) as error:
                hint = getattr(error, "hint", "") + getattr(error, "sort", "")
                told = "".join(traceback.format_exception(error)) + hint + repr(error)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return told + "".join(logs) + "".join(str(warning.message) for warning in warned)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_by_name_and_without_a_word_of_the_header(case: str) -> None:
    made, expected = REFUSED[case]
    data = made()
    with pytest.raises(UnusableValue, match=expected) as caught:
        decode_image(data)
    assert caught.value.__context__ is None
    told = everything_told(lambda: decode_image(data))
    assert expected in told
    assert SECRET not in told


def test_no_word_of_the_header_is_told_where_pydicom_would_tell_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Values that the standard does not allow: pydicom warns and logs them as they stand."""
    data = dicom(
        HU, StudyInstanceUID=f"{SECRET}.1", AccessionNumber=f"{SECRET}{'X' * 20}", PatientAge=SECRET
    )
    assert SECRET in everything_told(lambda: _by_pydicom(data)), "pydicom tells nothing any more"
    place = tmp_path / "clear"
    place.mkdir()
    (place / "a.dcm").write_bytes(data)
    (place / "b.dcm").write_bytes(data[:400])
    for unit in ("record", "PatientID"):
        told = everything_told(
            lambda unit=unit: read_image_folder(
                tmp_path, labels=["clear"], unit=unit, on_bad_row="skip"
            )
        )
        assert SECRET not in told
    picture = read_picture(data)
    assert SECRET.encode() not in bytes(picture)
    assert SECRET not in repr(picture.facts)
    assert SECRET not in "".join(capfd.readouterr()), "nor on the terminal"


def _by_pydicom(data: bytes) -> None:
    import io

    from pydicom import dcmread

    header = dcmread(io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        str(header)


def test_a_deflated_file_is_refused_before_it_is_unpacked() -> None:
    import tracemalloc

    plain = dicom(HU, syntax=DeflatedExplicitVRLittleEndian)
    start = plain.index(b"\x08\x00\x16\x00") if b"\x08\x00\x16\x00" in plain else 400
    packer = zlib.compressobj(wbits=-15)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(64)), packer.flush()])
    tracemalloc.start()
    with pytest.raises(UnusableValue, match="Deflated"):
        decode_image(plain[:start] + bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_run_lengths_beyond_bounds_are_not_unpacked(monkeypatch) -> None:
    pixels = smooth(0, 4095, np.uint16)
    data = dicom(pixels, syntax=RLELossless, compress=True)
    monkeypatch.setattr("fmfl_secure.data.pictures.dicom._LARGEST_RUN_LENGTHS", 100)
    with pytest.raises(UnusableValue, match="run lengths"):
        decode_image(data)


def written(folder: Path, patients: list[str | None]) -> Path:
    for number, patient in enumerate(patients):
        place = folder / ("clear" if number % 2 else "dark")
        place.mkdir(exist_ok=True)
        (place / f"{number}.dcm").write_bytes(dicom(HU, patient=patient))
    return folder


def test_a_patient_s_series_is_one_unit_where_the_settings_say_so(tmp_path: Path) -> None:
    folder = written(tmp_path, ["P1", "P2", "P1 ", "P1", "P2", "p2"])
    labels = ["clear", "dark"]
    records = read_image_folder(folder, labels=labels, unit="PatientID", on_bad_row="error")
    # In order: clear 1, 3, 5 (P2, P1, p2), dark 0, 2, 4 (P1, P1, P2).
    assert sorted(unit.tolist() for unit in records.units) == [[0, 5], [1, 3, 4], [2]]
    loose = read_image_folder(
        folder, labels=labels, unit="PatientID", on_bad_row="error", unit_rules=["case"]
    )
    assert sorted(unit.tolist() for unit in loose.units) == [[0, 2, 5], [1, 3, 4]]
    by_record = read_image_folder(folder, labels=labels, unit="record", on_bad_row="error")
    assert len(by_record.units) == 6


def test_people_under_several_ids_are_asked_about(tmp_path: Path) -> None:
    found = check_units(written(tmp_path, ["P2", "p2", "P3"]), "PatientID")
    assert (found.ids, found.near_duplicates[0].examples) == (3, (("P2", "p2"),))


@pytest.mark.parametrize("patient", [None, "", "unknown"])
def test_a_picture_that_says_nobody_s_name_is_a_bad_row(tmp_path: Path, patient) -> None:
    folder = written(tmp_path, ["P1", patient])
    with pytest.raises(NullUnitError):
        read_image_folder(folder, labels=["clear", "dark"], unit="PatientID", on_bad_row="error")


def test_a_picture_that_is_no_dicom_file_is_nobody_s(tmp_path: Path) -> None:
    from pictures_written import png

    folder = written(tmp_path, ["P1", "P2"])
    (folder / "dark" / "x.png").write_bytes(png(smooth(0, 255, np.uint8)))
    with pytest.raises(NullUnitError, match="does not say whose it is"):
        read_image_folder(folder, labels=["clear", "dark"], unit="PatientID", on_bad_row="error")


def test_a_unit_that_no_header_says_is_refused_before_a_picture_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path, ["P1", "P2"])
    check_image_folder(folder, ["clear", "dark"], unit="PatientID")
    with pytest.raises(DataArgumentError, match="StudyID"):
        check_image_folder(folder, ["clear", "dark"], unit="StudyID")


def test_without_the_extra_dicom_is_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    data = dicom(HU)
    monkeypatch.setattr("fmfl_secure.data.pictures.dicom.installed", lambda: False)
    monkeypatch.setattr("fmfl_secure.data.images.installed", lambda: False)
    with pytest.raises(UnusableValue, match="extra dicom") as caught:
        decode_image(data)
    assert "pip install 'pydicom" in caught.value.hint
    with pytest.raises(DataArgumentError, match="extra dicom"):
        check_image_folder(written(tmp_path, ["P1"]), ["dark"], unit="PatientID")


def test_a_bomb_within_a_dicom_file_is_refused_within_bounded_memory() -> None:
    """A JPEG of 60,000 x 60,000 pixels where the header says 16 x 16."""
    import io
    import tracemalloc

    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    sink = io.BytesIO()
    Image.new("L", (16, 16)).save(sink, "JPEG")
    small = sink.getvalue()
    at = small.index(b"\xff\xc0") + 5
    bomb = small[:at] + struct.pack(">HH", 60_000, 60_000) + small[at + 4 :]
    data = dicom(
        np.zeros((16, 16), np.uint8), syntax=JPEGBaseline8Bit, PixelData=encapsulate([bomb])
    )
    tracemalloc.start()
    with pytest.raises(UnusableValue):
        decode_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_what_pillow_decodes_needs_nothing_more(kind: str) -> None:
    import io

    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

    pixels = smooth(0, 255, np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **({"quality": 95} if kind == "JPEG" else {}))
    syntax = JPEGBaseline8Bit if kind == "JPEG" else JPEG2000Lossless
    data = dicom(pixels, syntax=syntax, PixelData=encapsulate([sink.getvalue()]))
    assert np.abs(grey(data) - pixels).max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("data", [b"", b"DICM", b"\0" * 200])
def test_whose_a_file_is_that_is_no_dicom_is_refused(data: bytes) -> None:
    from fmfl_secure.data.pictures.dicom import person_of

    with pytest.raises(UnusableValue, match="not readable as DICOM"):
        person_of(data)
