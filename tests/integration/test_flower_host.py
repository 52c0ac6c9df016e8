"""The process behind a SuperNode, by its socket: who may reach it, and what it says. No Flower."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmfl_secure.errors import FlowerError, FrameRefused
from fmfl_secure.transports.flower import host_socket
from fmfl_secure.transports.flower.host import Host


class Echo:
    """Stands for `Parties`."""

    def answer(self, name: str, frame: bytes) -> bytes:
        if name == "stranger":
            raise FrameRefused("there is no such party here")
        if name == "broken":
            raise ZeroDivisionError("row 17")
        return name.encode() + b":" + frame


@pytest.fixture
def folder() -> Iterator[Path]:
    short = Path(tempfile.mkdtemp(prefix="fmfl-"))
    yield short
    shutil.rmtree(short)


@pytest.fixture
def socket(folder: Path) -> Iterator[Path]:
    path = folder / "s"
    host = Host(Echo(), path, idle_s=600.0)  # type: ignore[arg-type]
    thread = threading.Thread(target=host.serve)
    thread.start()
    host_socket.wait_for(path, thread.is_alive)
    yield path
    host.stop()
    thread.join()


def test_it_goes_with_the_process_that_started_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(Echo(), folder / "s", parent=os.getppid())  # type: ignore[arg-type]
    thread = threading.Thread(target=host.serve)
    thread.start()
    host_socket.wait_for(folder / "s", thread.is_alive)
    assert host_socket.ask(folder / "s", "site-1", b"x") == b"site-1:x"
    monkeypatch.setattr("os.getppid", lambda: 1)  # who adopts a process that was left
    thread.join(60)
    assert not thread.is_alive()
    assert not host_socket.answers(folder / "s")


def test_an_order_is_handed_on_and_answered(socket: Path) -> None:
    large = bytes(range(256)) * 40_000
    assert host_socket.ask(socket, "site-1", large) == b"site-1:" + large
    assert host_socket.ask(socket, "", b"x") == b":x"


def test_nothing_of_an_error_comes_back(socket: Path) -> None:
    for party in ("stranger", "broken"):
        with pytest.raises(OSError, match=r"^the order is not taken$"):
            host_socket.ask(socket, party, b"x")
    assert host_socket.ask(socket, "site-1", b"x") == b"site-1:x", "it goes on"


def test_only_its_owner_can_connect(socket: Path) -> None:
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


def test_one_process_at_a_time_serves_a_socket(socket: Path) -> None:
    with pytest.raises(FlowerError, match="another process"):
        Host(Echo(), socket)  # type: ignore[arg-type]
    assert host_socket.answers(socket)


def test_a_socket_that_a_killed_process_left_is_taken_over(folder: Path) -> None:
    path = folder / "s"
    path.touch()
    assert not host_socket.answers(path)
    Host(Echo(), path).close()  # type: ignore[arg-type]
    with pytest.raises(OSError, match="nobody answers"):
        host_socket.ask(path, "site-1", b"x")


def test_a_path_that_no_socket_can_have_is_refused(folder: Path) -> None:
    with pytest.raises(FlowerError, match="too long"):
        Host(Echo(), folder / ("s" * 100))  # type: ignore[arg-type]
