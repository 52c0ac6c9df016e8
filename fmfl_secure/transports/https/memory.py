"""Holds down the memory that a server's connections take beside what they say.

asyncio holds 256 KiB of buffer for every TLS connection, and the C library keeps for each thread
what large bodies once took. Both are settings of theirs, made here once for a process that serves.
"""

from __future__ import annotations

import asyncio.sslproto
import ctypes
from typing import Final

_TLS_BUFFER: Final = 1 << 16  # bytes; a TLS record has a quarter of it at most
# Of glibc's malloc.h; other C libraries have no `mallopt`, and keep less to begin with.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE: Final = 1 << 18  # bytes from which on what is freed goes back to the system at once


def spare_memory() -> None:
    """Make small buffers for connections, and give back what large bodies took."""
    asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_M_ARENA_MAX, 2),
            (_M_MMAP_THRESHOLD, _LARGE),
            (_M_TRIM_THRESHOLD, 2 * _LARGE),
        ):
            mallopt(option, value)
