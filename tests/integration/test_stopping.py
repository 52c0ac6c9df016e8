"""Told to stop, a process ends: while it waits for the network as well, and not in a training."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path

import forked
import pytest
from prometheus_client import CollectorRegistry

from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.settings.service import ClientSettings, Operations, Upstream
from fmfl_secure.transports.https.processes import run_party as run_party_module
from fmfl_secure.transports.https.processes.run_party import _Work, run_party


class _Agent:
    is_training = False

    class transport:  # noqa: N801 - an attribute
        connected = False


class _Process:
    """A party's process that is stuck where no flag is looked at: in a read that never ends."""

    def __init__(self, folder: Path, port: int, *, is_training: bool) -> None:
        self.agent = _Agent()
        self.agent.is_training = is_training
        self.settings = ClientSettings(
            server=Upstream(url="https://localhost:1"), operations=Operations(port=0)
        )
        self.metrics = type("Metrics", (), {"registry": CollectorRegistry()})
        self.folder, self.port, self.told = folder, port, 0

    def run(self) -> None:
        (self.folder / "begun").touch()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.recv(1)  # of a training: its end
        (self.folder / "stored").touch()
        self.agent.is_training = False
        (self.folder / "sent").touch()

    def stop(self) -> None:
        self.told += 1
        (self.folder / f"told-{self.told}").touch()


def _be(folder: Path, port: int, is_training: bool) -> None:
    run_party(
        _Process(folder, port, is_training=is_training),  # type: ignore[arg-type]
        Kit(folder),
        template="decryptor.html",
        page=dict,
        started=lambda _: None,
    )


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    token = tmp_path / "operations.token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    return tmp_path


@pytest.fixture
def silent():
    """Somebody who takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)  # of a process that ended before it called
        yield server


def started(kit: Path, silent: socket.socket, *, is_training: bool):
    process = forked.start(_be, kit, silent.getsockname()[1], is_training)
    connection, _ = silent.accept()  # it is in its read now, or will be at once
    return process, connection


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGINT, id="SIGINT", marks=pytest.mark.slow),
    ],
)
def test_who_waits_for_the_network_ends(
    kit: Path, silent: socket.socket, number: signal.Signals
) -> None:
    process, connection = started(kit, silent, is_training=False)
    with connection:
        os.kill(process.pid, number)
        process.join(timeout=120)
        assert process.exitcode == 0
    assert (kit / "told-1").exists()
    assert not (kit / "sent").exists()


def test_a_training_that_was_charged_is_finished_first(kit: Path, silent: socket.socket) -> None:
    process, connection = started(kit, silent, is_training=True)
    with connection:
        os.kill(process.pid, signal.SIGTERM)
        process.join(timeout=4)  # longer than a party that only waits is given
        assert process.exitcode is None
        connection.sendall(b".")
        process.join(timeout=120)
    assert process.exitcode == 0
    assert (kit / "sent").exists()


@pytest.mark.slow
def test_a_second_signal_ends_a_training(kit: Path, silent: socket.socket) -> None:
    process, connection = started(kit, silent, is_training=True)
    with connection:
        os.kill(process.pid, signal.SIGTERM)
        while not (kit / "told-1").exists():
            process.join(timeout=0.05)
        os.kill(process.pid, signal.SIGTERM)
        process.join(timeout=120)
    assert process.exitcode == 0
    assert not (kit / "stored").exists()


class _Waiting:
    """A party's work that ends as soon as it is told to."""

    def __init__(self) -> None:
        self.agent = _Agent()
        self._told = threading.Event()

    def run(self) -> None:
        self._told.wait()

    def stop(self) -> None:
        self._told.set()


def test_a_signal_at_any_moment_of_the_wait_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler runs between any two lines of what it interrupts, and whatever that holds."""
    monkeypatch.setattr(run_party_module, "_LOOK_S", 0.001)

    def hangs(*_: object) -> None:
        raise AssertionError("the handler waits for what it interrupted")

    monkeypatch.setattr(run_party_module, "_leave", hangs)
    before = signal.signal(signal.SIGALRM, hangs)
    try:
        for moment in range(150):
            work, left = _Work(_Waiting(), hangs), [moment]  # type: ignore[arg-type]

            def interrupt(_frame, event, _argument, work=work, left=left):
                if event == "line" and left:
                    left[0] -= 1
                    if left[0] < 0:
                        left.clear()
                        work.stop()
                return interrupt

            signal.alarm(60)
            sys.settrace(interrupt)
            try:
                work.run()
            finally:
                sys.settrace(None)
                signal.alarm(0)
            assert not left
    finally:
        signal.signal(signal.SIGALRM, before)
