"""What is said to fit is admitted by `reserve`, and one more round, or a hair more, is not."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from privacy import (
    BudgetExhausted,
    Dataset,
    DatasetCap,
    Ledger,
    PoissonSampledGaussian,
    PolicyRefusal,
    PrivacyPlan,
    Sampler,
    affordable_runs,
    least_noise_multiplier,
)
from privacy.accounting.affordability import MAX_ROUNDS

SETTINGS = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
# Pairs of epsilon and delta whose orders are quick to find, and few of them: each is a search.
BUDGETS = st.sampled_from([(3.0, 1e-5), (4.5, 1e-4), (8.0, 1e-5)])
EVENTS = st.builds(
    PoissonSampledGaussian,
    sample_rate=st.floats(0.01, 0.5),
    noise_multiplier=st.floats(0.8, 10.0),
    steps=st.integers(1, 20),
)
LETTERS, SCANS = "letters", "scans"


@st.composite
def lives(draw):
    """Grants, earlier runs, and the data set that a new run names."""
    return (
        draw(st.lists(BUDGETS, min_size=1, max_size=2)),
        draw(
            st.lists(
                st.tuples(EVENTS, st.integers(1, 4), st.sampled_from([None, LETTERS, SCANS])),
                max_size=3,
            )
        ),
        draw(st.sampled_from([None, Dataset(LETTERS, DatasetCap.of(3.0, 1e-5)), Dataset(LETTERS)])),
    )


def lived(life, folder):
    """A ledger after that life; earlier runs that did not fit were refused."""
    grants, earlier, _ = life
    ledger = Ledger.create(
        folder / "ledger.sqlite",
        population="p",
        unit="record",
        signer=SIGNER,
        public_key=PUBLIC_KEY,
    )
    for epsilon, delta in grants:
        ledger.grant(epsilon=epsilon, delta=delta, population_size=10)
    for number, (event, rounds, name) in enumerate(earlier):
        dataset = None if name is None else Dataset(name)
        try:
            ledger.reserve(
                run=f"earlier-{number}", event=event, rounds=rounds, plan="p", dataset=dataset
            )
        except BudgetExhausted:
            continue
        ledger.commit(run=f"earlier-{number}", round=1)
        if number % 2:
            ledger.refund(run=f"earlier-{number}", evidence="e")
    return ledger


def refuses(ledger, event, rounds, dataset):
    with pytest.raises((BudgetExhausted, PolicyRefusal)):
        ledger.reserve(run="new", event=event, rounds=rounds, plan="p", dataset=dataset)
    return True


@SETTINGS
@given(life=lives(), event=EVENTS)
def test_the_rounds_said_to_fit_are_admitted_and_one_more_is_not(life, event, tmp_path_factory):
    ledger, dataset = lived(life, tmp_path_factory.mktemp("life")), life[2]
    rounds = ledger.budget().headroom(dataset).rounds(event)
    assume(rounds < MAX_ROUNDS)
    assert refuses(ledger, event, rounds + 1, dataset)
    if rounds:
        held = ledger.reserve(run="new", event=event, rounds=rounds, plan="p", dataset=dataset)
        assert held.dataset == dataset


@SETTINGS
@given(
    life=lives(),
    sampler=st.builds(Sampler, st.floats(0.01, 0.5), st.integers(1, 10)),
    rounds=st.integers(1, 30),
)
def test_the_noise_said_to_suffice_is_admitted_and_a_hair_less_is_not(
    life, sampler, rounds, tmp_path_factory
):
    ledger, dataset = lived(life, tmp_path_factory.mktemp("life")), life[2]
    headroom = ledger.budget().headroom(dataset)
    noise = least_noise_multiplier(headroom, sampler, rounds)
    if noise is None:
        assert refuses(ledger, sampler.event(19_999.0), rounds, dataset)
        return
    assert headroom.rounds(sampler.event(noise)) == rounds
    assert refuses(ledger, sampler.event(noise * (1 - 2e-6)), rounds, dataset)
    assert refuses(ledger, sampler.event(noise), rounds + 1, dataset)
    more = least_noise_multiplier(headroom, sampler, rounds + 1)
    assert more is None or more > noise
    ledger.reserve(run="new", event=sampler.event(noise), rounds=rounds, plan="p", dataset=dataset)


@settings(SETTINGS, max_examples=6)
@given(life=lives(), sampler=st.builds(Sampler, st.floats(0.05, 0.5), st.integers(1, 6)))
def test_the_epsilon_said_to_fit_is_admitted_and_a_hundredth_more_is_not(
    life, sampler, tmp_path_factory
):
    ledger, dataset = lived(life, tmp_path_factory.mktemp("life")), life[2]
    headroom = ledger.budget().headroom(dataset)
    runs = affordable_runs(headroom, sampler, [2, 12], delta=1e-5)

    def event(epsilon, rounds):
        return PrivacyPlan.calibrated(
            unit="record",
            population=1000,
            sample_rate=sampler.sample_rate,
            max_grad_norm=1.0,
            steps_per_round=sampler.steps_per_round,
            rounds=rounds - 1,
            repeats=1,
            epsilon=epsilon,
            delta=1e-5,
        ).round_event()

    for run in runs:
        assert headroom.admits(sampler.event(run.noise_multiplier), run.rounds)
        assert not headroom.admits(event(run.epsilon + 0.01, run.rounds), run.rounds)
        if run.epsilon:
            assert headroom.admits(event(run.epsilon, run.rounds), run.rounds)
    if runs and runs[-1].epsilon:
        last = runs[-1]
        ledger.reserve(
            run="new",
            event=event(last.epsilon, last.rounds),
            rounds=last.rounds,
            plan="p",
            dataset=dataset,
        )


def test_a_fresh_grant_affords_a_run_calibrated_to_about_all_of_it(tmp_path):
    ledger = lived(([(3.0, 1e-5)], [], None), tmp_path)
    runs = affordable_runs(ledger.budget().headroom(), Sampler(0.2, 4), [1, 10, 100], delta=1e-5)
    assert [run.rounds for run in runs] == [1, 10, 100]
    assert all(2.99 <= run.epsilon <= 3.0 for run in runs)
    assert runs[0].noise_multiplier < runs[1].noise_multiplier < runs[2].noise_multiplier


def test_an_exhausted_ledger_affords_nothing(tmp_path):
    ledger = lived(([(3.0, 1e-5)], [], None), tmp_path)
    ledger.record_non_private(run="baseline", reason="test")
    headroom = ledger.budget().headroom(Dataset(LETTERS, DatasetCap.of(1.0, 1e-5)))
    assert headroom.rounds(PoissonSampledGaussian(0.01, 50.0, 1)) == 0
    assert affordable_runs(headroom, Sampler(0.1, 4), [1], delta=1e-5) == []


def test_runs_that_cost_next_to_nothing_are_counted_up_to_a_bound(tmp_path):
    headroom = lived(([(3.0, 1e-5)], [], None), tmp_path).budget().headroom()
    training = PoissonSampledGaussian(1e-6, 1e9, 1)
    assert headroom.runs([(training, 10)]) == MAX_ROUNDS // 10
    assert headroom.runs([(training, 3), (training, 10)]) == MAX_ROUNDS // 10
