"""The life of a budget: what each record does to it, and what is refused, with every store."""

import contextlib
import math
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import (
    BudgetExhausted,
    Ledger,
    LedgerDamaged,
    LedgerError,
    LedgerLocked,
    LedgerUnavailable,
    NonPrivate,
    PlanError,
    PoissonSampledGaussian,
    PrivacyPlan,
    StorageUnavailable,
)
from privacy.accounting.rdp import add_costs, epsilon_spent, fits, rdp_bound, rdp_cost, zero_cost
from privacy.ledger.chain import GENESIS
from privacy.storage import open_store

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
LIGHT = PoissonSampledGaussian(0.05, 3.0, 2)
DELTA = 1e-5


@pytest.fixture
def place(places):
    return places.new()


@pytest.fixture
def ledger(place):
    return Ledger.create(
        place,
        population="cardiology",
        unit="patient_id",
        signer=SIGNER,
        public_key=PUBLIC_KEY,
    )


def kinds(ledger):
    return [record.kind for record in ledger.records()]


def exhaust(ledger, run="exhausting", event=EVENT):
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run=run, event=event, rounds=10**6, plan="p")
    rounds = refusal.value.affordable_rounds
    ledger.reserve(run=run, event=event, rounds=rounds, plan="p")
    return rounds


class _Deaf:
    """A store whose next change is kept, and its answer lost."""

    def __init__(self, store):
        self._store, self.lost = store, 1

    def __getattr__(self, name):
        return getattr(self._store, name)

    @contextlib.contextmanager
    def write(self):
        with self._store.write() as transaction:
            yield transaction
        if self.lost:
            self.lost -= 1
            raise StorageUnavailable("the connection broke")


def test_a_charge_whose_answer_was_lost_is_not_made_again(ledger):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    ledger.reserve(run="a", event=EVENT, rounds=4, plan="p")
    ledger._store = _Deaf(ledger._store)
    with pytest.raises(LedgerUnavailable):
        ledger.commit(run="a", round=1)
    ledger.commit(run="a", round=1)
    assert kinds(ledger) == ["open", "grant", "reserve", "commit"]
    ledger.commit(run="a", round=1)  # asked once more, it is another training
    ledger._store.lost = 1
    with pytest.raises(LedgerUnavailable):
        ledger.commit(run="a", round=2)
    ledger.commit(run="a", round=3)  # and what was lost is no charge for another round
    rounds = [record.body["round"] for record in ledger.records() if record.kind == "commit"]
    assert rounds == [1, 1, 2, 3]


def test_the_life_of_a_run(ledger, place):
    assert ledger.budget().population == "cardiology"
    assert ledger.budget().unit == "patient_id"
    assert ledger.budget().public_key == PUBLIC_KEY
    assert ledger.budget().guarantee() == (0, 0)

    grant = ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000, purpose="study 12")
    assert (grant.number, grant.epsilon, grant.delta, grant.purpose) == (1, 3.0, DELTA, "study 12")
    assert grant.orders == (6, 7)

    plan = PrivacyPlan.calibrated(
        unit="patient_id",
        population=1000,
        sample_rate=0.1,
        max_grad_norm=1.0,
        steps_per_round=4,
        rounds=5,
        repeats=2,
        epsilon=3.0,
        delta=DELTA,
    )
    event = plan.round_event()
    held = ledger.reserve(run="r1", event=event, rounds=7, plan="abc", purpose="first")
    assert (held.run, held.grant, held.event, held.rounds) == ("r1", 1, event, 7)
    assert (held.charged_rounds, held.remaining_rounds, held.open) == (7, 7, True)
    (status,) = ledger.status()
    # all of it is charged while it is open, none of it is committed
    assert status.epsilon_committed == 0.0
    assert 2.999 < status.epsilon_charged <= 3.0
    assert 0.0 <= status.epsilon_left < 0.001

    for round_number in (1, 2, 2, 3):  # round 2 was lost to a crash and trained again
        ledger.commit(run="r1", round=round_number)
    budget = ledger.budget()
    assert [spend.round for spend in budget.history] == [1, 2, 2, 3]
    costs = zero_cost(grant.orders)
    for spend in budget.history:
        costs = add_costs(costs, rdp_cost(event, grant.orders))
        assert spend.epsilon == epsilon_spent(costs, DELTA)
    assert budget.status()[0].committed == costs
    assert budget.events("r1") == [event] * 4

    assert ledger.refund(run="r1", evidence="digest") == 3
    (status,) = ledger.status()
    assert status.charged == status.committed == costs
    assert status.epsilon_charged == status.epsilon_committed == budget.history[-1].epsilon
    assert ledger.budget().reservations["r1"].remaining_rounds == 0
    assert ledger.budget().guarantee() == (3.0, DELTA)

    # What came back can be used again, and no more than that.
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="r2", event=event, rounds=4, plan="def")
    assert refusal.value.affordable_rounds == 3
    ledger.reserve(run="r2", event=event, rounds=3, plan="def")

    assert kinds(ledger) == ["open", "grant", "reserve", *["commit"] * 4, "refund", "reserve"]
    records = ledger.records()
    assert [record.sequence for record in records] == list(range(1, 10))
    assert records[0].previous == GENESIS
    assert ledger.head() == (9, records[-1].digest)
    assert Ledger(place).records() == records
    assert Ledger(place).status() == ledger.status()


def test_reserving_again_on_the_same_terms_pays_once(ledger):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    first = ledger.reserve(run="r", event=EVENT, rounds=5, plan="p")
    ledger.commit(run="r", round=1)
    head = ledger.head()
    again = ledger.reserve(run="r", event=EVENT, rounds=5, plan="p")
    assert (first.rounds, again.rounds, len(again.commits)) == (5, 5, 1)
    assert ledger.head() == head


@pytest.mark.parametrize(
    "terms",
    [
        {"event": PoissonSampledGaussian(0.1, 1.999, 4)},
        {"rounds": 4},
        {"rounds": 6},
        {"plan": "q"},
    ],
)
def test_reserving_again_on_other_terms_is_refused(ledger, terms):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    held = {"run": "r", "event": EVENT, "rounds": 5, "plan": "p"}
    ledger.reserve(**held)
    head = ledger.head()
    with pytest.raises(LedgerError, match="other terms"):
        ledger.reserve(**held | terms)
    assert ledger.head() == head


def test_a_closed_run_stays_closed(ledger):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    ledger.reserve(run="r", event=EVENT, rounds=2, plan="p")
    assert ledger.refund(run="r", evidence="e") == 2
    head = ledger.head()
    for attempt in (
        lambda: ledger.reserve(run="r", event=EVENT, rounds=2, plan="p"),
        lambda: ledger.commit(run="r", round=1),
        lambda: ledger.refund(run="r", evidence="e"),
    ):
        with pytest.raises(LedgerError):
            attempt()
    assert ledger.head() == head


def test_commits_need_an_open_reservation_with_something_left(ledger):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    with pytest.raises(LedgerError, match="no open reservation"):
        ledger.commit(run="r", round=1)
    with pytest.raises(LedgerError, match="no open reservation"):
        ledger.refund(run="r", evidence="e")
    ledger.reserve(run="r", event=EVENT, rounds=2, plan="p")
    ledger.commit(run="r", round=1)
    ledger.commit(run="r", round=2)
    head = ledger.head()
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.commit(run="r", round=3)
    assert (refusal.value.asked_rounds, refusal.value.affordable_rounds) == (1, 0)
    assert ledger.head() == head
    assert ledger.refund(run="r", evidence="e") == 0


@pytest.mark.parametrize("rounds", [0, -1, 1.5, "2"])
def test_rounds_are_whole_and_positive(ledger, rounds):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    with pytest.raises((LedgerError, TypeError)):
        ledger.reserve(run="r", event=EVENT, rounds=rounds, plan="p")
    assert kinds(ledger) == ["open", "grant"]


def test_without_a_grant_nothing_fits(ledger):
    with pytest.raises(BudgetExhausted, match="nothing granted") as refusal:
        ledger.reserve(run="r", event=EVENT, rounds=1, plan="p")
    assert refusal.value.affordable_rounds == 0
    assert kinds(ledger) == ["open"]


def test_exhausted_says_what_is_left_and_what_would_fit(ledger):
    ledger.grant(epsilon=1.0, delta=DELTA, population_size=1000)
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="r", event=EVENT, rounds=1000, plan="p")
    error = refusal.value
    assert error.code == "budget"
    assert error.asked_rounds == 1000
    assert f"would fit: {error.affordable_rounds} round" in error.hint
    noise = float(re.search(r"1000 with noise multiplier ([0-9.]+) instead of 2", error.hint)[1])
    assert "of epsilon 1 at delta 1e-05" in str(error)
    with pytest.raises(BudgetExhausted):
        ledger.reserve(run="r", event=EVENT, rounds=error.affordable_rounds + 1, plan="p")
    ledger.reserve(run="r", event=EVENT, rounds=error.affordable_rounds, plan="p")
    ledger.refund(run="r", evidence="e")
    quieter = PoissonSampledGaussian(EVENT.sample_rate, noise, EVENT.steps)
    ledger.reserve(run="s", event=quieter, rounds=1000, plan="p")


def test_integers_in_an_event_are_as_good_as_floats(ledger):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    held = ledger.reserve(run="r", event=PoissonSampledGaussian(1, 20, 1), rounds=1, plan="p")
    assert held.event == PoissonSampledGaussian(1.0, 20.0, 1)
    ledger.reserve(run="r", event=PoissonSampledGaussian(1.0, 20.0, 1), rounds=1, plan="p")


@pytest.mark.parametrize(
    "event", [PoissonSampledGaussian(1.0, 1e-200, 1), PoissonSampledGaussian(0.5, 1.0, 10**400)]
)
def test_events_that_cannot_be_accounted_are_never_affordable(ledger, event):
    ledger.grant(epsilon=1000.0, delta=DELTA, population_size=1000)
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="r", event=event, rounds=1, plan="p")
    assert refusal.value.affordable_rounds == 0


def test_non_private_use_ends_every_grant(ledger):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    ledger.grant(epsilon=5.0, delta=DELTA, population_size=1000)
    ledger.reserve(run="r", event=EVENT, rounds=2, plan="p")
    ledger.commit(run="r", round=1)
    ledger.record_non_private(run="baseline", reason="debugging")
    assert ledger.budget().guarantee() == (math.inf, 1.0)
    for status in ledger.status():
        assert status.epsilon_committed == status.epsilon_charged == math.inf
        assert status.epsilon_left == 0.0
    assert NonPrivate("baseline") in ledger.budget().events()
    for attempt in (
        lambda: ledger.reserve(run="s", event=EVENT, rounds=1, plan="p"),
        lambda: ledger.commit(run="r", round=2),
    ):
        with pytest.raises(LedgerError):
            attempt()
    # A further grant does not undo it.
    ledger.grant(epsilon=8.0, delta=DELTA, population_size=1000)
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="s", event=EVENT, rounds=1, plan="p")
    assert refusal.value.affordable_rounds == 0


def test_a_non_private_event_is_never_reserved(ledger):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    with pytest.raises(BudgetExhausted, match="a non-private use"):
        ledger.reserve(run="r", event=NonPrivate("x"), rounds=1, plan="p")


def test_grants_add_up_and_are_charged_one_after_the_other(ledger):
    for epsilon, delta in ((1.0, 1e-5), (3.0, 1e-6), (8.0, 1e-5)):
        ledger.grant(epsilon=epsilon, delta=delta, population_size=1000)
    epsilon, delta = ledger.budget().guarantee()
    assert (epsilon, delta) == pytest.approx((12.0, 2.1e-5))
    first = exhaust(ledger, "a", LIGHT)  # the largest run that fits some grant: the third
    assert ledger.budget().reservations["a"].grant == 3
    assert ledger.reserve(run="b", event=LIGHT, rounds=1, plan="p").grant == 1
    second = exhaust(ledger, "c", LIGHT)
    assert ledger.budget().reservations["c"].grant == 2
    third = exhaust(ledger, "d", LIGHT)
    assert ledger.budget().reservations["d"].grant == 1
    assert first > second > third > 0
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="e", event=LIGHT, rounds=1, plan="p")
    assert refusal.value.affordable_rounds == 0
    for status in ledger.status():
        assert fits(status.charged, status.grant.epsilon, status.grant.delta)
        assert status.epsilon_charged <= status.grant.epsilon


def test_different_runs_share_a_grant(ledger):
    ledger.grant(epsilon=4.0, delta=DELTA, population_size=1000)
    mechanisms = [
        PoissonSampledGaussian(0.01, 1.0, 100),
        PoissonSampledGaussian(0.2, 3.0, 5),
        PoissonSampledGaussian(1.0, 10.0, 1),
        PoissonSampledGaussian(0.05, 1.5, 20),
    ]
    for number, event in enumerate(mechanisms):
        ledger.reserve(run=f"run-{number}", event=event, rounds=1 + number, plan="p")
        ledger.commit(run=f"run-{number}", round=1)
    ledger.refund(run="run-3", evidence="e")
    (status,) = ledger.status()
    charged = zero_cost(status.grant.orders)
    for times, event in zip((1, 2, 3, 1), mechanisms, strict=True):
        charged = add_costs(charged, rdp_cost(event, status.grant.orders), times)
    assert status.charged == charged
    rounds = exhaust(ledger)
    (status,) = ledger.status()
    assert rounds > 0
    assert status.epsilon_charged <= 4.0


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (math.inf, 1e-5), (1.0, 0.0), (1.0, 2.0)]
)
def test_grants_out_of_range_are_refused(ledger, epsilon, delta):
    with pytest.raises(PlanError):
        ledger.grant(epsilon=epsilon, delta=delta, population_size=1000)
    assert kinds(ledger) == ["open"]


# What was recorded is judged by what was recorded, whatever accountant reads it later.


def test_a_grant_s_recorded_orders_are_trusted_and_filtered_at(ledger, place, monkeypatch):
    """Other reference workloads in another version would choose other orders: still sound."""
    monkeypatch.setattr("privacy.ledger.custody.filter_orders", lambda *_: (4, 9, 20))
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    monkeypatch.undo()
    (status,) = Ledger(place).status()
    assert status.grant.orders == (4, 9, 20)
    rounds = exhaust(ledger)
    costs = {order: cost * rounds for order, cost in rdp_cost(EVENT, (4, 9, 20)).items()}
    assert any(costs[order] <= rdp_bound(order, 3.0, DELTA / 3) for order in costs)
    one_more = {order: cost * (rounds + 1) for order, cost in rdp_cost(EVENT, costs).items()}
    assert all(one_more[order] > rdp_bound(order, 3.0, DELTA / 3) for order in costs)
    assert epsilon_spent(costs, DELTA) <= 3.0


FULL = 5  # rounds


def exactly_full(ledger):
    """A run whose rounds take all of a grant, to the last digits of its noise."""
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    low, high = 0.5, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        asked = {
            order: FULL * cost
            for order, cost in rdp_cost(PoissonSampledGaussian(0.1, middle, 4), (6, 7)).items()
        }
        low, high = (low, middle) if fits(asked, 3.0, DELTA) else (middle, high)
    event = PoissonSampledGaussian(0.1, high, 4)
    ledger.reserve(run="r", event=event, rounds=FULL, plan="p")
    ledger.commit(run="r", round=1)


@pytest.mark.parametrize("drift", [1e-7, -1e-7, 9e-7])
def test_an_accountant_that_rounds_otherwise_locks_no_full_ledger(
    ledger, place, monkeypatch, drift
):
    exactly_full(ledger)
    recorded = ledger.status()[0].charged

    def drifting(event, orders):
        return {o: math.ceil(c * (1 + drift)) for o, c in rdp_cost(event, orders).items()}

    monkeypatch.setattr("privacy.ledger.charges.rdp_cost", drifting)
    monkeypatch.setattr("privacy.ledger.totals.rdp_cost", drifting)
    later = Ledger(place, signer=SIGNER)
    (status,) = later.status()
    for order, cost in recorded.items():  # the dearer of the two is what counts from now on
        expected = max(cost // FULL, math.ceil(cost // FULL * (1 + drift))) * FULL
        assert status.charged[order] == expected
    assert fits(status.charged, 3.0, DELTA) == (drift < 0)  # judged anew it would not fit
    for number in range(2, FULL + 1):
        later.commit(run="r", round=number)
    with pytest.raises(BudgetExhausted) as refusal:
        later.reserve(run="s", event=EVENT, rounds=1, plan="p")
    assert refusal.value.affordable_rounds == 0
    assert later.refund(run="r", evidence="e") == 0


@pytest.mark.parametrize("drift", [1e-5, -1e-5])
def test_costs_that_are_not_the_event_s_are_refused(ledger, place, monkeypatch, drift):
    exactly_full(ledger)
    monkeypatch.setattr(
        "privacy.ledger.charges.rdp_cost",
        lambda event, orders: {
            o: math.ceil(c * (1 + drift)) for o, c in rdp_cost(event, orders).items()
        },
    )
    with pytest.raises(LedgerDamaged, match="is not the event's"):
        Ledger(place)


# Opening and creating.


def test_a_ledger_is_never_replaced(ledger, place, places):
    before = places.lines(place)
    with pytest.raises(LedgerError, match="never replaced"):
        Ledger.create(place, population="p", unit="u", signer=SIGNER, public_key=PUBLIC_KEY)
    assert places.lines(place) == before


def test_creation_checks_that_signer_and_public_key_agree(place):
    for public_key in (b"\x02" * 32, b"short"):
        with pytest.raises(LedgerError, match="do not agree"):
            Ledger.create(place, population="p", unit="u", signer=SIGNER, public_key=public_key)
    assert not Ledger.exists(place)


def test_opening_nothing_makes_nothing(place, tmp_path):
    for where in (place, tmp_path):
        with pytest.raises(LedgerError, match="no ledger at") as refusal:
            Ledger(where)
        assert not isinstance(refusal.value, LedgerDamaged)
    assert not Ledger.exists(place)


def test_a_reader_cannot_write(ledger, place):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    reader = Ledger(place)
    assert reader.head() == ledger.head()
    for attempt in (
        lambda: reader.grant(epsilon=1.0, delta=DELTA, population_size=1000),
        lambda: reader.reserve(run="r", event=EVENT, rounds=1, plan="p"),
        lambda: reader.commit(run="r", round=1),
        lambda: reader.refund(run="r", evidence="e"),
        lambda: reader.record_non_private(run="r", reason="x"),
        lambda: reader.recover([f"9:{'a' * 64}"], reason="x", losses=None),
        reader.anchor,
    ):
        with pytest.raises(LedgerError, match="reading only"):
            attempt()
    assert reader.head() == ledger.head()


def test_another_identity_cannot_spoil_the_ledger(ledger, place):
    """What it would write would not verify, so it is not written."""
    stranger = Ledger(place, signer=Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(LedgerError, match="unchanged") as refusal:
        stranger.grant(epsilon=1.0, delta=DELTA, population_size=1000)
    assert not isinstance(refusal.value, LedgerDamaged)
    assert "identity" in refusal.value.hint
    assert kinds(ledger) == ["open"]


def test_a_record_too_long_to_be_read_back_is_not_written(ledger):
    with pytest.raises(LedgerError, match="too long"):
        ledger.grant(epsilon=1.0, delta=DELTA, population_size=1000, purpose="x" * (1 << 20))
    assert kinds(ledger) == ["open"]


def test_a_deleted_ledger_is_missed_and_not_begun_anew(ledger, place, places):
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    assert Ledger.exists(place)
    places.remove(place)
    for attempt in (
        ledger.budget,
        ledger.head,
        lambda: ledger.reserve(run="r", event=EVENT, rounds=1, plan="p"),
        lambda: Ledger(place),
    ):
        with pytest.raises(LedgerError, match="no ledger at"):
            attempt()
    assert not Ledger.exists(place)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET line = ''",
        "DELETE FROM records",
        "INSERT INTO records VALUES (1, 'x') ON CONFLICT (sequence) DO UPDATE SET line = 'x'",
    ],
)
def test_honest_tools_cannot_change_a_record(ledger, place, places, statement):
    before = places.lines(place)
    with pytest.raises(Exception, match="append-only"):
        places.try_to(place, statement)
    assert places.lines(place) == before


def test_what_cannot_be_used_now_is_not_called_damaged(ledger, place, places, monkeypatch):
    """Somebody else writes for too long: nothing is changed, and it can be done again."""
    monkeypatch.setattr("privacy.storage._TIMEOUT_S", 0.05)
    waiting = Ledger(place, signer=SIGNER)
    with open_store(place).write() as transaction:
        transaction.execute("SELECT line FROM records")
        with pytest.raises(LedgerUnavailable, match="lock") as refusal:
            waiting.grant(epsilon=1.0, delta=DELTA, population_size=1000)
        assert kinds(ledger) == ["open"]  # reading waits for nobody
    assert not isinstance(refusal.value, LedgerDamaged)
    assert waiting.grant(epsilon=1.0, delta=DELTA, population_size=1000).number == 1


# Anchors.


def test_anchors(ledger):
    anchors = []
    for epsilon in (1.0, 2.0, 3.0):
        ledger.grant(epsilon=epsilon, delta=DELTA, population_size=1000)
        anchors.append("{}:{}".format(*ledger.head()))
    for anchor in anchors:
        ledger.budget().require_heads([anchor])
    with pytest.raises(LedgerLocked, match="truncated or rolled back"):
        ledger.budget().require_heads([f"9:{'a' * 64}"])
    with pytest.raises(LedgerLocked, match="forked"):
        ledger.budget().require_heads([f"2:{'a' * 64}"])


@pytest.mark.parametrize(
    "anchor",
    [
        "",
        "x",
        "1",
        "1:",
        f":{'a' * 64}",
        f"0:{'a' * 64}",
        f"-1:{'a' * 64}",
        f"²:{'a' * 64}",
        f"٣:{'a' * 64}",
        f"{'9' * 5000}:{'a' * 64}",
        f"1:{'a' * 63}",
        f"1:{'A' * 64}",
        f"1:{'g' * 64}",
        f"1:{'a' * 64}\n",
        f" 1:{'a' * 64}",
    ],
)
def test_what_is_not_an_anchor_is_refused(ledger, anchor):
    with pytest.raises(LedgerError, match="not an anchor") as refusal:
        ledger.budget().require_heads([anchor])
    assert not isinstance(refusal.value, LedgerDamaged)
