"""A ledger put back from a backup is noticed by what others kept of it, until that is charged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import Quiet, leave_no_records, make_federation
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.errors import RunError
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.report.results import build_record
from fmfl_secure.run.record import RunRecord
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger, read_anchors
from privacy.accounting.rdp import add_costs

SITES = ("site-1", "site-2", "site-3", "site-4")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: the admission gate has tests of its own."""
    monkeypatch.setattr("fmfl_secure.report.write.render_html", lambda *_: "<html></html>")
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Four sites, and a grant for several runs."""
    folder = tmp_path_factory.mktemp("rolled") / "federation"
    make_federation(folder, tiny_model, sites=4, rounds=1, epsilon=3.0, grant=8.0, evaluation=False)
    return folder


def run(folder: Path, number: int, *, resume: bool = False) -> tuple[RunRecord, Quiet]:
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / f"run-{number}", resume=resume, observer=observer
    )
    return engine.run(), observer


def place(folder: Path, site: str = "site-1") -> Path:
    return folder / f"sites/{site}/ledger.sqlite"


def back_up(folder: Path, site: str = "site-1") -> Path:
    path = place(folder, site)
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            shutil.copy(path.with_name(path.name + suffix), f"{path}.backup{suffix}")
    return path


def put_back(path: Path) -> None:
    """The older file again, as a restored backup would be."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
        if Path(f"{path}.backup{suffix}").exists():
            shutil.copy(f"{path}.backup{suffix}", path.with_name(path.name + suffix))


def forget_heads(folder: Path, *, coordinator: bool = False, sites: bool = False) -> None:
    if coordinator:
        for file in (folder / "coordinator").glob("anchors.sqlite*"):
            file.unlink()
    if sites:
        for file in folder.glob("sites/*/anchors.sqlite*"):
            file.unlink()


def command(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], catch_exceptions=True)


@pytest.mark.parametrize("forgotten", ["sites", "coordinator", "nobody"])
def test_a_restored_backup_is_noticed_by_any_other_party(folder: Path, forgotten: str) -> None:
    path = back_up(folder)
    run(folder, 1)
    put_back(path)
    forget_heads(folder, **{} if forgotten == "nobody" else {forgotten: True})
    head = Ledger(path).head()
    record, observer = run(folder, 2)
    code, reason = observer.refused["site-1"]
    assert code == "ledger-locked"
    assert "rolled back" in reason
    assert Ledger(path).head() == head  # nothing was charged, and so nothing trained
    assert not [name for _, name in observer.trained if name == "site-1"]
    assert record.status == "finished"
    assert record.rounds[0].cohort == SITES[1:]
    assert record.rounds[0].refusals == {"site-1": "ledger-locked"}
    lost = {anchor.head for anchor in read_anchors(folder / "sites/site-1/lost-heads.jsonl")}
    assert len(lost) == 3  # reserved, charged, closed


def test_where_nobody_kept_a_head_it_is_not_noticed(folder: Path) -> None:
    """The reject arm, and what SECURITY.md says is not protected: everything was put back."""
    path = back_up(folder)
    run(folder, 1)
    put_back(path)
    forget_heads(folder, coordinator=True, sites=True)
    record, observer = run(folder, 2)
    assert observer.refused == {}
    assert record.rounds[0].cohort == SITES


def test_the_officer_s_anchor_is_enough(folder: Path, tmp_path: Path) -> None:
    path, officer = back_up(folder), tmp_path / "officer"
    run(folder, 1)
    assert command("ledger", "anchor", path, "--output", officer).exit_code == 0
    site_file = folder / "sites/site-1/site.toml"
    site_file.write_text(
        site_file.read_text().replace("[time]", f'anchors = "{officer}"\n[time]', 1)
    )
    assert run(folder, 2)[1].refused == {}  # ahead of the anchor is fine
    put_back(path)
    forget_heads(folder, coordinator=True, sites=True)
    _, observer = run(folder, 3)
    assert observer.refused["site-1"][0] == "ledger-locked"
    # An anchor that cannot be asked for is not one that holds.
    officer.rename(tmp_path / "unmounted")
    _, observer = run(folder, 4)
    code, reason = observer.refused["site-1"]
    assert code == "ledger"
    assert "cannot read the anchors" in reason
    # Nor are those of other ledgers.
    assert command("ledger", "anchor", place(folder, "site-2"), "--output", officer).exit_code == 0
    _, observer = run(folder, 5)
    code, reason = observer.refused["site-1"]
    assert code == "configuration"
    assert "holds no anchor of this ledger" in reason


def test_a_fork_is_noticed_though_it_has_grown(folder: Path) -> None:
    path = back_up(folder)
    run(folder, 1)
    put_back(path)
    aside = folder / "aside"
    aside.mkdir()
    for party in ("coordinator", *(f"sites/{site}" for site in SITES)):
        (aside / party).mkdir(parents=True)
        for file in (folder / party).glob("anchors.sqlite*"):
            shutil.move(file, aside / party / file.name)
    run(folder, 2)
    run(folder, 3)  # its chain is longer now than the head that others will remember
    for party in ("coordinator", *(f"sites/{site}" for site in SITES)):
        for file in (folder / party).glob("anchors.sqlite*"):
            file.unlink()
        for file in (aside / party).glob("anchors.sqlite*"):
            shutil.move(file, folder / party / file.name)
    # The others' own ledgers are ahead of what was kept of them, which is no fault.
    _, observer = run(folder, 4)
    assert set(observer.refused) == {"site-1"}
    assert observer.refused["site-1"][0] == "ledger-locked"
    assert "forked" in observer.refused["site-1"][1]


def test_after_the_officer_s_charge_it_goes_on_and_nothing_is_under_counted(folder: Path) -> None:
    path = back_up(folder)
    first, _ = run(folder, 1)
    (before,) = Ledger(path).status()
    put_back(path)
    run(folder, 2)
    lost = folder / "sites/site-1/lost-heads.jsonl"
    charge = ("--anchor", lost, "--reason", "the disk failed", "--report")
    kinder = json.loads((folder / "run-1/report.json").read_text())
    kinder["settings"]["privacy"]["epsilon"] /= 4  # whoever sends a report may make it cost less
    (folder / "kinder.json").write_text(json.dumps(kinder))
    done = command("ledger", "recover", path, *charge, folder / "kinder.json")
    assert isinstance(done.exception, RunError)
    assert "is not what its sites signed" in str(done.exception)
    done = command("ledger", "recover", path, *charge, folder / "run-1/report.json")
    assert done.exit_code == 0, done.output
    assert "not signed in" not in done.output
    assert "settled 3 lost heads" in done.output
    (status,) = Ledger(path).status()
    for order, cost in before.committed.items():
        recovered = status.committed[order]
        assert cost is not None
        assert recovered is not None
        assert recovered >= cost  # the repeat that the run held is charged too, in doubt
    record, observer = run(folder, 3)
    assert observer.refused == {}
    assert record.rounds[0].cohort == SITES
    assert not lost.exists()
    (after,) = Ledger(path).status()
    budget = Ledger(path).budget()
    (held,) = budget.reservations.values()
    assert after.committed == add_costs(
        status.committed, held.charge.cost.counted, len(held.commits)
    )
    assert first.sites[0].statement is not None
    assert after.epsilon_committed > first.sites[0].statement.grants[0].epsilon_spent
    # And the statement for the report counts it as spent before this run.
    statement = record.sites[0].statement
    assert statement is not None
    assert statement.epsilon_before == status.epsilon_committed


def test_a_run_that_was_interrupted_does_not_go_on_with_an_older_ledger(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = back_up(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Coordinator, "fix_cohort", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(folder, 1)
    assert [record.kind for record in Ledger(path).records()][-1] == "commit"
    put_back(path)
    record, observer = run(folder, 1, resume=True)
    assert observer.refused["site-1"][0] == "ledger-locked"
    assert record.rounds[0].cohort == SITES[1:]
    assert [record.kind for record in Ledger(path).records()] == ["open", "grant"]


def test_an_older_ledger_gets_nothing_back_at_the_end_of_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refund is for rounds that never started, and that ledger does not know which did."""
    from fmfl_secure.parties.site import Site

    path = place(folder)
    begin = Site.begin

    def begin_and_back_up(self, call) -> None:
        begin(self, call)
        if self.name == "site-1":
            back_up(folder)

    with monkeypatch.context() as patch:
        patch.setattr(Site, "begin", begin_and_back_up)
        patch.setattr(Coordinator, "end", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(folder, 1)
    put_back(path)
    assert [record.kind for record in Ledger(path).records()] == ["open", "grant", "reserve"]
    record, observer = run(folder, 1, resume=True)
    assert observer.refused["site-1"][0] == "ledger-locked"
    (held,) = Ledger(path).budget().reservations.values()
    assert held.open  # and counts in full
    assert record.status == "finished"


def test_when_too_many_are_locked_no_data_are_read(folder: Path) -> None:
    paths = [back_up(folder, site) for site in SITES[:2]]
    run(folder, 1)
    for path in paths:
        put_back(path)
    for number in (1, 2, 3, 4):
        leave_no_records(folder / f"data/site-{number}.csv")
    with pytest.raises(RunError, match="nothing was charged") as refusal:
        run(folder, 2)
    for name in ("site-1", "site-2"):
        assert f"{name}: ledger-locked, its ledger lacks records" in refusal.value.hint
    assert build_record(RunStore(folder / "run-2")).status == "stopped"


def test_a_party_keeps_only_what_the_site_itself_signed(folder: Path, tmp_path: Path) -> None:
    from aggregation import Identity
    from fmfl_secure.storage.anchor_store import AnchorStore

    one, two = (Identity.load(folder / f"sites/{site}/identity.pem") for site in SITES[:2])
    line = Ledger(place(folder), signer=one).anchor().line
    store = AnchorStore(tmp_path / "anchors.sqlite")
    assert store.held(one.public) == []
    with pytest.raises(RunError, match="another identity signed"):
        store.keep([(two.public, line)])
    assert not (tmp_path / "anchors.sqlite").exists()
    for _ in range(2):  # twice is once
        store.keep([(one.public, line)])
    assert store.held(one.public) == [line]
    assert store.held(two.public) == []


def test_a_recovery_says_what_no_site_signed_of_a_report(folder: Path) -> None:
    path = back_up(folder)
    run(folder, 1)
    put_back(path)
    run(folder, 2)
    nobody = json.loads((folder / "run-1/report.json").read_text())
    for site in nobody["sites"]:
        site |= {"statement": None, "statement_signature": ""}
    (folder / "nobody.json").write_text(json.dumps(nobody))
    lost = folder / "sites/site-1/lost-heads.jsonl"
    charge = ("--anchor", lost, "--reason", "the disk failed", "--report")
    said = command("ledger", "recover", path, *charge, folder / "nobody.json").output
    assert "site-1 was in 1 round, and nothing is here that it signed" in said
    assert "its mechanism and its noise, too, only the coordinator says" in said
