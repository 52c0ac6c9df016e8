"""Ledgers in PostgreSQL behind a network that breaks, in whole runs: retried, and charged once.

Connections are cut before a statement arrives, or after the server did what it was asked and
before anybody hears of it; then nothing answers for a while. The clock is virtual.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from faults import VirtualClock
from postgres import SITE, Cluster
from support import Quiet, settings, write_rows

from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.report.results import build_record
from fmfl_secure.run.record import RunRecord
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

SITES = ("site-1", "site-2", "site-3")
_schemas = itertools.count()


@dataclass
class Outage:
    """Between ledgers and their server: a port that cuts what passes, once, when it is told to.

    Attributes:
        to: The server's socket.
        watch: Bytes of a statement; a connection that sent them is cut.
        heard: Whether it is cut before they arrive; else once the COMMIT after them was done, and
            before its answer.
        silent: So many connections after that are refused.
        cuts: How often it cut.
        refused: How many it refused.
    """

    to: str
    watch: bytes = b""
    heard: bool = True
    silent: int = 0
    cuts: int = 0
    refused: int = 0
    listener: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, name="outage", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def arm(self, watch: bytes, *, heard: bool, silent: int) -> None:
        self.heard, self.silent, self.watch = heard, silent, watch

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.cuts and self.refused < self.silent:
                self.refused += 1
                client.close()
                continue
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self.to)
            unheard = threading.Event()
            up = threading.Thread(target=self._carry, args=(client, server, True, unheard))
            up.start()
            self._carry(server, client, False, unheard)
            up.join()

    def _carry(
        self, source: socket.socket, target: socket.socket, up: bool, unheard: threading.Event
    ) -> None:
        watched = False
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if up and self.watch and self.watch in data:
                    watched = True
                    if self.heard:
                        self._cut()
                        break
                if up and watched and b"COMMIT" in data:
                    unheard.set()
                if not up and unheard.is_set():  # what the server answers to it
                    self._cut()
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _cut(self) -> None:
        self.cuts, self.watch = self.cuts + 1, b""


@pytest.fixture
def outage(postgres: Cluster) -> Iterator[Outage]:
    with Outage(f"{postgres.folder}/.s.PGSQL.5432") as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    made = VirtualClock()
    made.install(monkeypatch)
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    return made


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, outage: Outage) -> Path:
    """A federation whose second site keeps its ledger beyond the network that breaks."""
    file = settings(tiny_model, rounds=2, steps=1, epsilon=3.0, evaluation=False)
    (tmp_path / "federation.toml").write_text(file)
    for number, site in enumerate(SITES, start=1):
        write_rows(tmp_path / f"data/{site}.csv", 40, seed=number)
        site_file = tmp_path / f"sites/{site}/site.toml"
        site_file.parent.mkdir(parents=True)
        ledger = f'ledger = "{url(outage)}"\n' if site == "site-2" else ""
        site_file.write_text(
            f'[data]\npath = "../../data/{site}.csv"\n[budget]\npopulation = "{site}"\n{ledger}'
        )
    initialise(tmp_path, epsilon=8.0, delta=None, simulated=True)
    return tmp_path


def url(outage: Outage) -> str:
    schema = f"outage_{next(_schemas)}"
    return f"postgresql://{SITE}@127.0.0.1:{outage.port}/ledgers?sslmode=disable&schema={schema}"


def run(folder: Path) -> RunRecord:
    engine = LocalEngine(folder / "federation.toml", folder / "run", resume=False, observer=Quiet())
    engine.run()
    return build_record(RunStore(folder / "run"))


def records(folder: Path) -> list[str]:
    place = (folder / "sites/site-2/site.toml").read_text().partition('ledger = "')[2]
    return [each.kind for each in Ledger(place.partition('"')[0]).records()]


def at(
    patch: pytest.MonkeyPatch, call: str, arm: Callable[[], None], *, by: str = "site-2"
) -> None:
    """Arm the network just before a site makes a call of its own, the first time."""
    original, done = getattr(Site, call), []

    def armed(self, *given, **named):
        if self.name == by and not done:
            done.append(call)
            arm()
        return original(self, *given, **named)

    patch.setattr(Site, call, armed)


WHERE = {
    "reserve": ("begin", b'"kind":"reserve"', True),
    "reserve-unheard": ("begin", b'"kind":"reserve"', False),
    "commit": ("train", b'"kind":"commit"', True),
    "commit-unheard": ("train", b'"kind":"commit"', False),
    "statement": ("statement", b"SELECT line FROM records", True),
    "refund": ("finish", b'"kind":"refund"', True),
    "refund-unheard": ("finish", b'"kind":"refund"', False),
}
SAMPLE = {"commit-unheard", "statement"}


@pytest.mark.parametrize(
    ("call", "watch", "heard"),
    [
        pytest.param(*where, id=name, marks=() if name in SAMPLE else pytest.mark.slow)
        for name, where in WHERE.items()
    ],
)
def test_an_outage_is_waited_out_and_charged_once(
    folder: Path,
    outage: Outage,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    watch: bytes,
    heard: bool,
) -> None:
    at(monkeypatch, call, lambda: outage.arm(watch, heard=heard, silent=3))
    record = run(folder)
    assert (outage.cuts, outage.refused) == (1, 3)
    assert clock() > 0
    assert (record.status, record.stop_reason) == ("finished", "")
    assert [each.cohort for each in record.rounds] == [SITES] * 2
    assert [each.refusals for each in record.rounds] == [{}] * 2
    assert records(folder) == ["open", "grant", "reserve", "commit", "commit", "refund"]


@pytest.mark.slow
def test_an_outage_that_lasts_interrupts_and_the_run_goes_on(
    folder: Path, outage: Outage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, "train", lambda: outage.arm(b'"kind":"commit"', heard=False, silent=10**6))
    with pytest.raises(Exception, match="cannot use postgresql") as told:
        run(folder)
    assert told.value.nature == "passing"
    assert clock() >= 600.0
    outage.silent = 0
    observer = Quiet()
    LocalEngine(folder / "federation.toml", folder / "run", resume=True, observer=observer).run()
    assert observer.refused == {}
    assert build_record(RunStore(folder / "run")).status == "finished"
    # The first charge was kept, and its process ended before it could know: one more is made.
    kinds = records(folder)
    assert kinds == ["open", "grant", "reserve", "commit", "commit", "commit", "refund"]
