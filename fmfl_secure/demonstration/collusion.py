"""Attacks of parties who put together all they hold, and keep what they should forget.

The target is one site's upload in the collective suite, c0 = x + e - a s under pairwise masks. The
decryptor opened the site's box and has sigma: s under masks of its own, of which the self-mask
falls when its seed is opened. Colluding sites know the masks they share with the target. With the
masks of *all* other sites nothing is left; with those of fewer, what is left is uniform.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aggregation.ckks import _ckks, collective, residues
from aggregation.ckks.packing import Packing
from aggregation.ckks.parameters import ParameterSet
from aggregation.ckks.residues import Residues
from aggregation.crypto import masking
from aggregation.crypto.masking import Pair


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """One site's upload, and what the decryptor and the aggregator hold of that site.

    Attributes:
        name: Of the site.
        transcript: Of the attempt.
        parameters: Of the attempt.
        c0: The upload's residues, shape (chunks, N).
        sigma: What was in its box, shape (N,).
        seed: Of its self-mask, once open.
    """

    name: str
    transcript: bytes
    parameters: ParameterSet
    c0: Residues
    sigma: Residues
    seed: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """Numbers that the colluding parties have in the end.

    Attributes:
        secret: What they take for the site's secret s, residues, shape (N,).
        c0: The upload less every mask they know, shape (chunks, N).
        coefficients: What they read as its message, rounded, int64, shape (chunks, N).
    """

    secret: Residues
    c0: Residues
    coefficients: npt.NDArray[np.int64]


def pairs_known_to(colluders: Iterable[str], pairs: Iterable[Pair]) -> list[Pair]:
    """Those of a site's pairwise secrets that it shares with a colluding one."""
    names = set(colluders)
    return [pair for pair in pairs if {pair.first, pair.second} & names]


def unmask(
    values: Residues, pairs: Iterable[Pair], transcript: bytes, label: bytes, modulus: int
) -> Residues:
    """Take known pairwise masks away; shape (chunks, N), changed in place and returned."""
    masks = masking.site_masks(pairs, transcript, label, modulus, values.shape[1])
    total = np.zeros_like(values)
    masks.apply(total, 0)
    residues.subtract(values, total, modulus)
    return values


def open_upload(target: Target, pairs: Iterable[Pair], packing: Packing) -> Opened:
    """Open one site's upload with the masks that are known.

    Args:
        target: The upload.
        pairs: The pairwise secrets of the target that colluding sites know.
        packing: Of the attempt.
    """
    known, parameters = list(pairs), target.parameters
    q, transcript = parameters.modulus, target.transcript
    sigma = target.sigma[None].copy()
    own = masking.self_stream(
        target.seed, transcript, target.name, q, packing.degree, masking.SELF_SIGMA_LABEL
    )
    residues.subtract(sigma[0], own.chunk(0), q)
    unmask(sigma, known, transcript, masking.PAIR_SIGMA_LABEL, q)
    c0 = unmask(target.c0.copy(), known, transcript, masking.PAIR_LABEL, q)
    secret = residues.to_signed(sigma[0], q)
    points = collective.public_stream(transcript, parameters).chunks(0, len(c0))
    ring = _ckks.context(parameters)
    read = _ckks.Multiplier(ring, secret).times(ring.to_ntt(points))
    residues.add(read, c0, q)
    scale_bits = packing.encoding.scale_bits
    rounded = (residues.to_signed(read, q) + (1 << scale_bits - 1)) >> scale_bits
    return Opened(sigma[0], c0, rounded)


def integers_of(coefficients: npt.NDArray[np.int64], packing: Packing) -> npt.NDArray[np.int64]:
    """Coefficients taken for a message: their digits, in whatever range; shape (d,)."""
    encoding, rest = packing.encoding, coefficients.reshape(-1)
    digits = np.empty((rest.size, encoding.digits), dtype=np.int64)
    for place in range(encoding.digits):
        low = (rest + encoding.base // 2) % encoding.base - encoding.base // 2
        digits[:, place] = low
        rest = (rest - low) // encoding.base
    return digits.reshape(-1)[: packing.size]


def last_of_the_sum(
    total: npt.NDArray[np.int64], others: Iterable[npt.NDArray[np.int32]]
) -> npt.NDArray[np.int64]:
    """The one update that is not known, when all other sites subtract theirs from a sum."""
    rest = total.astype(np.int64)
    for known in others:
        rest -= known
    return rest
