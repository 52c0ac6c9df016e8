"""Runs with custodians: what opens with their word, and what does not without it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support import Quiet, make_federation

from aggregation import Identity, ReplayError, SiteAttempt
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import Members, Workspace, initialise
from fmfl_secure.report import render_html
from fmfl_secure.report.results import build_record
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

pytestmark = pytest.mark.usefixtures("quick")

NAMES = ("board", "patients")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    federation = make_federation(folder, tiny_model, rounds=2, evaluation=False)
    settings = federation.read_text()
    federation.write_text(f'{settings}\n[aggregation]\ncustodians = ["board", "patients"]\n')
    initialise(folder, epsilon=None, delta=None, simulated=True)
    return folder


def run(folder: Path, *, resume: bool = False):
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / "run", resume=resume, observer=observer
    )
    return engine.run(), observer


def agree(folder: Path, name: str, **policy: int) -> None:
    lines = [f"{key} = {value}" for key, value in policy.items()]
    (folder / "custodians" / name / "custodian.toml").write_text("\n".join(["[policy]", *lines]))


def seen(folder: Path) -> list[dict]:
    text = (folder / "run" / "transcript.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def reopened(folder: Path, name: str) -> Custodian:
    config = load_federation(folder / "federation.toml")
    return Custodian(Workspace(folder).custodian(name), name, config)


def committed(folder: Path, number: int) -> int:
    budget = Ledger(folder / f"sites/site-{number}/ledger.sqlite").budget()
    return sum(len(held.commits) for held in budget.reservations.values())


def test_with_every_custodian_s_word_the_exact_sum_opens(folder: Path, monkeypatch) -> None:
    updates: dict[int, list[np.ndarray]] = {}
    totals: dict[int, np.ndarray] = {}
    train, following = Site.train, Coordinator.following

    def recording_train(self, plan, adapter, on_step=None):
        updates.setdefault(plan.round, []).append(train(self, plan, adapter, on_step))
        return updates[plan.round][-1]

    def recording(self, plan, total, sites):
        assert [c.name for c in plan.custodians] == list(NAMES)
        totals[plan.round] = total
        return following(self, plan, total, sites)

    monkeypatch.setattr(Site, "train", recording_train)
    monkeypatch.setattr(Coordinator, "following", recording)
    record, observer = run(folder)

    opened = RunStore(folder / "run").opened_attempts(1)[0]
    with pytest.raises(ReplayError):  # its journal remembers, in whichever process
        reopened(folder, "board").ready(opened.plan)
    assert [r.status for r in record.rounds] == ["released", "released"]
    assert observer.refused == {}
    for number, total in totals.items():
        assert np.array_equal(total, np.sum([u.astype(np.int64) for u in updates[number]], axis=0))
        assert total.any()
    lines = seen(folder)
    for name in NAMES:
        saw = [line["saw"] for line in lines if line["role"] == f"custodian {name}"]
        assert saw == ["plan", "cohort", "opening-list"] * 2
    approvals = [line for line in lines if line["saw"] == "approval"]
    assert [line["sender"] for line in approvals] == list(NAMES) * 2
    assert not any("message" in line for line in approvals)
    members = Members.load(folder / "members.json")
    for name in NAMES:
        assert record.identities[f"custodian {name}"] == members.custodians[name].fingerprint
    page = render_html(record)
    assert "board, patients: keys of one attempt" in page
    assert "No sum opens without the word of every custodian" in page
    assert record.settings["aggregation"]["custodians"] == list(NAMES)


def test_a_custodian_that_agrees_to_one_round_ends_the_run_after_it(folder: Path) -> None:
    agree(folder, "patients", last_round=1)
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / "run", resume=False, observer=observer
    )
    with pytest.raises(RunError, match="patients does not let round 2 open"):
        engine.run()
    record = build_record(RunStore(folder / "run"))
    assert record.status == "stopped"
    assert "patients" in record.stop_reason
    assert [r.status for r in record.rounds] == ["released"]
    assert "after 1" in observer.refused["custodian patients"][1]
    # It was asked before anybody trained: the second round cost no site anything.
    assert [committed(folder, n) for n in (1, 2, 3)] == [1, 1, 1]
    assert not any(line["saw"] == "opening" and line["round"] == 2 for line in seen(folder))


def test_a_custodian_with_a_larger_cohort_in_mind_refuses_from_the_start(folder: Path) -> None:
    agree(folder, "board", min_sites=4)
    with pytest.raises(RunError, match="board does not let round 1 open"):
        run(folder)
    assert [committed(folder, n) for n in (1, 2, 3)] == [0, 0, 0]
    assert not any(line["role"].startswith("site") for line in seen(folder))


def test_a_word_withheld_after_the_uploads_opens_nothing(folder: Path, monkeypatch) -> None:
    """The decryptor holds all it will ever hold of the round, and no site has opened."""
    opened: list[str] = []
    monkeypatch.setattr(SiteAttempt, "open", lambda self, _: opened.append(repr(self)))

    def withhold(self, *messages, **named):
        raise RunError("not today")

    monkeypatch.setattr(Custodian, "approve", withhold)
    with pytest.raises(RunError, match="board does not let round 1 open"):
        run(folder)
    assert opened == []
    record = build_record(RunStore(folder / "run"))
    assert record.rounds == ()


def test_a_round_approved_before_a_crash_is_lost_and_the_next_one_opens(
    folder: Path, monkeypatch
) -> None:
    """A custodian gives its word once a round, so no second attempt at that round can open."""
    approve = Custodian.approve
    asked: list[str] = []

    def dies_after_its_word(self, *messages, **named):
        approve(self, *messages, **named)
        asked.append(self.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Custodian, "approve", dies_after_its_word)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert asked == ["board"]
    monkeypatch.setattr(Custodian, "approve", approve)
    record, _ = run(folder, resume=True)
    assert [(r.round, r.status) for r in record.rounds] == [(1, "lost"), (2, "released")]
    # The round that was lost had been trained and is paid for; it is not trained again.
    assert [committed(folder, n) for n in (1, 2, 3)] == [2, 2, 2]


def test_a_plan_that_leaves_a_custodian_out_is_refused(folder: Path, monkeypatch) -> None:
    """A coordinator that would rather not ask."""
    plan = Coordinator.plan_attempt

    def without(self, *rest):
        config = self._config
        fewer = msgspec.structs.replace(config.aggregation, custodians=("board",))
        self._config = msgspec.structs.replace(config, aggregation=fewer)
        try:
            # The digest of the settings stays what it was: only the list is shorter.
            with monkeypatch.context() as patch:
                patch.setattr(type(config), "digest", config.digest)
                return plan(self, *rest)
        finally:
            self._config = config

    monkeypatch.setattr(Coordinator, "plan_attempt", without)
    # In league with it: of themselves the other custodian and the decryptor would refuse, too.
    for party in ("custodian", "decryptor"):
        monkeypatch.setattr(f"fmfl_secure.parties.{party}.objection", lambda *_: lambda _: None)
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / "run", resume=False, observer=observer
    )
    with pytest.raises(RunError):
        engine.run()
    # Without the first site there are too few, and no other is asked.
    said = {name: reason for name, (_, reason) in observer.refused.items()}
    assert list(said) == ["site-1"]
    assert "leaves out a custodian: patients" in said["site-1"]
    assert [committed(folder, n) for n in (1, 2, 3)] == [0, 0, 0]


def test_a_custodian_pins_its_own_members(folder: Path) -> None:
    """Another party's key in the shared list is not followed by one that pinned the first."""
    members = Members.load(folder / "members.json")
    imposter = Identity.generate("decryptor")
    swapped = Members(
        members.coordinator,
        members.aggregator,
        imposter.public,
        members.sites,
        members.custodians,
    )
    (folder / "custodians/board/members.json").write_bytes(swapped.encode())
    with pytest.raises(RunError, match="board does not let round 1 open"):
        run(folder)


def test_a_custodian_added_later_needs_init(folder: Path) -> None:
    federation = folder / "federation.toml"
    federation.write_text(federation.read_text().replace('"patients"', '"patients", "court"'))
    with pytest.raises(RunError, match="no identity is known of court"):
        run(folder)
    created = initialise(folder, epsilon=None, delta=None, simulated=True)
    assert any("court" in line for line in created)
    assert (folder / "custodians/court/identity.pem").stat().st_mode & 0o077 == 0
    agree(folder, "court", min_sites=2)
    with pytest.raises(ConfigError, match="min_sites"):
        reopened(folder, "court")
