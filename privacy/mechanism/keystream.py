"""Random words from a stream cipher that the operating system keyed.

Every source of noise and of secret rounding owns one, so that no two ever share a key.
"""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

# A key of `cryptography`'s ChaCha20 ends with its counter of 32 bits: 2^32 blocks of 64 bytes,
# which noise on 10 M values reaches within 430 steps. Beyond that it raises.
_BLOCK_BYTES = 64
_KEY_BYTES = _BLOCK_BYTES << 32


class KeyStream:
    """Uniform 64-bit words from ChaCha20, without end.

    Keyed from the operating system at construction, and anew from there before a key's counter
    runs out: a later key is independent of every earlier one and of all that was drawn, so the
    words are as uniform as under one key, and none comes again. A fork is detected and re-keys,
    so that two processes never draw the same words.
    """

    __slots__ = ("_left_bytes", "_pid", "_stream")

    def __init__(self) -> None:
        self._rekey()

    def __repr__(self) -> str:
        return "KeyStream()"

    def _rekey(self, *, first_block: int = 0) -> None:
        # The nonce may be constant: the key is of this stream alone. Its first 4 bytes count.
        start = first_block.to_bytes(4, "little") + bytes(12)
        cipher = Cipher(algorithms.ChaCha20(os.urandom(32), start), mode=None)
        self._stream = cipher.encryptor()
        self._left_bytes = _KEY_BYTES - first_block * _BLOCK_BYTES
        self._pid = os.getpid()

    def words(self, count: int) -> NDArray[np.uint64]:
        """`count` independent uniform words, uint64, read-only."""
        if self._pid != os.getpid():
            self._rekey()
        if 8 * count <= self._left_bytes:
            return self._draw(count)
        parts = []
        while count > 0:
            part = min(count, self._left_bytes // 8)
            parts.append(self._draw(part))
            count -= part
            if count:
                self._rekey()
        drawn = np.concatenate(parts)
        drawn.setflags(write=False)
        return drawn

    def _draw(self, count: int) -> NDArray[np.uint64]:
        self._left_bytes -= 8 * count
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)
