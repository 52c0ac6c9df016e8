"""Properties of the filter over random histories, and of the ledger that enforces it."""

import math

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from privacy import (
    BudgetExhausted,
    Ledger,
    PoissonSampledGaussian,
    PrivacyPlan,
    attack_success_bound,
    epsilon_spent,
    pld_epsilon,
    rdp_cost,
)
from privacy.accounting.events import parse_event
from privacy.accounting.rdp import add_costs, filter_orders, fits, max_repetitions, zero_cost

FAST = settings(max_examples=60, deadline=None, derandomize=True)
FEW = settings(max_examples=12, deadline=None, derandomize=True)
WITH_FILES = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
# Grants whose orders are quick to find: each new pair of epsilon and delta is a search.
GRANTS = st.sampled_from([(1.0, 1e-5), (2.0, 1e-6), (3.0, 1e-5), (4.5, 1e-4), (8.0, 1e-5)])

EVENTS = st.builds(
    PoissonSampledGaussian,
    sample_rate=st.one_of(st.just(1.0), st.floats(1e-4, 0.5)),
    noise_multiplier=st.floats(0.6, 30.0),
    steps=st.integers(1, 50),
)


@FAST
@given(events=st.lists(EVENTS, max_size=12), grant=GRANTS, data=st.data())
def test_an_admitted_history_never_exceeds_its_grant(events, grant, data):
    epsilon, delta = grant
    spent = zero_cost(filter_orders(epsilon, delta))
    for event in events:
        asked = add_costs(spent, rdp_cost(event, list(spent)))
        # The filter and the figure that is shown agree, up to the margins of rounding.
        if fits(asked, epsilon, delta):
            assert epsilon_spent(asked, delta) <= epsilon
            spent = asked
        else:
            assert epsilon_spent(asked, delta) > epsilon * (1 - 1e-8)
    # Order does not matter, nor does how the events are grouped.
    shuffled = data.draw(st.permutations(events))
    total, again = zero_cost(list(spent)), zero_cost(list(spent))
    for left, right in zip(events, shuffled, strict=True):
        total = add_costs(total, rdp_cost(left, list(spent)))
        again = add_costs(again, rdp_cost(right, list(spent)))
    assert total == again
    assert add_costs(zero_cost(list(spent)), total, 3) == add_costs(add_costs(total, total), total)


@FAST
@given(event=EVENTS, before=st.lists(EVENTS, max_size=4), grant=GRANTS)
def test_affordable_rounds_fit_and_one_more_does_not(event, before, grant):
    epsilon, delta = grant
    spent = zero_cost(filter_orders(epsilon, delta))
    for earlier in before:
        spent = add_costs(spent, rdp_cost(earlier, list(spent)))
    rounds = max_repetitions(spent, event, epsilon, delta)
    cost = rdp_cost(event, list(spent))
    assume(rounds < 1_000_000)
    if fits(spent, epsilon, delta):
        assert fits(add_costs(spent, cost, rounds), epsilon, delta)
    else:
        assert rounds == 0
    assert not fits(add_costs(spent, cost, rounds + 1), epsilon, delta)


@FAST
@given(event=EVENTS, more=st.integers(1, 40), quieter=st.floats(1.01, 3.0))
def test_costs_are_monotone(event, more, quieter):
    orders = (3, 4, 18)
    base = rdp_cost(event, orders)
    longer = PoissonSampledGaussian(event.sample_rate, event.noise_multiplier, event.steps + more)
    noisier = PoissonSampledGaussian(
        event.sample_rate, event.noise_multiplier * quieter, event.steps
    )
    rarer = PoissonSampledGaussian(event.sample_rate / quieter, event.noise_multiplier, event.steps)
    for order in orders:
        assert rdp_cost(longer, orders)[order] > base[order]
        assert rdp_cost(noisier, orders)[order] <= base[order]
        assert rdp_cost(rarer, orders)[order] <= base[order]
    # One event of many steps costs no more than its steps apart, each rounded up.
    apart = rdp_cost(PoissonSampledGaussian(event.sample_rate, event.noise_multiplier, 1), orders)
    assert all(base[o] <= event.steps * apart[o] for o in orders)
    assert all(
        event.steps * apart[o] - base[o] <= 2 * event.steps + base[o] // 10**9 for o in orders
    )


@FEW
@given(events=st.lists(EVENTS, min_size=1, max_size=3), grant=GRANTS)
def test_pld_is_at_most_what_the_filter_charges(events, grant):
    epsilon, delta = grant
    spent = zero_cost(filter_orders(epsilon, delta))
    admitted = []
    for event in events:
        asked = add_costs(spent, rdp_cost(event, list(spent)))
        if fits(asked, epsilon, delta):
            spent, admitted = asked, [*admitted, event]
    # The filter's conversion bottoms out near zero; its figure is then below what it certifies.
    figure = pld_epsilon(admitted, delta)
    assert figure <= epsilon
    if epsilon_spent(spent, delta) > 0.3 * epsilon:
        assert figure <= epsilon_spent(spent, delta)


@FEW
@given(
    epsilon_delta=GRANTS,
    sample_rate=st.floats(0.005, 1.0),
    steps=st.integers(1, 20),
    rounds=st.integers(1, 30),
    repeats=st.integers(0, 5),
)
def test_calibrated_plans_fit_their_grant_and_barely(
    epsilon_delta, sample_rate, steps, rounds, repeats
):
    epsilon, delta = epsilon_delta
    plan = PrivacyPlan.calibrated(
        unit="record",
        population=1000,
        sample_rate=sample_rate,
        max_grad_norm=1.0,
        steps_per_round=steps,
        rounds=rounds,
        repeats=repeats,
        epsilon=epsilon,
        delta=delta,
    )
    nothing = zero_cost(filter_orders(epsilon, delta))
    affordable = max_repetitions(nothing, plan.round_event(), epsilon, delta)
    assert affordable == rounds + repeats


@FAST
@given(event=EVENTS)
def test_events_survive_storage_bit_for_bit(event):
    stored = parse_event(event.canonical())
    assert stored == event
    assert rdp_cost(stored, (6, 7)) == rdp_cost(event, (6, 7))


@FAST
@given(
    epsilon=st.floats(0.0, 50.0),
    delta=st.floats(1e-12, 0.1),
    rate=st.floats(0.0, 1.0),
    more=st.floats(0.0, 5.0),
)
def test_attackers_gain_with_epsilon(epsilon, delta, rate, more):
    bound = attack_success_bound(epsilon, delta, rate)
    assert 0.0 <= bound <= 1.0
    assert bound >= min(rate, 1.0) - 1e-12
    assert attack_success_bound(epsilon + more, delta, rate) >= bound - 1e-12
    assert attack_success_bound(math.inf, delta, rate) == 1.0


# The ledger against a model of it that is a few integers.


@st.composite
def lives(draw):
    steps = [
        draw(
            st.one_of(
                st.tuples(st.just("grant"), GRANTS),
                st.tuples(st.just("reserve"), EVENTS, st.integers(1, 6)),
                st.tuples(st.just("commit"), st.integers(0, number)),
                st.tuples(st.just("refund"), st.integers(0, number)),
                st.tuples(st.just("ask"), EVENTS),
            )
        )
        for number in range(draw(st.integers(3, 12)))
    ]
    return [("grant", (3.0, 1e-5)), *steps]


@WITH_FILES
@given(life=lives())
def test_a_ledger_admits_exactly_what_its_grants_cover(life, tmp_path_factory):
    ledger = Ledger.create(
        tmp_path_factory.mktemp("life") / "ledger.sqlite",
        population="p",
        unit="record",
        signer=SIGNER,
        public_key=PUBLIC_KEY,
    )
    runs = {}  # run -> [grant, event, reserved, committed, open]
    grants = []

    def charged(number):
        epsilon, delta = grants[number - 1]
        total = zero_cost(filter_orders(epsilon, delta))
        for grant, event, reserved, committed, is_open in runs.values():
            if grant == number:
                times = reserved if is_open else committed
                total = add_costs(total, rdp_cost(event, list(total)), times)
        return total

    def room(event):
        return [
            max_repetitions(charged(n), event, *grant) for n, grant in enumerate(grants, start=1)
        ]

    for index, step in enumerate(life):
        run = f"run-{step[1]}" if step[0] in {"commit", "refund"} else f"run-{index}"
        state = runs.get(run)
        if step[0] == "grant":
            ledger.grant(epsilon=step[1][0], delta=step[1][1], population_size=10)
            grants.append(step[1])
        elif step[0] == "reserve":
            _, event, rounds = step
            number = next((n for n, r in enumerate(room(event), start=1) if r >= rounds), None)
            if number is None:
                with pytest.raises(BudgetExhausted) as refusal:
                    ledger.reserve(run=run, event=event, rounds=rounds, plan="p")
                assert refusal.value.affordable_rounds == max(room(event))
            else:
                held = ledger.reserve(run=run, event=event, rounds=rounds, plan="p")
                assert held.grant == number
                runs[run] = [number, event, rounds, 0, True]
        elif step[0] == "ask":
            with pytest.raises(BudgetExhausted) as refusal:
                ledger.reserve(run=run, event=step[1], rounds=10**9, plan="p")
            assert refusal.value.affordable_rounds == max(room(step[1]))
        elif state and state[4] and (step[0] == "refund" or state[3] < state[2]):
            if step[0] == "commit":
                ledger.commit(run=run, round=state[3] + 1)
                state[3] += 1
            else:
                assert ledger.refund(run=run, evidence="e") == state[2] - state[3]
                state[4] = False
        for status, grant in zip(ledger.status(), grants, strict=True):
            assert status.charged == charged(status.grant.number)
            assert status.epsilon_committed <= status.epsilon_charged <= grant[0]
    epsilon, delta = ledger.budget().guarantee()
    assert epsilon == pytest.approx(sum(g[0] for g in grants))
    assert delta == pytest.approx(sum(g[1] for g in grants))
