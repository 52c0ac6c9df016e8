"""What is planned is what is shown: a forecast, and the ledger's figures once the run has begun."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import BudgetExhausted, Ledger, PoissonSampledGaussian, PrivacyPlan, forecast

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
KEY = SIGNER.public_key().public_bytes_raw()
epsilons = st.sampled_from([0.5, 1.0, 3.0, 8.0])


@st.composite
def plans(draw):
    return PrivacyPlan.calibrated(
        unit="record",
        population=1000,
        sample_rate=draw(st.sampled_from([0.05, 0.2])),
        max_grad_norm=1.0,
        steps_per_round=draw(st.integers(1, 4)),
        rounds=draw(st.integers(1, 4)),
        repeats=draw(st.integers(0, 2)),
        epsilon=draw(epsilons),
        delta=draw(st.sampled_from([1e-5, 1e-6])),
    )


@settings(max_examples=25, deadline=None)
@given(
    grants=st.lists(epsilons, min_size=1, max_size=2),
    earlier=st.booleans(),
    plan=plans(),
)
def test_what_a_run_shows_is_what_was_planned_before_it(tmp_path_factory, grants, earlier, plan):
    place = tmp_path_factory.mktemp("forecast") / "ledger.sqlite"
    ledger = Ledger.create(place, population="p", unit="record", signer=SIGNER, public_key=KEY)
    for epsilon in grants:
        ledger.grant(epsilon=epsilon, delta=1e-5, population_size=1000)
    if earlier:  # which no plan of this run knows of
        light = PoissonSampledGaussian(0.05, 6.0, 1)
        ledger.reserve(run="earlier", event=light, rounds=3, plan="p")
        ledger.commit(run="earlier", round=1)
    event, trainings = plan.round_event(), plan.rounds + plan.repeats
    more = {"rounds": plan.rounds, "repeats": plan.repeats, "population_size": 1000}
    try:
        planned = forecast(ledger.budget(), event, **more)
    except BudgetExhausted:
        with pytest.raises(BudgetExhausted):
            ledger.reserve(run="r", event=event, rounds=trainings, plan="p", population_size=1000)
        return
    held = ledger.reserve(run="r", event=event, rounds=trainings, plan="p", population_size=1000)
    status = ledger.status()[held.grant - 1]
    assert held.grant == planned.grant
    assert status.epsilon_committed == planned.before
    assert status.epsilon_charged == planned.reserved <= planned.granted
    for number in range(1, plan.rounds + 1):
        ledger.commit(run="r", round=number)
    shown = [spend.epsilon for spend in ledger.budget().history if spend.run == "r"]
    assert tuple(shown) == planned.by_round
    # And so many more of the same fit, and not one more.
    for number in range(planned.runs_left):
        ledger.reserve(run=f"more-{number}", event=event, rounds=trainings, plan="p")
        if number == 3:
            return
    with pytest.raises(BudgetExhausted):
        ledger.reserve(run="beyond", event=event, rounds=trainings, plan="p")
