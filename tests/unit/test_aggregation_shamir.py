"""Shares of a secret: enough of them give it, fewer say nothing, others are refused."""

from __future__ import annotations

import hashlib
from itertools import combinations, count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.crypto import shamir
from aggregation.errors import MessageError, ParameterError


def _by_place(shares: list[bytes]) -> dict[int, bytes]:
    return dict(enumerate(shares, 1))


def test_the_modulus_is_the_smallest_prime_above_all_secrets_of_32_bytes() -> None:
    def is_prime(n: int) -> bool:  # Miller and Rabin's, to the first forty bases
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in range(2, 42):
            x = pow(base, odd, n)
            if x not in {1, n - 1} and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
                return False
        return True

    assert is_prime(shamir.PRIME)
    assert not any(is_prime(n) for n in range((1 << 256) + 1, shamir.PRIME, 2))


@given(
    secret=st.binary(min_size=32, max_size=32),
    size=st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
    data=st.data(),
)
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, size: tuple[int, int], data: st.DataObject
) -> None:
    threshold, count = size
    shares = _by_place(shamir.share(secret, threshold, count))
    places = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert shamir.combine(shares, shamir.at_zero(places)) == secret


def test_one_share_fewer_fits_every_secret() -> None:
    """What two of three shares allow: for each secret there is one third share, and it differs."""
    shares = _by_place(shamir.share(bytes(32), 3, 3))
    coefficients = shamir.at_zero([1, 2, 3])
    known = sum(coefficients[p] * int.from_bytes(shares[p], "big") for p in (1, 2))
    thirds = set()
    for wanted in (0, 1, 2**255, 2**256 - 1):
        third = (wanted - known) * pow(coefficients[3], -1, shamir.PRIME) % shamir.PRIME
        guess = {**shares, 3: third.to_bytes(shamir.SHARE_SIZE, "big")}
        assert shamir.combine(guess, coefficients) == wanted.to_bytes(32, "big")
        thirds.add(third)
    assert len(thirds) == 4


def test_fewer_shares_do_not_give_the_secret_and_no_two_sharings_are_alike() -> None:
    secret = bytes(range(32))
    shares = _by_place(shamir.share(secret, 4, 6))
    for places in combinations(range(1, 7), 3):
        try:
            assert shamir.combine(shares, shamir.at_zero(places)) != secret
        except MessageError:
            continue  # one in 2**248 or so
    assert set(shares.values()).isdisjoint(shamir.share(secret, 4, 6))
    assert set(shamir.share(secret, 1, 3)) == {b"\0" + secret}


def test_an_altered_share_gives_another_secret_or_none() -> None:
    secret = bytes(31) + b"\1"
    shares = _by_place(shamir.share(secret, 2, 3))
    coefficients = shamir.at_zero([1, 3])
    altered = int.from_bytes(shares[3], "big") ^ 1
    shares[3] = altered.to_bytes(shamir.SHARE_SIZE, "big")
    assert shamir.combine(shares, coefficients) != secret


def test_what_is_beyond_32_bytes_is_no_secret() -> None:
    beyond = ((1 << 256) + 5).to_bytes(shamir.SHARE_SIZE, "big")
    with pytest.raises(MessageError, match="no secret"):
        shamir.combine({1: beyond}, shamir.at_zero([1]))


@pytest.mark.parametrize(
    ("threshold", "count"), [(0, 3), (4, 3), (1, 0)], ids=["none", "more than shares", "no shares"]
)
def test_a_threshold_that_cannot_be_is_refused(threshold: int, count: int) -> None:
    with pytest.raises(ParameterError):
        shamir.share(bytes(32), threshold, count)


def test_places_are_different_and_from_one() -> None:
    for places in ([], [1, 1], [0, 1]):
        with pytest.raises(ParameterError):
            shamir.at_zero(places)
    with pytest.raises(ParameterError):
        shamir.share(bytes(31), 1, 1)


def test_a_commitment_is_to_one_share_of_one_pair_in_one_attempt() -> None:
    terms = (bytes(33), bytes(32), b"t" * 32, "a", "bc")
    first = shamir.commitment(*terms)
    others = [
        (b"\1" * 33, *terms[1:]), (terms[0], b"\1" * 32, *terms[2:]),
        (*terms[:2], b"u" * 32, *terms[3:]), (*terms[:3], "ab", "c"), (*terms[:4], "bd"),
    ]  # fmt: skip
    assert len({first, *(shamir.commitment(*each) for each in others)}) == 6


# Computed term by term, without the package: of draws SHA-512(i), cut to 257 bits, the first two
# below the modulus are the coefficients of the square and of the place.
VECTOR = (
    "000968eb5c8634f219a88e25c683d39dbee52e6a021fa0c90a12ff0009fefd8b33",
    "000023ae56e36ccda0985c51f873eb00e045755ff00569fb96b6fe14a45d14e9f5",
    "00e4314af21bac989bd7738ea0dc53377330e5f3dcc570adbd041657ea36633b8e",
    "00b591c12e2ef4530b65d3dbbfbd0c4177a78025c85fb4df7cfa47c9db8ae87dac",
)
COMMITMENT = "8af5589d752eff659ec7e467ced127a2f136bca26d6f49c188a567687e1e431e"


def test_shares_and_commitments_are_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = (hashlib.sha512(bytes([i])).digest() for i in count())
    monkeypatch.setattr("secrets.token_bytes", lambda size: next(drawn)[:size])
    secret = bytes(range(32))
    shares = shamir.share(secret, 3, 4)
    assert tuple(share.hex() for share in shares) == VECTOR
    assert shamir.combine(_by_place(shares), shamir.at_zero([4, 2, 1])) == secret
    five = bytes(32) + b"\5"
    assert shamir.commitment(five, b"\7" * 32, secret, "site-a", "site-b").hex() == COMMITMENT
