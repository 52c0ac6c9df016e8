"""Arrays in place of lines, and other separators than commas: said and read, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fmfl_secure.data import DataError, check_header, label_field, read_as, read_records, text_field

ROWS = [("fever", "a"), ("pain, and more", "b")]
FIELDS = (text_field("text_columns", ("text",)), label_field("label_column", "label", ("a", "b")))
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('text;label\nfever;a\n"pain, and more";b\n', "CSV, separated by semicolons"),
        ("text\tlabel\nfever\ta\npain, and more\tb\n", "CSV, separated by tabs"),
        ('\ufefftext|label\nfever|a\n"pain, and more"|b\n', "CSV, separated by bars"),
        ('"text;x",text,label\n1,fever,a\n2,"pain, and more",b\n', "CSV"),
        ('"a,b";text;label\n1;fever;a\n2;pain, and more;b\n', "CSV, separated by semicolons"),
    ],
)
def test_the_header_says_what_separates(tmp_path: Path, content: str, said: str) -> None:
    path = written(tmp_path, "x.csv", content)
    assert read_as(path) == said
    check_header(path, FIELDS)
    assert list(zip(*read_records(path, FIELDS).columns, strict=True)) == ROWS


def test_no_row_has_a_say(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", "text\nfever; or not\nno\tfever\n")
    assert read_as(path) == "CSV"
    assert read_records(path, FIELDS[:1]).columns[0] == ["fever; or not", "no\tfever"]


def test_two_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", "text;label\tother\nx;a\tb\n")
    for ask in (check_header, read_records):
        with pytest.raises(DataError, match="no comma, and semicolons and tabs"):
            ask(path, FIELDS)


@pytest.mark.parametrize("indent", [None, 2], ids=["one line", "many"])
def test_an_array_of_objects_is_rows(tmp_path: Path, indent: int | None) -> None:
    path = written(tmp_path, "x.json", "\ufeff" + json.dumps(OBJECTS, indent=indent))
    check_header(path, FIELDS)
    assert list(zip(*read_records(path, FIELDS).columns, strict=True)) == ROWS
    assert read_as(path) == "JSON array"


def test_a_row_of_an_array_costs_itself(tmp_path: Path) -> None:
    path = written(tmp_path, "x.json", json.dumps([OBJECTS[0], ["x"], {"text": {}}, OBJECTS[1]]))
    records = read_records(path, FIELDS, on_bad_row="skip")
    assert records.columns[0] == ["fever", "pain, and more"]
    assert records.left_out.count == 2


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.jsonl", json.dumps(OBJECTS), "the file is a JSON array"),
        ("x.jsonl", json.dumps(OBJECTS, indent=1), "the file is a JSON array"),
        ("x.json", "".join(json.dumps(row) + "\n" for row in OBJECTS), "the file is JSON Lines"),
        ("x.json", json.dumps({"text": {"0": "fever"}}), "no array of objects"),
        ("x.json", json.dumps({"data": OBJECTS}, indent=1), "no array of objects"),
        ("x.json", "text,label\n", "does not begin with an array"),
        ("x.json", "[]", "the file is empty"),
        ("x.json", "  ", "the file is empty"),
        ("x.json", json.dumps(OBJECTS)[:-5], "not one JSON array"),
        ("x.json", "[" * 100_000, "not one JSON array"),
    ],
    ids=range(10),
)
def test_what_is_another_form_is_named(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected) as refused:
        read_records(written(tmp_path, name, content), FIELDS)
    assert refused.value.hint
