"""Random words from a stream cipher that the operating system keyed.

Every source of noise and of secret rounding owns one, so that no two ever share a key.
"""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray


class KeyStream:
    """Uniform 64-bit words from ChaCha20 under a fresh key.

    Keyed from the operating system at construction; a fork is detected and re-keys, so that two
    processes never draw the same words.
    """

    __slots__ = ("_pid", "_stream")

    def __init__(self) -> None:
        self._rekey()

    def __repr__(self) -> str:
        return "KeyStream()"

    def _rekey(self) -> None:
        # ChaCha20: 64-bit counter and nonce, so the stream does not repeat in any real run.
        cipher = Cipher(algorithms.ChaCha20(os.urandom(32), bytes(16)), mode=None)
        self._stream = cipher.encryptor()
        self._pid = os.getpid()

    def words(self, count: int) -> NDArray[np.uint64]:
        """`count` independent uniform words, uint64, read-only."""
        if self._pid != os.getpid():
            self._rekey()
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)
