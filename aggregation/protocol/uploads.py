"""An upload or a sum on its way: a signed manifest and the chunks it lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from aggregation.ckks import residues
from aggregation.ckks.packing import Packing
from aggregation.ckks.parameters import COLLECTIVE, ParameterSet
from aggregation.crypto import sealed_box
from aggregation.errors import UploadError
from aggregation.protocol import messages


class Chunks(Sequence[bytes]):
    """Chunks of one size that lie in one piece of memory, and perhaps a message after them.

    An update's own object for every chunk would cost a page fault for every page of it, which on
    some machines is more than encrypting what lies there.
    """

    def __init__(self, count: int, size: int) -> None:
        """Make room.

        Args:
            count: Chunks.
            size: Bytes of each.
        """
        self._rows = np.empty((count, size), dtype=np.uint8)
        self._rest: tuple[bytes, ...] = ()

    def part(self, chunks: range) -> npt.NDArray[np.uint8]:
        """Where some chunks lie, shape (n, size), uint8, to be written or read."""
        return self._rows[chunks.start : chunks.stop]

    def digests(self, chunks: range) -> list[bytes]:
        """Returns the SHA-256 of each of these chunks, in order."""
        return [messages.digest(row.data) for row in self.part(chunks)]

    def end_with(self, message: bytes) -> None:
        """Put a message, of whatever size, after the chunks."""
        self._rest = (*self._rest, message)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        place = range(len(self))[index]
        own = len(self._rows)
        return self._rows[place].tobytes() if place < own else self._rest[place - own]

    def __len__(self) -> int:
        return len(self._rows) + len(self._rest)


@dataclass(frozen=True, slots=True)
class Upload:
    """A site's upload, or the aggregator's sum.

    Attributes:
        manifest: Signed message with the digest of every chunk.
        chunks: Bit-packed residues, in order.
    """

    manifest: bytes
    chunks: Sequence[bytes] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes on the wire, manifest and chunks."""
        return len(self.manifest) + sum(len(chunk) for chunk in self.chunks)


SumUpload = Upload


def upload_size(parameters: ParameterSet, packing: Packing) -> int:
    """Bytes of one site's chunks, sealed secret and digests; envelopes are left out."""
    polynomial = residues.packed_size(packing.degree, parameters.modulus)
    size = packing.chunks * (parameters.polynomials * polynomial + messages.DIGEST_SIZE)
    if parameters.suite == COLLECTIVE:
        size += polynomial + sealed_box.OVERHEAD + messages.DIGEST_SIZE
    return size


def split_digests(digests: bytes, chunks: int) -> list[bytes]:
    """Split a manifest's digests.

    Raises:
        UploadError: Another number of chunks than the plan's.
    """
    size = messages.DIGEST_SIZE
    if len(digests) != chunks * size:
        raise UploadError(f"a manifest does not list {chunks} chunks")
    return [digests[i : i + size] for i in range(0, len(digests), size)]


def sized_chunks(
    chunks: Iterable[bytes], count: int, size: int, last_cap: int | None = None
) -> Iterator[bytes]:
    """Yield exactly as many chunks as there must be, each of its size. What they say is unchecked.

    Args:
        chunks: What came off the wire.
        count: How many.
        size: Bytes of each.
        last_cap: Instead, the most bytes that the last may have.

    Raises:
        UploadError: A chunk that is missing, of another size or too much.
    """
    iterator = iter(chunks)
    for k in range(count):
        chunk = next(iterator, None)
        if chunk is None:
            raise UploadError(f"chunk {k} of {count} is missing")
        message = last_cap is not None and k == count - 1
        if not isinstance(chunk, bytes):
            raise UploadError(f"chunk {k} is not bytes")
        if len(chunk) > (last_cap or 0) if message else len(chunk) != size:
            raise UploadError(f"chunk {k} is not {size} bytes")
        yield chunk
    if next(iterator, None) is not None:
        raise UploadError(f"there are more chunks than the {count} of the manifest")


def check_digests(chunks: Sequence[bytes], digests: Sequence[bytes], first: int = 0) -> None:
    """Check that chunks `first` and following are what a manifest lists.

    Raises:
        UploadError: One is altered or out of order.
    """
    for k, chunk in enumerate(chunks, first):
        if messages.digest(chunk) != digests[k]:
            raise UploadError(f"chunk {k} is not what the manifest lists")
