"""Words and tags as Hugging Face's datasets write them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmfl_secure.data.errors import DataEncodingError, EmptyFileError, UnknownLabelError
from fmfl_secure.data.fields import Records, label_field, read_records, text_field
from fmfl_secure.data.tagged import check_equally_many, tags_field, words_field

TAGS = ("O", "B-NAME", "I-NAME")
OTHER_ORDER = ["B-NAME", "O", "I-NAME"]
WORDS = [["patient", "Smith"], ["well"]]


def read(path: Path, names=(), on_bad_row="error") -> Records:
    fields = [words_field("tokens_column", "tokens"), tags_field("tags_column", "t", TAGS, names)]
    return read_records(path, fields, check=check_equally_many, on_bad_row=on_bad_row)


def parquet(folder: Path, tags, feature=None, words=None) -> Path:
    table = pa.table({"tokens": WORDS if words is None else words, "t": tags})
    if feature is not None:
        text = json.dumps({"info": {"features": {"t": feature}}})
        table = table.replace_schema_metadata({"huggingface": text})
    path = folder / "x.parquet"
    pq.write_table(table, path)
    return path


CLASS = {"names": OTHER_ORDER, "_type": "ClassLabel"}
NAMED = [["O", "B-NAME"], ["O"]]
NUMBERED = [[1, 0], [1]]


@pytest.mark.parametrize(
    ("tags", "feature", "names"),
    [
        (NAMED, None, ()),
        (pa.array(NAMED, pa.large_list(pa.large_string())), None, ()),
        (NUMBERED, {"feature": CLASS, "_type": "Sequence"}, ()),
        (NUMBERED, {"feature": CLASS, "_type": "List"}, ()),
        (pa.array(NUMBERED, pa.list_(pa.int32())), [CLASS], ()),
        (NUMBERED, None, OTHER_ORDER),
        (NUMBERED, {"feature": {"dtype": "int64", "_type": "Value"}}, OTHER_ORDER),
    ],
)
def test_every_way_to_write_tags_reads_the_same(tmp_path: Path, tags, feature, names) -> None:
    assert read(parquet(tmp_path, tags, feature), names).columns == (WORDS, [[0, 1], [0]])


def test_integers_of_json_lines_have_their_names_from_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"tokens": ["patient", "Smith"], "t": [1, 0]}\n')
    assert read(path, OTHER_ORDER).columns[1] == [[0, 1]]
    with pytest.raises(UnknownLabelError, match="integer without a name") as caught:
        read(path)
    assert "tag_names" in caught.value.hint


@pytest.mark.parametrize("tags", [[[1, 3], [1]], [[1, -1], [1]]])
def test_an_integer_beyond_the_names_is_refused(tmp_path: Path, tags) -> None:
    path = parquet(tmp_path, tags, {"feature": CLASS})
    with pytest.raises(UnknownLabelError):
        read(path, OTHER_ORDER)
    assert len(read(path, OTHER_ORDER, "skip")) == 1


@pytest.mark.parametrize("feature", [7, [], [7], {}, {"feature": 3}, {"feature": {"names": [1]}}])
def test_a_schema_that_says_something_else_names_nothing(tmp_path: Path, feature) -> None:
    path = parquet(tmp_path, NUMBERED, feature)
    with pytest.raises(UnknownLabelError):
        read(path)


def test_words_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"x\xff")])
    path = parquet(tmp_path, [["O"], ["O"]], words=pa.ListArray.from_arrays([0, 1, 2], texts))
    with pytest.raises(DataEncodingError, match="row 2"):
        read(path)
    assert read(path, on_bad_row="skip").columns[0] == [["x"]]


def test_a_list_is_no_text_and_no_label(tmp_path: Path) -> None:
    path = parquet(tmp_path, NAMED)
    fields = [text_field("text", ("tokens",)), label_field("label", "t", ["a", "b"])]
    with pytest.raises(EmptyFileError, match="list or object in place of a text"):
        read_records(path, fields, on_bad_row="skip")
