"""What a run says while it goes on, where nobody has a terminal: a line every 15 seconds."""

from __future__ import annotations

import io
import itertools
import threading
from pathlib import Path

import pytest
from rich.console import Console
from support import settings

from fmfl_secure.cli.progress import EVERY_S, TerminalProgress
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import FederationConfig, load_federation

STEP_S = 4.0


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
    progress = TerminalProgress(console, config, clock=lambda: now)
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
    progress = TerminalProgress(Console(file=said, width=80), config, clock=lambda: now)
    progress.site_training(1, "site-2", 3, 10)
    for _ in range(6):
        now += 10.0
        progress.tick()
    assert said.getvalue().count("round 1/2  site-2 3/10") == 3


def test_the_clock_ends_with_the_run(config: FederationConfig) -> None:
    progress = TerminalProgress(Console(file=io.StringIO()), config)
    with progress:
        (teller,) = (each for each in threading.enumerate() if "_keep_telling" in each.name)
    teller.join(5)
    assert not teller.is_alive()
