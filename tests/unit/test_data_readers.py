"""Every format and every refusal of the table readers."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from text_dataset import read_text_dataset

from fmfl_secure.data import DataError, read_table
from fmfl_secure.data.errors import (
    DataArgumentError,
    DataEncodingError,
    EmptyFileError,
    EmptyTextError,
    MalformedRowError,
    MissingColumnError,
    NullUnitError,
    UnknownLabelError,
    UnreadableFileError,
    UnsupportedFormatError,
)

TEXTS = ("plain words", 'quote " and, comma', "two\nlines", "crème brûlée\u2028end")
LABELS = ("b", "a", "b", "a")
OWNERS = ("p2", "p1", "p2", "p3")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv_field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def make_file(folder: Path, suffix: str) -> Path:
    path = folder / f"notes{suffix}"
    rows = list(zip(TEXTS, LABELS, OWNERS, strict=True))
    if suffix in {".csv", ".tsv"}:
        comma = "," if suffix == ".csv" else "\t"
        lines = [comma.join(map(csv_field, row)) for row in (("text", "label", "owner"), *rows)]
        return write(folder, path.name, "\n".join(lines) + "\n")
    if suffix == ".jsonl":
        lines = [json.dumps({"text": t, "label": n, "owner": o}) for t, n, o in rows]
        return write(folder, path.name, "\n".join(lines) + "\n")
    pq.write_table(pa.table({"text": TEXTS, "label": LABELS, "owner": OWNERS}), path)
    return path


def read(path: Path, **changes):
    arguments = {"text_column": "text", "label_column": "label", "labels": ["a", "b"]}
    return read_text_dataset(path, **(arguments | changes))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_dataset(tmp_path, suffix):
    path = make_file(tmp_path, suffix)
    dataset = read(path, unit="owner")
    assert dataset.texts == TEXTS
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert dataset.label_names == ("a", "b")
    assert [unit.tolist() for unit in dataset.units] == [[0, 2], [1], [3]]
    assert [unit.tolist() for unit in read(path).units] == [[0], [1], [2], [3]]
    assert read_table(path).to_pydict() == {
        "text": list(TEXTS),
        "label": list(LABELS),
        "owner": list(OWNERS),
    }


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_one_long_text_is_a_row_like_any_other(tmp_path, suffix, monkeypatch):
    """Python's CSV parser stops at 128 KiB a field: one person's long text would fail the file."""
    before = csv.field_size_limit()
    texts = ("plain words", "word " * 100_000 + "end", *TEXTS[2:])
    monkeypatch.setattr(f"{__name__}.TEXTS", texts)
    assert read(make_file(tmp_path, suffix)).texts == texts
    assert csv.field_size_limit() == before


def test_suffix_may_be_upper_case(tmp_path):
    assert len(read(write(tmp_path, "A.CSV", "text,label\nx,a\n"))) == 1


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_line_endings_byte_order_mark_and_blank_lines(tmp_path, ending, bom, last):
    for suffix, comma in ((".csv", ","), (".tsv", "\t")):
        lines = [f"label{comma}text", f"a{comma}one", "", f"b{comma}two "]
        content = bom + (ending.join(lines) + (ending if last else "")).encode()
        dataset = read(write(tmp_path, f"x{suffix}", content))
        assert dataset.texts == ("one", "two ")
    lines = ['{"text":"one","label":"a"}', "", '{"text":"two ","label":"b"}']
    content = bom + (ending.join(lines) + (ending if last else "")).encode()
    assert read(write(tmp_path, "x.jsonl", content)).texts == ("one", "two ")


def test_plain_tsv_keeps_stray_quotes(tmp_path):
    texts = ['"opening only', 'closing only"', '"both"', 'in "the" middle', '"']
    path = write(tmp_path, "x.tsv", "label\ttext\n" + "".join(f"a\t{text}\n" for text in texts))
    assert read(path).texts == tuple(texts)


def test_one_quoted_row_does_not_change_how_a_plain_tsv_reads(tmp_path):
    path = write(tmp_path, "x.tsv", 'label\ttext\na\tsay "hi"\na\t"a ""quoted"" one"\n')
    assert read(path).texts == ('say "hi"', '"a ""quoted"" one"')


def test_types_are_not_inferred_from_text(tmp_path):
    path = write(tmp_path, "x.csv", "text,label\n007,01\nNA,1.0\n2020-01-02,true\n")
    dataset = read(path, labels=["01", "1.0", "true"])
    assert dataset.texts == ("007", "NA", "2020-01-02")
    assert dataset.labels.tolist() == [0, 1, 2]


def test_json_values_compare_as_they_are_written(tmp_path):
    rows = (
        '{"text":"x","label":1}\n{"label": true,"text":"y"}\n{"text":"z","label":1.0, "k":null}\n'
    )
    path = write(tmp_path, "x.jsonl", rows)
    assert read(path, labels=["1", "1.0", "true"]).labels.tolist() == [0, 2, 1]
    assert read_table(path).to_pydict() == {
        "text": ["x", "y", "z"],
        "label": ["1", "true", "1.0"],
        "k": [None, None, None],
    }


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([0, 1]), ["0", "1"]),
        (pa.array([0.0, 1.0]), ["0", "1"]),
        (pa.array([False, True]), ["false", "true"]),
        (pa.array(["n", "y"]).dictionary_encode(), ["n", "y"]),
        (pa.array(["n", "y"], pa.large_string()), ["n", "y"]),
        (pa.array(["n", "y"], pa.string_view()), ["n", "y"]),
        (pa.array([b"n", b"y"]), ["n", "y"]),
    ],
)
def test_parquet_label_types(tmp_path, values, names):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["s", "t"], "label": values}), path)
    assert read(path, labels=names).labels.tolist() == [0, 1]


def test_parquet_takes_no_columns_from_directory_names(tmp_path):
    folder = tmp_path / "year=2020"
    folder.mkdir()
    assert read_table(make_file(folder, ".parquet")).column_names == ["text", "label", "owner"]


def test_first_alternative_present_is_the_text_column(tmp_path):
    path = write(tmp_path, "x.csv", "content,label,sentence\nc,a,s\n")
    assert read(path, text_column=("text", "sentence", "content")).texts == ("s",)


def test_labels_found_where_none_are_configured(tmp_path):
    dataset = read(write(tmp_path, "x.csv", "text,label\nx,pear\ny,apple\n"), labels=None)
    assert dataset.label_names == ("apple", "pear")
    assert dataset.labels.tolist() == [1, 0]


# Files and headers.


def test_unknown_extension(tmp_path):
    with pytest.raises(UnsupportedFormatError, match=r"'.txt'; expected one of .csv, .tsv"):
        read_table(write(tmp_path, "x.txt", "text\n"))


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(UnreadableFileError, match="No such file"):
        read_table(tmp_path / "x.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UnreadableFileError, match="directory"):
        read_table(tmp_path / "d.csv")


def test_file_without_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read whatever the mode says
    with pytest.raises(UnreadableFileError, match="Permission denied"):
        read_table(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_empty_file(tmp_path, name, content):
    with pytest.raises(EmptyFileError, match="the file is empty"):
        read_table(write(tmp_path, name, content))


def test_header_without_rows(tmp_path):
    path = write(tmp_path, "x.csv", "text,label\n")
    assert read_table(path).num_rows == 0
    with pytest.raises(EmptyFileError, match="a header and no rows"):
        read(path)
    pq.write_table(
        pa.table({"text": pa.array([], pa.string()), "label": []}), tmp_path / "x.parquet"
    )
    with pytest.raises(EmptyFileError):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text,label\n", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_not_parquet(tmp_path, content):
    with pytest.raises(UnreadableFileError, match="not readable as Parquet"):
        read_table(write(tmp_path, "x.parquet", content))


def test_damaged_parquet(tmp_path):
    data = make_file(tmp_path, ".parquet").read_bytes()
    with pytest.raises(UnreadableFileError, match="not readable as Parquet"):
        read_table(write(tmp_path, "y.parquet", data[: len(data) // 2]))


@pytest.mark.parametrize(
    ("changes", "missing", "argument"),
    [
        ({"text_column": "note"}, "'note'", "text_column"),
        ({"text_column": ["note", "body"]}, "'note' or 'body'", "text_column"),
        ({"label_column": "class"}, "'class'", "label_column"),
        ({"unit": "patient"}, "'patient'", "unit"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_missing_column_names_those_of_a_schema(tmp_path, changes, missing, argument, suffix):
    with pytest.raises(MissingColumnError) as caught:
        read(make_file(tmp_path, suffix), **changes)
    if suffix == ".parquet":
        said = f"no column {missing}; the columns are 'text', 'label', 'owner'"
    else:  # the first line may be somebody's record
        said = f"no column {missing} among the 3 of the file"
    assert said in str(caught.value)
    assert argument in caught.value.hint


def test_column_named_twice(tmp_path):
    with pytest.raises(MissingColumnError, match="more than once"):
        read(write(tmp_path, "x.csv", "text,label,text\nx,a,y\n"))
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(MissingColumnError, match="more than once"):
        read_table(tmp_path / "x.parquet")


def test_parquet_column_that_is_no_text(tmp_path):
    pq.write_table(pa.table({"text": [[1.5], [2.5]], "label": ["a", "b"]}), tmp_path / "x.parquet")
    with pytest.raises(MalformedRowError, match=r"column 'text' has the type list<"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16(tmp_path, codec):
    content = "text,label\nx,a\n".encode(codec)
    path = write(tmp_path, "x.csv", content)
    with pytest.raises(DataError) as caught:
        read(path)
    if codec == "utf-16":  # the only one of the three that says so itself
        assert isinstance(caught.value, DataEncodingError)
        assert "UTF-16" in str(caught.value)


def test_header_that_is_not_utf8(tmp_path):
    with pytest.raises(DataEncodingError, match="line 1: not valid UTF-8"):
        read(write(tmp_path, "x.csv", "text,größe\nx,a\n".encode("latin-1")))


# One bad row, in every format it can occur in: row 2 of 3. The row before it spans two lines
# where it can, so that row and line numbers differ by more than the header.

AROUND = {
    ".csv": (b'text,label,who\n"x\nx",a,p\n', b"\nz,b,q\n", 4),
    ".tsv": (b"text\tlabel\twho\n\nx\ta\tp\n", b"\nz\tb\tq\n", 4),
    ".jsonl": (
        b'{"text":"x","label":"a","who":"p"}\n\n',
        b'\n{"text":"z","label":"b","who":"q"}\n',
        3,
    ),
}
BAD_ROWS = {
    "csv-empty-text": (".csv", b",b,q", EmptyTextError),
    "csv-blank-text": (".csv", b" \t,b,q", EmptyTextError),
    "csv-unknown-label": (".csv", b"y,c,q", UnknownLabelError),
    "csv-label-with-space": (".csv", b"y,b ,q", UnknownLabelError),
    "csv-empty-label": (".csv", b"y,,q", UnknownLabelError),
    "csv-empty-unit": (".csv", b"y,b,", NullUnitError),
    "csv-short": (".csv", b"y,b", MalformedRowError),
    "csv-long": (".csv", b"y,b,q,r", MalformedRowError),
    "csv-latin1": (".csv", b'"\xe9\ny",b,q', DataEncodingError),
    "csv-latin1-further-down": (".csv", b'"y\n\xe9",b,q', DataEncodingError),
    "tsv-empty-text": (".tsv", b"\tb\tq", EmptyTextError),
    "tsv-empty-unit": (".tsv", b"y\tb\t", NullUnitError),
    "tsv-short": (".tsv", b"y\tb", MalformedRowError),
    "tsv-latin1": (".tsv", b"\xe9\tb\tq", DataEncodingError),
    "jsonl-null-text": (".jsonl", b'{"text":null,"label":"b","who":"q"}', EmptyTextError),
    "jsonl-no-text": (".jsonl", b'{"label":"b","who":"q"}', EmptyTextError),
    "jsonl-null-label": (".jsonl", b'{"text":"y","label":null,"who":"q"}', UnknownLabelError),
    "jsonl-null-unit": (".jsonl", b'{"text":"y","label":"b","who":null}', NullUnitError),
    "jsonl-latin1": (".jsonl", b'{"text":"\xe9","label":"b","who":"q"}', DataEncodingError),
    "jsonl-array": (".jsonl", b'["y", "b"]', MalformedRowError),
    "jsonl-word": (".jsonl", b"y", MalformedRowError),
    "jsonl-cut": (".jsonl", b'{"text":"y","label":"b"', MalformedRowError),
    "jsonl-two": (".jsonl", b'{"text":"y"} {"text":"y"}', MalformedRowError),
    "jsonl-surrogate": (".jsonl", b'{"text":"\\ud800","label":"b"}', MalformedRowError),
    "jsonl-deep": (
        ".jsonl",
        b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        MalformedRowError,
    ),
}


@pytest.mark.parametrize(("suffix", "bad", "kind"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row(tmp_path, suffix, bad, kind):
    before, after, line = AROUND[suffix]
    path = write(tmp_path, f"x{suffix}", before + bad + after)
    with pytest.raises(kind) as caught:
        read(path, unit="who")
    error = caught.value
    assert type(error) is kind
    assert (error.path, error.row, error.line) == (path, 2, line)
    assert str(error).startswith(f"{path}, row 2 (line {line}): ")
    assert error.code == "failed"
    assert error.hint
    # Parsers' own errors carry the text they stumbled over.
    assert error.__suppress_context__ or error.__context__ is None

    dataset = read(path, unit="who", on_bad_row="skip")
    assert dataset.texts == ("x\nx" if suffix == ".csv" else "x", "z")
    assert dataset.labels.tolist() == [0, 1]
    assert [unit.tolist() for unit in dataset.units] == [[0], [1]]
    assert dataset.skipped == 1


def test_bad_rows_of_parquet(tmp_path):
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32).tobytes())
    broken = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"x\xff\xfez")])
    cases = {
        EmptyTextError: {"text": ["x", None, "z"]},
        UnknownLabelError: {"label": ["a", None, "b"]},
        NullUnitError: {"who": pa.array([1, None, 2])},
        DataEncodingError: {"text": broken},
    }
    path = tmp_path / "x.parquet"
    for kind, column in cases.items():
        good = {"text": ["x", "y", "z"], "label": ["a", "b", "b"], "who": ["p", "q", "q"]}
        pq.write_table(pa.table(good | column), path)
        with pytest.raises(kind) as caught:
            read(path, unit="who")
        assert (caught.value.row, caught.value.line) == (2, None)
        assert caught.value.__context__ is None
        dataset = read(path, unit="who", on_bad_row="skip")
        assert dataset.texts == ("x", "z")
        assert dataset.skipped == 1


def test_null_label_where_labels_are_found(tmp_path):
    path = write(tmp_path, "x.csv", "text,label\nx,a\ny,\n")
    with pytest.raises(UnknownLabelError, match="expected a label"):
        read(path, labels=None)


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize(
    ("content", "row", "line", "said"),
    [
        ('text,label\nx,a\n"y\n,b\nz,b\n', 2, 3, "unexpected end of data"),
        ('text,label\n"x\nx",a\n"y" y,b\nz,b\n', 2, 4, "expected after"),
        ('text,label\n"' + "y" * 200_000 + ",b\n", 1, 2, "unexpected end of data"),
        ('"text,label\nx,a\n', None, 1, "unexpected end of data"),
    ],
)
def test_broken_quoting_is_never_skipped(tmp_path, on_bad_row, content, row, line, said):
    with pytest.raises(MalformedRowError, match=said) as caught:
        read(write(tmp_path, "x.csv", content), on_bad_row=on_bad_row)
    assert (caught.value.row, caught.value.line) == (row, line)


def test_every_row_skipped(tmp_path):
    path = write(tmp_path, "x.csv", "text,label\nx,c\n")
    with pytest.raises(EmptyFileError, match="every row had to be skipped"):
        read(path, on_bad_row="skip")


def test_read_table_refuses_a_bad_row(tmp_path):
    with pytest.raises(MalformedRowError, match=r"row 2 \(line 3\)"):
        read_table(write(tmp_path, "x.csv", "text,label\nx,a\ny\n"))


def test_messages_never_quote_a_row(tmp_path):
    secret = "Jane has sarcoidosis"
    bad = {
        "label.csv": f"text,label\nx,{secret}\n",
        "wide.csv": f"text,label\n{secret},a,{secret}\n",
        "open.csv": f'text,label\n"{secret}\n',
        "array.jsonl": json.dumps([secret]),
        "cut.jsonl": f'{{"text": "{secret}',
    }
    for name, content in bad.items():
        with pytest.raises(DataError) as caught:
            read(write(tmp_path, name, content))
        shown = f"{caught.value!s} {caught.value!r} {caught.value.hint} {vars(caught.value)}"
        assert "Jane" not in shown
        assert "sarcoidosis" not in shown


def test_an_unknown_way_with_bad_rows(tmp_path):
    with pytest.raises(DataArgumentError, match='"error" or "skip"'):
        read(write(tmp_path, "x.csv", "text,label\nx,a\n"), on_bad_row="ignore")
