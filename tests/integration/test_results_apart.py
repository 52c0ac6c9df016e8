"""A server's report by a process of its own: what it cannot do is said where it was asked."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from postgres import OWNER, PASSWORD, Cluster
from support import settings

from fmfl_secure.errors import RunError
from fmfl_secure.parties.coordinator import start_run
from fmfl_secure.parties.workspace import Members, initialise
from fmfl_secure.run.record import decode_record
from fmfl_secure.runtime import results_apart
from fmfl_secure.runtime.results_apart import write_results_apart
from fmfl_secure.settings.federation import FederationConfig, convert_config
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.adapter_files import AdapterFiles
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot
from fmfl_secure.vectors.start import RunStart


def begin(folder: Path, *, database: str | None = None) -> RunStore:
    """A run that has only begun."""
    text = settings(folder / "model", evaluation=False)
    (folder / "federation.toml").write_text(text, encoding="utf-8")
    initialise(folder, epsilon=None, delta=None, simulated=True)
    config = convert_config(tomllib.loads(text), FederationConfig, source="test")
    layout = FlatLayout((TensorSlot("a", (2,)),))
    start = RunStart(
        settings_digest=config.digest,
        base_model="model",
        base_model_digest="sha256:" + "0" * 64,
        base_model_license="",
        layouts=(layout,),
        grids=(),
        adapter=Adapter({}, {}).encode(),
        files=AdapterFiles({}, {}),
    )
    return start_run(
        folder / "run",
        config=config,
        members=Members.load(folder / "members.json"),
        start=start,
        origin=folder,
        database=database,
    )


def test_a_process_that_fails_is_told_of_with_the_command_that_does_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = begin(tmp_path)
    monkeypatch.setattr(results_apart, "CHILD", "fmfl_secure.no_such_module")
    with pytest.raises(RunError, match=r"ended with 1: .*no_such_module") as caught:
        write_results_apart(store, database=None)
    assert f"fmfl-secure report show {store.folder}" in caught.value.hint


@pytest.mark.slow  # the process loads matplotlib and SciPy
def test_what_is_wrong_with_the_run_is_said_by_the_one_who_asked(tmp_path: Path) -> None:
    store = begin(tmp_path)
    (tmp_path / "run/audit.json").write_text("no audit")
    with pytest.raises(RunError, match=r"cannot read .*audit\.json") as caught:
        write_results_apart(store, database=None)
    assert "fmfl-secure audit" in caught.value.hint


@pytest.mark.slow
def test_a_password_gets_to_the_process_and_no_further(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.url("apart", user=OWNER)
    store = begin(tmp_path, database=url)
    record = write_results_apart(store, database=url)
    assert record.run == store.state.run
    assert decode_record((tmp_path / "run/report.json").read_bytes()) == record
    assert (tmp_path / "run/report.html").is_file()
    for file in (tmp_path / "run").iterdir():
        assert PASSWORD.encode() not in file.read_bytes()
