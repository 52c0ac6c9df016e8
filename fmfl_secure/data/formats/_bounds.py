"""How much a file may unpack to: nothing here takes memory that its owner did not bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fmfl_secure.data.errors import UnreadableFileError

MAX_BYTES = 1 << 31  # whatever a file's own size
_TIMES = 16  # of a file's size, where that is more
_WIDEST = 8  # bytes of a number


def require_bounded(path: Path, unpacked: int, packed: int, *, max_bytes: int = MAX_BYTES) -> None:
    """Refuse a file that unpacks to more than may be.

    Args:
        path: The file, for the refusal.
        unpacked: Bytes that it says it holds.
        packed: Bytes that it has.
        max_bytes: What is allowed whatever it has.

    Raises:
        UnreadableFileError: More than `max_bytes`, and more than 16 times what it has.
    """
    if unpacked > max(max_bytes, _TIMES * packed):
        raise UnreadableFileError(
            f"the file unpacks to more than {max(max_bytes, _TIMES * packed)} bytes",
            hint="check what it is; if all of it is meant, write it as several smaller files",
            path=path,
        )


def parquet_file(content: pa.Buffer, **options: Any) -> pq.ParquetFile:
    """A Parquet file whose pages are held to the checksums that it has of them, if it has any."""
    return pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True, **options)


def require_bounded_parquet(path: Path, content: pa.Buffer, *, max_bytes: int = MAX_BYTES) -> None:
    """Refuse a Parquet file that unpacks to more than may be, before it is unpacked.

    By what its metadata say of every chunk, and by the lengths of texts that stand in it once and
    are repeated by number: those are counted and not written out.

    Raises:
        UnreadableFileError: It is larger.
        pa.ArrowException: It is no Parquet file.
    """
    with parquet_file(content) as file:
        for group in range(file.metadata.num_row_groups):
            # One row: a chunk's metadata that are none are refused here, and abort the process
            # where they are asked for directly.
            next(file.iter_batches(batch_size=1, row_groups=[group]), None)
        chunks = [
            file.metadata.row_group(group).column(column)
            for group in range(file.metadata.num_row_groups)
            for column in range(file.metadata.num_columns)
        ]
    declared = sum(c.total_uncompressed_size + _WIDEST * c.num_values for c in chunks)
    require_bounded(path, declared, content.size, max_bytes=max_bytes)
    repeated = {
        chunk.path_in_schema
        for chunk in chunks
        if chunk.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in e for e in chunk.encodings)
    }
    # No text can be longer than its chunk: most files are known to be small by that.
    longest = sum(
        c.total_uncompressed_size * c.num_values for c in chunks if c.path_in_schema in repeated
    )
    if declared + longest <= max_bytes:
        return
    written_out = declared
    with parquet_file(content, read_dictionary=sorted(repeated)) as file:
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group)
            written_out += sum(_repeated(part) for c in table.columns for part in c.chunks)
            require_bounded(path, written_out, content.size, max_bytes=max_bytes)


def require_bounded_table(
    path: Path, table: pa.Table, packed: int, *, max_bytes: int = MAX_BYTES
) -> None:
    """Refuse a table of Arrow of which more would be written out than may be.

    Args:
        path: Its file, for the refusal.
        table: As it lies in memory, where texts can stand once and be meant often.
        packed: Bytes that the file has.
        max_bytes: What is allowed whatever it has.

    Raises:
        UnreadableFileError: It is larger.
    """
    repeated = sum(_repeated(part) for column in table.columns for part in column.chunks)
    held = table.nbytes + _WIDEST * table.num_rows * table.num_columns
    require_bounded(path, held + repeated, packed, max_bytes=max_bytes)


def _repeated(values: Any) -> int:
    """Bytes of texts that are held by number or by place, once they are written out."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return 0 if pa.types.is_primitive(kind.value_type) else len(values) * values.nbytes
        lengths = pc.cast(pc.binary_length(values.dictionary), pa.int64())
        return int(pc.sum(lengths.take(values.indices)).as_py() or 0)
    if kind in {pa.string_view(), pa.binary_view()}:
        # A view is 16 bytes, of which the first four are the length.
        views = np.frombuffer(values.buffers()[1], dtype="<i4").reshape(-1, 4)[:, 0]
        own = views[values.offset : values.offset + len(values)]
        return int(own.clip(0).sum(dtype=np.int64))
    if pa.types.is_struct(kind):
        return sum(_repeated(part) for part in values.flatten())
    if pa.types.is_nested(kind):
        return _repeated(values.flatten()) if hasattr(values, "flatten") else 0
    return 0


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )
