"""Runs in which somebody spoils sums without a trace: rehearsals name it, and the others go on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from real_world import RealWorld
from sealed_falsely import at_random, seals
from support import Quiet
from typer.testing import CliRunner

from aggregation import Decryptor, SiteAttempt
from aggregation.protocol import Reveal
from aggregation.roles.site_secrets import SiteSecrets
from fmfl_secure.cli import app
from fmfl_secure.cli.answers.reports import RehearsalsJudged
from fmfl_secure.errors import RunError
from fmfl_secure.parties.site_training import SiteTraining
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.rehearsals import Rehearsals
from fmfl_secure.transports.local.engine import LocalEngine

pytestmark = pytest.mark.usefixtures("checked_once")
HONEST = ("site-1", "site-2", "site-3")
BAD = "site-4"


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


def judged(*arguments: object) -> tuple[int, RehearsalsJudged]:
    """What `report rehearsals` answers, and how it ends."""
    told = CliRunner().invoke(
        app, ["report", "rehearsals", *[str(each) for each in arguments], "--json"]
    )
    return told.exit_code, msgspec.json.decode(told.stdout, type=RehearsalsJudged)


def test_what_was_sent_is_kept_and_anybody_can_judge_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, at_random)
    run(folder, "always")
    kept = folder / "run/rehearsals/1.msgpack"
    said = {BAD: "secret"}
    for arguments in (
        [folder / "run"],
        [kept, "--pinned", folder],
        [folder / "run", "--pinned", folder / "sites/site-1"],  # by what a site itself pinned
    ):
        code, answer = judged(*arguments)
        (one,) = answer.rehearsals
        assert (code, answer.faults, one.fault, one.named) == (0, 0, "", said), arguments
        assert (one.sum_came_out, set(one.cohort)) == (False, {*HONEST, BAD})
    assert judged(folder / "run")[1].rehearsals[0].recorded == said
    assert (
        CliRunner().invoke(app, ["report", "rehearsals", str(kept)]).exit_code == 1
    )  # whose keys?

    told = CliRunner().invoke(app, ["report", "rehearsals", str(folder / "run")])
    assert "site-4: the secret that it sealed for the decryptor is none" in told.stdout

    raw = kept.read_bytes()
    other = bytearray(raw)
    other[len(raw) // 2] ^= 1
    kept.write_bytes(other)
    code, answer = judged(folder / "run")
    assert (code, answer.faults, answer.rehearsals[0].named) == (1, 1, {})
    assert answer.rehearsals[0].fault.startswith("it is no evidence")

    kept.unlink()
    code, answer = judged(folder / "run")
    assert code == 1
    assert "missing" in answer.rehearsals[0].fault

    kept.write_bytes(raw)
    kept.rename(kept.with_name("2.msgpack"))  # of another, which named nobody
    assert judged(folder / "run")[0] == 1


def test_a_record_that_names_another_than_the_evidence_does_not_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that wants a site gone writes that a rehearsal named it."""
    seals(monkeypatch, BAD, at_random)
    genuine = Rehearsals._judge

    def judging(self: Rehearsals, attempt):
        named, holds = genuine(self, attempt)
        return dict.fromkeys(["site-2"] if named else [], "secret"), holds

    monkeypatch.setattr(Rehearsals, "_judge", judging)
    with suppress(RunError):  # it goes on with the saboteur, and comes to nothing
        run(folder, "always")
    code, answer = judged(folder / "run")
    assert code == 1
    assert answer.faults
    first = answer.rehearsals[0]
    assert (first.named, first.recorded) == ({BAD: "secret"}, {"site-2": "secret"})
    assert "it names site-4 (secret), and the record site-2 (secret)" in first.fault


def test_a_site_whose_upload_is_not_what_it_signed_does_not_end_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what a site signed is evidence of it; before, the whole run ended by such a one."""
    upload = SiteAttempt.upload

    def uploading(self: SiteAttempt, *given, **more):
        made = upload(self, *given, **more)
        if self._identity.public.name != BAD:
            return made
        return replace(made, chunks=[bytes(len(each)) for each in made.chunks])

    monkeypatch.setattr(SiteAttempt, "upload", uploading)
    first, second = run(folder, "always").rounds
    assert first.rehearsals[0].named == {BAD: "invalid"}
    assert first.cohort == second.cohort == HONEST
    code, answer = judged(folder / "run")
    assert (code, answer.rehearsals[0].named) == (0, {})


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


def spoils_rounds_alone(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """It reads in the plan what an attempt is, and behaves in rehearsals."""
    seal = SiteSecrets._seal

    def sealing(self: SiteSecrets, cohort, encryptor) -> bytes:
        if self._name == bad and not cohort.round.is_rehearsal:
            return at_random(b"", self, cohort)
        return seal(self, cohort, encryptor)

    monkeypatch.setattr(SiteSecrets, "_seal", sealing)


def test_who_behaves_in_rehearsals_is_not_found_and_that_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a rehearsal is not: whoever reads the plan knows that it is one."""
    spoils_rounds_alone(monkeypatch, BAD)
    for one in run(folder, "after-failure").rounds:
        assert (one.status, one.refusals) == ("lost", {})
        (found,) = one.rehearsals
        assert (found.holds, found.named) == (True, {})
    assert "behaves in rehearsals" in (folder / "run/report.html").read_text()


def test_whoever_spoils_rounds_alone_is_left_out_on_suspicion_and_rounds_are_released(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can prove it. The first two are lost with all; then one after the other is out."""
    path = folder / "federation.toml"
    path.write_text(path.read_text().replace("rounds = 2", "rounds = 5", 1))
    spoils_rounds_alone(monkeypatch, "site-2")
    rounds = run(folder, "never").rounds
    assert [one.status for one in rounds[:2]] == ["lost", "lost"]
    assert [one.refusals for one in rounds[:2]] == [{}, {}]
    tried = [one.refusals for one in rounds[2:]]
    assert all(set(each.values()) == {"attempt.suspected"} and len(each) == 1 for each in tried)
    for one in rounds[2:]:
        without = set(one.refusals) == {"site-2"}
        assert (one.status == "released") == without
    assert rounds[-1].status == "released"
    assert "no proof of anything" in (folder / "run/report.html").read_text()


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
