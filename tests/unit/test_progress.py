"""What a command says while it goes on, where nobody has a terminal: a line every 15 seconds."""

from __future__ import annotations

import io
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import settings
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.cli._heartbeat import EVERY_S, Heartbeat, doing
from fmfl_secure.cli.progress import TerminalProgress
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.techniques import Technique, technique_of

STEP_S = 4.0
KEEP_TELLING = Heartbeat._keep_telling  # which `conftest` takes away: no test hangs on a clock


@pytest.fixture
def config(tmp_path: Path) -> FederationConfig:
    (tmp_path / "federation.toml").write_text(settings(Path("none"), rounds=2, steps=10))
    return load_federation(tmp_path / "federation.toml")


def finished(number: int) -> RoundRecord:
    return RoundRecord(number, "released", 1, ("site-1",), {}, "", "", {"accuracy": 0.5}, "")


def told(config: FederationConfig, *, terminal: bool) -> list[tuple[float, str]]:
    """Each line with the second it was said in, of two rounds of ten steps at three sites."""
    now, lines = 0.0, []

    class Lines(io.StringIO):
        def write(self, text: str) -> int:
            lines.extend((now, line) for line in text.splitlines() if line.strip())
            return len(text)

    console = Console(file=Lines(), force_terminal=terminal, width=80, color_system=None)
    beat = Heartbeat(console, "run", clock=lambda: now, watched=terminal)
    progress = TerminalProgress(console, config, beat)
    progress.run_started("00ff", first_round=1, rounds=2)
    for number in (1, 2):
        for site in ("site-1", "site-2", "site-3"):
            for step in range(11):
                now += STEP_S
                progress.site_training(number, site, step, 10)
        progress.round_finished(finished(number), {"site-1": 1.25}, 0)
    return lines


def test_without_a_terminal_nobody_waits_in_silence(config: FederationConfig) -> None:
    lines = told(config, terminal=False)
    seconds = [second for second, _ in lines]
    gaps = [later - earlier for earlier, later in itertools.pairwise(seconds)]
    assert max(gaps) <= EVERY_S + STEP_S
    between = [text for _, text in lines if "of all steps" in text]
    assert "round 1/2" in between[0]
    assert "site-1" in between[0]
    assert "epsilon 1.250" in between[-1], "what was spent by then is said too"
    assert len(between) < len(range(66)), "and not a line for every step"


def test_on_a_terminal_the_bar_says_it(config: FederationConfig) -> None:
    assert not [text for _, text in told(config, terminal=True) if "of all steps" in text]


def test_a_step_that_lasts_is_told_of_too(config: FederationConfig) -> None:
    now, said = 0.0, io.StringIO()
    beat = Heartbeat(Console(file=said, width=80), "run", clock=lambda: now)
    progress = TerminalProgress(Console(file=io.StringIO()), config, beat)
    progress.site_training(1, "site-2", 3, 10)
    for _ in range(6):
        now += 10.0
        beat.tick()
    assert said.getvalue().count("round 1/2  site-2 3/10") == 3
    assert said.getvalue().splitlines()[-1].endswith(", 60 s so far")


def test_the_clock_ends_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Heartbeat, "_keep_telling", KEEP_TELLING)
    with Heartbeat(Console(file=io.StringIO()), "plan"):
        (teller,) = (each for each in threading.enumerate() if each.name == "heartbeat")
    teller.join(5)
    assert not teller.is_alive()
    assert Heartbeat.current() is None


@pytest.mark.parametrize("flag", ["", "--json", "--quiet"], ids=["plain", "json", "quiet"])
def test_a_long_command_tells_on_standard_error_and_answers_on_the_other(
    flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The technique takes 40 seconds to find, by the command's own clock."""
    seconds = iter([0.0, 10.0, 40.0])

    def late(*given: Any, **more: Any) -> Heartbeat:
        return Heartbeat(*given, **more, clock=lambda: next(seconds))

    def slow(name: str) -> Technique | None:
        doing("looking in the first half")
        doing("looking in the second half")
        return technique_of(name)

    monkeypatch.setattr("fmfl_secure.cli._command.Heartbeat", late)
    monkeypatch.setattr("fmfl_secure.settings.techniques.technique_of", slow)
    result = CliRunner().invoke(app, ["techniques", "fedprox", *([flag] if flag else [])])
    assert result.exit_code == 0
    line = "techniques: looking in the second half, 40 s so far"
    lines = [each for each in result.stderr.splitlines() if "so far" in each]
    assert lines == ([] if flag == "--quiet" else [line])
    assert "so far" not in result.stdout
    if flag == "--json":
        assert json.loads(result.stdout)["techniques"]


def test_a_service_says_by_its_log_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    beats = []
    monkeypatch.setattr("fmfl_secure.cli._command._heartbeat", beats.append)
    result = CliRunner().invoke(app, ["serve", "nowhere"])
    assert result.exit_code != 0
    assert beats == []
