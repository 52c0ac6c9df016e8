"""Reads a local table whole, for whoever needs no fields of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from fmfl_secure.data.formats.registry import open_source


def read_table(path: Path) -> pa.Table:
    """Reads a table of any form in `FORMATS` whole; its name alone decides which.

    Columns of the text formats are all strings, as written: no type is inferred, an empty CSV
    or TSV field is the empty string, and a JSON value that is not a string is its JSON text.
    Parquet keeps its own types.

    A TSV file is quoted if its header's first field is quoted; otherwise a quotation mark in it
    is a character like any other.

    Args:
        path: The file; UTF-8, with or without a byte-order mark, any line terminators.

    Returns:
        The table, rows in file order.

    Raises:
        DataError: The file or one of its rows cannot be read.
    """
    return open_source(path).table()
