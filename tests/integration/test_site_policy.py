"""A policy stricter than the plan: what a run does without the site, and what is told of it."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from support import Quiet, leave_no_records, make_federation

import aggregation
from fmfl_secure.errors import RunError
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.site_training import SiteTraining
from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import AdmissionError, Ledger

TODAY = dt.datetime.now(dt.UTC).date()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_federation(folder, tiny_model, sites=4, rounds=2, evaluation=False)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four sites and two rounds. The admission gate has tests of its own."""
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    return Path(shutil.copytree(template, tmp_path / "federation"))


def edit(path: Path, **replacements: str) -> None:
    text = path.read_text()
    for before, after in replacements.items():
        assert before in text
        text = text.replace(before, after, 1)
    path.write_text(text)


def set_policy(folder: Path, site: str, rules: str) -> None:
    edit(folder / f"sites/{site}/site.toml", **{"min_sites = 3": f"min_sites = 3\n{rules}"})


def run(folder: Path, name: str = "run", *, resume: bool = False) -> tuple[RunRecord, Quiet]:
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / name, resume=resume, observer=observer
    )
    return engine.run(), observer


def ledger(folder: Path, site: str) -> Ledger:
    return Ledger(folder / f"sites/{site}/ledger.sqlite")


def trained(folder: Path, site: str) -> list[int]:
    held = ledger(folder, site).budget().reservations.values()
    return [number for one in held for number, _ in one.commits]


OTHERS = ("site-1", "site-3", "site-4")


def test_the_round_goes_on_without_a_site_whose_policy_is_stricter(folder: Path) -> None:
    set_policy(folder, "site-2", "max_epsilon_per_run = 3.0")
    leave_no_records(folder / "data/site-2.csv")
    _, observer = run(folder)
    record = decode_record((folder / "run/report.json").read_bytes())
    assert record.status == "finished"
    assert [r.status for r in record.rounds] == ["released", "released"]
    assert [r.cohort for r in record.rounds] == [OTHERS, OTHERS]
    assert [r.refusals for r in record.rounds] == [{"site-2": "policy.epsilon_per_run"}] * 2
    assert {s.name: s.refusal for s in record.sites} == {
        "site-1": None, "site-2": "policy.epsilon_per_run", "site-3": None, "site-4": None
    }  # fmt: skip
    code, reason = observer.refused["site-2"]
    assert code == "policy.epsilon_per_run"
    assert "8 epsilon for one run, above this site's limit of 3" in reason
    assert ledger(folder, "site-2").budget().reservations == {}
    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert "its policy allows less epsilon for a run" in page
    for file in (folder / "run").rglob("*"):
        if file.is_file():
            assert b"limit of 3" not in file.read_bytes(), "the code leaves, its reason does not"


def test_the_run_stops_where_the_cohort_does_not_allow_to_go_on(folder: Path) -> None:
    set_policy(folder, "site-2", "max_epsilon_per_run = 3.0")
    set_policy(folder, "site-4", 'adapters = ["head"]')
    leave_no_records(folder / "data")
    with pytest.raises(RunError, match=r"2 of 4 sites take part.*nothing was charged") as stop:
        run(folder)
    assert re.findall(r"site-\d: [\w.]+", stop.value.hint) == [
        "site-2: policy.epsilon_per_run",
        "site-4: policy.adapter",
    ]
    record = decode_record((folder / "run/report.json").read_bytes())
    assert record.status == "stopped"
    assert "2 of 4 sites take part" in record.stop_reason
    assert record.rounds == ()
    assert {s.name: s.refusal for s in record.sites if s.refusal} == {
        "site-2": "policy.epsilon_per_run", "site-4": "policy.adapter"
    }  # fmt: skip
    for site in ("site-1", "site-3"):  # all were asked before any reserved
        assert ledger(folder, site).budget().reservations == {}


def expire_after_the_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock jumps from before the policies' last day to after it."""
    midnight = dt.datetime.combine(TODAY + dt.timedelta(days=1), dt.time(), dt.UTC)
    times = [dt.datetime.now(dt.UTC)]
    finish = Coordinator.finish_round

    def finish_and_wait(self, *rest, **named):
        times[0] = midnight
        return finish(self, *rest, **named)

    monkeypatch.setattr("fmfl_secure.parties.site._now", lambda: times[0])
    monkeypatch.setattr(Coordinator, "finish_round", finish_and_wait)


def test_a_policy_that_expires_during_a_run_ends_the_site_s_part_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_policy(folder, "site-2", f"expires = {TODAY}")
    expire_after_the_first_round(monkeypatch)
    record, _ = run(folder)
    assert record.status == "finished"
    assert [r.cohort for r in record.rounds] == [
        ("site-1", "site-2", "site-3", "site-4"), OTHERS
    ]  # fmt: skip
    assert [r.refusals for r in record.rounds] == [{}, {"site-2": "policy.expired"}]
    assert trained(folder, "site-2") == [1]
    (held,) = ledger(folder, "site-2").budget().reservations.values()
    assert not held.open, "the round that never started came back"


def test_the_policy_is_asked_of_what_the_coordinator_signed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings within the policy do not help a coordinator whose plans are not."""
    set_policy(folder, "site-2", "max_rounds = 2")
    plan = aggregation.Coordinator.plan

    def beyond(self, terms):
        return plan(self, msgspec.structs.replace(terms, round=terms.round + 2))

    monkeypatch.setattr(aggregation.Coordinator, "plan", beyond)
    # In league with it: of itself the decryptor would refuse, too.
    monkeypatch.setattr("fmfl_secure.parties.decryptor.objection", lambda *_: lambda _: None)
    seen = {}
    admit = Site.admit

    def admitting(self, *arguments):
        try:
            return admit(self, *arguments)
        except Exception as error:
            seen[self.name] = error
            raise

    monkeypatch.setattr(Site, "admit", admitting)
    with pytest.raises(RunError, match="2 sites are left"):
        run(folder)
    # Where no policy says how many rounds there may be, the settings do. With two gone there are
    # too few, and no other is asked.
    assert {name: error.code for name, error in seen.items()} == {
        "site-1": "run", "site-2": "policy.rounds"
    }  # fmt: skip
    assert all(trained(folder, site) == [] for site in ("site-2", *OTHERS))


def test_a_refusal_is_kept_when_a_run_is_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that left the run stays out of it, whatever its policy says by then."""
    set_policy(folder, "site-2", f"expires = {TODAY}")
    fix_cohort = Coordinator.fix_cohort

    def interrupting(self, plan, *rest):
        if plan.round == 2:  # site-2 has refused, and nothing of the round is recorded yet
            raise KeyboardInterrupt
        return fix_cohort(self, plan, *rest)

    with monkeypatch.context() as patch:
        expire_after_the_first_round(patch)
        patch.setattr(Coordinator, "fix_cohort", interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    record = decode_record((folder / "run/report.json").read_bytes())
    assert record.status == "interrupted"
    assert record.sites[1].refusal == "policy.expired"
    edit(folder / "sites/site-2/site.toml", **{str(TODAY): "2099-01-01"})
    record, observer = run(folder, resume=True)
    assert observer.refused == {"site-2": ("policy.expired", "refused before the interruption")}
    assert record.status == "finished"
    assert [r.refusals for r in record.rounds] == [{}, {"site-2": "policy.expired"}]
    assert record.rounds[1].cohort == OTHERS
    assert record.sites[1].refusal == "policy.expired"
    assert trained(folder, "site-2") == [1], "it was not asked to train again"
    assert not any(h.open for h in ledger(folder, "site-2").budget().reservations.values())


def test_a_policy_made_stricter_before_a_run_is_resumed_is_obeyed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Coordinator, "fix_cohort", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(folder)
    set_policy(folder, "site-2", "max_rounds = 1")
    record, _ = run(folder, resume=True)
    assert [r.refusals for r in record.rounds] == [{"site-2": "policy.rounds"}] * 2
    assert trained(folder, "site-2") == [1], "charged before the interruption, and no more"
    assert not any(h.open for h in ledger(folder, "site-2").budget().reservations.values())


def test_a_data_set_s_budget_outlives_runs_and_leaves_the_grant_to_other_data(
    folder: Path,
) -> None:
    edit(folder / "federation.toml", **{"epsilon = 8.0": "epsilon = 2.0"})
    cap = "max_epsilon_per_dataset = 2.0\nmax_delta_per_dataset = 1e-5"
    set_policy(folder, "site-2", cap)
    site = folder / "sites/site-2/site.toml"
    edit(site, **{'# name = "letters-2026"': 'name = "letters"'})
    run(folder, "run-1")
    data = folder / "data/site-2.csv"
    data.write_text(data.read_text() + "alpha beta,yes\n")  # a changed file buys nothing
    record, _ = run(folder, "run-2")
    assert record.sites[1].refusal == "policy.epsilon_per_dataset"
    assert [r.cohort for r in record.rounds] == [OTHERS, OTHERS]
    (status,) = ledger(folder, "site-2").status()
    assert status.epsilon_left > 4.0, "the population's grant was not what refused it"
    edit(site, **{'name = "letters"': 'name = "notes"'})
    record, _ = run(folder, "run-3")
    assert record.sites[1].refusal is None
    held = ledger(folder, "site-2").budget().reservations.values()
    assert [one.dataset.name for one in held] == ["letters", "notes"]


# Training without privacy on private data: refused, or the end of the ledger.


def baseline(folder: Path, *, exhaust: bool) -> None:
    edit(folder / "federation.toml", **{"epsilon = 8.0": 'noise = "none"\nepsilon = 8.0'})
    if exhaust:
        for number in range(1, 5):
            site = folder / f"sites/site-{number}/site.toml"
            edit(site, **{'non_private = "refuse"': 'non_private = "exhaust"'})


def test_private_data_are_not_trained_on_without_noise(folder: Path) -> None:
    baseline(folder, exhaust=False)
    leave_no_records(folder / "data")
    with pytest.raises(RunError, match=r"0 of 4 sites take part.*nothing was charged") as stop:
        run(folder)
    assert stop.value.hint.count("policy.non_private") == 4
    assert ledger(folder, "site-1").head()[0] == 2, "nothing was charged either"


def test_or_they_are_and_every_grant_of_the_ledger_is_exhausted(folder: Path) -> None:
    baseline(folder, exhaust=True)
    charged = []
    read = SiteTraining._read_data

    def reading(self):
        charged.append(ledger(folder, self.name).budget().non_private)
        return read(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SiteTraining, "_read_data", reading)
        record, _ = run(folder)
    assert charged == [[record.run]] * 8, "recorded before data are read, and once"
    stored = decode_record((folder / "run/report.json").read_bytes())
    for site in stored.sites:
        assert site.statement is not None
        assert site.statement.pld_epsilon_life == float("inf")
        assert site.statement.grants[0].epsilon_spent == float("inf")
        assert site.statement.grants[0].epsilon_left == 0.0
    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert "NO PRIVACY GUARANTEE" in page
    edit(folder / "federation.toml", **{'noise = "none"': 'noise = "local"'})
    with pytest.raises(RunError, match="nothing was charged") as stop:
        run(folder, "run-2")
    assert stop.value.hint.count("budget") == 4


def test_a_site_whose_admission_gate_fails_refuses_before_it_reserves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(4))

    def gate(*_: object) -> None:
        if next(calls) == 0:  # site-1 begins first
            raise AdmissionError("a record moves the sum by 2 C")

    monkeypatch.setattr("fmfl_secure.parties.site.check_admission", gate)
    record, _ = run(folder)
    refusals = {site.name: site.refusal for site in record.sites}
    assert refusals == {"site-1": "admission", **dict.fromkeys(("site-2", "site-3", "site-4"))}
    assert ledger(folder, "site-1").budget().reservations == {}
    assert list(ledger(folder, "site-2").budget().reservations) == [record.run]
