"""The real `serve` and `decryptor`, over a whole run, load no machine-learning library at all.

Nor does a server need the base model: here its folder is gone before the server starts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from support import make_kits, settings, write_tiny_bert

from aggregation import Identity, MemoryJournal
from fmfl_secure.errors import StartError
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.run.record import decode_record
from fmfl_secure.runtime.agents.simulated import SimulatedSite
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.start import open_start
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ClientSettings, load_settings
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.tasks.adapter_task import TASK_FILE
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.metrics import ClientMetrics
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.start_file import START_FILE, write_start

HEAVY = {"torch", "transformers", "peft", "opacus", "scipy", "matplotlib", "dp_accounting"}
NAMES = ("site-1", "site-2", "site-3")

# The command itself; when it ends it writes down what it had loaded.
COMMAND = """
import atexit, json, sys
told = sys.argv.pop(1)
atexit.register(lambda: open(told, "w").write(json.dumps(sorted(sys.modules))))
from fmfl_secure.cli import main
main()
"""


def start(told: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(told), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def site(kits: Path, name: str) -> threading.Thread:
    """A site's real agent over HTTPS, that trains nothing."""
    kit = Kit(kits / name)
    stopping = threading.Event()
    participant = SimulatedSite(
        Identity.load(kit.folder / "identity.pem", name),
        members=kit.membership.members(),
        journal=MemoryJournal(),
        membership=kit.membership.last(),
        config=load_federation(kit.federation_file),
    )
    open_transport = partial(
        HttpsTransport,
        load_settings(kit.service_file, ClientSettings).server,
        kit.tls,
        metrics=ClientMetrics(),
        stopping=stopping,
    )
    agent = SiteAgent(
        lambda _: participant,
        members=kit.membership.members,
        transport=open_transport(),
        open_transport=open_transport,
        stopping=stopping,
        once=True,
    )

    def run() -> None:
        with agent.transport:
            agent.run()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def end(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def test_a_whole_run_at_server_and_decryptor(tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path / "base")
    kits = make_kits(tmp_path, model, rounds=2, time="gather_s = 60.0")
    shutil.rmtree(model)
    run = tmp_path / "run"
    told = {name: tmp_path / f"{name}.json" for name in ("serve", "decryptor")}
    processes = {
        "serve": start(told["serve"], "serve", kits / "server", "--output", run),
        "decryptor": start(told["decryptor"], "decryptor", kits / "decryptor", "--once"),
    }
    try:
        threads = [site(kits, name) for name in NAMES]
        said = {name: end(process) for name, process in processes.items()}
        for thread in threads:
            thread.join(60)
    finally:
        for process in processes.values():
            process.kill()
    for name, file in told.items():
        loaded = set(json.loads(file.read_text()))
        assert "aggregation" in loaded, "it was written when all was done"
        assert loaded & HEAVY == set(), name
    # All that a run leaves is there.
    record = decode_record((run / "report.json").read_bytes())
    assert record.status == "finished"
    assert [one.cohort for one in record.rounds] == [NAMES, NAMES]
    assert (run / "report.html").is_file()
    assert (run / "metrics.json").is_file()
    assert {TASK_FILE, "adapter_config.json", "README.md"} <= {
        path.name for path in (run / "adapter").iterdir()
    }
    last = RunStore(run).last_adapter()
    assert last is not None
    files = open_start(kits / "server", load_federation(kits / "server/federation.toml")).files
    for name, data in files.render(Adapter.read(last)).items():
        assert (run / "adapter" / name).read_bytes() == data
    # Figures take a model; that there are none yet is said, and what makes them.
    assert record.rounds[-1].metrics == {}
    assert "fmfl-secure evaluate" in said["serve"]


@pytest.mark.slow  # another process loads PyTorch
def test_a_kit_without_the_file_gets_it_once_where_the_base_model_is(
    tmp_path: Path, tiny_model: Path
) -> None:
    kit = make_kits(tmp_path, tiny_model) / "server"
    made = (kit / START_FILE).read_bytes()
    (kit / START_FILE).unlink()  # as provisioned by version 0.1.0
    config = load_federation(kit / "federation.toml")
    start = open_start(kit, config)
    assert (kit / START_FILE).read_bytes() == made
    (kit / START_FILE).write_bytes(b"something else")
    with pytest.raises(StartError, match=r"is not what a run starts from|at most"):
        open_start(kit, config)  # and is never made in place of one that is there
    write_start(start, kit / START_FILE)
    assert open_start(kit, config) == start


def test_a_server_runs_no_code_of_another_package_to_make_it(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(
        settings(tmp_path / "base", plain=True, adapter='kind = "acme-kinds:query"')
    )
    config = load_federation(tmp_path / "federation.toml")
    with pytest.raises(StartError, match="code of another package, acme-kinds:query") as caught:
        open_start(tmp_path, config)
    assert "fmfl-secure start-file" in caught.value.hint


@pytest.mark.slow
def test_a_kit_without_file_and_base_model_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path / "base")
    kit = make_kits(tmp_path, model) / "server"
    (kit / START_FILE).unlink()
    shutil.rmtree(model)
    with pytest.raises(StartError, match=r"cannot be made here: .*base") as caught:
        open_start(kit, load_federation(kit / "federation.toml"))
    assert "fmfl-secure start-file" in caught.value.hint
    assert str(kit / START_FILE) in caught.value.hint
