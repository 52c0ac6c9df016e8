"""Arbitrary text through every format and back."""

import contextlib
import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_dataset import read_text_dataset

from fmfl_secure.data import DataError, read_table
from privacy.names import plain

LABELS = ["a", 'b"', "c,\n"]


def is_text(text: str) -> bool:
    """Whether something of it can be seen, and it is not what programs write for no text."""
    word = text.strip().casefold()
    return bool(plain(text)) and word not in {"nan", "<na>", "null", "(null)", "none", "nat"}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(is_text)
# Ids with what a file may make of them; which texts are one id is `test_unit_ids_properties`'s.
owners = st.text("abc,\t\"\n'é", min_size=1, max_size=5).map(lambda text: f"x{text}x")
rows = st.lists(st.tuples(texts, st.sampled_from(LABELS), owners), min_size=1, max_size=8)


def as_delimited(found, delimiter: str) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows([("text", "label", "owner"), *found])
    return buffer.getvalue().encode()


def as_jsonl(found) -> bytes:
    objects = [dict(zip(("text", "label", "owner"), row, strict=True)) for row in found]
    return "\n".join(
        json.dumps(each, ensure_ascii=index % 2 == 0) for index, each in enumerate(objects)
    ).encode()


def as_parquet(found) -> bytes:
    sink = pa.BufferOutputStream()
    columns = [list(column) for column in zip(*found, strict=True)]
    pq.write_table(pa.table(dict(zip(("text", "label", "owner"), columns, strict=True))), sink)
    return sink.getvalue().to_pybytes()


FORMATS = {
    ".csv": lambda found: as_delimited(found, ","),
    ".tsv": lambda found: as_delimited(found, "\t"),
    ".jsonl": as_jsonl,
    ".parquet": as_parquet,
}


def on_disk(folder: str, suffix: str, data: bytes) -> Path:
    path = Path(folder) / f"x{suffix}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None)  # files: as long as the disk likes
@given(found=rows)
def test_round_trip(suffix, found):
    with tempfile.TemporaryDirectory() as folder:
        path = on_disk(folder, suffix, FORMATS[suffix](found))
        dataset = read_text_dataset(
            path, text_column="text", label_column="label", labels=LABELS, unit="owner"
        )
        table = read_table(path)
    assert dataset.texts == tuple(row[0] for row in found)
    assert [LABELS[index] for index in dataset.labels] == [row[1] for row in found]
    owners = [plain(row[2]) for row in found]
    assert [[owners[i] for i in unit] for unit in dataset.units] == [
        [owner] * owners.count(owner) for owner in dict.fromkeys(owners)
    ]
    assert [tuple(row.values()) for row in table.to_pylist()] == found


plain_texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), min_size=1
).filter(is_text)


@settings(deadline=None)  # files: as long as the disk likes
@given(found=st.lists(st.tuples(plain_texts, st.sampled_from(["0", "1"])), min_size=1, max_size=8))
def test_plain_tsv_round_trip(found):
    lines = ["label\ttext", *(f"{label}\t{text}" for text, label in found)]
    with tempfile.TemporaryDirectory() as folder:
        path = on_disk(folder, ".tsv", "\r\n".join(lines).encode())
        dataset = read_text_dataset(
            path, text_column="text", label_column="label", labels=["0", "1"]
        )
    assert dataset.texts == tuple(text for text, _ in found)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None)  # files: as long as the disk likes
@given(data=st.binary(max_size=200), cut=st.integers(0, 400), found=rows)
def test_no_bytes_raise_anything_but_a_data_error(suffix, data, cut, found):
    good = FORMATS[suffix](found)
    with tempfile.TemporaryDirectory() as folder:
        for content in (data, good[:cut] + data + good[cut:]):
            path = on_disk(folder, suffix, content)
            for on_bad_row in ("error", "skip"):
                with contextlib.suppress(DataError):
                    read_text_dataset(
                        path,
                        text_column="text",
                        label_column="label",
                        labels=LABELS,
                        unit="owner",
                        on_bad_row=on_bad_row,
                    )


@settings(deadline=None)  # files: as long as the disk likes
@given(found=rows, place=st.integers(0, 7), bad=st.sampled_from([b"{", b"[1]", b'{"text":"\xff"}']))
def test_a_skipped_row_costs_no_other(found, place, bad):
    lines = as_jsonl(found).split(b"\n")
    lines.insert(place, bad)
    with tempfile.TemporaryDirectory() as folder:
        dataset = read_text_dataset(
            on_disk(folder, ".jsonl", b"\n".join(lines)),
            text_column="text",
            label_column="label",
            labels=LABELS,
            on_bad_row="skip",
        )
    assert dataset.texts == tuple(row[0] for row in found)
    assert dataset.skipped == 1
