"""Frames in Flower's records: chunks of bytes as one-dimensional arrays, and nothing else.

A `ConfigRecord` would do for small ones; its bytes fail at 500 MB, and Flower sends arrays in
pieces. The arrays' own kind of serialisation is named so that nobody reads them as NumPy files.
"""

from __future__ import annotations

from typing import Final

from flwr.app import Array, ArrayRecord, RecordDict

from fmfl_secure.transports.flower.chunks import cut, join

_RECORD: Final = "frame"
_REFUSED: Final = "refused"
_KIND: Final = "fmfl.bytes"


def pack(frame: bytes) -> RecordDict:
    """A frame as a message's content."""
    arrays = {
        f"{number:06}": Array(dtype="uint8", shape=(len(chunk),), stype=_KIND, data=chunk)
        for number, chunk in enumerate(cut(frame))
    }
    return RecordDict({_RECORD: ArrayRecord(arrays)})


def refusal() -> RecordDict:
    """Makes the answer of a ClientApp that has no party's; carries no word of why."""
    return RecordDict({_REFUSED: ArrayRecord()})


def unpack(content: RecordDict) -> bytes | None:
    """The frame of a message; None if it carries none."""
    record = content.array_records.get(_RECORD)
    if record is None or any(array.stype != _KIND for array in record.values()):
        return None
    return join([record[name].data for name in sorted(record)])
