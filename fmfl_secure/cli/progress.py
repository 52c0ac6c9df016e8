"""Progress on a terminal: round, site, step, epsilon so far, time left."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import override

from fmfl_secure.cli._heartbeat import Heartbeat
from fmfl_secure.report.rounding import spent, spent_fine
from fmfl_secure.run.answers import answer_of
from fmfl_secure.run.observer import Observer
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import FederationConfig


class TerminalProgress(Observer):
    """An engine's observer that draws one bar over all steps of all sites.

    On something that is not a terminal it prints a line a round, and tells the command's
    `Heartbeat` where it is in between.

    Args:
        console: Where to.
        config: The federation's settings, for the number of steps.
        beat: What says so; None takes that of the command that runs.
    """

    def __init__(
        self,
        console: Console,
        config: FederationConfig,
        beat: Heartbeat | None = None,
    ) -> None:
        self._console, self._config = console, config
        self._sites = [site.name for site in config.sites]
        self._steps = config.privacy.steps_per_round
        self._rounds = config.all_rounds
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("starting", total=None)
        self._epsilon = 0.0
        self._beat = (
            beat or Heartbeat.current() or Heartbeat(console, "run", watched=console.is_terminal)
        )
        self._beat.at("nothing is trained yet")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @override
    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        begun = "starts" if first_round == 1 else f"goes on at round {first_round}"
        self._console.print(f"run [bold]{run}[/bold] {begun}: {rounds} rounds", highlight=False)
        per_round = self._steps * len(self._sites)
        self._progress.update(
            self._bar, total=rounds * per_round, completed=(first_round - 1) * per_round
        )

    @override
    def site_refused(self, site: str, code: str, reason: str) -> None:
        self._console.print(
            f"[yellow]{site} takes no part[/yellow] ({code}): {escape(reason)}",
            highlight=False,
            soft_wrap=True,
        )

    @override
    def site_training(self, round_number: int, site: str, step: int, steps: int) -> None:
        before = (round_number - 1) * self._steps * len(self._sites)
        done = before + self._sites.index(site) * self._steps + step
        text = f"round {round_number}/{self._rounds}  {site} {step}/{steps}"
        if self._epsilon:
            text += f"  epsilon {spent(self._epsilon)}"
        self._progress.update(self._bar, completed=done, description=text)
        share = 100 * done // (self._rounds * self._steps * len(self._sites))
        self._beat.at(f"{text}  {share}% of all steps")

    @override
    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        del upload_bytes
        self._beat.told()
        self._epsilon = max(epsilon.values(), default=0.0)
        # The first metric is the one to watch; metrics.json has them all.
        figures = "".join(f"{name} {record.metrics[name]:.4f}" for name in list(record.metrics)[:1])
        answer = answer_of(self._config, record)
        if answer is not None:
            figures = f"after {answer.trained} of training: {answer.line}"
        so_far = f"  epsilon {spent_fine(self._epsilon)}" if self._epsilon else ""
        self._console.print(
            f"round {record.round}/{self._rounds} {record.status}: {len(record.cohort)} sites"
            f"{so_far}  {figures}",
            highlight=False,
        )
