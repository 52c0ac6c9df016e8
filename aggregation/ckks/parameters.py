"""Vetted CKKS parameter sets, and what follows from them.

Only additions happen, so a set needs no depth and no evaluation keys: one prime q carries the
message. In `ckks-pk` a second, small one exists because TenSEAL's public-key encryption wants a
special prime to divide its noise by. The numbers a caller may choose are the number of sites and
the number of bits of a value; everything else is derived here, in exact arithmetic, and a request
that does not fit is refused together with the nearest that does.

Security is that of ring LWE with a ternary secret at the total number of bits of all primes; the
limit for 128 bits is 109 at N = 4096 (Homomorphic Encryption Standard, 2018, Table 1; the same
table is SEAL's `CoeffModulus::MaxBitCount`).

Error of one `ckks-collective` encryption, for one coefficient: it is the encryption's own e, a
centred binomial of 2 x 21 coins, and nothing else, since a S and the sum of the a s_i cancel to
the last bit. Hence for a sum of K

    |E| <= 21 K                                   always, and
    P[|E| > t] <= 2 exp(-t^2 / (2 K 21 / 2))      with no heuristic,

a coin of +-1/2 being sub-Gaussian with variance proxy 1/4 and 42 K of them independent.

Error of one `ckks-pk` encryption, at decryption, for one coefficient. With u, s ternary and every
key error at most 21 (SEAL's centred binomial), the encryption's own noise is below 21 (2 N + 1);
dividing by the special prime P leaves it below 21 (2 N + 1) / P and adds a rounding error
tau_0 + tau_1 s, each coordinate of tau in [-1/2, 1/2]. Hence

    |e| <= 21 (2 N + 1) / P + (N + 1) / 2                              always, and
    P[|e| > 21 (2 N + 1) / P + t] <= 2 exp(-t^2 / (2 (N + 1) / 12))    for uniform tau,

the second because a uniform variable on [-1/2, 1/2] is strictly sub-Gaussian (variance 1/12) and
s has at most N coordinates, each -1, 0 or 1. K independent encryptions multiply the first by K
and the variance by K. That tau is uniform and independent of s is the usual heuristic: c1 modulo
P is pseudo-random under RLWE. The first bound needs no heuristic at all.

Whoever writes a plan calls `choose`, as `planning.plans` does from a federation's settings.
Whoever reads one looks its set up by `parameter_set`, and `protocol.round` makes the rest from
that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from aggregation.errors import ParameterError

MIN_SITES: Final = 2
MAX_SITES: Final = 1024
MIN_BITS: Final = 2
MAX_BITS: Final = 32
MAX_SIZE: Final = 1 << 26  # values in one update; a release must fit one journal entry

# An attempt may fail to decode with at most this probability.
LOG2_FAILURE_LIMIT: Final = -40

KEY_ERROR: Final = 21  # centred binomial of 2 x 21 coins: at most 21 in absolute value, var 21/2

COLLECTIVE: Final = "ckks-collective"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How integers sit in a coefficient, for one number of sites and bits.

    Attributes:
        sites: The largest cohort K whose sum decodes.
        bits: Width of one site's value; |v| <= 2**(bits - 1) - 1.
        digits: Values a coefficient carries.
        scale_bits: The message is multiplied by 2**scale_bits, above the noise.
        log2_failure: Bound on log2 of the probability that any coefficient of an attempt of
            `MAX_SIZE` values decodes wrongly; -inf where the worst case fits.
    """

    sites: int
    bits: int
    digits: int
    scale_bits: int
    log2_failure: float

    @property
    def limit(self) -> int:
        """Largest absolute value of one site's integer."""
        return (1 << (self.bits - 1)) - 1

    @property
    def base(self) -> int:
        """Radix B = 2 K (2**(bits - 1) - 1) + 1 of the balanced digits."""
        return 2 * self.sites * self.limit + 1


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """One row of the vetted table.

    Attributes:
        id: Name on the wire, in plans and reports.
        suite: The protocol suite the row belongs to.
        poly_modulus_degree: Ring degree N; also the coefficients of a chunk.
        coeff_mod_bit_sizes: What the primes were asked for as.
        coeff_modulus: The primes themselves; the first is q, the modulus of the wire.
        polynomials: Residue polynomials a chunk carries on the wire.
        security_bits: Classical security by the homomorphic encryption standard's table.
    """

    id: str
    suite: str
    poly_modulus_degree: int
    coeff_mod_bit_sizes: tuple[int, ...]
    coeff_modulus: tuple[int, ...]
    polynomials: int
    security_bits: int

    @property
    def modulus(self) -> int:
        """The modulus q of the residues on the wire."""
        return self.coeff_modulus[0]

    @property
    def residue_bits(self) -> int:
        """Bits of one residue on the wire."""
        return self.modulus.bit_length()

    def noise_bound(self, sites: int) -> Fraction:
        """Worst-case absolute error of one coefficient of a sum of `sites` encryptions."""
        if self.suite == COLLECTIVE:
            return Fraction(sites * KEY_ERROR)
        N = self.poly_modulus_degree
        return sites * (self._small_noise() + Fraction(N + 1, 2))

    def variance_proxy(self, sites: int) -> Fraction:
        """Sub-Gaussian variance proxy of a coefficient's error beyond its fixed part."""
        if self.suite == COLLECTIVE:
            return Fraction(sites * KEY_ERROR, 2)
        return Fraction(sites * (self.poly_modulus_degree + 1), 12)

    def bytes_per_value(self, sites: int, bits: int) -> Fraction:
        """Bytes of ciphertext a value takes on the wire, in full chunks.

        Raises:
            ParameterError: The request does not fit this set.
        """
        digits = self.encoding(sites, bits).digits
        return Fraction(self.polynomials * self.residue_bits, 8 * digits)

    def log2_failure(self, sites: int, scale_bits: int, coefficients: int) -> float:
        """Bound log2 of the probability that any of `coefficients` decodes wrongly.

        Args:
            sites: Encryptions in the sum.
            scale_bits: Rounding is right while the error stays below 2**(scale_bits - 1).
            coefficients: Coefficients over which the union bound is taken.

        Returns:
            A float; -inf where the worst case stays below the rounding threshold.
        """
        half = Fraction(1 << scale_bits, 2)
        if self.noise_bound(sites) < half:
            return -math.inf
        margin = float(half - sites * self._small_noise())
        if margin <= 0:
            return 0.0
        variance = float(self.variance_proxy(sites))
        exponent = margin * margin / (2 * variance * math.log(2))
        return min(0.0, 1 + math.log2(coefficients) - exponent)

    def encoding(self, sites: int, bits: int) -> Encoding:
        """Pack as many values a coefficient as the failure limit allows.

        Args:
            sites: Largest cohort, `MIN_SITES` to `MAX_SITES`.
            bits: Bits of a value, `MIN_BITS` to `MAX_BITS`.

        Returns:
            The encoding with the most digits whose failure bound is below 2**-40, at the largest
            scale that keeps them: a higher scale costs nothing and lowers the bound.

        Raises:
            ParameterError: Outside the table, with the nearest request that fits.
        """
        return _encoding(self, sites, bits)

    def _search(self, sites: int, bits: int) -> Encoding:
        if not MIN_SITES <= sites <= MAX_SITES:
            nearest = min(max(sites, MIN_SITES), MAX_SITES)
            raise ParameterError(f"{sites} sites are outside the table; the nearest is {nearest}")
        if not MIN_BITS <= bits <= MAX_BITS:
            nearest = min(max(bits, MIN_BITS), MAX_BITS)
            raise ParameterError(f"{bits} bits are outside the table; the nearest is {nearest}")
        base = 2 * sites * ((1 << (bits - 1)) - 1) + 1
        best: Encoding | None = None
        digits = 1
        while (scale_bits := self._largest_scale(base**digits)) >= 1:
            failure = self.log2_failure(sites, scale_bits, MAX_SIZE)
            if failure > LOG2_FAILURE_LIMIT:
                break
            best = Encoding(sites, bits, digits, scale_bits, failure)
            digits += 1
        if best is None:
            fitting = max(
                (b for b in range(MIN_BITS, bits) if self._fits(sites, b)),
                default=None,
            )
            raise ParameterError(
                f"{bits} bits do not fit {self.id} with {sites} sites; the most that fit: {fitting}"
            )
        return best

    def _fits(self, sites: int, bits: int) -> bool:
        scale_bits = self._largest_scale(2 * sites * ((1 << (bits - 1)) - 1) + 1)
        return (
            scale_bits >= 1 and self.log2_failure(sites, scale_bits, MAX_SIZE) <= LOG2_FAILURE_LIMIT
        )

    def _largest_scale(self, span: int) -> int:
        # |M| <= (span - 1) / 2, and |M| 2**s plus half a step must stay below q / 2.
        return (self.modulus // (span + 1)).bit_length() - 1

    def _small_noise(self) -> Fraction:
        if self.suite == COLLECTIVE:
            return Fraction(0)
        special = self.coeff_modulus[-1]
        return Fraction(KEY_ERROR * (2 * self.poly_modulus_degree + 1), special)


@lru_cache(maxsize=256)
def _encoding(row: ParameterSet, sites: int, bits: int) -> Encoding:
    return row._search(sites, bits)  # once: every plan that is read asks again


# The primes are SEAL's choice for these sizes; `_ckks` compares them before first use.
_TABLE: Final = (
    ParameterSet(
        id="ckks-collective-4096-60-aes",
        suite="ckks-collective",
        poly_modulus_degree=4096,
        coeff_mod_bit_sizes=(60,),
        coeff_modulus=(1152921504606830593,),
        polynomials=1,
        security_bits=128,
    ),
    ParameterSet(
        id="ckks-pk-4096-60-20",
        suite="ckks-pk",
        poly_modulus_degree=4096,
        coeff_mod_bit_sizes=(60, 20),
        coeff_modulus=(1152921504606830593, 1032193),
        polynomials=2,
        security_bits=128,
    ),
)


# Sets that plans named once, and what came instead.
_RETIRED: Final = {"ckks-collective-4096-60": "ckks-collective-4096-60-aes"}


def parameter_set(identifier: str) -> ParameterSet:
    """Look a set up by its id.

    Raises:
        ParameterError: No such set, or one that is not used any more.
    """
    if identifier in _RETIRED:
        raise ParameterError(
            f"{identifier} is of versions before 0.2.0, which drew public polynomials in another "
            f"way; {_RETIRED[identifier]} took its place, and all parties of a run need it"
        )
    for row in _TABLE:
        if row.id == identifier:
            return row
    known = ", ".join(row.id for row in _TABLE)
    raise ParameterError(f"no parameter set {identifier!r}; there are: {known}")


def choose(sites: int, bits: int, *, suite: str | None = None) -> ParameterSet:
    """Pick the set with the smallest upload that fits.

    Args:
        sites: Members a plan will invite.
        bits: Bits of a quantised value.
        suite: Protocol suite; any by default.

    Returns:
        The row of the table whose ciphertext takes the fewest bytes a value.

    Raises:
        ParameterError: Nothing fits; the text names the nearest request that does.
    """
    rows = [row for row in _TABLE if suite in {None, row.suite}]
    if not rows:
        known = ", ".join(sorted({row.suite for row in _TABLE}))
        raise ParameterError(f"no suite {suite!r}; there are: {known}")
    fitting: dict[str, Fraction] = {}
    refusal: ParameterError | None = None
    for row in rows:
        try:
            fitting[row.id] = row.bytes_per_value(sites, bits)
        except ParameterError as error:
            refusal = refusal or error
    if not fitting:
        raise refusal or ParameterError(f"{bits} bits with {sites} sites fit no set")
    return parameter_set(min(fitting, key=lambda name: fitting[name]))
