"""Whoever carries the messages names runs that nobody called: no site holds anything for them.

The arm in which it works is 0.1.0's rule, under which a site reserved for any run that it heard of.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from invented import INVENTED, inventing
from support import Quiet, make_federation

from aggregation import AggregationError, Identity
from fmfl_secure.errors import RunError
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.task import build_task
from fmfl_secure.run.call import LASTS, sign_call
from fmfl_secure.runtime.run_driver import RunDriver
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter import adapter_digest
from privacy import Ledger

SITES = ("site-1", "site-2", "site-3")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("invented") / "federation"
    make_federation(folder, tiny_model, rounds=1, steps=1, evaluation=False)
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: the admission gate has tests of its own."""
    monkeypatch.setattr("fmfl_secure.report.write.render_html", lambda *_: "<html></html>")
    for module in ("transports.local.engine", "parties.site"):
        monkeypatch.setattr(f"fmfl_secure.{module}.check_admission", lambda *_, **__: None)


def as_in_0_1_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that asks for nobody's signature."""
    monkeypatch.setattr("fmfl_secure.parties.site.require_call", lambda *_, **__: None)


def held(folder: Path, site: str) -> set[str]:
    return set(Ledger(folder / f"sites/{site}/ledger.sqlite").budget().reservations)


# One machine: the server's half of the process names a run of its own, and then goes on.


def invents(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server assign a step of an invented run to all sites before the run begins."""
    monkeypatch.setattr(RunDriver, "_call", inventing([step]))
    # The engine opens no folder for another run; that is not the rule under test.
    opened = LocalEngine._open_site
    monkeypatch.setattr(
        LocalEngine, "_open_site",
        lambda self, entry, run: _renamed(opened(self, entry, self._server.run.run), run),
    )  # fmt: skip


def _renamed(site: Site, run: str) -> Site:
    site._run = site._budget.run = run
    return site


@pytest.mark.parametrize("step", [Step.JOIN, Step.READY, Step.OPEN], ids=str)
def test_no_site_reserves_for_a_run_that_nobody_called(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    invents(step, monkeypatch)
    engine = LocalEngine(folder / "federation.toml", folder / "run", resume=False, observer=Quiet())
    record = engine.run()
    for site in SITES:
        assert held(folder, site) == {record.run}
    assert record.status == "finished", "and the run that was called is not hurt"


def test_it_worked_by_the_rule_of_0_1_0(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_in_0_1_0(monkeypatch)
    invents(Step.JOIN, monkeypatch)
    engine = LocalEngine(folder / "federation.toml", folder / "run", resume=False, observer=Quiet())
    with pytest.raises(RunError, match="fewer than min_sites"):
        engine.run()
    for site in SITES:
        assert held(folder, site) == {INVENTED}, "all that was granted, and for nothing"
        (status,) = Ledger(folder / f"sites/{site}/ledger.sqlite").status()
        assert status.epsilon_left < 0.1


# What exactly has to be signed.


class Calls:
    def __init__(self, folder: Path) -> None:
        self.config = load_federation(folder / "federation.toml")
        self.task = build_task(self.config, relative_to=folder)
        self.model = self.task.build_model(seed=1)
        self.folder = folder
        self.coordinator = self.identity("coordinator")

    def identity(self, role: str) -> Identity:
        return Identity.load(Workspace(self.folder).role(role) / "identity.pem", role)

    def site(self, run: str) -> Site:
        return Site(
            Workspace(self.folder).site("site-1"),
            run=run, entry=self.config.sites[0], config=self.config,
            task=self.task, model=self.model,
        )  # fmt: skip

    def sign(
        self,
        run: str = "a",
        *,
        by: Identity | None = None,
        config: FederationConfig | None = None,
        ago: timedelta = timedelta(0),
        base_model: str = "",
        adapter: str = "",
    ) -> bytes:
        return sign_call(
            by or self.coordinator,
            run,
            config or self.config,
            base_model=base_model or self.task.base.digest,
            adapter=adapter or adapter_digest(adapter_bytes(self.model)),
            now=datetime.now(UTC) - ago,
        )


def _other(config: FederationConfig, **federation: object) -> FederationConfig:
    import msgspec

    return msgspec.structs.replace(
        config, federation=msgspec.structs.replace(config.federation, **federation)
    )


FALSE: dict[str, Callable[[Calls], bytes | None]] = {
    "none": lambda _: None,
    "empty": lambda _: b"",
    "aggregators": lambda calls: calls.sign(by=calls.identity("aggregator")),
    "another-run": lambda calls: calls.sign("b"),
    "another-federation": lambda calls: calls.sign(config=_other(calls.config, name="other")),
    "other-settings": lambda calls: calls.sign(config=_other(calls.config, rounds=7)),
    "another-base-model": lambda calls: calls.sign(base_model="sha256:" + "0" * 64),
    "another-start": lambda calls: calls.sign(adapter="sha256:" + "0" * 64),
    "kept-too-long": lambda calls: calls.sign(ago=LASTS),
    "altered": lambda calls: calls.sign()[:-1] + b" ",
}


def test_a_call_is_the_coordinators_and_to_this_run_alone(folder: Path) -> None:
    calls = Calls(folder)
    for what, made in FALSE.items():
        with pytest.raises((RunError, AggregationError)):
            calls.site("a").begin(made(calls))
        assert held(folder, "site-1") == set(), what
    calls.site("a").begin(calls.sign())
    assert held(folder, "site-1") == {"a"}
    calls.site("a").begin(None)  # after a restart: what is held was called once


def test_a_reservation_keeps_what_called_for_it_and_lasts_as_long_as_the_site_says(
    folder: Path,
) -> None:
    calls, file = Calls(folder), folder / "sites/site-1/site.toml"
    text = file.read_text().replace("# reservation_days = 30", "reservation_days = 2")
    assert "\nreservation_days = 2" in text
    file.write_text(text)
    calls.site("a").begin(calls.sign())
    ledger = Ledger(folder / "sites/site-1/ledger.sqlite")
    reserved = ledger.budget().reservations["a"]
    assert reserved.call.startswith("sha256:")
    lasts = datetime.fromisoformat(reserved.expires) - datetime.fromisoformat(reserved.at)
    assert timedelta(days=2) - timedelta(seconds=2) <= lasts <= timedelta(days=2)
