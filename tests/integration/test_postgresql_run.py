"""A federation whose ledgers are in one PostgreSQL database: the same run, the same commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from postgres import OWNER, PASSWORD, Cluster
from support import Quiet, settings, write_rows
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.report.results import build_record
from fmfl_secure.settings.federation import load_site
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

SITES = ("site-1", "site-2", "site-3")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: the admission gate has tests of its own."""
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)


def url(cluster: Cluster, site: str) -> str:
    """With the password in it, so that the tests can look for where it turns up."""
    return cluster.url(f"run_{site.replace('-', '_')}", user=OWNER)


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, postgres: Cluster
) -> Path:
    folder = tmp_path_factory.mktemp("in-postgresql")
    path = folder / "federation.toml"
    path.write_text(settings(tiny_model, rounds=1, epsilon=3.0, evaluation=False))
    for number, site in enumerate(SITES, start=1):
        write_rows(folder / f"data/{site}.csv", 40, seed=number)
        site_file = folder / f"sites/{site}/site.toml"
        site_file.parent.mkdir(parents=True)
        site_file.write_text(
            f'[data]\npath = "../../data/{site}.csv"\n'
            f'[budget]\npopulation = "{site}"\nledger = "{url(postgres, site)}"\n'
        )
    said = initialise(folder, epsilon=8.0, delta=None, simulated=True)
    assert not any(PASSWORD in line for line in said)
    assert sum("?schema=run_site_" in line for line in said) == 3
    return path


def command(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], catch_exceptions=True)


def test_a_run_charges_ledgers_in_a_database_and_shows_no_password(
    federation: Path, postgres: Cluster
) -> None:
    folder = federation.parent
    observer = Quiet()
    record = LocalEngine(federation, folder / "run", resume=False, observer=observer).run()
    assert record.status == "finished"
    assert observer.refused == {}
    for site in SITES:
        assert not (folder / f"sites/{site}/ledger.sqlite").exists()
        kinds = [entry.kind for entry in Ledger(url(postgres, site)).records()]
        assert kinds == ["open", "grant", "reserve", "commit", "refund"]
    # site.toml is where the password was put; nothing of a run, no report and no store repeats it.
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "site.toml":
            assert PASSWORD.encode() not in file.read_bytes(), file
            assert url(postgres, "site-1").partition("@")[0].encode() not in file.read_bytes()
    assert PASSWORD not in repr(load_site(folder / "sites/site-1/site.toml"))
    assert "ledger='postgresql://***'" in repr(load_site(folder / "sites/site-1/site.toml"))


def test_init_again_leaves_them_alone_and_misses_a_lost_one(
    federation: Path, postgres: Cluster
) -> None:
    folder = federation.parent
    head = Ledger(url(postgres, "site-2")).head()
    assert initialise(folder, epsilon=None, delta=None, simulated=True) == []
    assert Ledger(url(postgres, "site-2")).head() == head
    with postgres.connect() as connection:
        connection.execute("ALTER SCHEMA run_site_2 RENAME TO aside")
    try:
        with pytest.raises(ConfigError, match="is missing") as refusal:
            initialise(folder, epsilon=None, delta=None, simulated=True)
        assert PASSWORD not in str(refusal.value)
        assert "postgresql://***" in str(refusal.value)
        observer = Quiet()
        engine = LocalEngine(federation, folder / "lost", resume=False, observer=observer)
        with pytest.raises(RunError, match="nothing was charged"):
            engine.run()
        assert observer.refused["site-2"][0] == "ledger"
        assert build_record(RunStore(folder / "lost")).sites[1].refusal == "ledger"
    finally:
        with postgres.connect() as connection:
            connection.execute("ALTER SCHEMA aside RENAME TO run_site_2")


def test_every_ledger_command_takes_a_url(
    federation: Path, postgres: Cluster, tmp_path: Path
) -> None:
    place = url(postgres, "site-3")
    key = ("--identity", federation.parent / "sites/site-3/identity.pem")
    grant = ("--epsilon", 1, "--delta", "1e-6", "--purpose", "follow-up")
    anchors, exported = tmp_path / "anchors", tmp_path / "export.json"
    rubbish = ("--anchor", f"99:{'a' * 64}", "--reason", "test", "--nothing")
    outputs = []
    for arguments in (
        ("show", place),
        ("verify", place),
        ("grant", place, *grant, *key),
        ("anchor", place, "--output", anchors, *key),
        ("verify", place, "--anchor", anchors),
        ("recover", place, *rubbish, *key),
        ("export", place, "--output", exported),
        ("export", place, "--format", "csv"),
        ("verify", exported, "--anchor", anchors),
    ):
        done = command("ledger", *arguments)
        assert done.exit_code == 0, (arguments[0], done.output, done.exception)
        outputs.append(done.output)
    assert "grant 2: epsilon 1 at delta 1e-06" in outputs[2]
    assert "it holds 1 anchored heads" in outputs[4]
    assert json.loads(exported.read_text())["population"] == "site-3"
    assert not any(PASSWORD in text or place in text for text in (*outputs, exported.read_text()))
    done = command("ledger", "grant", place, *grant)
    assert done.exit_code == 1
    assert "no key beside it" in str(done.exception)
