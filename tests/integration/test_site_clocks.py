"""A site's clock jumps, forward and back: whoever is refused for it joins the next run.

Which clock was right nobody can tell, so what a jump ends is this site's part in this run, and
nothing else; what a jump back would open again stays shut. All clocks are virtual.
"""

from __future__ import annotations

import datetime as dt
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile_server import HostileServer, say
from support import Quiet, make_federation

from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.site import Site
from fmfl_secure.report.results import build_record
from fmfl_secure.run.record import RunRecord
from fmfl_secure.settings.service import Upstream
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.metrics import ClientMetrics
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger
from privacy.ledger.times import read_time

SITES = ("site-1", "site-2", "site-3", "site-4")
OTHERS = ("site-1", "site-3", "site-4")
DAY = dt.timedelta(days=1)
TODAY = dt.datetime.now(dt.UTC).date()


class Clock:
    """The machine's, and how far one site's is off while that site works."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.off = dt.timedelta()
        self.works = ""
        patch.setattr("fmfl_secure.parties.site._now", self)
        patch.setattr("privacy.ledger.times._clock", self)
        for name in ("begin", "admit", "train", "released", "statement", "finish", "check"):
            patch.setattr(Site, name, self._noting(getattr(Site, name)))

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + (self.off if self.works == "site-2" else dt.timedelta())

    def _noting(self, original):
        def call(site, *given, **named):
            with self._at(site.name):
                return original(site, *given, **named)

        return call

    @contextmanager
    def _at(self, name: str) -> Iterator[None]:
        before, self.works = self.works, name
        try:
            yield
        finally:
            self.works = before


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("clocks") / "federation"
    make_federation(folder, tiny_model, sites=4, rounds=2, steps=1, grant=40.0, evaluation=False)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    return Path(shutil.copytree(template, tmp_path / "federation"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(folder: Path, name: str = "run") -> RunRecord:
    path = folder / "federation.toml"
    LocalEngine(path, folder / name, resume=False, observer=Quiet()).run()
    return build_record(RunStore(folder / name))


def after_the_first_round(patch: pytest.MonkeyPatch, clock: Clock, off: dt.timedelta) -> None:
    finish = Coordinator.finish_round

    def finish_and_jump(self, *given, **named):
        clock.off = off
        return finish(self, *given, **named)

    patch.setattr(Coordinator, "finish_round", finish_and_jump)


def ledger(folder: Path) -> Ledger:
    return Ledger(folder / "sites/site-2/ledger.sqlite")


def joins_the_next(folder: Path, clock: Clock) -> None:
    clock.off = dt.timedelta()
    record = run(folder, "next")
    assert record.status == "finished"
    assert record.rounds[0].cohort == SITES
    assert record.rounds[0].refusals == {}


def test_past_its_policy_s_last_day_and_back(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "sites/site-2/site.toml"
    text = file.read_text().replace("min_sites = 3", f"min_sites = 3\nexpires = {TODAY}")
    file.write_text(text)
    with monkeypatch.context() as patch:
        after_the_first_round(patch, clock, 2 * DAY)
        record = run(folder)
    assert [each.cohort for each in record.rounds] == [SITES, OTHERS]
    assert [each.refusals for each in record.rounds] == [{}, {"site-2": "policy.expired"}]
    assert [each.kind for each in ledger(folder).records()].count("commit") == 1
    joins_the_next(folder, clock)


def test_past_its_reservation_and_back(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after_the_first_round(patch, clock, 40 * DAY)
        record = run(folder)
    assert [each.cohort for each in record.rounds] == [SITES, OTHERS]
    assert list(record.rounds[1].refusals) == ["site-2"]
    assert [each.kind for each in ledger(folder).records()].count("commit") == 1
    joins_the_next(folder, clock)


def test_past_the_call_to_a_run_and_back(folder: Path, clock: Clock) -> None:
    clock.off = 8 * DAY
    record = run(folder)
    assert [each.cohort for each in record.rounds] == [OTHERS] * 2
    assert [each.refusals for each in record.rounds] == [{"site-2": "run"}] * 2
    assert ledger(folder).budget().reservations == {}
    joins_the_next(folder, clock)


@pytest.mark.parametrize("days", [5, -400])
def test_a_jump_that_ends_nothing_costs_nothing(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """And the ledger's times never go back: what has expired once stays so."""
    with monkeypatch.context() as patch:
        after_the_first_round(patch, clock, days * DAY)
        record = run(folder)
    assert [each.cohort for each in record.rounds] == [SITES] * 2
    assert [each.refusals for each in record.rounds] == [{}] * 2
    records = ledger(folder).records()
    times = [read_time(each.at) for each in records]
    assert times == sorted(times)
    assert [each.kind for each in records].count("commit") == 2
    joins_the_next(folder, clock)
    times = [read_time(each.at) for each in ledger(folder).records()]
    assert times == sorted(times)


@pytest.mark.parametrize("off_s", [-400 * 86_400, 400 * 86_400])
def test_members_are_read_anew_wherever_the_clock_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    """Lists and pins carry no time: a new one counts at once, and an old one never again."""
    place = folder / "sites/site-2"
    held = MembershipFolder(place)
    before = held.members()
    real = dt.datetime.now(dt.UTC).timestamp()
    monkeypatch.setattr("time.time_ns", lambda: int((real + off_s) * 1e9))
    assert held.members() == before
    assert held.lists() == []
    (place / "membership").mkdir()
    for number in (1, 2, 3):
        (place / f"membership/{number:06d}.list").write_bytes(b"a list")
        assert len(held.lists()) == number
    text = (place / "members.json").read_text()
    (place / "members.new").write_text(text.replace("site-4", "site-5"))
    (place / "members.new").replace(place / "members.json")
    assert "site-5" in held.members().sites


def test_past_its_server_s_certificate_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a site whose clock is past it, the server's certificate has ended; it asks until not."""
    server = HostileServer(tmp_path, ended=True)
    stopping = threading.Event()
    waits: list[float] = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout or 0.0)
        if len(waits) == 3:
            server.renew()
        return False

    monkeypatch.setattr(stopping, "wait", wait)
    server.script = lambda _method, _path: say({"lists": ["a"]})
    upstream = Upstream(url=server.url, poll_s=0.1, retry_s=0.01, timeout_s=5)
    with HttpsTransport(
        upstream, server.party, metrics=ClientMetrics(), stopping=stopping
    ) as transport:
        assert transport.membership(0) == ["a"]
    server.close()
    assert len(waits) == 3
    assert transport.connected
