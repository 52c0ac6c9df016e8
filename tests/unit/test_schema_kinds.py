"""What the type of a Parquet column rules out is known before anybody is charged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmfl_secure.data import (
    DataError,
    Field,
    check_header,
    image_field,
    label_field,
    label_set_field,
    messages_field,
    optional_text_field,
    read_records,
    tags_field,
    text_field,
    words_field,
)
from fmfl_secure.data.preferences import turns_field

FIELDS = (text_field("text_columns", ("text",)), label_field("label_column", "label", ("a", "b")))
DAY = pa.array([0], pa.date32())


@pytest.mark.parametrize(
    ("held", "field"),
    [
        (pa.array([7]), text_field("c", ("c",))),
        (pa.array([0.5]), text_field("c", ("c",))),
        (pa.array([True]), text_field("c", ("c",))),
        (DAY, text_field("c", ("c",))),
        (pa.array([None]), text_field("c", ("c",))),
        (pa.array([7]).dictionary_encode(), text_field("c", ("c",))),
        (DAY, turns_field("c", "c", "user", messages=True)),
        (pa.array([7]), optional_text_field("c", "c")),
        (pa.array([7]), image_field("c", "c", Path())),
        (pa.array([None]), label_field("c", "c", ("a", "b"))),
        (pa.array([["a"]]), label_field("c", "c", ("a", "b"))),
        (pa.array([[7]]), words_field("c", "c")),
        (pa.array([[7]]), tags_field("c", "c", ("O", "B-x"))),
        (pa.array(["a"]), label_set_field("c", "c", ("a", "b"))),
        (pa.array([7]), label_set_field("c", "c", ("a", "b"), separator=";")),
        (pa.array([["hello"]]), messages_field("c", "c", answered=True, refuses=lambda _: "")),
    ],
)
def test_what_no_row_of_a_type_can_be_is_known_by_the_schema(
    tmp_path: Path, held: pa.Array, field: Field
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"c": held}), path)
    with pytest.raises(DataError, match="by the file's schema column 'c' holds"):
        check_header(path, [field])
    with pytest.raises(DataError):
        read_records(path, [field])


@pytest.mark.parametrize(
    ("held", "field"),
    [
        (pa.array(["x"]).dictionary_encode(), text_field("c", ("c",))),
        (pa.array([b"x"]), text_field("c", ("c",))),
        (pa.array([7]), label_field("c", "c", ("7", "8"))),
        (pa.array([True]), label_field("c", "c", ("true", "false"))),
        (DAY, label_field("c", "c", ("1970-01-01", "b"))),
        (pa.array([None]), optional_text_field("c", "c")),
        (pa.array([[1]]), tags_field("c", "c", ("O", "B-x"), ("O", "B-x"))),
        (pa.array([[7]]), label_set_field("c", "c", ("7", "8"))),
        (pa.array(["a; b"]), label_set_field("c", "c", ("a", "b"), separator=";")),
    ],
)
def test_what_a_row_of_a_type_can_be_is_not_refused_by_the_schema(
    tmp_path: Path, held: pa.Array, field: Field
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"c": held}), path)
    check_header(path, [field])
    assert len(read_records(path, [field])) == 1


def test_a_unit_that_a_type_cannot_name_is_refused_by_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for held in (pa.array([["x"]]), pa.array([None])):
        pq.write_table(pa.table({"text": ["a"], "label": ["a"], "who": held}), path)
        with pytest.raises(DataError, match=r"column 'who' holds .*; expected texts or numbers"):
            check_header(path, FIELDS, unit="who")
    for held in (pa.array([7]), pa.array(["x"]), DAY, pa.array([b"x"])):
        pq.write_table(pa.table({"text": ["a"], "label": ["a"], "who": held}), path)
        check_header(path, FIELDS, unit="who")
        assert len(read_records(path, FIELDS, unit="who")) == 1


def test_a_0_or_1_for_every_label_is_no_list_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"c": [[0, 1, 1, 0]]}), path)
    with pytest.raises(DataError, match="a list in column 'c' names a label twice"):
        read_records(path, [label_set_field("c", "c", ("0", "1", "2", "3"))])
