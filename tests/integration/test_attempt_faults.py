"""An attempt that fails by a site is not made again with it, and no honest site is blamed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from real_world import RealWorld
from sealed_falsely import altered, seals, spoils_mac_keys
from support import Quiet, make_federation

from aggregation import Decryptor, SealedError
from aggregation.crypto import sealed_box
from aggregation.errors import CohortError, ReleaseError
from aggregation.protocol.accusation import accuse
from aggregation.protocol.messages import Ready
from aggregation.roles.site import SiteAttempt
from aggregation.roles.site_secrets import SiteSecrets
from fmfl_secure.errors import BadAnswer, Rejected, RunError, ServiceError
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.attempt_state import ServerAttempt
from fmfl_secure.runtime.left_out import LeftOut
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import Work
from fmfl_secure.transports.local.engine import LocalEngine

pytestmark = pytest.mark.usefixtures("checked_once")
HONEST = ("site-1", "site-2", "site-3")
BAD = "site-4"


def run(folder: Path, observer: Quiet | None = None):
    engine = LocalEngine(
        folder / "federation.toml", folder / "run", resume=False, observer=observer or Quiet()
    )
    return engine.run()


def announces_a_bad_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Site 4's ready messages have an X25519 key of low order, and are signed by it."""
    draw = SiteSecrets.draw

    def drawing(self: SiteSecrets) -> Ready:
        ready = draw(self)
        if self._name != BAD:
            return ready
        self.key.public = bytes(32)
        return Ready(ready.plan, bytes(32), ready.kem)

    monkeypatch.setattr(SiteSecrets, "draw", drawing)


def by_the_rule_of_0_1_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are taken as they come, and every attempt invites whoever is there."""
    monkeypatch.setattr(sealed_box, "check_public", lambda *_: None)
    monkeypatch.setattr(LeftOut, "choose", lambda _, __, present, ___: list(present))


def test_by_the_rule_of_0_1_0_one_cohort_fails_five_times_and_others_are_blamed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_the_rule_of_0_1_0(monkeypatch)
    announces_a_bad_key(monkeypatch)
    with pytest.raises(RunError, match=r"in 5 attempts: site-1, site-2, site-3 did not upload"):
        run(folder)


def test_a_site_that_announces_a_bad_key_is_left_out_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announces_a_bad_key(monkeypatch)
    record = run(folder)
    assert record.status == "finished"
    assert [(r.attempts, r.cohort) for r in record.rounds] == [(1, HONEST), (1, HONEST)]
    assert [r.refusals for r in record.rounds] == [{BAD: "attempt.invalid"}] * 2
    report = (folder / "run/report.html").read_text()
    assert "attempt.invalid" in report
    assert "it sent what does not hold" in report


def test_over_the_service_too(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announces_a_bad_key(monkeypatch)
    world = RealWorld(tmp_path, tiny_model, rounds=2)
    world.start_all()
    send = world.transports[BAD].send

    def stubborn(*message) -> None:
        """It is refused, and stays where it is."""
        with suppress(Rejected):
            send(*message)

    world.transports[BAD].send = stubborn  # type: ignore[method-assign]
    first, second = world.finish()
    assert first.cohort == second.cohort == HONEST
    assert first.refusals == second.refusals == {BAD: "attempt.invalid"}


@pytest.mark.parametrize(
    ("method", "word"), [("_exchange", "silent"), ("_upload", "silent"), ("_open", "silent")]
)
def test_a_site_that_is_there_and_does_nothing_costs_one_attempt(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, word: str
) -> None:
    does = getattr(SiteAgent, method)

    def doing(self: SiteAgent, work) -> None:
        if self.transport._name != BAD:  # type: ignore[attr-defined]
            does(self, work)

    monkeypatch.setattr(SiteAgent, method, doing)
    record = run(folder)
    first, second = record.rounds
    assert second.cohort == HONEST
    assert second.attempts == 1
    assert second.refusals == {BAD: f"attempt.{word}"}
    if method == "_open":  # the others had opened: as before, the round is spent
        assert first.status == "lost"
        return
    assert (first.attempts, first.cohort) == (2, HONEST)
    assert first.refusals == {BAD: f"attempt.{word}"}


def test_a_site_that_alone_cannot_go_on_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = SiteAttempt.upload

    def failing(self: SiteAttempt, *rest):
        if self._identity.public.name == BAD:
            raise CohortError("it says so")
        return upload(self, *rest)

    monkeypatch.setattr(SiteAttempt, "upload", failing)
    first, second = run(folder).rounds
    assert (first.attempts, first.cohort, first.refusals) == (2, HONEST, {BAD: "attempt.failed"})
    assert (second.attempts, second.cohort) == (1, HONEST)


def refuses_sums(monkeypatch: pytest.MonkeyPatch, *bad: str) -> None:
    """They sign of every sum that it does not verify."""
    verify = SiteAttempt.verify

    def refusing(self: SiteAttempt, *given):
        if self._identity.public.name in bad:
            raise ReleaseError("it says so")
        return verify(self, *given)

    monkeypatch.setattr(SiteAttempt, "verify", refusing)


@pytest.mark.parametrize("rehearsals", ["never", "after-failure"])
def test_a_site_that_refuses_every_sum_loses_two_rounds_and_is_left_out_of_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rehearsals: str
) -> None:
    path = folder / "federation.toml"
    text = path.read_text().replace("rounds = 2", "rounds = 4", 1)
    path.write_text(text.replace("[federation]", f'[federation]\nrehearsals = "{rehearsals}"', 1))
    refuses_sums(monkeypatch, BAD)
    record = run(folder)
    assert record.status == "finished"
    assert [one.status for one in record.rounds] == ["lost", "lost", "released", "released"]
    assert [one.attempts for one in record.rounds] == [1] * 4, "no other sum is released of a round"
    assert [one.refusals for one in record.rounds] == [{BAD: "attempt.refused"}] * 4
    assert [one.cohort for one in record.rounds[2:]] == [HONEST, HONEST]
    assert "which more others verified" in (folder / "run/report.html").read_text()


def test_of_a_round_that_is_lost_a_server_keeps_no_messages(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All uploads of a run's last rounds stayed with it for good, for one site's word."""
    refuses_sums(monkeypatch, BAD)
    world = RealWorld(tmp_path, tiny_model, rounds=1)
    world.start_all()
    (record,) = world.finish()
    assert record.status == "lost"
    assert world.inbox.store.accepted(world.run.run, 1, 1) == []


def test_a_site_that_refuses_sums_has_no_refusal_forgotten_by_sending_what_does_not_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left out of five attempts for the other message, and never of the run."""
    path = folder / "federation.toml"
    path.write_text(path.read_text().replace("rounds = 2", "rounds = 12", 1))
    refuses_sums(monkeypatch, BAD)
    verify = SiteAgent._verify

    def verifying(self: SiteAgent, work) -> None:
        if self.transport._name == BAD:  # type: ignore[attr-defined]
            with suppress(Rejected):
                self.transport.send(work, "reveal", b"no reveal")
        verify(self, work)

    monkeypatch.setattr(SiteAgent, "_verify", verifying)
    rounds = run(folder).rounds
    assert sum(one.status == "lost" for one in rounds) == 2
    assert rounds[-1].refusals == {BAD: "attempt.refused"}
    assert {one.cohort for one in rounds[-5:]} == {HONEST}


def test_sites_that_all_refuse_a_sum_are_not_blamed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decryptor or an aggregator that changes sums leaves nobody out by that."""
    refuses_sums(monkeypatch, *HONEST)  # three of four, whom one colluder outvotes nowhere
    for one in run(folder).rounds:
        assert (one.status, one.refusals) == ("lost", {})


def nobody_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 0.1.0: whoever cannot open what another sealed says so, and that is all."""
    monkeypatch.setattr(ServerAttempt, "_take_accusation", lambda *_: None)


def test_a_site_whose_sealed_secret_does_not_open_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, altered)
    first, second = run(folder).rounds
    assert (first.attempts, first.cohort) == (2, HONEST)
    assert (second.attempts, second.cohort) == (1, HONEST)
    assert first.refusals == second.refusals == {BAD: "attempt.invalid"}


@pytest.mark.slow
def test_without_a_proof_the_same_sites_fail_five_times(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_judges(monkeypatch)
    seals(monkeypatch, BAD, altered)
    with pytest.raises(RunError, match=r"in 5 attempts: decryptor did not confirm"):
        run(folder)


@pytest.mark.slow
def test_over_the_service_it_is_left_out_too(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, altered)
    world = RealWorld(tmp_path, tiny_model, rounds=1)
    world.start_all()
    (record,) = world.finish()
    assert (record.attempts, record.cohort) == (2, HONEST)
    assert record.refusals == {BAD: "attempt.invalid"}


@pytest.mark.slow
def test_a_decryptor_that_accuses_honest_sites_has_none_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can stop the run, as it could by silence; each attempt invites everybody again."""
    invited = []
    plan = Coordinator.plan_attempt

    def planning(self: Coordinator, number: int, sites):
        invited.append(tuple(sites))
        return plan(self, number, sites)

    def lying(self: Decryptor, cohort, attempt, _):
        error = SealedError("it says so")
        error.accusation = accuse(self._identity, cohort, "site-1", attempt.key.reveal())
        raise error

    monkeypatch.setattr(Coordinator, "plan_attempt", planning)
    monkeypatch.setattr(Decryptor, "_sum_secrets", lying)
    with pytest.raises((RunError, Rejected)):
        run(folder)
    assert set(invited) == {(*HONEST, BAD)}


def test_a_first_site_cannot_have_another_blamed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It seals the MAC key for site 2 so that it does not open: site 2 proves whose fault it is."""
    spoils_mac_keys(monkeypatch, "site-1", 1)
    first, second = run(folder).rounds
    assert first.status == "lost", "the others had opened"
    assert first.refusals == second.refusals == {"site-1": "attempt.invalid"}
    assert second.cohort == ("site-2", "site-3", "site-4")


@pytest.mark.slow
def test_by_the_rule_of_0_1_0_it_has_one_honest_site_after_the_other_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_judges(monkeypatch)
    monkeypatch.setattr(ServerAttempt, "accusers", {}, raising=False)
    spoils_mac_keys(monkeypatch, "site-1", 1)
    first, second = run(folder).rounds
    assert first.status == "lost"
    assert second.refusals == dict.fromkeys(("site-2", "site-3"), "attempt.failed")


@pytest.mark.slow
def test_a_site_that_accuses_the_first_falsely_is_left_out_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(self: SiteAttempt, cohort, keyed, _) -> None:
        if self._identity.public.name != BAD:
            keyed.open(_)
            return
        error = SealedError("it says so")
        error.accusation = accuse(self._identity, cohort, cohort.names[0], keyed.reveal())
        raise error

    monkeypatch.setattr(SiteAttempt, "_take_mac_key", lying)
    first, second = run(folder).rounds
    assert first.status == "lost"
    assert first.refusals == second.refusals == {BAD: "attempt.invalid"}
    assert second.cohort == HONEST


def test_sites_that_one_stops_together_are_not_blamed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of a cohort draws the MAC key: with boxes nobody can open, no other site opens."""
    spoils_mac_keys(monkeypatch, "site-1", 1, 2, 3)
    for one in run(folder).rounds:
        assert (one.status, one.cohort) == ("released", ("site-2", "site-3", "site-4"))
        assert one.refusals == {"site-1": "attempt.invalid"}


def test_where_the_others_are_too_few_it_gets_one_more_chance_and_is_named(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "federation"
    make_federation(folder, tiny_model, sites=3, rounds=1, steps=1, evaluation=False)
    upload = SiteAttempt.upload

    def failing(self: SiteAttempt, *rest):
        if self._identity.public.name == "site-3":
            raise CohortError("it says so")
        return upload(self, *rest)

    monkeypatch.setattr(SiteAttempt, "upload", failing)
    observer = Quiet()
    with pytest.raises(RunError, match=r"2 sites are left .* two attempts failed by site-3") as end:
        run(folder, observer)
    assert "site-3: it could not go on with an attempt, and it alone" in end.value.hint
    assert observer.trained == [(1, name) for name in ("site-1", "site-2", "site-3")], "once"


def test_a_step_that_a_server_names_without_its_documents_ends_by_a_sentence(folder: Path) -> None:
    """A party's process ended by a KeyError, for whatever its server left out."""
    agents = LocalEngine(
        folder / "federation.toml", folder / "run", resume=False, observer=Quiet()
    )._agents
    for name in (BAD, "decryptor"):
        refused = 0
        for step in set(Step) - {Step.WAIT, Step.JOIN}:
            try:
                agents[name].do(Work(1, step, "ab" * 8, 1, 1, {}, [], 0, 1 << 20))
            except BadAnswer:
                refused += 1
            except ServiceError:
                pass  # nobody takes what it says
        assert refused, name
