"""What the type of a Parquet column rules out is known before anybody is charged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmfl_secure.data import (
    DataError,
    Field,
    check_header,
    check_rows,
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


CLASSES = {"info": {"features": {"c": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}


def named(values: list[int]) -> pa.Table:
    """Integers with the names that Hugging Face's datasets write into a schema."""
    written = {b"huggingface": json.dumps(CLASSES).encode()}
    return pa.table({"c": values}).replace_schema_metadata(written)


@pytest.mark.parametrize(
    ("held", "labels", "told"),
    [
        (pa.table({"c": [True]}), ("no", "yes"), "true and false"),
        (pa.table({"c": [7]}), ("no", "yes"), "numbers"),
        (pa.table({"c": [0.5]}), ("no", "yes"), "numbers"),
        (named([0]), ("no", "yes"), "numbers that stand for 'neg', 'pos'"),
    ],
)
def test_values_that_no_label_can_be_are_known_by_the_schema(
    tmp_path: Path, held: pa.Table, labels: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(held, path)
    field = label_field("c", "c", labels)
    with pytest.raises(DataError, match=f"holds {told}; expected one of 'no', 'yes'"):
        check_header(path, [field])
    with pytest.raises(DataError):
        read_records(path, [field])


@pytest.mark.parametrize(
    ("held", "labels", "aliases", "expected"),
    [
        (pa.table({"c": [True]}), ("no", "yes"), (("true", "yes"),), "yes"),
        (pa.table({"c": [1.0]}), ("no", "yes"), (("1", "yes"),), "yes"),
        (named([1]), ("neg", "pos"), (), "pos"),
        (named([1]), ("0", "1"), (), "1"),
        (named([1]), ("neg", "yes"), (("pos", "yes"),), "yes"),
        (named([1]), ("no", "yes"), (("pos", "yes"), ("neg", "no")), "yes"),
    ],
)
def test_values_that_a_label_can_be_are_not_refused_by_the_schema(
    tmp_path: Path,
    held: pa.Table,
    labels: tuple[str, ...],
    aliases: tuple[tuple[str, str], ...],
    expected: str,
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(held, path)
    field = label_field("c", "c", labels, aliases)
    check_header(path, [field])
    assert read_records(path, [field]).columns == ([expected],)


def test_files_of_one_table_that_do_not_go_together_are_refused_by_their_schemas(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    files = [{"filename": name} for name in ("a.arrow", "b.arrow")]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")

    def write(name: str, column: str) -> None:
        table = pa.table({"text": ["x"], column: ["a"]})
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)

    write("a.arrow", "label")
    with pytest.raises(DataError, match=r"b\.arrow: the file is not readable"):
        check_header(folder, FIELDS)
    write("b.arrow", "lable")
    with pytest.raises(DataError, match="the folder's Arrow files have different columns"):
        check_header(folder, FIELDS)
    write("b.arrow", "label")
    check_header(folder, FIELDS)
    assert len(read_records(folder, FIELDS)) == 2


def test_arrays_of_different_lengths_are_refused_by_their_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, text=np.array(["x"] * 3), label=np.array(["a"] * 2), other=np.zeros(9))
    with pytest.raises(DataError, match="'text', 'label' are not equally long"):
        check_header(path, FIELDS)
    np.savez(path, text=np.array(["x"] * 2), label=np.array(["a"] * 2), other=np.zeros(9))
    check_header(path, FIELDS)


def test_a_compressed_file_is_whole_and_has_its_schema_before_anybody_is_charged(
    tmp_path: Path,
) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["x"], "lable": ["a"]}), sink)
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(sink.getvalue().to_pybytes()))
    with pytest.raises(DataError, match="there is no column 'label'"):
        check_header(path, FIELDS)
    path.write_bytes(gzip.compress(b"PAR1 and nothing else"))
    with pytest.raises(DataError, match="not readable as Parquet"):
        check_header(path, FIELDS)
    rows = "".join(f"{number * 7919 % 10007},a\n" for number in range(50_000))
    for name in ("a.csv.gz", "a.jsonl.gz"):
        text = f"text,label\n{rows}" if ".csv" in name else f'{{"text": "x", "label": "a"}}\n{rows}'
        whole = gzip.compress(text.encode())
        (tmp_path / name).write_bytes(whole)
        check_rows(tmp_path / name, FIELDS)
        (tmp_path / name).write_bytes(whole[:-1000])
        with pytest.raises(DataError, match="not readable as gzip"):
            check_rows(tmp_path / name, FIELDS)


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
