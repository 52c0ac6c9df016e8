"""What a run refuses, and what is left when it does: ledgers that verify and nothing half-open."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from support import Quiet, leave_no_records, make_federation

import aggregation
from aggregation import Identity
from fmfl_secure.data.errors import EmptyTextError
from fmfl_secure.errors import ConfigError, ModelError, RunError
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.site import Site
from fmfl_secure.report.results import build_record
from fmfl_secure.run.record import RunRecord
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter import Adapter
from privacy import Budget, Ledger, PoissonSampledGaussian

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("templates")
    for sites in (3, 4, 5):
        make_federation(folder / str(sites), tiny_model, sites=sites, rounds=1, evaluation=False)
    return {sites: folder / str(sites) for sites in (3, 4, 5)}


@pytest.fixture
def federation(templates: dict[int, Path], tmp_path: Path):
    """Makes a fresh federation of so many sites; returns its folder."""

    def make(sites: int = 3, **replacements: str) -> Path:
        folder = Path(shutil.copytree(templates[sites], tmp_path / f"federation-{sites}"))
        edit(folder / "federation.toml", **replacements)
        return folder

    return make


def edit(path: Path, **replacements: str) -> None:
    text = path.read_text()
    for before, after in replacements.items():
        assert before in text
        text = text.replace(before, after, 1)
    path.write_text(text)


def run(folder: Path, *, resume: bool = False) -> tuple[RunRecord, Quiet]:
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / "run", resume=resume, observer=observer
    )
    try:
        return engine.run(), observer
    except Exception as error:
        error.observer = observer  # type: ignore[attr-defined]
        raise


def refused(folder: Path, kind: type[Exception], match: str) -> SimpleNamespace:
    """A run that must fail so; returns the error, what was observed, and the record."""
    with pytest.raises(kind, match=match) as caught:
        run(folder)
    record = build_record(RunStore(folder / "run"))
    return SimpleNamespace(error=caught.value, observer=caught.value.observer, record=record)


def budgets(folder: Path) -> dict[str, Budget]:
    """Every ledger, verified."""
    return {p.parent.name: Ledger(p).budget() for p in sorted(folder.glob("sites/*/ledger.sqlite"))}


def trained(folder: Path) -> dict[str, list[int]]:
    return {
        name: [number for held in budget.reservations.values() for number, _ in held.commits]
        for name, budget in budgets(folder).items()
    }


def anything_open(folder: Path) -> bool:
    return any(h.open for b in budgets(folder).values() for h in b.reservations.values())


# Before a run: settings and models.


def test_an_unknown_setting_is_refused_with_its_place(federation) -> None:
    folder = federation(rank="learning_rte = 1\nrank")
    with pytest.raises(ConfigError, match=r'line \d+: "learning_rte" is no setting of adapter\Z'):
        run(folder)
    assert not (folder / "run").exists()
    assert not any(b.reservations for b in budgets(folder).values())


def test_a_base_model_of_another_digest_is_refused(federation) -> None:
    folder = federation(max_length=f'digest = "sha256:{"1" * 64}"\nmax_length')
    with pytest.raises(ModelError, match="expected sha256:1111"):
        run(folder)
    assert not (folder / "run").exists()


def test_a_site_without_identity_is_named(federation) -> None:
    folder = federation()
    with (folder / "federation.toml").open("a") as file:
        file.write('\n[[sites]]\nname = "late"\npopulation = 40\n')
    with pytest.raises(RunError, match="no identity is known of late") as caught:
        run(folder)
    assert "init" in caught.value.hint


# What a site's own policy and budget say. All of it before data are read: there are none.


POLICIES = {
    "policy.expired": ("expires = 2020-01-01", "expired at the end of 2020-01-01"),
    "policy.min_sites": ("min_sites = 4", "policy asks for at least 4"),
    "policy.base_model": (f'base_models = ["sha256:{"0" * 64}"]', "not among those"),
    "policy.task": ('tasks = ["causal-lm"]', "not among those"),
    "policy.adapter": ('adapters = ["lora", "head"]', "not among those"),
    "policy.rounds": ("max_rounds = 1", "above this site's limit of 1"),
    "policy.suite": ('suites = ["ckks-pk"]', "not among those"),
    "policy.parameter_set": ('parameter_sets = ["ckks-pk-4096-60-20"]', "not among those"),
    "policy.epsilon_per_run": ("max_epsilon_per_run = 7.9", "above this site's limit of 7.9"),
    "policy.delta_per_run": ("max_delta_per_run = 1e-6", "above this site's limit of 1e-06"),
    "policy.epsilon_per_dataset": (
        "max_epsilon_per_dataset = 7.9\nmax_delta_per_dataset = 1e-5",
        "more would go beyond",
    ),
}


@pytest.mark.parametrize("code", POLICIES)
def test_a_sites_stricter_policy_is_obeyed(federation, code: str) -> None:
    policy, reason = POLICIES[code]
    folder = federation(**{"rounds = 1": "rounds = 2"})
    site = folder / "sites/site-2/site.toml"
    edit(site, **{"min_sites = 3": policy, "# name =": "name ="})
    leave_no_records(folder / "data")
    outcome = refused(folder, RunError, "2 of 3 sites take part.*nothing was charged")
    told = outcome.observer.refused["site-2"]
    assert told[0] == code
    assert reason in told[1]
    assert reason not in str(outcome.error) + outcome.error.hint, "the reason is the site's own"
    assert {s.name: s.refusal for s in outcome.record.sites} == {
        "site-1": None, "site-2": code, "site-3": None
    }  # fmt: skip
    assert outcome.record.status == "stopped"
    assert outcome.record.rounds == ()
    assert budgets(folder)["site-2"].reservations == {}
    assert not anything_open(folder)


def test_a_policy_at_the_federations_own_values_is_content(federation) -> None:
    folder = federation()
    edit(folder / "sites/site-2/site.toml", **{"min_sites = 3": "max_epsilon_per_run = 8.0"})
    record, observer = run(folder)
    assert record.status == "finished"
    assert observer.refused == {}


def test_an_exhausted_budget_is_refused_before_any_data_are_read(
    tmp_path: Path, tiny_model: Path
) -> None:
    make_federation(tmp_path, tiny_model, grant=1.0)
    leave_no_records(tmp_path / "data")
    edit(tmp_path / "federation.toml", **{"data/holdout.csv": ""})
    outcome = refused(tmp_path, RunError, "0 of 3 sites take part.*nothing was charged")
    assert outcome.error.hint.startswith("Read each one's own log")
    assert outcome.error.hint.count(": budget, its ledger cannot afford the run") == 3
    assert {s.refusal for s in outcome.record.sites} == {"budget"}
    assert outcome.record.status == "stopped"
    assert not any(b.reservations for b in budgets(tmp_path).values())
    with pytest.raises(RunError, match="has ended"):
        run(tmp_path, resume=True)


def test_a_run_of_more_people_than_the_grant_s_delta_allows_reads_no_data(federation) -> None:
    """The federation's settings grow after site-2's custodian granted for fewer."""
    folder = federation(4)
    granted = Ledger(
        folder / "sites/site-2/ledger.sqlite",
        signer=Identity.load(folder / "sites/site-2/identity.pem", "site-2"),
    )
    granted.grant(epsilon=8.0, delta=1e-3, population_size=40, purpose="for forty")
    granted.reserve(
        run="an earlier one",
        event=PoissonSampledGaussian(0.25, 1.0, 1),
        rounds=1,
        plan="p",
        population_size=40,
    )
    entry = 'name = "site-2"\npopulation = '
    edit(folder / "federation.toml", **{f"{entry}40": f"{entry}1500"})
    leave_no_records(folder / "data/site-2.csv")
    record, observer = run(folder)
    code, told = observer.refused["site-2"]
    assert code == "budget"
    assert "1,500 declared units" in told
    assert record.rounds[0].cohort == ("site-1", "site-3", "site-4")
    assert record.status == "finished"
    sizes = {name: budget.population_size for name, budget in budgets(folder).items()}
    assert sizes == {"site-1": 40, "site-2": 40, "site-3": 40, "site-4": 40}
    assert budgets(folder)["site-1"].reservations[record.run].population_size == 40


def damage_ledger(folder: Path, site: str, sequence: int) -> None:
    path = folder / f"sites/{site}/ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER IF EXISTS records_are_not_edited")
        connection.execute(
            'UPDATE records SET line = replace(line, \'"kind":"\', \'"kind":"x\') '
            "WHERE sequence = ?",
            (sequence,),
        )


def test_a_damaged_ledger_line_takes_its_site_out(federation) -> None:
    folder = federation(4)
    damage_ledger(folder, "site-3", 2)
    record, observer = run(folder)
    assert observer.refused["site-3"][0] == "ledger-damaged"
    assert "record 2" in observer.refused["site-3"][1]
    assert record.rounds[0].cohort == ("site-1", "site-2", "site-4")
    assert record.rounds[0].refusals == {"site-3": "ledger-damaged"}
    assert record.sites[2].statement is None
    assert record.status == "finished"


def test_a_ledger_damaged_in_the_middle_of_a_run_takes_its_site_out(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation(4, **{"rounds = 1": "rounds = 2"})
    original = Coordinator.finish_round

    def finish_and_damage(self, plan, *rest, **named):
        record = original(self, plan, *rest, **named)
        if plan.round == 1:
            damage_ledger(folder, "site-1", 4)
        return record

    monkeypatch.setattr(Coordinator, "finish_round", finish_and_damage)
    record, observer = run(folder)
    assert observer.refused["site-1"][0] == "ledger-damaged"
    assert [r.cohort for r in record.rounds] == [
        ("site-1", "site-2", "site-3", "site-4"),
        ("site-2", "site-3", "site-4"),
    ]
    assert record.status == "finished"
    # What it signed before is still its word; of the second round it states nothing.
    stated = record.sites[0].statement
    assert stated is not None
    assert stated.runs[-1].rounds_trained == (1,)
    assert all(s.statement.runs[-1].rounds_trained == (1, 2) for s in record.sites[1:])


# Cohorts.


def test_sites_drop_out_one_by_one_until_the_cohort_is_too_small(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation(5, **{"rounds = 1": "rounds = 6"})
    leaves = {"site-5": 2, "site-2": 3}
    original = Site.train

    def train(self, plan, *rest):
        if plan.round >= leaves.get(self.name, 99):
            raise EmptyTextError("the text is empty", path=Path("patients.csv"), row=7)
        return original(self, plan, *rest)

    monkeypatch.setattr(Site, "train", train)
    outcome = refused(
        folder, RunError, "3 sites are left for round 3, fewer than 4 of 5, by min_share"
    )
    record = outcome.record
    assert record.status == "stopped"
    assert "3 sites are left" in record.stop_reason
    assert [r.cohort for r in record.rounds] == [
        ("site-1", "site-2", "site-3", "site-4", "site-5"),
        ("site-1", "site-2", "site-3", "site-4"),
    ]
    assert [r.refusals for r in record.rounds] == [
        {},
        {"site-5": "failed"},
    ]
    assert {s.name: s.refusal for s in record.sites if s.refusal} == dict.fromkeys(leaves, "failed")
    assert not anything_open(folder), "what never started comes back, also where a site left"
    # When site 2 failed in round 3, the others were too few, and 3 and 4 were not charged for it.
    assert trained(folder) == {
        "site-1": [1, 2, 3],
        "site-2": [1, 2],
        "site-3": [1, 2],
        "site-4": [1, 2],
        "site-5": [1],
    }
    with pytest.raises(RunError, match="has ended"):
        run(folder, resume=True)


SECRET = "Mrs Quimby of Elm Street"


@pytest.mark.parametrize("row", [f"{SECRET},maybe", f'"{SECRET}', f'" ","{SECRET}"'])
def test_an_unusable_row_takes_its_site_out_and_nothing_of_it_leaves(federation, row: str) -> None:
    folder = federation(4, label_column='on_bad_row = "error"\nlabel_column')
    path = folder / "data/site-2.csv"
    path.write_text(path.read_text() + row + "\n")
    record, observer = run(folder)
    code, reason = observer.refused["site-2"]
    assert code == "failed"
    assert "site-2.csv" in reason
    assert record.rounds[0].cohort == ("site-1", "site-3", "site-4")
    assert record.rounds[0].refusals == {"site-2": "failed"}
    assert record.sites[1].refusal == "failed"
    # Paid for all the same: whether a row is usable was read from the data.
    assert trained(folder)["site-2"] == [1]
    assert not anything_open(folder)
    # The reason is the site's own, row number and all: what leaves is the code.
    nothing_leaves(folder, "Quimby", "maybe", "row 41", "line 42", reason)


def nothing_leaves(folder: Path, *words: str) -> None:
    files = [file for file in (folder / "run").rglob("*") if file.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        for each in words:
            assert each.encode() not in content, file


def test_an_unusable_row_that_is_skipped_is_heard_of_by_nobody(federation) -> None:
    folder = federation()
    path = folder / "data/site-2.csv"
    path.write_text(path.read_text() + f"{SECRET},maybe\n")
    record, observer = run(folder)
    assert observer.refused == {}
    assert record.rounds[0].cohort == ("site-1", "site-2", "site-3")
    nothing_leaves(folder, "Quimby", "maybe")


# Another adapter, another layout.


def test_an_adapter_for_one_site_alone_is_refused(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation()
    original = Site.admit

    def admit(self, message: bytes, adapter: bytes, *rest):
        if self.name == "site-2":
            adapter = adapter[:-1] + bytes([adapter[-1] ^ 1])
        return original(self, message, adapter, *rest)

    monkeypatch.setattr(Site, "admit", admit)
    outcome = refused(folder, RunError, "2 sites are left")
    assert outcome.observer.refused == {
        "site-2": ("run", "site-2: the plan's adapter is not the one agreed here")
    }
    assert trained(folder)["site-2"] == []
    assert outcome.record.rounds == ()
    assert not anything_open(folder)


def test_an_adapter_that_does_not_follow_from_the_last_sum_is_refused(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation(**{"rounds = 1": "rounds = 2"})
    original = Coordinator.plan_attempt

    def plan_attempt(self, round_number: int, sites):
        if round_number == 2:
            known = Adapter.read(self.adapter)
            moved = {**known.tensors, "head.bias": known.tensors["head.bias"] + 1.0}
            self.adapter = Adapter(moved, known.moments).encode()
        return original(self, round_number, sites)

    monkeypatch.setattr(Coordinator, "plan_attempt", plan_attempt)
    outcome = refused(folder, RunError, "2 sites are left for round 2")
    # Without the first site there are too few, and no other is asked.
    ((name, (code, reason)),) = outcome.observer.refused.items()
    assert (name, code) == ("site-1", "run")
    assert "not the one the last sum gives" in reason
    assert set(map(tuple, trained(folder).values())) == {(1,)}
    assert not anything_open(folder)


def test_a_plan_of_another_layout_is_refused_by_the_first_tensors_name(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation()
    original = aggregation.Coordinator.plan

    def plan(self, terms):
        first, *rest = terms.quantization.segments
        changed = (dataclasses_replace(first, name="encoder.other"), *rest)
        grid = dataclasses_replace(terms.quantization, segments=changed)
        return original(self, msgspec.structs.replace(terms, quantization=grid))

    monkeypatch.setattr(aggregation.Coordinator, "plan", plan)
    outcome = refused(folder, RunError, "2 sites are left")
    for code, reason in outcome.observer.refused.values():
        assert code == "model"
        assert "layouts differ at tensor 1: here encoder." in reason
        assert "there encoder.other with" in reason
    assert set(map(tuple, trained(folder).values())) == {()}


def dataclasses_replace(value, **changes):
    replace = dataclasses.replace if dataclasses.is_dataclass(value) else msgspec.structs.replace
    return replace(value, **changes)


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("run", "ab" * 8, "run"),
        ("training_digest", "sha256:" + "0" * 64, "training settings"),
        ("base_model_digest", "sha256:" + "0" * 64, "base model"),
        ("layout_digest", "sha256:" + "0" * 64, "adapter layout"),
        ("adapter_digest", "sha256:" + "0" * 64, "adapter"),
    ],
)
def test_a_plan_of_other_terms_is_refused_before_data_are_read(
    federation, monkeypatch: pytest.MonkeyPatch, field: str, value: str, what: str
) -> None:
    folder = federation()
    leave_no_records(folder / "data")
    original = aggregation.Coordinator.plan

    def plan(self, terms):
        return original(self, msgspec.structs.replace(terms, **{field: value}))

    monkeypatch.setattr(aggregation.Coordinator, "plan", plan)
    outcome = refused(folder, RunError, "2 sites are left|5 attempts: 0 sites are ready")
    if field != "run":  # what a site says of another run is no word in this one
        assert {reason.partition(": ")[2] for _, reason in outcome.observer.refused.values()} == {
            f"the plan's {what} is not the one agreed here"
        }
    assert set(map(tuple, trained(folder).values())) == {()}


def test_a_plan_of_other_weights_is_refused_before_data_are_read(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation(4)
    leave_no_records(folder / "data")
    original = aggregation.Coordinator.plan

    def plan(self, terms):
        first, *rest = terms.members
        lighter = (msgspec.structs.replace(first, weight=0.5), *rest)
        return original(self, msgspec.structs.replace(terms, members=lighter))

    monkeypatch.setattr(aggregation.Coordinator, "plan", plan)
    # In league with it: of itself the decryptor would refuse, too.
    monkeypatch.setattr("fmfl_secure.parties.decryptor.objection", lambda *_: lambda _: None)
    outcome = refused(folder, RunError, "2 sites are left")
    assert {reason.partition(": ")[2] for _, reason in outcome.observer.refused.values()} == {
        "the plan's weights is not the one agreed here"
    }
    assert set(map(tuple, trained(folder).values())) == {()}


# Messages damaged on their way.


def flip(message: bytes) -> bytes:
    middle = len(message) // 2
    return message[:middle] + bytes([message[middle] ^ 4]) + message[middle + 1 :]


def damaged_upload(upload):
    return dataclasses_replace(upload, chunks=(flip(upload.chunks[0]), *upload.chunks[1:]))


def damaged_manifest(upload):
    return dataclasses_replace(upload, manifest=flip(upload.manifest))


# Who damages what, and what becomes of a round in which it happens once.
DAMAGES = {
    "announcement": (aggregation.Decryptor, "announce", flip, "released"),
    "ready": (aggregation.SiteAttempt, "ready", flip, "released"),
    "upload": (aggregation.SiteAttempt, "upload", damaged_manifest, "released"),
    "chunk": (aggregation.SiteAttempt, "upload", damaged_upload, "released"),
    "confirmation": (aggregation.Decryptor, "confirm", flip, "released"),
    # From here on sites have opened, and open no second attempt: the round is spent.
    "opening": (aggregation.SiteAttempt, "open", flip, "lost"),
    "release": (aggregation.Decryptor, "release", flip, "lost"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_message_ends_an_attempt_and_the_run_goes_on(
    federation, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    folder = federation()
    owner, call, damage, expected = DAMAGES[message]
    original, damaged = getattr(owner, call), []

    def damaging(self, *rest, **named):
        sent = original(self, *rest, **named)
        if not damaged:
            damaged.append(sent)
            return damage(sent)
        return sent

    monkeypatch.setattr(owner, call, damaging)
    record, observer = run(folder)
    assert damaged
    assert record.status == "finished"
    assert [r.status for r in record.rounds] == [expected]
    assert observer.refused == {}
    assert set(map(tuple, trained(folder).values())) == {(1,)}, "nothing is trained twice"
    assert not anything_open(folder)


def test_a_message_that_is_always_damaged_stops_the_run_and_is_named(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation()
    original = aggregation.Decryptor.confirm
    monkeypatch.setattr(aggregation.Decryptor, "confirm", lambda *rest: flip(original(*rest)))
    outcome = refused(folder, RunError, "did not succeed in 5 attempts: decryptor did not confirm")
    assert "decryptor: " in outcome.error.hint
    assert outcome.record.status == "stopped"
    assert set(map(tuple, trained(folder).values())) == {(1,)}
    assert not anything_open(folder)


def test_a_damaged_plan_at_one_site_takes_that_site_out(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation(4)
    original = Site.admit

    def admit(self, message: bytes, *rest):
        return original(self, flip(message) if self.name == "site-4" else message, *rest)

    monkeypatch.setattr(Site, "admit", admit)
    record, observer = run(folder)
    assert observer.refused["site-4"][0] == "refused"
    assert record.rounds[0].cohort == ("site-1", "site-2", "site-3")
    assert trained(folder)["site-4"] == []
    assert not anything_open(folder)


def test_a_damaged_plan_at_every_site_ends_the_run_with_nothing_spent(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation()
    leave_no_records(folder / "data")
    original = Site.admit
    monkeypatch.setattr(
        Site, "admit", lambda self, message, *rest: original(self, flip(message), *rest)
    )
    outcome = refused(folder, RunError, "2 sites are left")
    assert {code for code, _ in outcome.observer.refused.values()} == {"refused"}
    assert set(map(tuple, trained(folder).values())) == {()}
    assert not anything_open(folder)


# Going on with a run.


def test_other_settings_do_not_resume_a_run(federation) -> None:
    folder = federation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Coordinator, "fix_cohort", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(folder)
    edit(folder / "federation.toml", **{"rank = 2": "rank = 3"})
    with pytest.raises(RunError, match="started with other settings"):
        run(folder, resume=True)
    edit(folder / "federation.toml", **{"rank = 3": "rank = 2"})
    record, _ = run(folder, resume=True)
    assert record.status == "finished"
    with pytest.raises(RunError, match="has ended; there is nothing to resume"):
        run(folder, resume=True)
    with pytest.raises(RunError, match="holds a run"):
        run(folder)


def test_a_ledger_of_another_identity_is_refused(federation) -> None:
    """A whole ledger made anew verifies in itself; the site knows its own key."""
    folder = federation()
    path = folder / "sites/site-1/ledger.sqlite"
    path.unlink()
    stranger = Identity.generate("site-1")
    ledger = Ledger.create(
        path, population="site-1", unit="record", signer=stranger, public_key=stranger.public.key
    )
    ledger.grant(epsilon=100.0, delta=1e-5, population_size=1000)
    found = refused(folder, RunError, "nothing was charged")
    assert found.observer.refused["site-1"][0] == "configuration"
    assert "another identity" in found.observer.refused["site-1"][1]
