"""What is known of data before a charge: that they open whole and hold a row, and nothing else."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_written import save_to_disk
from dicom_written import dicom
from support import write_tiny_bert
from task_cases import task_on
from tiny_models import png, write_tiny

from fmfl_secure.data import DataError
from fmfl_secure.data.errors import EmptyFileError, UnreadableFileError
from fmfl_secure.data.formats._arrow import ArrowSource
from fmfl_secure.tasks import Task

ROWS = [(f"alpha beta {number}", ("no", "yes")[number % 2]) for number in range(400)]
LINES = "".join(f"{text},{label}\n" for text, label in ROWS)
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return task_on(write_tiny_bert(tmp_path_factory.mktemp("bert")), "text-classification")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("vit")
    write_tiny(folder, "vit")
    return task_on(folder, "image-classification")


def table(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.table(
        {
            "text": pa.array([text for text, _ in rows], pa.string()),
            "label": pa.array([label for _, label in rows], pa.string()),
        }
    )


def parquet(rows: list[tuple[str, str]], **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(rows), sink, use_dictionary=False, **options)
    return sink.getvalue()


def spoiled(content: bytes, place: int) -> bytes:
    """With one bit of one byte turned."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def letter_changed() -> bytes:
    content = parquet(ROWS, compression="none", write_page_checksum=True)
    return spoiled(content, content.index(b"beta 17"))


def damaged_page() -> bytes:
    return spoiled(parquet(ROWS, compression="gzip"), 600)


def npz(**arrays: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


def jsonl(objects: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in objects).encode()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text,label\n", "a header and no rows"),
        ("a.csv", b"text,label\n\n\n", "a header and no rows"),
        ("a.tsv", b"text\tlabel\n", "a header and no rows"),
        ("a.csv.gz", gzip.compress(b"text,label\n"), "a header and no rows"),
        ("a.csv.gz", gzip.compress(f"text,label\n{LINES}".encode())[:-20], "not readable as gzip"),
        ("a.jsonl", b"\n  \n\n", "the file is empty"),
        ("a.json", b"[]", "the file is empty"),
        ("a.json", json.dumps(OBJECTS).encode()[:-9], "not one JSON array"),
        ("a.parquet", parquet([]), "a header and no rows"),
        ("a.parquet", damaged_page(), "not readable as Parquet"),
        ("a.parquet", letter_changed(), "not readable as Parquet"),
        ("a.npz", npz(text=np.array([], "U5"), label=np.array([], "U3")), "and no rows"),
        ("a.jsonl", b"hello\nworld\n", "2 of 2 rows cannot be used: 2 with not the header's"),
        ("a.csv", b"text,label\n" + LINES.replace("alpha", "\xe9").encode("latin-1"), "not UTF-8"),
        ("a.csv", b"text,label\na,yes,more\n", "1 with not the header's columns"),
    ],
)  # fmt: skip
def test_of_data_that_hold_no_row_a_site_hears_before_it_is_charged(
    tmp_path: Path, texts: Task, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as refusal:
        texts.check_source(path, unit="record")
    assert refusal.value.hint
    assert "on_bad_row" not in refusal.value.hint, "every row was skipped"
    with pytest.raises(type(refusal.value)) as later:
        texts.load(path, unit="record", on_bad_row="skip")
    assert str(later.value) == str(refusal.value), "what training would have said"


@pytest.mark.parametrize("fault", ["no rows", "cut short"])
def test_of_a_folder_of_arrow_files_too(tmp_path: Path, texts: Task, fault: str) -> None:
    folder = save_to_disk(tmp_path / "a", table(ROWS if fault == "cut short" else []))
    if fault == "cut short":
        last = folder / "data-00001-of-00002.arrow"
        last.write_bytes(last.read_bytes()[:-900])
    with pytest.raises((EmptyFileError, UnreadableFileError)):
        texts.check_source(folder, unit="record")


def test_a_column_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    named = pa.table([pa.array(["a"])], schema=pa.schema([pa.field(b"l\xffbel", pa.string())]))
    with pytest.raises(UnreadableFileError, match="column's name is not UTF-8"):
        ArrowSource(tmp_path, named)


# Of one person alone, by a column or a value that whoever writes settings may choose.
ONE = {
    "a label": ("a.csv", b"text,label\nalpha,often\nbeta,often\n", b"gamma,yes\n"),
    "a text": ("a.csv", b"text,label\n,yes\n,no\n", b"alpha,yes\n"),
    "a key": ("a.jsonl", b'{"label": "yes"}\n' * 2, b'{"text": "alpha", "label": "no"}\n'),
    "an id": ("a.csv", b"text,label,who\nalpha,yes,\nbeta,no,NA\n", b"gamma,no,7\n"),
    "quoting": ("a.csv", b"text,label\nalpha,yes\n", b'"alpha"beta,yes\n'),
    "a row too wide": ("a.csv", b"text,label\nalpha,yes\n", b"alpha,yes,more\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE)
def test_nobody_is_told_uncharged_whether_anybody_has_it(
    tmp_path: Path, texts: Task, kind: str
) -> None:
    """A coordinator that asked for one label learned, for nothing, whether somebody had it."""
    name, without, one = ONE[kind]
    path, unit = tmp_path / name, "who" if kind == "an id" else "record"
    for content in (without, without + one):
        path.write_bytes(content)
        texts.check_source(path, unit=unit)


@pytest.mark.parametrize("cell", ["", "a note", "a note, " * 60, "1.png"])
def test_nobody_is_told_uncharged_whether_anybody_has_a_picture_or_a_note(
    tmp_path: Path, pictures: Task, cell: str
) -> None:
    (tmp_path / "1.png").write_bytes(png(seed=1))
    data = tmp_path / "a.csv"
    for others in ("", "another note"):
        rows = f',dark\n{others},dark\n"{cell}",dark\n'
        data.write_text(f"image,label\n{rows}")
        pictures.check_source(data, unit="record")


def heic(data: bytes) -> bytes:
    return b"\0\0\0\x18ftypheic" + data


def of_dicom(_: bytes) -> bytes:
    return dicom(np.arange(64, dtype=np.uint8).reshape(8, 8))


SPOILED: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "DICOM by another name": (of_dicom, ".png", "DICOM, without the extra dicom"),
    "DICOM without a name": (of_dicom, "", "DICOM, without the extra dicom"),
    "DICOM by its own name": (of_dicom, ".dcm", "DICOM, without the extra dicom"),
    "HEIC": (heic, ".png", "no image that can be read"),
    "PDF": (lambda data: b"%PDF-1.4\n" + data, ".png", "what is no picture: a PDF"),
    "nothing": (lambda _: b"", ".png", "no image that can be read"),
}


@pytest.mark.parametrize("form", ["folder", "table"])
@pytest.mark.parametrize("fault", SPOILED)
def test_of_pictures_that_are_not_read_a_site_hears_before_it_is_charged(
    tmp_path: Path, pictures: Task, monkeypatch: pytest.MonkeyPatch, fault: str, form: str
) -> None:
    monkeypatch.setattr("fmfl_secure.data.pictures.dicom.installed", lambda: False)
    spoil, suffix, expected = SPOILED[fault]
    lines = ["image,label"]
    for number in range(4):
        label = ("dark", "bright")[number % 2]
        place = tmp_path / "pictures" / label / f"{number}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(spoil(png(seed=number)))
        lines.append(f"pictures/{label}/{number}{suffix},{label}")
    data = tmp_path / "pictures"
    if form == "table":
        data = tmp_path / "a.csv"
        data.write_text("\n".join([*lines, ""]))
    with pytest.raises(EmptyFileError, match=f"4 of 4 rows .*{expected}") as refusal:
        pictures.check_source(data, unit="record")
    assert ("pip install" in refusal.value.hint) == ("DICOM" in fault), "what to do about it"
    place.write_bytes(png(seed=1))
    pictures.check_source(data, unit="record")


def test_of_pictures_that_are_not_there_too(tmp_path: Path, pictures: Task) -> None:
    data = tmp_path / "a.csv"
    data.write_text("image,label\n1.png,dark\n,dark\n2.dcm,bright\n")
    with pytest.raises(EmptyFileError, match=r"no picture is of a form .*2 of 3 rows") as refusal:
        pictures.check_source(data, unit="record")
    assert refusal.value.hint


def test_a_folder_with_no_picture_left_is_refused(tmp_path: Path, pictures: Task) -> None:
    (tmp_path / "dark").mkdir()
    (tmp_path / "dark/.DS_Store").write_bytes(b"\0")
    with pytest.raises(EmptyFileError, match="the folder holds no records"):
        pictures.check_source(tmp_path, unit="record")


def test_a_path_that_is_none_costs_its_row_and_is_not_told(tmp_path: Path, pictures: Task) -> None:
    """As of a shifted column: a note in place of a path."""
    (tmp_path / "1.png").write_bytes(png(seed=1))
    data = tmp_path / "a.csv"
    data.write_text(f"image,label\n{'Miller has pain ' * 30},dark\n1.png,dark\n")
    assert pictures.load(data, unit="record", on_bad_row="skip").records == 1
    with pytest.raises(DataError, match=r"row 1 .* the image cannot be read") as refusal:
        pictures.load(data, unit="record")
    assert "Miller" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + ".csv", "a" * 300 + ".npz/train"])
@pytest.mark.parametrize("kind", ["texts", "pictures"])
def test_data_of_a_name_that_no_file_can_have_are_refused(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    task: Task = request.getfixturevalue(kind)
    for ask in (task.check_source, task.load):
        with pytest.raises(DataError):
            ask(tmp_path / name, unit="record")


def test_data_in_a_folder_that_may_not_be_entered_are_refused(
    tmp_path: Path, pictures: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.stat", refused)
    monkeypatch.setattr("os.open", refused)
    monkeypatch.setattr("os.listdir", refused)
    for name in ("a.csv", "a", "a.npz/train"):
        with pytest.raises(DataError):
            pictures.check_source(tmp_path / name, unit="record")


def refused(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")
