"""Keys with which nobody can agree are refused where it is known whose they are.

A site, custodian or decryptor that announces one would otherwise fail in an honest site's hands,
after that site has charged its budget, and the honest site would be the one that "did not upload".
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregation import AggregationError, CohortError, MessageError, RefusedError
from aggregation.crypto import sealed_box
from aggregation.crypto.sealed_box import KEM_PUBLIC_SIZE, BoxKey, KemKey, agree, check_public
from aggregation.protocol import messages
from aggregation.protocol.checks import read_announcement, read_custodian, read_plan, read_ready
from aggregation.protocol.messages import Announcement, CustodianReady, Ready
from aggregation.testing import Federation

P = 2**255 - 19
# Every point of order 1, 2, 4 and 8 on Curve25519 and its twist (RFC 7748, 7; cr.yp.to/ecdh.html),
# in the canonical form and in the others that 32 bytes can hold.
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [0, 1, *ORDER_8, P - 1, P, P + 1, 2**255 + 0, 2**255 + 1, 2**255 + P - 1]
UNDECODABLE = [
    b"\xff" * KEM_PUBLIC_SIZE,
    b"\x01\x0d" + bytes(KEM_PUBLIC_SIZE - 2),  # the first coefficient is q = 3329
]


def low_order(value: int) -> bytes:
    return value.to_bytes(32, "little")


def good() -> tuple[bytes, bytes]:
    box = BoxKey().public
    return box[:32], box[32:]


@dataclass
class Case:
    federation: Federation
    plan: bytes

    @property
    def round(self):
        return read_plan(self.plan, self.federation.public["coordinator"])


@pytest.fixture
def case() -> Case:
    federation = Federation(suite="ckks-collective", key_agreement="x25519-mlkem768", custodians=1)
    plan = federation.coordinator.plan(federation.plan())
    return Case(federation, plan)


@pytest.mark.parametrize("value", LOW_ORDER, ids=hex)
def test_every_point_of_low_order_is_refused(value: int) -> None:
    with pytest.raises(MessageError, match="low order"):
        check_public(low_order(value))
    with pytest.raises(MessageError):  # and the library's own agreement refuses the same
        agree(X25519PrivateKey.generate(), low_order(value))


def polynomials_of_low_order() -> list[list[int]]:
    """What u must solve for its point to be at infinity after one, two or three doublings.

    Doubling takes u to (u^2 - 1)^2 / (4 u (u^2 + A u + 1)). Coefficients, highest first.
    """
    a = 486662
    return [
        [1, 0],  # u
        [1, a, 1],  # u^2 + A u + 1: with u, order 2
        [1, 0, -1],  # u^2 - 1: order 4
        [1, -4, -2 - 4 * a, -4, 1],  # (u^2 - 1)^2 = 4 u (u^2 + A u + 1), to u' = 1: order 8
        [1, 4, 4 * a - 2, 4, 1],  # to u' = -1
    ]


def test_no_other_point_is_of_low_order() -> None:
    """The polynomials have as many roots in the field as are on the list, and those are theirs."""
    roots = 0
    for polynomial in polynomials_of_low_order():
        roots += degree_of_linear_part(polynomial)
    found = {
        u
        for u in sealed_box._LOW_ORDER
        for polynomial in polynomials_of_low_order()
        if sum(c * u**k for k, c in enumerate(reversed(polynomial))) % P == 0
    }
    assert found == sealed_box._LOW_ORDER
    assert roots == len(found) == 5


def degree_of_linear_part(polynomial: list[int]) -> int:
    """How many roots a square-free polynomial has modulo P: the degree of gcd(x^P - x, f)."""
    f = [c % P for c in polynomial]

    def rest(g: list[int], by: list[int]) -> list[int]:
        g = list(g)
        while len(g) >= len(by):
            factor = g[0] * pow(by[0], -1, P) % P
            g = [(x - factor * (by[i] if i < len(by) else 0)) % P for i, x in enumerate(g)][1:]
        while g and g[0] == 0:
            g = g[1:]
        return g

    def times(g: list[int], h: list[int]) -> list[int]:
        product = [0] * (len(g) + len(h) - 1) if g and h else []
        for i, x in enumerate(g):
            for j, y in enumerate(h):
                product[i + j] = (product[i + j] + x * y) % P
        return rest(product, f)

    power = [1]  # x^P modulo f
    for bit in f"{P:b}":
        power = times(power, power)
        if bit == "1":
            power = times(power, [1, 0])
    difference = [0] * (2 - len(power)) + power if len(power) < 2 else power
    difference[-2] = (difference[-2] - 1) % P
    g, h = f, rest(difference, f)
    while h:
        g, h = h, rest(g, h)
    return len(g) - 1


@pytest.mark.parametrize("kem", UNDECODABLE, ids=["ones", "q"])
def test_an_ml_kem_key_that_does_not_decode_is_refused(kem: bytes) -> None:
    with pytest.raises(MessageError):
        check_public(good()[0], kem)


def test_honest_keys_pass() -> None:
    for _ in range(20):
        check_public(*good())


BAD = [
    *(pytest.param(low_order(v), None, id=f"x25519-{v % 97}") for v in (0, 1, ORDER_8[0])),
    *(pytest.param(None, kem, id=f"ml-kem-{kem[0]}") for kem in UNDECODABLE),
]


@pytest.mark.parametrize(("key", "kem"), BAD)
def test_a_site_that_announces_one_is_named_before_a_cohort_is_fixed(case, key, kem) -> None:
    own_key, own_kem = good()
    body = Ready(messages.digest(case.plan), key or own_key, kem or own_kem)
    message = messages.seal(case.federation.identities["site-1"], body)
    with pytest.raises(CohortError, match="site-1 announces a key that nobody can use"):
        read_ready(case.round, message)
    with pytest.raises(RefusedError):  # what the server asks when it arrives
        case.federation.coordinator.check_ready(case.plan, message)


@pytest.mark.parametrize(("key", "kem"), BAD)
def test_a_cohort_with_one_is_refused_by_every_site(case, key, kem) -> None:
    """Whatever a coordinator lets in: no honest site masks for it."""
    federation = case.federation
    attempt = federation.start(federation.plan(), exchange=False)
    round_ = read_plan(attempt.plan_message, federation.public["coordinator"])
    cohort = messages.unseal(attempt.cohort, messages.Cohort, federation.public["coordinator"])
    own_key, own_kem = good()
    bad = messages.seal(
        federation.identities["site-0"], Ready(round_.digest, key or own_key, kem or own_kem)
    )
    lie = messages.seal(
        federation.identities["coordinator"],
        messages.Cohort(
            cohort.plan, cohort.announcement, (bad, *cohort.readies[1:]), cohort.custodians
        ),
    )
    for name in ("site-1", "site-2"):
        with pytest.raises(CohortError, match="site-0 announces a key"):
            attempt.sites[name].exchange(lie)


@pytest.mark.parametrize(("key", "kem"), BAD)
def test_a_custodian_and_a_decryptor_are_named_too(case, key, kem) -> None:
    federation, digest = case.federation, messages.digest(case.plan)
    own_key, own_kem = good()
    custodian = messages.seal(
        federation.identities["custodian-0"],
        CustodianReady(digest, key or own_key, kem or own_kem),
    )
    with pytest.raises(CohortError, match="custodian-0 announces a key"):
        read_custodian(case.round, federation.public["custodian-0"], custodian)
    announced = messages.seal(
        federation.identities["decryptor"],
        Announcement(digest, (key or own_key) + (kem or own_kem)),
    )
    with pytest.raises(MessageError):
        read_announcement(case.round, announced)


def test_a_kem_key_of_another_s_length_is_no_message() -> None:
    with pytest.raises(AggregationError):
        Ready(bytes(32), good()[0], KemKey().public[:-1])
