"""No row vanishes without a word: what cannot be used is counted by sort, and never quoted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_cases import task_on
from tiny_models import png

from fmfl_secure.data.errors import DataError, EmptyFileError, EmptyTextError, UnknownLabelError
from fmfl_secure.data.fields import label_field, read_records, text_field
from fmfl_secure.data.images import read_image_folder
from fmfl_secure.data.left_out import SORTS, LeftOut, label_sort

FIELDS = (text_field("text", ("text",)), label_field("label", "label", ["negative", "positive"]))


def table(folder: Path, *rows: str) -> Path:
    path = folder / "x.csv"
    path.write_text("text,label\n" + "".join(f"{row}\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "labels", "said"),
    [
        ("Positive", ("negative", "positive"), "case alone"),
        (" positive", ("negative", "positive"), "white space alone"),
        ("positive\u00a0", ("negative", "positive"), "white space alone"),
        (" Positive ", ("negative", "positive"), "case and white space"),
        ("1.0", ("0", "1"), "how a number is written (1.0 for 1)"),
        ("1", ("0.0", "1.0"), "how a number is written (1.0 for 1)"),
        ("True", ("0", "1"), "how true and false are written (True for 1)"),
        ("0", ("false", "true"), "how true and false are written (True for 1)"),
        ("true", ("False", "True"), "case alone"),
        ("\uff50ositive", ("negative", "positive"), "how its characters are composed"),
    ],
)
def test_a_near_miss_of_a_label_is_named_as_such(value, labels, said) -> None:
    assert label_sort(value, labels) == f"label that differs from a configured one in {said}"


@pytest.mark.parametrize("value", ["2.0", "unsure", "positives", "yes"])
def test_another_label_is_no_near_miss(value) -> None:
    assert label_sort(value, ("0", "1", "positive")) == "label that is not configured"


def test_rows_are_counted_by_sort_with_examples(tmp_path: Path) -> None:
    path = table(tmp_path, *["fine,Positive"] * 7, "fine,positive", ",negative", "secret,maybe")
    records = read_records(path, FIELDS, on_bad_row="skip")
    assert (len(records), records.left_out.read, records.left_out.count) == (1, 10, 9)
    assert str(records.left_out) == (
        "9 of 10 rows cannot be used: 7 with label that differs from a configured one in case "
        "alone (rows 1, 2, 3, 4, 5, ...); 1 with no text (row 9); 1 with label that is not "
        "configured (row 10)"
    )
    assert records.left_out.share == 0.9
    assert repr(records.left_out) == "LeftOut(<private>)"
    assert LeftOut().share == 0.0


def test_a_refusal_names_the_first_row_and_counts_the_others(tmp_path: Path) -> None:
    path = table(tmp_path, "fine,positive", "fine,Positive", "secret,maybe")
    with pytest.raises(UnknownLabelError) as caught:
        read_records(path, FIELDS)
    assert caught.value.row == 2
    assert str(caught.value).startswith(f"{path}, row 2 (line 3): the label in column 'label'")
    assert "In all, 2 of 3 rows cannot be used" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "maybe" not in str(caught.value)


def test_where_no_row_is_left_all_are_counted(tmp_path: Path) -> None:
    with pytest.raises(EmptyFileError, match=r"2 of 2 rows cannot be used: 1 with"):
        read_records(table(tmp_path, "fine,Positive", ",positive"), FIELDS, on_bad_row="skip")


def test_declared_aliases_are_their_labels(tmp_path: Path) -> None:
    fields = (
        FIELDS[0],
        label_field("label", "label", ["no", "yes"], [("Ja", "yes"), ("1", "yes")]),
    )
    records = read_records(
        table(tmp_path, "a,Ja", "b,1", "c,no", "d,ja"), fields, on_bad_row="skip"
    )
    assert records.columns[1] == ["yes", "yes", "no"]
    assert records.left_out.count == 1, "an alias is exactly as it is written"


def test_a_folder_of_images_is_counted_too(tmp_path: Path) -> None:
    for label in ("Dark", "dark", "bright"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(png(seed=1))
    labels = ["bright", "dark"]
    found = read_image_folder(tmp_path, labels=labels, unit="record", on_bad_row="skip")
    assert (len(found), found.left_out.count) == (2, 1)
    assert "case alone (row 1)" in str(found.left_out)
    found = read_image_folder(
        tmp_path, labels=labels, unit="record", on_bad_row="skip", aliases=[("Dark", "dark")]
    )
    assert found.columns[1] == ["dark", "bright", "dark"]


def test_a_task_knows_what_it_left_out(tiny_model: Path, tmp_path: Path) -> None:
    task = task_on(tiny_model, "text-classification")
    labels = task.settings.labels
    path = table(tmp_path, f"fine,{labels[0]}", f"fine,{labels[1].upper()}")
    assert task.load(path, unit="record", on_bad_row="skip").left_out.count == 1
    assert task.load_pooled([path, path], unit="record", on_bad_row="skip").left_out.count == 2


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        ([["Ja", "maybe"]], "not among"),
        ([["yes", "no"]], "itself among"),
        ([["Ja", "yes"], ["Ja", "no"]], "twice"),
    ],
)
def test_aliases_that_cannot_be_are_refused(aliases, said) -> None:
    from fmfl_secure.settings.tasks import TextClassificationSection

    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(
            {
                "kind": "text-classification",
                "text_columns": ["text"],
                "label_column": "label",
                "labels": ["no", "yes"],
                "label_aliases": aliases,
            },
            TextClassificationSection,
        )


def test_every_fault_of_a_row_has_a_name() -> None:
    assert all(issubclass(kind, DataError) and sort for kind, sort in SORTS.items())
    assert len(set(SORTS.values())) == len(SORTS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('[{"role": "user", "content": "pain is worse"}]', "a list or object"),
        ('{"a": 1}', "a list or object"),
        ("true", "a true or false"),
        ("4.5", "a number"),
        ("17", "a number"),
        ('"NaN"', "nan, null or none"),
        ('" NULL "', "nan, null or none"),
        ('"None"', "nan, null or none"),
    ],
)
def test_what_is_no_text_is_never_trained_on_as_one(tmp_path: Path, value: str, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        f'{{"text": {value}, "label": "positive"}}\n{{"text": "fine", "label": "positive"}}\n'
    )
    with pytest.raises(EmptyTextError):
        read_records(path, FIELDS)
    records = read_records(path, FIELDS, on_bad_row="skip")
    assert records.columns[0] == ["fine"]
    assert said in str(records.left_out)


@pytest.mark.parametrize("values", [[1, 2], [1.5, 2.5], [True, False]])
def test_numbers_of_parquet_are_no_texts(tmp_path: Path, values: list[object]) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": values, "label": ["positive"] * 2}), path)
    with pytest.raises(EmptyTextError):
        read_records(path, FIELDS)
