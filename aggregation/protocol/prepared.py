"""Types made ready for decoding, by one thread.

msgspec builds what it knows of a type when it first meets it, and holds no lock meanwhile: two
threads that both decode a type for the first time can end the process with a memory fault. A
server hears several sites at once, so whoever decodes in threads asks for the type through here.
"""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

T = TypeVar("T")

_building = threading.Lock()
_ready: set[object] = set()


def prepared(kind: type[T]) -> type[T]:
    """The same type, with all that msgspec builds for it and the types within; for any codec."""
    if kind not in _ready:
        with _building:
            msgspec.msgpack.Decoder(kind)
            _ready.add(kind)
    return kind
