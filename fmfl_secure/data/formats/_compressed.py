"""Tables compressed with gzip: the bytes of the table itself, within bounds."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from fmfl_secure.data.errors import UnreadableFileError

MAX_BYTES = 1 << 31  # of a table, uncompressed


def decompress(path: Path, data: bytes, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Unpacks a gzip file, to `max_bytes` at most.

    Args:
        path: The file, for the refusal.
        data: Its bytes.
        max_bytes: Most that it may hold; no more than that is ever unpacked.

    Raises:
        UnreadableFileError: It is no complete gzip file, or holds more.
    """
    found: bytes | None = None
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            found = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error):
        found = None
    if found is None:
        raise UnreadableFileError(
            "the file is not readable as gzip",
            hint="check that the file is complete and that its extension is the right one",
            path=path,
        )
    if len(found) > max_bytes:
        raise too_large(path, max_bytes)
    return found


def too_large(path: Path, max_bytes: int) -> UnreadableFileError:
    """The refusal of a file that unpacks to more than may be."""
    return UnreadableFileError(
        f"the file unpacks to more than {max_bytes} bytes",
        hint="unpack it and check what it is",
        path=path,
    )
