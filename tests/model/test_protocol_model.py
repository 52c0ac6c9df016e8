"""A round, in every order in which an adversary can run it; and with each rule left out.

`model.py` says who does what, `explorer.py` visits every state. The parties are the product's own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from explorer import Explored, explore
from honest_server import HonestServer, Step
from model import Model, State
from parties import Modelled

import aggregation.roles.site
from aggregation import MemoryJournal, ReplayError
from aggregation.protocol import FixedCohort, Reveal, Vanishing, openings_for
from aggregation.roles import one_cohort
from aggregation.roles.site_secrets import SiteSecrets

SLOW = pytest.mark.slow
ONCE = (("one", 1),)
OF_FOUR = Vanishing(1, openings_for(4, 1))  # of four sites one may vanish, and one may collude


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Parties refuse most of what they are told here, and say so each time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def without(*forgotten: str) -> type[MemoryJournal]:
    """A journal that does not keep entries of these kinds."""

    class Forgetting(MemoryJournal):
        def record(self, kind: str, key: str, value: bytes) -> None:
            if kind not in forgotten:
                super().record(kind, key, value)

    return Forgetting


def explored(model: Model) -> Explored[State]:
    return explore(model.start, model.moves, model.broken)


def opened(model: Model, found: Explored[State]) -> bool:
    """Whether the adversary ever had a sum: else that nothing bad happens would mean nothing."""
    return any(model._opens(s.heard, c) for s in found.before for c in model._made)


@pytest.mark.parametrize(
    "round_",
    [
        pytest.param({"honest": 2, "liars": 1}, id="two honest sites of three"),
        pytest.param({"honest": 2, "liars": 1, "crashes": 1}, id="and one dies", marks=SLOW),
        pytest.param({"honest": 3}, id="three honest sites", marks=SLOW),
        pytest.param({"honest": 3, "crashes": 1}, id="three, and one dies", marks=SLOW),
        pytest.param(
            {"honest": 4, "liars": 1, "floor": 4, "plans": ONCE},
            id="every cohort of four or five of five", marks=SLOW,
        ),
        pytest.param(
            {"honest": 2, "liars": 1, "plans": (("one", 1), ("two", 2))}, id="two federations"
        ),
        pytest.param(
            {"honest": 2, "liars": 1, "put_backs": 1}, id="one journal of two put back", marks=SLOW
        ),
        pytest.param(
            {"honest": 3, "liars": 1, "plans": ONCE, "vanishing": OF_FOUR},
            id="one may vanish of three and a liar",
        ),
        pytest.param(
            {"honest": 2, "liars": 1, "vanishing": Vanishing(1, 3)},
            id="none may of three, by the quorum", marks=SLOW,
        ),
        pytest.param(
            {"honest": 3, "liars": 2, "floor": 4, "least": 4, "plans": ONCE,
             "vanishing": Vanishing(1, openings_for(5, 2))},
            id="one may vanish of three and two liars", marks=SLOW,
        ),
        pytest.param(
            {"honest": 4, "put_backs": 1, "plans": ONCE, "vanishing": OF_FOUR, "colluding": 1,
             "false_lists": False},
            id="one may vanish of four, and a journal is put back", marks=SLOW,
        ),
    ],
)  # fmt: skip
def test_at_most_one_cohort_opens_and_nothing_is_charged_twice(round_: dict) -> None:
    model = Model(**round_)
    found = explored(model)
    assert found.broken == "", found.path
    assert opened(model, found)


@pytest.mark.parametrize(
    "round_",
    [
        {"journal": without("site/opened")},
        {"journal": without("site/opened"), "crashes": 1},
    ],
    ids=["sites forget what they opened", "and one dies"],
)
@pytest.mark.slow
def test_an_honest_decryptor_releases_once_whatever_sites_forget(round_: dict) -> None:
    model = Model(honest=2, liars=1, is_honest=True, **round_)
    found = explored(model)
    assert found.broken == "", found.path
    assert any(state.heard & model._masks["release"] for state in found.before)


@pytest.mark.parametrize(
    ("round_", "attack"),
    [
        pytest.param(
            {"honest": 2, "liars": 1, "journal": without("site/opened")}, "two cohorts open",
            id="a site opens a round once",
        ),
        pytest.param(
            {"honest": 4, "liars": 1, "floor": 0, "plans": ONCE}, "two cohorts open",
            id="a cohort has two thirds of the sites", marks=SLOW,
        ),
        pytest.param(
            {"honest": 2, "liars": 1, "put_backs": 2, "plans": ONCE}, "two cohorts open",
            id="journals that were put back are noticed", marks=SLOW,
        ),
        pytest.param(
            {"honest": 3, "liars": 1, "put_backs": 1, "plans": ONCE}, "two cohorts open",
            id="or fewer collude than two cohorts share", marks=SLOW,
        ),
        pytest.param(
            {"honest": 2, "liars": 1, "is_honest": True,
             "journal": without("site/opened", "decryptor/released")}, "two sums are released",
            id="a decryptor releases a round once", marks=SLOW,
        ),
        pytest.param(
            {"honest": 2, "liars": 1, "crashes": 1, "keeps_updates": False}, "charged twice",
            id="an update is stored",
        ),
        pytest.param(
            {"honest": 2, "liars": 2, "plans": ONCE, "vanishing": OF_FOUR}, "two cohorts open",
            id="openings are a quorum of all who collude",
        ),
        pytest.param(
            {"honest": 3, "liars": 1, "vanishing": OF_FOUR, "colluding": 1, "false_lists": False,
             "journal": without("site/cohort")}, "two cohorts open",
            id="a site opens one cohort a round where some may vanish", marks=SLOW,
        ),
        pytest.param(
            {"honest": 3, "liars": 1, "put_backs": 1, "plans": ONCE, "vanishing": OF_FOUR,
             "colluding": 1}, "two cohorts open",
            id="a journal that was put back counts as one that colludes", marks=SLOW,
        ),
    ],
)  # fmt: skip
def test_with_a_rule_left_out_the_attack_is_found(round_: dict, attack: str) -> None:
    found = explored(Model(**round_))
    assert attack in found.broken
    assert found.path


@pytest.mark.slow
def test_with_federations_not_pinned_the_attack_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation.roles.site, "pin_federation", lambda *_: None)
    monkeypatch.setattr(aggregation.roles.site, "check_federation", lambda *_: None)
    model = Model(honest=2, liars=1, plans=(("one", 1), ("two", 2)))
    assert "two cohorts open" in explored(model).broken


@pytest.mark.parametrize(
    "round_",
    [
        pytest.param({"honest": 2, "liars": 1, "plans": ()}, id="alone"),
        pytest.param({"honest": 2, "liars": 1, "plans": ONCE, "false_lists": False}, id="beside"),
        pytest.param({"honest": 2, "liars": 1, "plans": ONCE}, id="and false lists", marks=SLOW),
        pytest.param(
            {"honest": 2, "liars": 1, "plans": ONCE, "crashes": 1, "false_lists": False},
            id="and one dies", marks=SLOW,
        ),
    ],
)  # fmt: skip
def test_a_rehearsal_beside_a_round_opens_and_reveals_nothing_of_it(round_: dict) -> None:
    model = Model(rehearses=True, **round_)
    found = explored(model)
    assert found.broken == "", found.path
    assert opened(model, found)
    assert any(state.heard & model._masks["reveal"] for state in found.before)


def test_if_a_rehearsal_s_plan_is_taken_for_a_round_s_it_is_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Modelled, "_agreed", staticmethod(lambda attempt, **_: attempt))
    found = explored(Model(honest=2, liars=1, plans=(), rehearses=True))
    assert "charged for a rehearsal" in found.broken


def test_if_sites_reveal_whatever_is_asked_keys_of_a_round_are_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def revealing(self: SiteSecrets, cohort: FixedCohort, *, verified) -> Reveal:
        return Reveal(cohort.transcript, b"", self.seed, verified=verified)  # its key is spent

    monkeypatch.setattr(SiteSecrets, "reveal", revealing)
    found = explored(Model(honest=2, liars=1, plans=ONCE, false_lists=False, rehearses=True))
    assert found.broken == "keys of a round are revealed"


def doomed(model: HonestServer) -> list[Step]:
    """States from which the round is never released."""
    found = explore(model.first, model.steps, lambda at: model.broken(at.state), edges=True)
    assert found.broken == "", found.path
    assert any(model.ends(at) for at in found.before)
    return found.doomed(model.ends)


def finished(model: HonestServer) -> list[Step]:
    """The same, and nothing excuses it."""
    return [at for at in doomed(model) if not model.excused(at)]


@pytest.mark.parametrize(
    "crashes", [0, 1, pytest.param(2, marks=SLOW)], ids=["nobody dies", "one dies", "two die"]
)
def test_where_one_may_vanish_it_finishes_whoever_dies_and_when(crashes: int) -> None:
    """One more than may: the attempt is made again, by the same sites."""
    model = HonestServer(honest=3, crashes=crashes, vanishing=Vanishing(1, openings_for(3, 0)))
    assert doomed(model) == []


@pytest.mark.slow
def test_with_no_attempt_made_again_one_more_dooms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def joins_none_after(journal, own, round_) -> None:
        if journal.lookup(one_cohort.BOUND, round_.round_key(own)) is not None:
            raise ReplayError("this site opened this round already")

    monkeypatch.setattr(one_cohort, "check_plan", joins_none_after)
    model = HonestServer(honest=3, crashes=2, vanishing=Vanishing(1, openings_for(3, 0)))
    assert doomed(model)


@pytest.mark.parametrize(
    "crashes", [0, pytest.param(1, marks=SLOW)], ids=["nobody dies", "one dies"]
)
def test_an_honest_cohort_finishes(crashes: int) -> None:
    assert finished(HonestServer(honest=3, crashes=crashes)) == []


@pytest.mark.slow
def test_without_recorded_openings_sent_again_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Modelled, "recorded_opening", lambda *_: None)
    assert finished(HonestServer(honest=3, crashes=1))


@pytest.mark.slow
def test_with_the_same_attempt_again_it_does_not() -> None:
    assert finished(HonestServer(honest=3, crashes=1, advances=False))
