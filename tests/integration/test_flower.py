"""A federation on Flower's simulation and on a TLS SuperLink, beside the embedded engine.

It needs the extra `flower`: `make test-flower` runs it in an environment of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import run_embedded
from support import Quiet, make_federation, make_kits

pytest.importorskip("flwr", reason="the extra `flower` is not installed; see make test-flower")

from flower_host import start_seeded
from flower_world import FlowerWorld

from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.storage.run_store import RunStore, holds_run
from fmfl_secure.transports.flower import deployment, host_socket
from privacy import Ledger

SITES = ("site-1", "site-2", "site-3")
ROUNDS = 2


def record_of(folder: Path) -> RunRecord:
    return decode_record((folder / "run/report.json").read_bytes())


def charged(ledger: Path) -> list[int]:
    (held,) = Ledger(ledger).budget().reservations.values()
    return [number for number, _ in held.commits]


def run_beside(folder: Path, model: Path, *, rounds: int) -> Path:
    """The same federation on the embedded engine, with the same randomness."""
    path = make_federation(folder, model, sites=3, rounds=rounds)
    run_embedded(path, folder / "run", folder / "sums")
    return folder


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return run_beside(tmp_path_factory.mktemp("embedded"), tiny_model, rounds=ROUNDS)


def _simulate(federation: Path, output: Path, sums: Path) -> None:
    import torch

    from fmfl_secure.transports.flower.simulation import Simulation

    torch.set_num_threads(1)
    here = Path(__file__).parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), *sys.path])
    Simulation(
        federation, output, resume=False, observer=Quiet(), workers=2, start=start_seeded(sums)
    ).run()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    path = make_federation(folder, tiny_model, sites=3, rounds=ROUNDS)
    process = multiprocessing.get_context("spawn").Process(
        target=_simulate, args=(path, folder / "run", folder / "sums")
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder


@pytest.fixture
def short():
    """A folder whose paths are short enough for sockets."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="fmfl-"))
    yield folder
    shutil.rmtree(folder)


def test_the_simulation_releases_the_integers_of_the_embedded_engine(embedded, simulated) -> None:
    ours, theirs = record_of(simulated), record_of(embedded)
    for number in range(1, ROUNDS + 1):
        expected = np.load(embedded / f"sums/{number}.npy")
        assert np.any(expected)
        for site in SITES:
            assert np.array_equal(np.load(simulated / f"sums/{site}-{number}.npy"), expected)
    assert [r.adapter_digest for r in ours.rounds] == [r.adapter_digest for r in theirs.rounds]
    assert [r.cohort for r in ours.rounds] == [SITES] * ROUNDS
    assert ours.rounds[-1].metrics == theirs.rounds[-1].metrics


def test_the_simulation_charges_each_round_once(simulated) -> None:
    for site in SITES:
        assert charged(simulated / f"sites/{site}/ledger.sqlite") == [1, 2]
    assert record_of(simulated).status == "finished"


@pytest.mark.slow
def test_a_simulation_that_was_killed_goes_on_from_the_command_line(
    tmp_path: Path, tiny_model: Path
) -> None:
    path = make_federation(tmp_path, tiny_model, sites=3, rounds=3)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fmfl_secure", "run", str(path), "--output", str(run)]
    command += ["--engine", "flower-sim", "--sites", "3", "--workers", "2"]
    # A session of its own, so that Ray's processes are killed with it; hosts notice by themselves.
    killed = subprocess.Popen(command, start_new_session=True)
    try:
        while not (holds_run(run) and RunStore(run).rounds()):
            assert killed.poll() is None, "it ended before it was killed"
            time.sleep(0.2)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    released = RunStore(run).rounds()
    assert len(released) < 3
    subprocess.run([*command, "--resume"], check=True)
    assert RunStore(run).rounds()[: len(released)] == released
    assert record_of(tmp_path).status == "finished"
    for site in SITES:
        numbers = charged(tmp_path / f"sites/{site}/ledger.sqlite")
        assert sorted(set(numbers)) == [1, 2, 3]
        # The round that was under way may have been charged and not stored when all was killed.
        assert len(numbers) <= 4


def test_a_superlink_releases_the_same_and_outlives_the_kill_of_a_supernode(
    tmp_path: Path, tiny_model: Path, short: Path
) -> None:
    """Three SuperNodes with keys, TLS; one is killed when it brings the order to upload."""
    embedded = run_beside(tmp_path, tiny_model, rounds=1)
    kits = make_kits(short, tiny_model, sites=3, rounds=1, time="attempts = 10")
    world = FlowerWorld(short, kits)
    here = Path(__file__).parent
    world.env["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), *sys.path])
    hosts = []
    before = dict(os.environ)
    os.environ.update(world.env)
    try:
        world.start_superlink()
        pid = short / "site-2.pid"
        for name in ("decryptor", *SITES):
            world.register(name)
            start = start_seeded(short / "sums", kill=("upload", pid) if name == "site-2" else None)
            hosts.append(start(kits / name, short / f"{name}.sock"))
            host_socket.wait_for(short / f"{name}.sock", lambda: True)
            world.start_supernode(name, f'socket="{short / name}.sock"')
        pid.write_text(str(world.processes["site-2"].pid))
        world.restart_when_killed("site-2", f'socket="{short / "site-2"}.sock"')
        record = deployment.run(kits / "server", short / "run", resume=False, connection="here")
    except BaseException:
        sys.stderr.write(world.logs())
        raise
    finally:
        world.close()
        for host in hosts:
            host.terminate()
            host.wait()
        os.environ.clear()
        os.environ.update(before)
    assert not pid.exists(), "the SuperNode was killed"
    (only,) = record.rounds
    assert (only.status, only.cohort) == ("released", SITES)
    assert only.attempts > 1
    assert only.adapter_digest == record_of(embedded).rounds[0].adapter_digest
    expected = np.load(embedded / "sums/1.npy")
    for site in SITES:
        assert np.array_equal(np.load(short / f"sums/{site}-1.npy"), expected)
        assert charged(kits / site / "ledger.sqlite") == [1], "no order spends twice"
