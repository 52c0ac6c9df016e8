"""Reads what a message of an Arrow stream says of itself, before its body takes memory."""

from __future__ import annotations

import struct
from typing import Final

MALFORMED: Final = struct.error
_DICTIONARY, _ROWS = 2, 3  # types of a message: Arrow's Message.fbs


def is_compressed(metadata: bytes) -> bool:
    """Whether a message of Arrow is of rows or of a dictionary in compressed buffers.

    By its FlatBuffer, in which a table begins with the place of the offsets of its fields: the
    type and place of a Message's header, a DictionaryBatch's rows, a RecordBatch's compression.

    Args:
        metadata: The message's own, without its body.

    Raises:
        struct.error: They are none (`MALFORMED`).
    """
    message = struct.unpack_from("<I", metadata)[0]
    kind = _field(metadata, message, 1)
    header = _field(metadata, message, 2)
    holds = struct.unpack_from("<B", metadata, kind)[0] if kind else 0
    if holds not in {_DICTIONARY, _ROWS}:
        return False
    rows = _followed(metadata, header)
    if holds == _DICTIONARY:
        rows = _followed(metadata, _field(metadata, rows, 1))
    return bool(_field(metadata, rows, 3))


def _field(data: bytes, table: int, number: int) -> int:
    """The place of a table's field in a FlatBuffer; 0 where the table has none."""
    offsets = table - struct.unpack_from("<i", data, table)[0]
    length = struct.unpack_from("<H", data, offsets)[0]
    at = 4 + 2 * number
    found = struct.unpack_from("<H", data, offsets + at)[0] if at < length else 0
    return table + found if found else 0


def _followed(data: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", data, place)[0])
