"""Frames in chunks, since Flower's records are made for tensors of moderate size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

CHUNK_BYTES: Final = 8 << 20  # below the 10 MiB at which Flower would cut an array again


def cut(frame: bytes, size: int = CHUNK_BYTES) -> list[bytes]:
    """Cut a frame into chunks of at most so many bytes; at least one."""
    return [frame[start : start + size] for start in range(0, max(1, len(frame)), size)]


def join(chunks: Sequence[bytes]) -> bytes:
    """The frame that was cut."""
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
