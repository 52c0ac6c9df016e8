"""A federation of real processes, mutual TLS between them, beside the embedded engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from processes import Federation, run_embedded
from support import make_federation, make_kits

from aggregation import PublicIdentity
from fmfl_secure.report.learning_curve import fill_curve
from fmfl_secure.run.ledger_statement import verify_statement
from fmfl_secure.run.record import RunRecord, decode_record
from privacy import Ledger

SITES = ("site-1", "site-2", "site-3", "site-4")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    """The same two rounds by processes and by the embedded engine, with the same randomness."""
    folder = tmp_path_factory.mktemp("service")
    make_kits(folder, tiny_model, sites=4, rounds=2)
    federation = Federation(folder)
    try:
        for name in ("server", "decryptor", *SITES):
            federation.start(name, f"seeded:{folder / 'sums'}")
        federation.wait()
    finally:
        federation.close()
    assert {p.exitcode for p in federation.processes.values()} == {0}, federation.state()
    beside = tmp_path_factory.mktemp("embedded")
    path = make_federation(beside, tiny_model, sites=4, rounds=2)
    for number in range(1, 5):
        rows = (folder / f"kits/site-{number}/data/train.csv").read_bytes()
        assert rows == (beside / f"data/site-{number}.csv").read_bytes()
    run_embedded(path, beside / "run", beside / "sums")
    return folder, beside


def record_of(folder: Path) -> RunRecord:
    return decode_record((folder / "run/report.json").read_bytes())


def test_processes_release_the_same_integers_as_the_embedded_engine(finished) -> None:
    folder, beside = finished
    for number in (1, 2):
        over_https = np.load(folder / f"sums/{number}.npy")
        embedded = np.load(beside / f"sums/{number}.npy")
        assert np.array_equal(over_https, embedded)
        assert np.any(over_https)
    ours, theirs = record_of(folder), record_of(beside)
    assert [r.adapter_digest for r in ours.rounds] == [r.adapter_digest for r in theirs.rounds]
    assert [r.cohort for r in ours.rounds] == [SITES, SITES]


def test_figures_come_afterwards_and_are_those_of_the_embedded_engine(finished) -> None:
    folder, beside = finished
    during = record_of(folder)
    assert [r.metrics for r in during.rounds] == [{}, {}], "a server has no model"
    fill_curve(folder / "run")
    ours, theirs = record_of(folder), record_of(beside)
    assert ours.initial_metrics == theirs.initial_metrics
    assert [r.metrics for r in ours.rounds] == [r.metrics for r in theirs.rounds]
    assert all(r.metrics for r in ours.rounds)


def test_the_report_is_that_of_the_embedded_engine(finished) -> None:
    folder, beside = finished
    ours, theirs = record_of(folder), record_of(beside)
    assert ours.status == theirs.status == "finished"
    assert ours.mechanism == theirs.mechanism
    assert abs(ours.encryption.upload_bytes - theirs.encryption.upload_bytes) < 64
    for site, embedded in zip(ours.sites, theirs.sites, strict=True):
        assert site.statement is not None
        assert embedded.statement is not None
        assert site.statement.epsilon_by_round == embedded.statement.epsilon_by_round
        identity = PublicIdentity.parse(site.name, site.public_key)
        verify_statement(identity, site.statement, site.statement_signature)
        assert not site.statement.runs[0].open, "the end of the run closed the reservation"


def test_ledgers_were_charged_once_a_round(finished) -> None:
    folder, _ = finished
    for name in SITES:
        (held,) = Ledger(folder / f"kits/{name}/ledger.sqlite").budget().reservations.values()
        assert [number for number, _ in held.commits] == [1, 2]


def test_no_kit_holds_another_party_s_secret(finished) -> None:
    folder, _ = finished
    secrets: dict[str, set[bytes]] = {}
    for kit in (folder / "kits").iterdir():
        files = (*kit.rglob("*.pem"), *kit.rglob("*.key"), *kit.rglob("operations.token"))
        found = {f.read_bytes() for f in files if f.name not in {"ca.pem", "certificate.pem"}}
        assert found
        secrets[kit.name] = found
    for name, own in secrets.items():
        for other, theirs in secrets.items():
            assert name == other or not own & theirs
