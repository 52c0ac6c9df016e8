"""SEAL's streams: how arrays get into its objects and out of them again.

SEAL saves and loads by path, so streams pass through an anonymous memory file; what is secret
never touches a disk. A stream is a header (magic, header size, version, compression mode, total
size), then the object: parms_id, NTT flag, sizes, scale, correction factor, and a nested array.
This file knows that layout and no more of SEAL; anything unexpected is a `BackendError`.

`aggregation.ckks._ckks` calls it alone, but for the demonstration's per-tensor pattern: `load` of
what `ciphertext` or `plaintext` wrote makes an object of SEAL, and `read_ciphertext` or
`read_plaintext` takes an object apart that `save` wrote.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from aggregation.ckks.residues import Residues
from aggregation.errors import BackendError, BackendUnavailable

_HEADER: Final = struct.Struct("<HBBBBHQ")
_MAGIC: Final = (0xA15E, 16, 4, 3)
_RAW: Final = 0
_ZSTD: Final = 2
_CIPHERTEXT: Final = struct.Struct("<32sBQQQdQ")
_PLAINTEXT: Final = struct.Struct("<32sQd")
_ARRAY: Final = struct.Struct("<HBBBBHQQ")


class _MemoryFile:
    """An anonymous memory file, closed when it is collected."""

    def __init__(self) -> None:
        self.fd = -1
        self.pid = os.getpid()
        if not hasattr(os, "memfd_create"):
            raise BackendError(
                "memory files (memfd_create) are missing here and secrets are not written to a "
                "disk: run on Linux"
            )
        self.fd = os.memfd_create("ckks", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Scratch(threading.local):
    """The memory file of this thread and process.

    Shared across a fork it would be one file with two writers and corrupt in silence, so a child
    opens its own.
    """

    def __init__(self) -> None:
        self._file: _MemoryFile | None = None

    def _open(self) -> int:
        if self._file is None or self._file.pid != os.getpid():
            self._file = _MemoryFile()
        return self._file.fd

    def save(self, item: Any) -> bytes:
        """The stream of a SEAL object.

        Raises:
            BackendUnavailable: There is no memory for it.
        """
        fd = self._open()
        os.ftruncate(fd, 0)
        try:
            item.save(f"/proc/self/fd/{fd}")
        except RuntimeError as error:  # of what SEAL itself made: there was no room for it
            raise BackendUnavailable(f"there is no memory for a SEAL stream: {error}") from error
        stream = os.pread(fd, os.fstat(fd).st_size, 0)
        os.ftruncate(fd, 0)
        return stream

    def load(self, item: Any, context: Any, stream: Sequence[bytes | memoryview]) -> None:
        """Have a SEAL object read a stream, given in parts."""
        fd = self._open()
        os.ftruncate(fd, 0)
        try:
            if os.pwritev(fd, stream, 0) != sum(map(len, stream)):
                raise BackendUnavailable("the memory file for a SEAL stream is full")
            item.load(context, f"/proc/self/fd/{fd}")
        finally:
            os.ftruncate(fd, 0)


def ciphertext(
    polynomials: Residues, primes: int, identifier: bytes, *, ntt: bool
) -> list[bytes | memoryview]:
    """The stream of a ciphertext or public key.

    Args:
        polynomials: Residues, shape (n primes, N).
        primes: Primes of its level.
        identifier: parms_id of that level, 32 bytes.
        ntt: Whether the residues are in NTT order.
    """
    size, degree = len(polynomials) // primes, polynomials.shape[1]
    return _stream(_CIPHERTEXT.pack(identifier, ntt, size, degree, primes, 1.0, 1), polynomials)


def plaintext(polynomial: Residues, identifier: bytes) -> list[bytes | memoryview]:
    """The stream of a plaintext in NTT order, shape (N,)."""
    return _stream(_PLAINTEXT.pack(identifier, len(polynomial), 1.0), polynomial)


def read_ciphertext(
    stream: bytes, size: int, primes: int, degree: int, identifier: bytes
) -> Residues:
    """Residues of a ciphertext or public key of `size` polynomials, shape (size primes, N)."""
    offset = _CIPHERTEXT.size + _ARRAY.size
    body = _body(stream, offset + 8 * size * primes * degree)
    found, _, *shape, _, _ = _CIPHERTEXT.unpack_from(body)
    if found != identifier or shape != [size, degree, primes]:
        raise BackendError("a SEAL ciphertext has an unknown layout")
    return np.frombuffer(body, dtype="<u8", offset=offset).reshape(-1, degree)


def read_plaintext(stream: bytes, degree: int, identifier: bytes) -> Residues:
    """Residues of a plaintext in NTT order, shape (N,)."""
    offset = _PLAINTEXT.size + _ARRAY.size
    body = _body(stream, offset + 8 * degree)
    found, count, _ = _PLAINTEXT.unpack_from(body)
    if found != identifier or count != degree:
        raise BackendError("a SEAL plaintext has an unknown layout")
    return np.frombuffer(body, dtype="<u8", offset=offset)


def _stream(metadata: bytes, values: Residues) -> list[bytes | memoryview]:
    data = np.ascontiguousarray(values, dtype="<u8")
    array = _ARRAY.pack(*_MAGIC, _RAW, 0, _ARRAY.size + data.nbytes, data.size)
    total = _HEADER.size + len(metadata) + len(array) + data.nbytes
    header = _HEADER.pack(*_MAGIC, _RAW, 0, total)
    return [header + metadata + array, data.reshape(-1).view(np.uint8).data]


def _body(stream: bytes, size: int) -> Any:
    """Unwrap a saved stream whose body must have `size` bytes; anything with its buffer."""
    *magic, compression, _, total = _HEADER.unpack_from(stream)
    if tuple(magic) != _MAGIC or total != len(stream):
        raise BackendError("a SEAL stream has an unknown header: TenSEAL 0.3.18 is needed")
    body: Any = memoryview(stream)[_HEADER.size :]
    if compression == _ZSTD:
        try:
            body = memoryview(pa.decompress(body, decompressed_size=size, codec="zstd"))
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, MemoryError) or "not enough memory" in str(error):
                raise BackendUnavailable("there is no memory to unpack a SEAL stream") from error
            raise BackendError("a SEAL stream has an unknown size") from error
    elif compression != _RAW:
        raise BackendError(f"a SEAL stream is compressed in an unknown way ({compression})")
    if len(body) != size:
        raise BackendError("a SEAL stream has an unknown size")
    return body
