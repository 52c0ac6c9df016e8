"""Every form of data in the registry, and files that are none of them."""

from __future__ import annotations

import gzip
import io
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_written import save_to_disk

from fmfl_secure.data import DataError, label_field, read_records, read_table, text_field
from fmfl_secure.data.errors import DataEncodingError, UnreadableFileError, UnsupportedFormatError
from fmfl_secure.data.formats import FORMATS, TextFormat, format_of
from fmfl_secure.data.formats.base import table_suffix
from fmfl_secure.data.formats.foreign import FOREIGN, recognise
from fmfl_secure.data.headers import check_header

ROWS = [("fever", "a"), ("pain, and more", "b")]
FIELDS = (text_field("text_columns", ("text",)), label_field("label_column", "label", ("a", "b")))


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [t for t, _ in ROWS], "label": [k for _, k in ROWS]}), sink)
    return sink.getvalue().to_pybytes()


def _npz() -> bytes:
    sink = io.BytesIO()
    texts, labels = zip(*ROWS, strict=True)
    np.savez(sink, text=np.array(texts), label=np.array(labels))
    return sink.getvalue()


# The same rows in every form. An entry without a line here fails.
SAMPLES = {
    "CSV": b'text,label\nfever,a\n"pain, and more",b\n',
    "TSV": b"text\tlabel\nfever\ta\npain, and more\tb\n",
    "JSON Lines": b'{"text":"fever","label":"a"}\n{"text":"pain, and more","label":"b"}\n',
    "JSON array": b'[{"text":"fever","label":"a"},{"text":"pain, and more","label":"b"}]',
    "CoNLL": b"fever a\n\npain x b\n",
    "Parquet": _parquet(),
    "NPZ": _npz(),
    "a folder of Hugging Face's datasets": None,
}
TEXTS = [kind.name for kind in FORMATS if isinstance(kind, TextFormat)]
BINARY = ["Parquet", "NPZ"]


def _zip(*names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, "application/vnd.oasis.opendocument.spreadsheet")
    return sink.getvalue()


def _npy() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.zeros(3))
    return sink.getvalue()


def _feather() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": ["x"]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


# How files that are none of the forms begin, as the programs write them.
NONE_OF_THEM = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS"),
    "DS_Store": (b"\0\0\0\x01Bud1\0\0\x10\0\0\0\x08\0", ".DS_Store"),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 20, "Thumbs.db"),
    "xlsx": (_zip("[Content_Types].xml", "xl/workbook.xml"), "Office"),
    "ods": (_zip("mimetype"), "OpenDocument"),
    "npz": (_zip("arr_0.npy"), "NPZ"),
    "zip": (_zip("data.csv"), "ZIP"),
    "gzip": (gzip.compress(SAMPLES["CSV"]), "gzip"),
    "bzip2": (b"BZh91AY&SY\x00\x01", "bzip2"),
    "Parquet": (_parquet(), "Parquet"),
    "Feather": (_feather(), "Arrow"),
    "npy": (_npy(), "array of NumPy"),
    "pickle": (b"\x80\x04\x95\x05\x00.", "pickle"),
    "SQLite": (b"SQLite format 3\0\x10\0", "SQLite"),
    "HDF5": (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
    "PDF": (b"%PDF-1.7\n", "PDF"),
    "HTML": (b"\n<!DOCTYPE html><html>", "web page"),
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "picture"),
    "UTF-16": ("text,label\nx,a\n".encode("utf-16"), "UTF-16"),
    "UTF-16LE": ("text,label\nx,a\n".encode("utf-16-le"), "UTF-16 without a mark"),
    "UTF-16BE": ("text,label\nx,a\n".encode("utf-16-be"), "UTF-16 without a mark"),
    "UTF-32": ("text,label\nx,a\n".encode("utf-32"), "UTF-32"),
}


def of_form(folder: Path, name: str, content: bytes | None = None) -> Path:
    """Data that claim to be of a form."""
    if not FORMATS.get(name).suffixes:
        return save_to_disk(folder / "set", pq.read_table(pa.BufferReader(_parquet())))
    place = folder / f"x{FORMATS.get(name).suffixes[0]}"
    place.write_bytes(SAMPLES[name] if content is None else content)
    return place


# A form of words with tags alone has columns of its own: `test_tag_schemes`.
TABLES = [name for name in FORMATS.names if name != "CoNLL"]


@pytest.mark.parametrize("name", TABLES)
def test_every_form_reads_the_same_rows(tmp_path: Path, name: str) -> None:
    place = of_form(tmp_path, name)
    assert format_of(place) is FORMATS.get(name)
    check_header(place, FIELDS)
    assert list(zip(*read_records(place, FIELDS).columns, strict=True)) == ROWS
    table = read_table(place)
    assert table.column_names == ["text", "label"]
    assert table.num_rows == len(ROWS)


@pytest.mark.parametrize("name", FORMATS.names)
def test_every_form_says_what_it_is_for_the_documents(name: str) -> None:
    kind = FORMATS.get(name)
    assert kind.known_by
    assert kind.columns_from
    assert kind.refuses


def test_no_two_forms_claim_the_same_name() -> None:
    claimed = [suffix for kind in FORMATS for suffix in kind.suffixes]
    assert len(set(claimed)) == len(claimed)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in claimed)


@pytest.mark.parametrize("what", NONE_OF_THEM)
def test_a_file_that_is_something_else_is_told_what_it_is(tmp_path: Path, what: str) -> None:
    """Whatever form of text its name says: before a record is read, and where records are read."""
    content, expected = NONE_OF_THEM[what]
    for name in TEXTS:
        plain = of_form(tmp_path, name, content)
        packed = plain.with_name(plain.name + ".gz")
        packed.write_bytes(gzip.compress(content))
        for place, ask in product((plain, packed), (check_header, read_records)):
            with pytest.raises((UnreadableFileError, DataEncodingError), match=expected) as caught:
                ask(place, FIELDS)
            assert caught.value.hint


@pytest.mark.parametrize("what", NONE_OF_THEM)
def test_a_binary_form_by_name_alone_is_told_what_it_is(tmp_path: Path, what: str) -> None:
    content, expected = NONE_OF_THEM[what]
    for name in BINARY:
        if what.casefold() == name.casefold():
            continue
        place = of_form(tmp_path, name, content)
        for ask in (check_header, read_records):
            with pytest.raises((UnreadableFileError, DataEncodingError), match=expected):
                ask(place, FIELDS)


def test_all_that_is_recognised_is_tested() -> None:
    found = {recognise(content) for content, _ in NONE_OF_THEM.values()}
    rare = {"encrypted Parquet", "ORC", "Avro"}
    assert {known.name for known in FOREIGN} - {known.name for known in found if known} <= rare


@pytest.mark.parametrize(
    "header",
    [
        "PAR1,PAR2",
        "ORCID,text",
        "BZhang,label",
        "ARROW1,b",
        "GIF8,b",
        "Object,b",
        "größe,b",
        "版本",
    ],
)
def test_no_header_of_a_table_is_taken_for_something_else(header: str) -> None:
    assert recognise(f"{header}\nx,y\n".encode()) is None


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.xlsx", NONE_OF_THEM["xlsx"][0], "Office"),
        ("x.txt", b"text,label\n", "the extension is '.txt'"),
        (".DS_Store", NONE_OF_THEM["DS_Store"][0], ".DS_Store"),
        ("Thumbs.db", NONE_OF_THEM["Thumbs.db"][0], "Thumbs.db"),
        ("pointer", NONE_OF_THEM["LFS"][0], "Git LFS"),
        ("x.txt.gz", b"no gzip", "not readable as gzip"),
    ],
)
def test_a_name_that_no_form_claims_is_refused(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    place = tmp_path / name
    place.write_bytes(content)
    for ask in (check_header, read_records):
        with pytest.raises(DataError, match=expected) as caught:
            ask(place, FIELDS)
        if "gzip" not in expected:
            assert isinstance(caught.value, UnsupportedFormatError)
            assert all(suffix in str(caught.value) for suffix in (".csv", ".parquet"))


@pytest.mark.parametrize("name", ["x.csv.gz", "X.CSV.GZ", "x.csv", "a.b.csv"])
def test_the_suffix_that_selects_is_that_of_the_table(name: str) -> None:
    assert table_suffix(Path(name)) == ".csv"
