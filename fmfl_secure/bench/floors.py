"""Measures the floor of a party's work: its ciphers, digests and transforms, nothing else.

Rates are measured in the same process and repeat as what is compared with them, never kept. A chunk
of N = 4,096 coefficients is 32 KiB in memory and 30 KiB on the wire. Counted are

- a client: AES-256-CTR of a chunk for the public polynomial, the noise, each neighbour's mask and
  two tags; AES of four bytes a value, for rounding; two limbs' transforms there and back; SHA-256
  of the upload; one copy of values in and bytes out;
- the aggregator, for each upload: SHA-256 of it;
- the key holder: AES for the public polynomial, the transforms, SHA-256 of the sum and of the
  integers that it releases.

Key agreement and signatures are in no floor: they do not grow with the update.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aggregation.ckks.packing import Packing
from aggregation.ckks.residues import packed_size

_WORD: Final = 8  # bytes of a residue in memory
_LIMBS: Final = 2  # of a residue, as long as a cohort's secrets allow it
_ROWS: Final = 16  # transforms at a time


def median_cpu_seconds(operation: Callable[[], object], repeats: int = 15) -> float:
    """CPU time of what leaves no garbage, of so many after one that is not counted."""
    operation()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        operation()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def measure(
    packing: Packing, modulus: int, neighbours: float, released_bytes: int
) -> dict[str, float]:
    """Floors of one round, in seconds of CPU time: `client`, `aggregate` (an upload), `decrypt`.

    Args:
        packing: Of the update.
        modulus: q.
        neighbours: Whom a site shares masks with.
        released_bytes: Of one integer of a release.
    """
    chunk, wire = _WORD * packing.degree, packed_size(packing.degree, modulus)
    zeros, out = bytes(_ROWS * chunk), bytearray(_ROWS * chunk + 16)
    cipher = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
    rows = np.ones((_ROWS, packing.degree // 2), dtype=np.complex128)
    source = np.zeros(_ROWS * packing.degree)
    target = np.empty_like(source)
    aes = median_cpu_seconds(lambda: cipher.update_into(zeros, out)) / _ROWS
    digest = median_cpu_seconds(lambda: hashlib.sha256(zeros)) / len(zeros)
    transform = median_cpu_seconds(lambda: np.fft.fft(rows, out=rows)) / _ROWS
    copy = median_cpu_seconds(lambda: np.copyto(target, source)) / source.nbytes
    transforms = 2 * _LIMBS * transform
    values = 4 * packing.size  # bytes of float32, and as many random ones
    return {
        "client": packing.chunks * (aes * (4 + neighbours) + transforms + (digest + copy) * wire)
        + values * (aes / chunk + copy),
        "aggregate": packing.chunks * wire * digest,
        "decrypt": packing.chunks * (aes + transforms + wire * digest)
        + packing.size * released_bytes * digest,
    }
