"""Files that unpack to more than their owner brought: refused, typed, and within bounded memory."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.lib import format as npy

from fmfl_secure.data import read_table
from fmfl_secure.data.errors import UnreadableFileError
from fmfl_secure.data.formats._bounds import require_bounded_parquet

BYTES = 1 << 20  # what the tests allow


def parquet(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue().to_pybytes()


def repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


BOMBS = {
    "a long text many times": lambda: parquet(pa.table({"text": repeated("x" * 10_000, 200)})),
    "in a list": lambda: parquet(
        pa.table({"text": pa.array([["x" * 10_000] * 4] * 50, pa.list_(pa.string()))})
    ),
    "in a struct": lambda: parquet(
        pa.table(
            {
                "image": pa.array(
                    [{"bytes": b"x" * 10_000, "path": ""}] * 200,
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                )
            }
        )
    ),
    "one long text": lambda: parquet(pa.table({"text": ["x" * 3_000_000]}), use_dictionary=False),
    "many numbers": lambda: parquet(pa.table({"n": np.zeros(400_000, np.int64)})),
    "many nulls": lambda: parquet(pa.table({"n": pa.nulls(400_000, pa.int32())})),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_parquet_that_unpacks_to_too_much_is_refused(bomb: str) -> None:
    data = pa.py_buffer(BOMBS[bomb]())
    assert data.size < BYTES / 16
    with pytest.raises(UnreadableFileError, match="unpacks to more than"):
        require_bounded_parquet(Path("x"), data, max_bytes=BYTES)
    require_bounded_parquet(Path("x"), data, max_bytes=BYTES * 16)


@pytest.mark.parametrize("repeats", [True, False])
def test_parquet_that_its_owner_brought_is_read_however_large(repeats: bool) -> None:
    generator = np.random.default_rng(1)
    texts = ["".join(map(chr, generator.integers(97, 123, 2000))) for _ in range(300)]
    data = pa.py_buffer(parquet(pa.table({"text": texts}), use_dictionary=repeats))
    require_bounded_parquet(Path("x"), data, max_bytes=1000)  # no more than 16 times its size


def npz(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return sink.getvalue()


def array_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    sink = io.BytesIO()
    npy.write_array_header_1_0(sink, {"descr": descr, "fortran_order": False, "shape": shape})
    return sink.getvalue()


@pytest.mark.parametrize(
    ("shape", "body", "expected"),
    [
        ((1 << 40,), b"\0" * 100, "not as many as it says"),
        ((3, 1 << 62, 1 << 62), b"", "not as many as it says"),
        ((-1, 5), b"\0" * 5, "not readable|not as many"),
        ((0, 1 << 62), b"", None),
        ((200, 200, 200), b"\0" * 8_000_000, "unpacks to more than"),
    ],
)
def test_npz_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch, shape, body: bytes, expected: str | None
) -> None:
    monkeypatch.setattr("fmfl_secure.data.formats.npz.MAX_BYTES", BYTES)
    path = tmp_path / "x.npz"
    path.write_bytes(npz(images=array_header(shape) + body))
    if expected is None:
        assert read_table(path).num_rows == 0
        return
    with pytest.raises(UnreadableFileError, match=expected):
        read_table(path)


_READ = """
import resource, sys
from pathlib import Path
from fmfl_secure.data import read_table
from fmfl_secure.data.errors import UnreadableFileError
from fmfl_secure.data.formats import npz
if len(sys.argv) > 2:
    npz.MAX_BYTES = int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_table(Path(sys.argv[1]))
except UnreadableFileError as error:
    assert "unpacks to more than" in str(error), error
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak_kib(path: Path, *limit: str) -> int:
    """What reading a file adds to a process of its own."""
    told = subprocess.run(
        [sys.executable, "-c", _READ, str(path), *limit], capture_output=True, text=True, check=True
    )
    return int(told.stdout)


def test_8_gib_of_text_in_a_small_parquet_file_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(parquet(pa.table({"text": repeated("x" * (1 << 20), 8192)})))
    assert path.stat().st_size < 1 << 16
    assert peak_kib(path) < 64 << 10


def test_an_npz_that_is_too_large_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(npz(x=array_header((64, 1 << 20)) + bytes(64 << 20)))
    assert path.stat().st_size < 1 << 17
    assert peak_kib(path, str(BYTES)) < 16 << 10
