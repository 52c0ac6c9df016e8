"""Runs in which somebody spoils sums without a trace: rehearsals name it, and the others go on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from real_world import RealWorld
from sealed_falsely import at_random, seals
from support import Quiet, make_federation

from aggregation import Decryptor, Evidence, Identity, judge
from aggregation.protocol import Reveal, read_cohort, read_plan
from aggregation.roles.site_secrets import SiteSecrets
from fmfl_secure.errors import RunError
from fmfl_secure.parties.site_training import SiteTraining
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.transports.local.engine import LocalEngine

HONEST = ("site-1", "site-2", "site-3")
BAD = "site-4"


@pytest.fixture(autouse=True)
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fmfl_secure.transports.local.engine.check_admission", lambda *_, **__: None
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("rehearsals") / "federation"
    make_federation(folder, tiny_model, sites=4, rounds=2, steps=1, evaluation=False)
    return folder


def run(folder: Path, setting: str, observer: Quiet | None = None):
    path = folder / "federation.toml"
    path.write_text(
        path.read_text().replace("[federation]", f'[federation]\nrehearsals = "{setting}"', 1)
    )
    engine = LocalEngine(path, folder / "run", resume=False, observer=observer or Quiet())
    return engine.run()


def test_without_rehearsals_a_wrong_sigma_loses_every_round_and_names_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, at_random)
    record = run(folder, "never")
    assert [(r.status, r.refusals) for r in record.rounds] == [("lost", {})] * 2


def test_after_a_lost_round_whoever_sends_a_wrong_sigma_is_named_and_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, at_random)
    first, second = run(folder, "after-failure").rounds
    assert first.status == "lost"
    named, clean = first.rehearsals
    assert (named.occasion, named.holds, named.named) == ("failure", False, {BAD: "secret"})
    assert (clean.cohort, clean.holds, clean.named) == (HONEST, True, {})
    assert (second.status, second.attempts, second.cohort) == ("released", 1, HONEST)
    assert second.refusals == {BAD: "attempt.rehearsed"}
    report = (folder / "run/report.html").read_text()
    assert "Rehearsal 1, after a failure" in report
    assert "a wrong sigma" in report


def test_at_the_start_it_is_named_before_anybody_trains(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, at_random)
    observer = Quiet()
    first, second = run(folder, "always", observer).rounds
    assert first.rehearsals[0].named == {BAD: "secret"}
    assert (first.status, first.cohort) == (second.status, second.cohort) == ("released", HONEST)
    assert {site for _, site in observer.trained} == set(HONEST)


def test_what_was_sent_is_kept_and_anybody_can_judge_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, at_random)
    run(folder, "always")
    raw = (folder / "run/rehearsals/1.msgpack").read_bytes()
    evidence = msgspec.msgpack.decode(raw, type=Evidence)
    coordinator = Identity.load(
        Workspace(folder).role("coordinator") / "identity.pem", "coordinator"
    ).public
    cohort = read_cohort(read_plan(evidence.plan, coordinator), evidence.cohort)
    assert judge(cohort, evidence).named == {BAD: "secret"}


def test_a_rehearsal_trains_nothing_and_charges_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it two rounds cost what two rounds cost without it, and data are read for them alone."""
    trained = []
    update = SiteTraining.update

    def training(self: SiteTraining, plan, *rest):
        trained.append((plan.round, plan.rehearsal))
        return update(self, plan, *rest)

    monkeypatch.setattr(SiteTraining, "update", training)
    record = run(folder, "always")
    assert record.rounds[0].rehearsals[0].holds
    assert record.rounds[1].rehearsals is msgspec.UNSET
    assert sorted(set(trained)) == [(1, msgspec.UNSET), (2, msgspec.UNSET)]
    for site in record.sites:
        assert site.statement is not None
        (grant,) = site.statement.grants
        assert 0 < grant.epsilon_spent == pytest.approx(grant.epsilon_charged)


def test_who_behaves_in_rehearsals_is_not_found_and_that_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a rehearsal is not: whoever reads the plan knows that it is one."""
    seal = SiteSecrets._seal

    def sealing(self: SiteSecrets, cohort, encryptor) -> bytes:
        if self._name == BAD and not cohort.round.is_rehearsal:
            return at_random(b"", self, cohort)
        return seal(self, cohort, encryptor)

    monkeypatch.setattr(SiteSecrets, "_seal", sealing)
    for one in run(folder, "after-failure").rounds:
        assert one.status == "lost"
        (found,) = one.rehearsals
        assert (found.holds, found.named) == (True, {})
    assert "behaves in rehearsals" in (folder / "run/report.html").read_text()


def test_a_site_that_reveals_nothing_is_named_for_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reveal = SiteAgent._reveal

    def revealing(self: SiteAgent, work) -> None:
        if self.transport._name != BAD:  # type: ignore[attr-defined]
            reveal(self, work)

    monkeypatch.setattr(SiteAgent, "_reveal", revealing)
    first, second = run(folder, "always").rounds
    assert first.rehearsals[0].named == {BAD: "unrevealed"}
    assert first.cohort == second.cohort == HONEST


def test_a_decryptor_that_reveals_another_key_ends_the_run_before_anything_is_charged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reveal = Decryptor.reveal

    def revealing(self: Decryptor, plan: bytes, cohort: bytes) -> bytes:
        from aggregation.crypto.sealed_box import BoxKey
        from aggregation.protocol import messages

        body = messages.unseal(reveal(self, plan, cohort), Reveal, self.public)
        return messages.seal(self._identity, msgspec.structs.replace(body, key=BoxKey().reveal()))

    monkeypatch.setattr(Decryptor, "reveal", revealing)
    observer = Quiet()
    with pytest.raises(RunError, match="names the decryptor"):
        run(folder, "always", observer)
    assert not observer.trained


def test_over_the_service_too(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, at_random)
    world = RealWorld(tmp_path, tiny_model, rounds=1, federation='rehearsals = "always"')
    world.start_all()
    (record,) = world.finish()
    assert record.rehearsals[0].named == {BAD: "secret"}
    assert (record.status, record.cohort) == ("released", HONEST)
