"""Apache Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from fmfl_secure.data.errors import UnreadableFileError
from fmfl_secure.data.formats._arrow import ARROW_FAILURES, ArrowSource
from fmfl_secure.data.formats._bounds import parquet_file, require_bounded_parquet
from fmfl_secure.data.formats.base import Format, compressed


class Parquet(Format):
    """Apache Parquet, one file, with its schema at the end."""

    name: ClassVar[str] = "Parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    compressible: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    known_by: ClassVar[str] = "`PAR1` at its beginning"
    columns_from: ClassVar[str] = "the schema"
    refuses: ClassVar[tuple[str, ...]] = (
        "columns but of text, numbers, booleans, pictures, lists of texts or of integers",
        "a page that is damaged, or without the checksum that the file has of it",
        "what unpacks to more than 2 GiB and 16 times its size",
    )

    @override
    def begins(self, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    @override
    def header(self, path: Path) -> ArrowSource:
        """Of the schema at the end; a compressed file is unpacked for it, and no record is read."""
        try:
            if compressed(path):
                schema = pq.read_schema(pa.BufferReader(self.content(path)))
            else:
                self.require_own(path, self.head(path))
                schema = pq.read_schema(path)
        except ARROW_FAILURES:
            raise _not_parquet(path) from None
        return ArrowSource(path, schema.empty_table())

    @override
    def read(self, path: Path, data: bytes | None = None) -> ArrowSource:
        content = pa.py_buffer(self.content(path, data))
        try:
            require_bounded_parquet(path, content)
            # Not `read_table(path)`: that reads columns out of directory names (hive=1/...).
            with parquet_file(content) as file:
                table = file.read()
        except ARROW_FAILURES:
            raise _not_parquet(path) from None
        return ArrowSource(path, table)


def _not_parquet(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        "the file is not readable as Parquet",
        hint="check that the file is complete and that its extension is the right one",
        path=path,
    )
