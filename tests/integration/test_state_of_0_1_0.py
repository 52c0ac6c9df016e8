"""What 0.1.0, and each version kept since, left on disks opens, says the same and goes on."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from support import Quiet

from fmfl_secure.planning.task import make_start_file
from fmfl_secure.provisioning.kit import Kit, open_kit
from fmfl_secure.report.bundle import load_bundle, verify_bundle
from fmfl_secure.run.record import decode_record
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ClientSettings, ServerSettings, load_settings
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.training.finished_run import evaluate_run
from fmfl_secure.transports.https.tls import client_context
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.start_file import START_FILE
from privacy import Ledger

PASSPHRASE = "a passphrase for a test"  # of the sealed kit, in make.py
SITES = ("site-1", "site-2", "site-3")
KEPT = sorted((Path(__file__).parents[1] / "fixtures").glob("*.zip"))  # by make.py beside them


@pytest.fixture(params=KEPT, ids=lambda kept: kept.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path)
    for path in tmp_path.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)  # an archive keeps no modes
    return tmp_path


def test_a_ledger_says_what_it_said(old: Path) -> None:
    facts = json.loads((old / "facts.json").read_text())
    ledger = Ledger(old / "federation/sites/site-1/ledger.sqlite")
    (grant,) = ledger.status()
    assert list(ledger.head()) == facts["head"]
    assert grant.epsilon_committed.hex() == facts["epsilon_committed"]
    held = ledger.budget().reservations
    assert {n: r.remaining_rounds for n, r in held.items()} == facts["remaining_rounds"]


def test_a_run_s_folder_still_tells_of_it(old: Path) -> None:
    run = old / "federation/finished"
    record = decode_record((run / "report.json").read_bytes())
    store = RunStore(run)
    assert store.state.ended
    assert store.state.run == record.run
    assert [json.loads(line)["round"] for line in store.rounds()] == [1, 2]
    data, base = old / "federation/data/holdout.csv", old / "federation/model"
    metrics = evaluate_run(run, data, base=base).metrics  # it was made elsewhere
    assert metrics["accuracy"] == pytest.approx(record.rounds[-1].metrics["accuracy"])


def test_an_interrupted_run_goes_on_and_is_charged_once(old: Path) -> None:
    folder = old / "federation"
    record = LocalEngine(
        folder / "federation.toml", folder / "interrupted", resume=True, observer=Quiet()
    ).run()
    assert record.status == "finished"
    assert [r.round for r in record.rounds] == [1, 2]
    for site in SITES:
        reservation = (
            Ledger(folder / "sites" / site / "ledger.sqlite").budget().reservations[record.run]
        )
        assert [number for number, _ in reservation.commits] == [1, 2]


def test_a_signed_report_holds(old: Path) -> None:
    checked = verify_bundle(load_bundle(old / "finished.report"))
    assert checked.ended
    assert checked.record.status == "finished"


def test_a_server_s_kit_serves_once_it_has_its_start_file(old: Path) -> None:
    kit = old / "kits/kits/server"
    shutil.copytree(old / "federation/model", kit / "model")
    config = load_federation(kit / "federation.toml")
    make_start_file(kit / "federation.toml", kit / START_FILE)  # as `serve` does by itself
    server = RunServer(kit, old / "run", config=config, settings=ServerSettings())
    assert not server.ended
    assert server.coordinator.store.public().sites.keys() == set(SITES)


def test_a_server_goes_on_with_an_interrupted_run(old: Path) -> None:
    folder, file = old / "federation", old / "federation/federation.toml"
    make_start_file(file, folder / START_FILE)
    server = RunServer(
        folder, folder / "interrupted", config=load_federation(file), settings=ServerSettings()
    )
    assert not server.ended
    assert [r.round for r in server.coordinator.rounds] == [1]


def test_a_party_s_folder_and_its_sealed_kit_open(old: Path) -> None:
    kits = old / "kits/kits"
    for role, kind in {"server": ServerSettings, **dict.fromkeys(SITES, ClientSettings)}.items():
        kit = Kit(kits / role)
        assert load_federation(kit.federation_file).federation.name == "tiny"
        assert load_settings(kit.service_file, kind)
        assert set(kit.membership.members().sites) == set(SITES)
        assert client_context(kit.tls)
    written = open_kit((old / "site-1.kit").read_bytes(), PASSPHRASE, old / "opened")
    assert (old / "opened/ledger.sqlite").read_bytes() == (
        kits / "site-1/ledger.sqlite"
    ).read_bytes()
    assert "identity.pem" in written
    assert Ledger(old / "opened/ledger.sqlite").budget().population == "site-1"
