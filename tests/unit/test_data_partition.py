"""Splitting a file into sites: formats, schemes, refusals, files left behind."""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmfl_secure.data import partition_file, read_table
from fmfl_secure.data.errors import (
    DataArgumentError,
    EmptyFileError,
    MalformedRowError,
    MissingColumnError,
    NullUnitError,
    OutputError,
    PartitionError,
    UnknownLabelError,
)
from fmfl_secure.errors import Unavailable

ROWS = [
    {"id": str(i), "text": f'note {i},\n"{i}"', "label": "ab"[i % 2], "ward": "xyz"[i % 3 % 2]}
    for i in range(60)
]


def make_file(folder: Path, suffix: str = ".csv", rows=ROWS) -> Path:
    path = folder / f"all{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        buffer = io.StringIO()
        comma = "," if suffix == ".csv" else "\t"
        writer = csv.writer(buffer, delimiter=comma, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([rows[0].keys(), *(row.values() for row in rows)])
        path.write_bytes(buffer.getvalue().encode())
    return path


def ids(path: Path) -> list[str]:
    return read_table(path).column("id").to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_keeps_columns_and_values(tmp_path, suffix):
    path = make_file(tmp_path, suffix)
    out = tmp_path / "out"
    summary = partition_file(path, 3, out, holdout=0.2, tune=0.1, seed=5)
    assert [part.name for part in summary.files] == [
        *(f"site-{n}{suffix}" for n in (1, 2, 3)),
        f"holdout{suffix}",
        f"tune{suffix}",
    ]
    assert [part.rows for part in summary.files] == [14, 14, 14, 12, 6]
    original = read_table(path)
    by_id = {row["id"]: row for row in original.to_pylist()}
    seen = []
    for part in summary.files:
        table = read_table(out / part.name)
        assert table.schema == original.schema
        assert part.rows == table.num_rows
        rows = table.to_pylist()
        assert all(row == by_id[row["id"]] for row in rows)
        assert rows == sorted(rows, key=lambda row: int(row["id"]))
        seen += [row["id"] for row in rows]
    assert sorted(seen, key=int) == [row["id"] for row in ROWS]


def test_manifest_says_what_was_done(tmp_path):
    path = make_file(tmp_path)
    out = tmp_path / "out"
    summary = partition_file(
        path, 2, out, by="column:ward", holdout=0.1, seed=7, limit=50, label_column="label"
    )
    manifest = json.loads((out / "partition.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["input"] == {"name": "all.csv", "rows": 60, "sha256": digest}
    assert summary.input_sha256 == digest
    assert manifest["arguments"] == {
        "sites": 2,
        "by": "column:ward",
        "label_column": "label",
        "holdout": 0.1,
        "tune": 0.0,
        "limit": 50,
        "seed": 7,
        "unit_column": None,
        "unit_normalisation": [],
    }
    files = {entry["name"]: entry for entry in manifest["files"]}
    assert set(files) == {"site-1.csv", "site-2.csv", "holdout.csv"}
    for name, entry in files.items():
        assert entry["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert entry["rows"] == len(ids(out / name))
    assert sum(entry["rows"] for entry in files.values()) == 50
    assert files["site-1.csv"]["value"] == "x"
    assert files["holdout.csv"]["value"] is None
    assert str(tmp_path) not in (out / "partition.json").read_text(encoding="utf-8")


def test_text_rows_are_copied_byte_for_byte(tmp_path):
    path = tmp_path / "odd.csv"
    rows = [b'"a" ,1\r\n', b"b,  2\n", b'"c\r\nc",3\r', b'"d""d",4\n', b"e,5"]
    path.write_bytes(b"\xef\xbb\xbftext ,label\r\n" + b"\n".join([b"".join(rows[1:])]))
    out = tmp_path / "out"
    partition_file(path, 2, out, seed=1)
    written = b""
    for site in (1, 2):
        data = (out / f"site-{site}.csv").read_bytes()
        assert data.startswith(b"\xef\xbb\xbftext ,label\r\n")
        written += data.removeprefix(b"\xef\xbb\xbftext ,label\r\n")
    # Only the last row is given the terminator it lacked.
    assert all(written.count(row) == 1 for row in (*rows[1:-1], b"e,5\r\n"))
    assert len(written) == sum(map(len, rows[1:])) + 2


def test_same_seed_same_parts(tmp_path):
    path = make_file(tmp_path)
    options = {"by": "dirichlet:0.5", "label_column": "label", "holdout": 0.25, "limit": 40}
    one = partition_file(path, 3, tmp_path / "1", seed=3, **options)
    two = partition_file(path, 3, tmp_path / "2", seed=3, **options)
    other = partition_file(path, 3, tmp_path / "3", seed=4, **options)
    assert one.files == two.files
    assert one.files != other.files
    assert sum(part.rows for part in one.files) == 40


def test_limit_above_the_rows_takes_all(tmp_path):
    summary = partition_file(make_file(tmp_path), 2, tmp_path / "out", limit=1000)
    assert sum(part.rows for part in summary.files) == 60


def test_by_column_one_site_per_value(tmp_path):
    out = tmp_path / "out"
    summary = partition_file(make_file(tmp_path), 2, out, by="column:ward", holdout=0.2)
    for part, value in zip(summary.sites, ("x", "y"), strict=True):
        assert part.value == value
        assert set(read_table(out / part.name).column("ward").to_pylist()) == {value}
    assert summary.holdout is not None
    assert summary.tune is None


def test_dirichlet_skews_labels(tmp_path):
    path = make_file(tmp_path, rows=ROWS * 10)
    shares = {}
    for alpha in ("0.1", "1000"):
        out = tmp_path / alpha
        partition_file(path, 4, out, by=f"dirichlet:{alpha}", label_column="label")
        counts = [
            Counter(read_table(out / f"site-{n}.csv").column("label").to_pylist())
            for n in (1, 2, 3, 4)
        ]
        assert sum((count for count in counts), Counter()) == {"a": 300, "b": 300}
        shares[alpha] = max(max(count.values()) / count.total() for count in counts)
    assert shares["0.1"] > 0.9
    assert shares["1000"] < 0.6


@pytest.mark.parametrize("by", ["iid", "dirichlet:1", "column:ward"])
def test_units_stay_together(tmp_path, by):
    rows = [row | {"patient": f"p{int(row['id']) % 6}"} for row in ROWS]
    rows = [row | {"ward": "xy"[int(row["patient"][1]) % 2]} for row in rows]
    out = tmp_path / "out"
    summary = partition_file(
        make_file(tmp_path, rows=rows),
        2,
        out,
        by=by,
        label_column="label",
        unit_column="patient",
        holdout=0.2,
        seed=2,
    )
    owners = [
        set(read_table(out / part.name).column("patient").to_pylist()) for part in summary.files
    ]
    assert sum(map(len, owners)) == 6
    assert set().union(*owners) == {f"p{n}" for n in range(6)}


def test_limit_with_units_is_not_exceeded(tmp_path):
    rows = [row | {"patient": f"p{int(row['id']) % 6}"} for row in ROWS]
    path = make_file(tmp_path, rows=rows)
    summary = partition_file(path, 2, tmp_path / "out", unit_column="patient", limit=45)
    assert sum(part.rows for part in summary.files) == 40
    with pytest.raises(PartitionError, match="one unit alone"):
        partition_file(path, 2, tmp_path / "out2", unit_column="patient", limit=9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sites": 0}, "sites is 0"),
        ({"by": "random"}, '"iid", "dirichlet:ALPHA" or "column:NAME"'),
        ({"by": "iid:1"}, "by is 'iid:1'"),
        ({"by": "column:"}, "by is 'column:'"),
        ({"by": "dirichlet"}, "by is 'dirichlet'"),
        ({"by": "dirichlet:", "label_column": "label"}, "a positive number"),
        ({"by": "dirichlet:0", "label_column": "label"}, "a positive number"),
        ({"by": "dirichlet:nan", "label_column": "label"}, "a positive number"),
        ({"by": "dirichlet:inf", "label_column": "label"}, "a positive number"),
        ({"by": "dirichlet:1"}, "label_column is not given"),
        ({"holdout": 1.0}, "holdout is 1.0"),
        ({"holdout": -0.1}, "holdout is -0.1"),
        ({"tune": float("nan")}, "tune is nan"),
        ({"holdout": 0.5, "tune": 0.5}, "a sum below 1"),
        ({"limit": 0}, "limit is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments(tmp_path, changes, said):
    arguments = {"path": make_file(tmp_path), "sites": 2, "out": tmp_path / "out"} | changes
    with pytest.raises(DataArgumentError, match=said):
        partition_file(**arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"sites": 61}, PartitionError, "60 row.* for 61 sites"),
        ({"sites": 61, "by": "dirichlet:1", "label_column": "label"}, PartitionError, "61 sites"),
        ({"sites": 20, "by": "dirichlet:1e-3", "label_column": "label"}, PartitionError, "no draw"),
        ({"by": "column:id"}, PartitionError, "60 distinct values for 2 site"),
        ({"sites": 3, "by": "column:ward"}, PartitionError, "2 distinct values .*: 'x', 'y'"),
        ({"by": "column:ward", "holdout": 0.983}, PartitionError, "leave a site no row"),
        ({"by": "column:ward", "unit_column": "label"}, PartitionError, "different values"),
        ({"holdout": 0.001}, PartitionError, "leaves it no row"),
        ({"holdout": 0.999}, PartitionError, "leaves the sites no unit"),
        ({"holdout": 0.5, "unit_column": "label", "tune": 0.2}, PartitionError, "tune"),
        ({"by": "column:nope"}, MissingColumnError, "no column 'nope'"),
        ({"label_column": "nope"}, MissingColumnError, "no column 'nope'"),
        ({"unit_column": "nope"}, MissingColumnError, "no column 'nope'"),
    ],
)
def test_impossible_splits(tmp_path, changes, kind, said):
    arguments = {"path": make_file(tmp_path), "sites": 2, "out": tmp_path / "out"} | changes
    with pytest.raises(kind, match=said):
        partition_file(**arguments)
    assert not (tmp_path / "out").exists()


def test_bad_rows_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    out = tmp_path / "out"
    path.write_text("text,label\nx,a\ny\n", encoding="utf-8")
    with pytest.raises(MalformedRowError, match=r"row 2 \(line 3\)"):
        partition_file(path, 1, out)
    path.write_text("text,label\nx,a\ny,\n", encoding="utf-8")
    with pytest.raises(UnknownLabelError, match=r"row 2 \(line 3\)"):
        partition_file(path, 1, out, by="dirichlet:1", label_column="label")
    with pytest.raises(NullUnitError, match=r"row 2 \(line 3\)"):
        partition_file(path, 1, out, unit_column="label")
    with pytest.raises(PartitionError, match=r"row 2 \(line 3\)"):
        partition_file(path, 1, out, by="column:label")
    path.write_text("text,label\n", encoding="utf-8")
    with pytest.raises(EmptyFileError, match="no rows"):
        partition_file(path, 1, out)


def test_overwriting_replaces_the_whole_partition(tmp_path):
    path = make_file(tmp_path)
    out = tmp_path / "out"
    partition_file(path, 4, out, holdout=0.1, tune=0.1)
    (out / "README.txt").write_text("mine", encoding="utf-8")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(OutputError, match="there is a partition already"):
        partition_file(path, 2, out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    partition_file(path, 2, out, overwrite=True)
    # A site-3.csv left from before would repeat rows that are now elsewhere.
    assert {file.name for file in out.iterdir()} == {
        "site-1.csv",
        "site-2.csv",
        "partition.json",
        "README.txt",
    }


def test_a_single_existing_part_is_enough_to_refuse(tmp_path):
    path = make_file(tmp_path)
    (tmp_path / "site-9.parquet").touch()
    with pytest.raises(OutputError, match=r"site-9\.parquet"):
        partition_file(path, 2, tmp_path)


def test_input_among_the_outputs(tmp_path):
    path = make_file(tmp_path).rename(tmp_path / "site-1.csv")
    with pytest.raises(OutputError, match="the input has the name of a part"):
        partition_file(path, 2, tmp_path, overwrite=True)
    assert len(ids(path)) == 60


def test_output_that_is_a_file(tmp_path):
    path = make_file(tmp_path)
    with pytest.raises(OutputError, match="cannot be used"):
        partition_file(path, 2, path)


def test_failing_to_write_leaves_nothing(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "out"
    with pytest.raises(Unavailable, match="No space left"):
        partition_file(make_file(tmp_path), 2, out)
    assert list(out.iterdir()) == []
