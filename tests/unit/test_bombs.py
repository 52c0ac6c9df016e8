"""Files that unpack to more than their owner brought: refused, typed, and within bounded memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.lib import format as npy

from fmfl_secure.data import check_header, read_table
from fmfl_secure.data.errors import UnreadableFileError
from fmfl_secure.data.formats._bounds import require_bounded_parquet, require_bounded_table

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
from fmfl_secure.data import check_header, read_table
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


def folder_of(place: Path, table: pa.Table, **options: object) -> Path:
    """As Hugging Face's datasets write a data set, in one file."""
    place.mkdir()
    with pa.ipc.new_stream(
        place / "a.arrow", table.schema, options=pa.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(table)
    (place / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    return place


# Each of a length, its first letters, a buffer, and a place in it.
VIEWS = pa.Array.from_buffers(
    pa.string_view(),
    200,
    [
        None,
        pa.py_buffer(np.tile(np.array([10_000, 0x78787878, 0, 0], "<i4"), 200).tobytes()),
        pa.py_buffer(b"x" * 10_000),
    ],
)
ARROW = {
    "a long text many times": pa.table({"text": repeated("x" * 10_000, 200)}),
    "views of a long text": pa.table({"text": VIEWS}),
    "rows of nothing": pa.table({"n": pa.nulls(400_000)}),
}


@pytest.mark.parametrize("bomb", ARROW)
def test_arrow_that_is_written_out_to_too_much_is_refused(bomb: str) -> None:
    require_bounded_table(Path("x"), ARROW[bomb], 4096)
    with pytest.raises(UnreadableFileError, match="unpacks to more than"):
        require_bounded_table(Path("x"), ARROW[bomb], 4096, max_bytes=BYTES)


@pytest.mark.parametrize("what", ["rows", "a dictionary"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_arrow_that_is_compressed_within_is_refused_before_it_is_unpacked(
    tmp_path: Path, codec: str, what: str
) -> None:
    texts = ["alpha beta", "beta"] * 500
    column = pa.array(texts) if what == "rows" else pa.array(texts).dictionary_encode()
    table = pa.table({"text": column})
    assert read_table(folder_of(tmp_path / "plain", table)).num_rows == 1000
    with pytest.raises(UnreadableFileError, match="compressed within") as refusal:
        read_table(folder_of(tmp_path / "packed", table, compression=codec))
    assert "save_to_disk" in refusal.value.hint


def test_a_pipe_in_the_place_of_an_arrow_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", pa.table({"text": ["alpha"]}))
    (folder / "a.arrow").unlink()
    os.mkfifo(folder / "a.arrow")
    for ask in (read_table, lambda place: check_header(place, ())):
        with pytest.raises(UnreadableFileError):
            ask(folder)


def test_no_file_of_arrow_is_read_twice(tmp_path: Path) -> None:
    """Each of its people would be several units."""
    folder = folder_of(tmp_path / "a", pa.table({"text": ["alpha"]}))
    (folder / "state.json").write_text(
        '{"_data_files": [{"filename": "a.arrow"}, {"filename": "a.arrow"}]}'
    )
    with pytest.raises(UnreadableFileError, match="one of them twice"):
        read_table(folder)
