"""Key recovery from published results of CKKS (Li and Micciancio, eprint 2020/1533).

CKKS keeps its noise in the message. Whoever sees a ciphertext (c0, c1) and the floats it decrypts
to knows m = c0 + c1 s, noise included, but for the imaginary parts of the slots. Twice the real
parts, encoded again, are m(X) + m(1/X) to the last bit: at each root w of X^N + 1 one linear
equation in s(w) and s(1/w). Two ciphertexts make two, and s is their solution.

It needs no choice, no interaction and no more than what the pattern publishes. It fails where what
is published are integers, rounded from far above the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aggregation.ckks import _ckks, residues
from aggregation.ckks.parameters import COLLECTIVE, ParameterSet
from aggregation.ckks.residues import Residues
from fmfl_secure.demonstration.per_tensor_ckks import PublicView

# The first prime of the naive pattern, in a ring of its own: only its transform is used.
_RING = ParameterSet(
    id="naive-8192-60",
    suite=COLLECTIVE,
    poly_modulus_degree=8192,
    coeff_mod_bit_sizes=(60, 40),
    coeff_modulus=(1152921504606830593, 1099511480321),
    polynomials=1,
    security_bits=128,
)


def naive_ring() -> _ckks.Context:
    """The ring of the naive pattern's first prime, which holds all of a message and of the key."""
    return _ckks.Context(_RING)


def is_secret(candidate: npt.NDArray[np.int64], bound: int = 1) -> bool:
    """Whether a polynomial is small enough to be a secret key; a wrong guess never is."""
    return bool(np.abs(candidate).max() <= bound)


def recover_key(
    view: PublicView, published: Sequence[tuple[bytes, npt.NDArray[np.float64]]]
) -> npt.NDArray[np.int64]:
    """Solve for the secret key of the naive pattern.

    Args:
        view: The public context.
        published: Serialised tensors and the floats that were published of them; together they
            fill two ciphertexts at least.

    Returns:
        Shape (N,), int64: the ternary key if the attack worked, large values if not.
    """
    ring = naive_ring()
    q, mirror = ring.modulus, _mirror(ring)
    equations: list[tuple[list[int], list[int]]] = []
    for data, floats in published:
        for place, (c0, c1) in enumerate(view.polynomials(data)):
            part = floats[place * view.slots : (place + 1) * view.slots]
            if len(part) < view.slots:
                continue  # what the unpublished slots decrypt to is not known
            doubled = view.encode(2 * part).tolist()
            left, right = c0.tolist(), c1.tolist()
            known = [(d - a - left[m]) % q for d, a, m in zip(doubled, left, mirror, strict=True)]
            equations.append((right, known))
    (a, u), (b, v) = equations[:2]
    secret = np.empty((1, ring.degree), dtype=np.uint64)
    for i, m in enumerate(mirror):
        determinant = (a[i] * b[m] - a[m] * b[i]) % q or 1
        secret[0, i] = (u[i] * b[m] - v[i] * a[m]) * pow(determinant, -1, q) % q
    return residues.to_signed(ring.from_ntt(secret)[0], q)


def open_with(
    view: PublicView, secret: npt.NDArray[np.int64], upload: Sequence[bytes], size: int
) -> npt.NDArray[np.float64]:
    """Decrypt an upload of the naive pattern with a recovered key; the first `size` values."""
    ring = naive_ring()
    q = ring.modulus
    key = ring.to_ntt(residues.from_signed(secret[None], q))[0].tolist()
    values = []
    for data in upload:
        for c0, c1 in view.polynomials(data):
            points = [
                (a + b * s) % q for a, b, s in zip(c0.tolist(), c1.tolist(), key, strict=True)
            ]
            message = ring.from_ntt(np.array([points], dtype=np.uint64))
            values.append(_decode(residues.to_signed(message[0], q) / view.scale))
    return np.concatenate(values)[:size]


def divide(numerator: Residues, points: Residues, ring: _ckks.Context) -> npt.NDArray[np.int64]:
    """Coefficients of numerator / points, both in NTT order, shape (N,): s, if a s was exact."""
    q = ring.modulus
    quotient = [
        int(n) * pow(int(a), -1, q) % q
        for n, a in zip(numerator.tolist(), points.tolist(), strict=True)
    ]
    found = ring.from_ntt(np.array([quotient], dtype=np.uint64))[0]
    return residues.to_signed(found, q)


def secret_of_a_sum(
    released: npt.NDArray[np.int64], c0: Residues, points: Residues, ring: _ckks.Context
) -> npt.NDArray[np.int64]:
    """The same attack on this protocol's collective suite: (X - C0) / a, where C0 = X + E - a S.

    Args:
        released: The message X of one chunk, packed and scaled, from the released integers.
        c0: The sum's residues of that chunk, coefficients, shape (N,).
        points: a, coefficients.
        ring: The suite's.

    Returns:
        S if the noise E were known; since it is not, large values.
    """
    known = residues.from_signed(released, ring.modulus)
    residues.subtract(known, c0, ring.modulus)
    numerator, denominator = ring.to_ntt(np.stack([known, points]))
    return divide(numerator, denominator, ring)


def _mirror(ring: _ckks.Context) -> list[int]:
    """For each root of X^N + 1, in SEAL's order, the place of its inverse."""
    x = np.zeros((1, ring.degree), dtype=np.uint64)
    x[0, 1] = 1
    roots = [int(root) for root in ring.to_ntt(x)[0]]
    place = {root: i for i, root in enumerate(roots)}
    return [place[pow(root, -1, ring.modulus)] for root in roots]


def _decode(coefficients: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Real parts of the slots: the polynomial at the powers 3^j of a complex root of X^N + 1."""
    degree = len(coefficients)
    twisted = coefficients * np.exp(1j * np.pi * np.arange(degree) / degree)
    values = np.fft.ifft(twisted) * degree
    exponents = [pow(3, j, 2 * degree) for j in range(degree // 2)]
    real: npt.NDArray[np.float64] = values[(np.array(exponents) - 1) // 2].real
    return real
