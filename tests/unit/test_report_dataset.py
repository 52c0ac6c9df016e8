"""The dataset report: histories of every kind, read from a real ledger, and what the page says."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import html_page
import jsonschema_rs
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from html_page import Page
from test_report_records import RUN, a_site, a_statement, finished, interrupted, refused

from aggregation import PublicIdentity
from fmfl_secure import cli
from fmfl_secure.errors import RunError
from fmfl_secure.report.dataset import (
    DatasetRecord,
    Source,
    open_source,
    read_reports,
    record_of,
    render_dataset,
    wording,
    write_dataset,
)
from fmfl_secure.report.dataset.record import encode_dataset
from fmfl_secure.report.schema import dataset_schema
from fmfl_secure.run.record import RunRecord, encode_record
from privacy import Dataset, DatasetCap, Ledger, PoissonSampledGaussian, SitePolicy, epsilon_spent
from privacy.accounting.rdp import rdp_cost
from privacy.ledger.export import export_json

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
KEY = SIGNER.public_key().public_bytes_raw()
IDENTITY = PublicIdentity("clinic-d", KEY).fingerprint
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
DELTA = 1e-5


def new_ledger(folder: Path, *, epsilon: float = 3.0, **opened: str) -> Ledger:
    values = {"population": "patients of clinic-d", "unit": "record"} | opened
    ledger = Ledger.create(folder / "ledger.sqlite", signer=SIGNER, public_key=KEY, **values)
    ledger.grant(epsilon=epsilon, delta=DELTA, population_size=1000, purpose="first study")
    return ledger


def train(ledger: Ledger, run: str, *rounds: int, reserved: int = 0, close: bool = True) -> None:
    ledger.reserve(run=run, event=EVENT, rounds=reserved or len(rounds), plan="p", purpose="notes")
    for number in rounds:
        ledger.commit(run=run, round=number)
    if close:
        ledger.refund(run=run, evidence="end of the run")


def read(ledger: Ledger, **more) -> DatasetRecord:
    return record_of(Source(ledger.records(), "clinic-d"), **more)


def ours(record: RunRecord, name: str, **changes) -> RunRecord:
    """The same report, with this ledger's site in the place of one of its sites."""
    sites = tuple(
        msgspec.structs.replace(site, identity=IDENTITY, **changes) if site.name == name else site
        for site in record.sites
    )
    return msgspec.structs.replace(record, sites=sites)


def alone(rounds: int, ledger: Ledger) -> float:
    """What so many trainings come to, computed from the event and the grant's orders alone."""
    grant = ledger.budget().grants[0]
    costs = {order: rounds * cost for order, cost in rdp_cost(EVENT, grant.orders).items()}
    return epsilon_spent(costs, DELTA)


# Histories.


def several_runs(folder: Path) -> DatasetRecord:
    ledger = new_ledger(folder)
    train(ledger, "run-1", 1, 2, 3, reserved=4)
    train(ledger, "run-2", 1, 2, 2)  # the second was lost to a crash, trained and paid again
    ledger.grant(epsilon=1.0, delta=1e-6, population_size=1000, purpose="follow-up")
    return read(ledger)


def run_under_way(folder: Path) -> DatasetRecord:
    ledger = new_ledger(folder)
    train(ledger, "run-1", 1, 2)
    train(ledger, RUN, 1, reserved=5, close=False)
    stated = f"{ledger.head()[0]}:{ledger.head()[1]}"
    sequence, digest = stated.split(":")
    statement = a_statement("clinic-d", head_sequence=int(sequence), head_digest=digest)
    return read(ledger, reports=[ours(interrupted(), "clinic-d", statement=statement)])


def refused_run(folder: Path) -> DatasetRecord:
    ledger = new_ledger(folder)
    train(ledger, "run-1", 1, 2)
    return read(ledger, reports=[ours(refused(), "clinic-d", statement=None), finished()])


def lost_history(folder: Path) -> DatasetRecord:
    ledger = new_ledger(folder)
    train(ledger, "run-1", 1, 2)
    ledger.recover([f"9:{'ab' * 32}"], reason="backup of Monday", losses=[(1, EVENT, 3)])
    return read(ledger)


def everything_lost(folder: Path) -> DatasetRecord:
    ledger = new_ledger(folder)
    ledger.recover([f"9:{'ab' * 32}"], reason="fire", losses=None)
    return read(ledger)


def without_noise(folder: Path) -> DatasetRecord:
    ledger = new_ledger(folder)
    train(ledger, "run-1", 1)
    ledger.record_non_private(run="run-2", reason="a baseline")
    return read(ledger)


def set_back(folder: Path) -> DatasetRecord:
    """A report knows a head that the ledger no longer has."""
    ledger = new_ledger(folder)
    train(ledger, "run-1", 1)
    statement = a_statement("clinic-d", head_sequence=99, head_digest="cd" * 32)
    return read(ledger, reports=[ours(finished(), "clinic-d", statement=statement)])


def nothing_trained(folder: Path) -> DatasetRecord:
    return read(new_ledger(folder, unit="patient_id"))


def named_data(folder: Path) -> DatasetRecord:
    ledger = new_ledger(folder)
    dataset = Dataset("discharge letters 2025", DatasetCap.of(2.0, DELTA))
    ledger.reserve(run="run-1", event=EVENT, rounds=2, plan="p", dataset=dataset)
    ledger.commit(run="run-1", round=1)
    source = Source(ledger.records(), "clinic-d", SitePolicy(min_sites=5, max_rounds=20))
    return record_of(source)


HISTORIES = (
    several_runs,
    run_under_way,
    refused_run,
    lost_history,
    everything_lost,
    without_noise,
    set_back,
    nothing_trained,
    named_data,
)


@dataclass(frozen=True)
class History:
    """A ledger, its record, and the page that was made of it: once, for all tests."""

    folder: Path
    record: DatasetRecord
    page: str

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.sqlite")

    @property
    def text(self) -> str:
        return Page(self.page).text


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., History]:
    @functools.cache
    def made(make: Callable[[Path], DatasetRecord]) -> History:
        folder = tmp_path_factory.mktemp(make.__name__)
        record = make(folder)
        return History(folder, record, render_dataset(record))

    return made


every_history = pytest.mark.parametrize("make", HISTORIES, ids=lambda make: make.__name__)


@every_history
def test_every_history_makes_a_sound_page(history, make) -> None:
    record, text = history(make).record, history(make).page
    page = Page(text)
    html_page.headings_are_in_order(page)
    html_page.ids_are_unique_and_references_exist(page)
    html_page.tables_have_captions_and_scopes(page)
    html_page.needs_nothing_from_outside(text)
    for run in record.runs:
        assert run.run in page.text
    assert f"{record.head_sequence}:{record.head_digest}" in page.text


@every_history
def test_every_history_has_the_published_form(history, make) -> None:
    encoded = encode_dataset(history(make).record)
    jsonschema_rs.validator_for(dataset_schema()).validate(json.loads(encoded))


def test_the_same_record_gives_the_same_page(history) -> None:
    found = history(several_runs)
    assert render_dataset(found.record) == found.page


def test_several_runs_add_up_as_the_ledger_has_it(history) -> None:
    found = history(several_runs)
    record = found.record
    ledger = found.ledger
    first, second = record.runs
    assert (first.rounds_reserved, first.rounds_charged, first.trained) == (4, 3, (1, 2, 3))
    assert second.trained == (1, 2, 2)
    assert first.epsilon_alone == second.epsilon_alone == alone(3, ledger)
    after = [training.epsilon_after for training in record.trainings]
    assert after == [alone(count, ledger) for count in range(1, 7)]
    assert record.grants[0].epsilon_spent == after[-1] < 2 * first.epsilon_alone
    assert (record.guarantee_epsilon, record.guarantee_delta) == (4.0, 1.1e-5)
    text = found.text
    assert "2 grants added up" in text
    assert "6 trainings in 2 runs" in text
    assert "a round was trained again, and paid again" in text
    assert "1\N{EN DASH}2; again 2" in text
    assert "All grants together" in text
    assert wording.warnings(record) == []


def test_a_run_that_was_interrupted_holds_what_it_reserved(history) -> None:
    found = history(run_under_way)
    record = found.record
    held = record.runs[1]
    assert held.open
    assert (held.rounds_charged, held.trained) == (5, (1,))
    assert wording.state(held) == "not ended: holds 4 trainings"
    assert held.outcome is not None
    assert held.outcome.status == "interrupted"
    ledger = found.ledger
    grant = record.grants[0]
    assert grant.epsilon_spent == alone(3, ledger)
    assert grant.epsilon_charged == alone(7, ledger)
    text = found.text
    assert "1 run not ended yet holds 4 trainings" in text
    assert "1 head that others kept" in text
    assert "set back" not in " ".join(wording.warnings(record))


def test_a_refused_run_cost_nothing_and_says_why(history) -> None:
    found = history(refused_run)
    record = found.record
    assert [run.run for run in record.runs] == ["run-1", RUN], "other sites' reports are not ours"
    run = record.runs[1]
    assert (run.grant, run.rounds_charged, run.trained, run.epsilon_alone) == (0, 0, (), 0.0)
    assert wording.state(run) == "refused (budget), charged nothing"
    text = found.text
    assert "its ledger cannot afford the run" in text
    assert "2 trainings in 1 run" in text


def test_a_recovered_ledger_says_what_was_charged_for_the_loss(history) -> None:
    found = history(lost_history)
    record = found.record
    assert [(loss.trainings, loss.unbounded) for loss in record.losses] == [(3, False)]
    assert [training.run for training in record.trainings] == ["run-1", "run-1", ""]
    assert "backup of Monday" in wording.warnings(record)[0]
    assert "and what a recovery charged" in found.text


def test_what_has_no_bound_is_not_given_one(history) -> None:
    for make in (everything_lost, without_noise):
        record = history(make).record
        assert math.isinf(record.guarantee_epsilon)
        assert wording.warnings(record)
        assert "Nothing holds any more" in history(make).text
        assert json.loads(encode_dataset(record))["guarantee_epsilon"] is None
        assert record.grants[0].epsilon_left == 0.0


def test_a_ledger_that_was_set_back_is_reported_and_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = set_back(tmp_path)
    assert record.heads_missing == (f"99:{'cd' * 32}",)
    assert "set back or replaced" in wording.warnings(record)[0]
    statement = a_statement("clinic-d", head_sequence=99, head_digest="cd" * 32)
    report = tmp_path / "report.json"
    report.write_bytes(encode_record(ours(finished(), "clinic-d", statement=statement)))
    out = tmp_path / "out"
    # Whoever altered a report could have a ledger called set back that was not.
    with pytest.raises(RunError, match="is not what its sites signed"):
        read_reports([report])
    monkeypatch.setattr("fmfl_secure.report.signed.check_statements", lambda _: {})
    arguments = ["report", "dataset", str(tmp_path / "ledger.sqlite"), "--run", str(report)]
    monkeypatch.setattr(sys, "argv", ["fmfl-secure", *arguments, "--output", str(out)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 3
    assert "truncated or rolled back" in capsys.readouterr().err
    assert "set back or replaced" in Page((out / "dataset.html").read_text("utf-8")).text


def test_a_data_set_has_its_own_budget_and_the_policy_is_shown(history) -> None:
    found = history(named_data)
    record = found.record
    (dataset,) = record.datasets
    assert (dataset.name, dataset.runs, dataset.epsilon) == (
        "discharge letters 2025",
        ("run-1",),
        2.0,
    )
    ledger = found.ledger
    assert dataset.epsilon_charged is not None
    assert 0 < dataset.epsilon_charged <= 2.0
    # By the data set's own orders: near the grant's figure for both reserved rounds.
    assert dataset.epsilon_charged == pytest.approx(alone(2, ledger), rel=0.5)
    assert record.policy == {"min_sites": 5, "non_private": "refuse", "max_rounds": 20}
    text = found.text
    assert "max_rounds" in text
    assert "discharge letters 2025" in text


def test_an_export_says_the_same_as_the_ledger(history, tmp_path: Path) -> None:
    ledger = history(several_runs).folder / "ledger.sqlite"
    export = tmp_path / "export.json"
    export.write_text(export_json(Ledger(ledger).records()), encoding="utf-8")
    found = [
        msgspec.structs.replace(record_of(open_source(str(place))), made="")
        for place in (ledger, export)
    ]
    assert found[0] == found[1]


def test_a_damaged_export_makes_no_report(history, tmp_path: Path) -> None:
    text = export_json(history(several_runs).ledger.records())
    export = tmp_path / "export.json"
    export.write_text(text.replace("first study", "other study"), encoding="utf-8")
    with pytest.raises(Exception, match=r"verif|signature|digest"):
        open_source(str(export))


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>&\'"'
    ledger = new_ledger(tmp_path, population=evil)
    ledger.grant(epsilon=1.0, delta=DELTA, population_size=1000, purpose=evil)
    ledger.reserve(run=evil, event=EVENT, rounds=1, plan="p", purpose=evil, dataset=Dataset(evil))
    ledger.commit(run=evil, round=1)
    site = a_site(evil, None, identity=IDENTITY, refusal=None)
    report = finished(run=evil, federation=evil, sites=(site,))
    text = render_dataset(read(ledger, reports=[report]))
    assert "<script" not in text
    assert evil in Page(text).text


def test_writing_replaces_both_files_or_fails_in_words(history, tmp_path: Path) -> None:
    found = history(nothing_trained)
    page = write_dataset(found.record, tmp_path / "out")
    assert page.read_text("utf-8") == found.page
    assert sorted(p.name for p in page.parent.iterdir()) == ["dataset.html", "dataset.json"]
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        write_dataset(found.record, tmp_path / "file")


def test_a_run_that_never_began_under_a_grant_that_was_lowered_cost_nothing(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path, epsilon=8.0)
    train(ledger, "a", reserved=3)
    before = ledger.budget().grants[0].orders
    ledger.lower(1, epsilon=1.0, reason="a smaller study")
    assert ledger.budget().grants[0].orders != before
    record = read(ledger)
    assert (record.guarantee_epsilon, [run.epsilon_alone for run in record.runs]) == (1.0, [0.0])
