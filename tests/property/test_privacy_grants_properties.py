"""Whatever is granted, declared, reserved or written by hand, a guarantee's delta has sense."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy import Budget, BudgetExhausted, Ledger, PlanError, PoissonSampledGaussian
from privacy.accounting.rdp import rdp_cost
from privacy.ledger.chain import new_record

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
EVENT = PoissonSampledGaussian(0.1, 20.0, 1)

# Deltas near the bounds of the sizes, so that either side of one is common.
DELTAS = st.sampled_from([1e-7, 1e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9])
SIZES = st.sampled_from([None, 1, 10, 500, 1000, 2000, 10_000, 100_000])
# Few, since a grant's orders are searched for once for each pair with a delta.
EPSILONS = st.sampled_from([0.5, 3.0])
GRANTS = st.tuples(st.just("grant"), EPSILONS, DELTAS, SIZES, st.sampled_from(["", "", "why"]))
RUNS = st.tuples(st.just("reserve"), SIZES)


def decimal_sum(numbers):
    with localcontext(prec=80):
        return sum((Decimal(repr(number)) for number in numbers), Decimal(0))


def is_above(total: Decimal, size: int) -> bool:
    with localcontext(prec=80):
        return total > Decimal(repr(1 / (10 * size)))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(steps=st.lists(st.one_of(GRANTS, RUNS), max_size=10))
def test_no_sequence_of_grants_comes_to_more_than_the_bound_without_a_reason(
    steps, tmp_path_factory
):
    ledger = Ledger.create(
        tmp_path_factory.mktemp("grants") / "ledger.sqlite",
        population="p",
        unit="record",
        signer=SIGNER,
        public_key=PUBLIC_KEY,
    )
    made, size = [], None  # grants that were accepted, and the largest size declared so far
    for index, step in enumerate(steps):
        if step[0] == "grant":
            _, epsilon, delta, declared, reason = step
            try:
                ledger.grant(
                    epsilon=epsilon, delta=delta, population_size=declared, delta_reason=reason
                )
            except PlanError:
                continue
            made.append((epsilon, delta, reason))
        else:
            declared = step[1]
            try:
                ledger.reserve(
                    run=f"r{index}", event=EVENT, rounds=1, plan="p", population_size=declared
                )
            except BudgetExhausted:
                continue
        size = max((n for n in (size, declared) if n), default=None)
        budget = ledger.budget()
        assert budget.population_size == size
        counted = [m for m, s in zip(made, budget.status(), strict=True) if s.counts]
        total = decimal_sum(delta for _, delta, _ in counted)
        assert total < 1
        if size is not None and is_above(total, size):
            assert any(reason for _, _, reason in counted)
        assert budget.guarantee() == (
            float(decimal_sum(epsilon for epsilon, _, _ in counted)),
            float(total),
        )


# Large ones besides, so that sums of 1 and more are common.
LARGE = st.one_of(DELTAS, st.sampled_from([0.3, 0.5, 0.7, 0.9]))
FEW_SIZES = st.one_of(st.none(), SIZES)
BY_HAND = st.tuples(st.just("grant"), EPSILONS, LARGE, FEW_SIZES, st.sampled_from(["", "", "why"]))
CHARGES = st.tuples(st.just("charge"), st.integers(0, 5))


@settings(deadline=None)
@given(steps=st.lists(st.one_of(BY_HAND, CHARGES), min_size=1, max_size=10), asked=FEW_SIZES)
def test_what_somebody_signed_by_hand_is_never_presented_as_a_guarantee_it_is_not(steps, asked):
    """Whoever has the key: any grant, and any charge to it, as version 0.1.0 would have written."""
    bodies = [("open", {
        "population": "p", "unit": "record", "relation": "add-or-remove-one-unit",
        "public_key": PUBLIC_KEY.hex(),
    })]  # fmt: skip
    grants: list[tuple[float, str]] = []
    charged: set[int] = set()
    sizes = [asked] if asked else []
    for index, step in enumerate(steps):
        if step[0] == "grant":
            _, epsilon, delta, declared, reason = step
            grants.append((delta, reason))
            body = {
                "grant": len(grants), "epsilon": float(epsilon + 20).hex(),
                "delta": float(delta).hex(), "orders": [6, 7], "purpose": "",
            }  # fmt: skip
            body |= {"population_size": declared} if declared else {}
            body |= {"delta_reason": reason} if reason else {}
            sizes += [declared] if declared else []
            bodies.append(("grant", body))
        elif grants:
            number = step[1] % len(grants) + 1
            charged.add(number)
            cost = {str(o): c for o, c in rdp_cost(EVENT, (6, 7)).items()}
            bodies.append(("reserve", {
                "run": f"r{index}", "grant": number, "event": EVENT.canonical(), "rounds": 1,
                "cost": cost, "plan": "p", "purpose": "",
            }))  # fmt: skip
    records = []
    for kind, body in bodies:
        previous = records[-1] if records else None
        records.append(new_record(previous=previous, kind=kind, body=body, signer=SIGNER))
    budget = Budget.replay(records)  # opens, whatever it says

    epsilon, delta = budget.guarantee()
    lost = decimal_sum(grants[number - 1][0] for number in charged)
    assert (epsilon, delta) == (math.inf, 1.0) or (delta < 1 and Decimal(repr(delta)) >= lost)
    if lost >= 1:
        assert epsilon == math.inf

    try:
        number = budget.require_affordable(EVENT, 1, population_size=asked)
    except BudgetExhausted:
        return
    # It would be charged: then all that counts is within the bound, or a reason speaks for it.
    statuses = budget.status(population_size=asked)
    counted = [s.grant.number for s in statuses if s.counts]
    total = decimal_sum(grants[n - 1][0] for n in counted)
    assert number in counted
    assert total < 1
    if sizes and is_above(total, max(sizes)):
        speaks_for = [n for n in counted if grants[n - 1][1] and not statuses[n - 1].objection]
        assert speaks_for
        after = [n for n in charged if n > max(speaks_for)]
        assert not any(statuses[n - 1].objection for n in after)
