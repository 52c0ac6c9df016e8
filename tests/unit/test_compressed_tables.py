"""Tables compressed with gzip read as the tables they hold."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from fmfl_secure.data import partition_file, read_table
from fmfl_secure.data.errors import UnreadableFileError, UnsupportedFormatError
from fmfl_secure.data.formats._compressed import decompress

TABLES = {
    "x.csv": b"text,label\nfine,a\nworse,b\n",
    "x.tsv": b"text\tlabel\nfine\ta\nworse\tb\n",
    "x.jsonl": b'{"text":"fine","label":"a"}\n{"text":"worse","label":"b"}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_a_compressed_table_reads_as_the_table(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.GZ"
    path.write_bytes(gzip.compress(TABLES[name]))
    assert read_table(path).to_pydict() == {"text": ["fine", "worse"], "label": ["a", "b"]}


@pytest.mark.parametrize(
    "data",
    [b"text,label\n", gzip.compress(TABLES["x.csv"])[:-9], b"\x1f\x8b\x08" + b"\xff" * 40],
    ids=["plain", "cut", "garbage"],  # the bytes hold the time they were made at
)
def test_what_is_no_gzip_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match="not readable as gzip"):
        read_table(path)


def test_a_bomb_is_unpacked_no_further_than_the_bound() -> None:
    with pytest.raises(UnreadableFileError, match="more than 1000 bytes"):
        decompress(Path("x.csv.gz"), gzip.compress(b"a" * 5_000_000), max_bytes=1000)


@pytest.mark.parametrize("name", ["x.txt.gz", "x.gz", "gz"])
def test_what_it_holds_is_said_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(TABLES["x.csv"]))
    with pytest.raises(UnsupportedFormatError, match=r"with \.gz behind it"):
        read_table(tmp_path / name)


def test_parts_of_a_compressed_table_are_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"fine,a\n" * 40))
    out = tmp_path / "out"
    summary = partition_file(path, 2, out)
    assert {part.name for part in summary.sites} == {"site-1.csv", "site-2.csv"}
    assert all(read_table(out / part.name).num_rows for part in summary.sites)
