"""A flood of connections that never speak TLS, at a server with few descriptors: it stays alive."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support import make_kits

from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.settings.service import ClientSettings, ServerSettings, load_settings
from fmfl_secure.storage.message_store import open_store
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.metrics import ClientMetrics

DESCRIPTORS = 160  # of which the server keeps 96 for itself
FLOOD, AT_A_TIME = 1100, 100


@pytest.fixture
def server(tmp_path: Path, tiny_model: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    kits = make_kits(tmp_path, tiny_model, evaluation=False)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fmfl_secure",
                "serve",
                kits / "server",
                "--output",
                tmp_path / "run",
            ],
            stdout=log,
            stderr=log,
        )
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", port_of(kits))) != 0:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                assert process.poll() is None, (tmp_path / "log").read_text()
        yield kits, process
        process.kill()
        process.wait()


def port_of(kits: Path) -> int:
    return load_settings(Kit(kits / "server").service_file, ServerSettings).listen.port


def line_of(kits: Path, name: str) -> HttpsTransport:
    kit = Kit(kits / name)
    upstream = load_settings(kit.service_file, ClientSettings).server
    return HttpsTransport(upstream, kit.tls, metrics=ClientMetrics(), stopping=threading.Event())


def descriptors(process: subprocess.Popen[bytes]) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def highest(process: subprocess.Popen[bytes]) -> int:
    return max(int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir())


def test_a_flood_of_bare_connections_neither_ends_a_server_nor_keeps_a_site_out(server) -> None:
    kits, process = server
    with ExitStack() as held:
        site = held.enter_context(line_of(kits, "site-1"))
        work = site.work(-1)
        for _ in range(FLOOD // AT_A_TIME):
            for _ in range(AT_A_TIME):
                bare = held.enter_context(socket.create_connection(("127.0.0.1", port_of(kits))))
                bare.setblocking(False)
            assert descriptors(process) < DESCRIPTORS
            with line_of(kits, "site-2") as other:  # a new connection each time
                other.join(work.run, "private")  # which is written down before it is answered
        # Not one descriptor is left: whoever comes is sent off, and who is there is served.
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (highest(process) + 1, DESCRIPTORS))
        for _ in range(AT_A_TIME):
            held.enter_context(socket.create_connection(("127.0.0.1", port_of(kits))))
        site.join(work.run, "private")
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with line_of(kits, "site-3") as last:
            last.join(work.run, "private")
        assert process.poll() is None
    store = open_store("sqlite:service.sqlite", relative_to=kits / "server")
    assert store.notes(work.run, "joined").keys() == {"site-1", "site-2", "site-3"}
    store.close()
    log = (kits.parent / "log").read_text()
    assert "turned away" in log
    assert "Traceback" not in log
