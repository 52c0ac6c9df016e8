"""A run told to experiment trackers: TensorBoard, MLflow. Only what may leave is told.

Those are the figures on the set that the settings declare public, the sites' noised answers with
their intervals, the largest epsilon that sites have stated, and bytes: what the report says. No
step, no refusal and no name of a site, and of the machine and its user nothing: trackers keep what
they are given, and often elsewhere.

`fmfl-secure run --track` (`cli.run`) and `serve --track` (`cli.service`) wrap their observer by
`tracked`. The run tells the observer, and each tracker gets what `may_leave`.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from typing_extensions import override

from fmfl_secure.errors import ConfigError, FmflError
from fmfl_secure.extras import how_to_install
from fmfl_secure.run.answers import answer_of
from fmfl_secure.run.observer import Observer
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import FederationConfig

_LOG = logging.getLogger("fmfl_secure.run.trackers")


class Tracker(Protocol):
    """A program that figures of a run go to."""

    def begin(self, federation: str, run: str) -> None:
        """A run of a federation starts, or goes on."""

    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        """Takes the figures of one round."""

    def end(self) -> None:
        """Closes the tracker; nothing more comes."""


def may_leave(
    config: FederationConfig, record: RoundRecord, epsilon: Mapping[str, float], upload_bytes: int
) -> dict[str, float]:
    """Collects the figures of a round that are in a report, by name, and nothing else.

    Args:
        config: The run's settings.
        record: The round.
        epsilon: Spent so far, by site: the largest is told.
        upload_bytes: The largest upload of a site.
    """
    told = {f"public/{name}": value for name, value in record.metrics.items()}
    answer = answer_of(config, record)
    for question, figures in answer.figures.items() if answer else ():
        for name, figure in figures.items():
            bounds = zip(("low", "high"), figure.noise or (), strict=False)
            each = {"": figure.value, **{f"/{end}": bound for end, bound in bounds}}
            told |= {
                f"answers/{question}/{name}{end}": value
                for end, value in each.items()
                if value is not None
            }
    told["sites"] = float(len(record.cohort))
    told["upload_bytes"] = float(upload_bytes)
    if epsilon:
        told["epsilon"] = max(epsilon.values())
    return told


class Tracked(Observer):
    """An observer that tells others as well, and a tracker what may leave.

    A tracker that fails is left out with a warning: no run ends for it.

    Args:
        config: The run's settings.
        tracker: Where figures go.
        inner: Who is told everything, as it is on this machine.
    """

    def __init__(self, config: FederationConfig, tracker: Tracker, inner: Observer) -> None:
        self._config, self._inner = config, inner
        self._tracker: Tracker | None = tracker

    @override
    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        self._inner.run_started(run, first_round=first_round, rounds=rounds)
        self._tell(lambda tracker: tracker.begin(self._config.federation.name, run))

    @override
    def site_refused(self, site: str, code: str, reason: str) -> None:
        """Not told to the tracker."""
        self._inner.site_refused(site, code, reason)

    @override
    def site_training(self, round_number: int, site: str, step: int, steps: int) -> None:
        """Not told to the tracker."""
        self._inner.site_training(round_number, site, step, steps)

    @override
    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        self._inner.round_finished(record, epsilon, upload_bytes)
        figures = may_leave(self._config, record, epsilon, upload_bytes)
        self._tell(lambda tracker: tracker.log(figures, step=record.round))

    def close(self) -> None:
        """Nothing more comes, however the run ended."""
        self._tell(lambda tracker: tracker.end())

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            what(self._tracker)
        except Exception as error:  # noqa: BLE001 - other people's code, and a server elsewhere
            self._tracker = None
            _LOG.warning(
                "%s fails, and is told nothing more of this run: %s",
                type(error).__module__.partition(".")[0],
                error,
            )


class TensorBoard(Tracker):
    """Writes event files for TensorBoard.

    Args:
        folder: Where to; each run has a folder in it.
    """

    def __init__(self, folder: str) -> None:
        self._make = _imported("tensorboard.summary", "tensorboard").Writer
        self._folder = Path(folder)
        self._writer: Any = None

    @override
    def begin(self, federation: str, run: str) -> None:
        self._writer = self._make(str(self._folder / f"{federation}-{run}"))

    @override
    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    @override
    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow(Tracker):
    """Logs to an MLflow server or folder, by its client: the fluent interface adds who runs what.

    Args:
        uri: Of tracking.
    """

    def __init__(self, uri: str) -> None:
        # MLflow reports its use to its makers, unless it is told not to before it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._client = _imported("mlflow", "mlflow").MlflowClient(tracking_uri=uri)
        self._run = ""

    @override
    def begin(self, federation: str, run: str) -> None:
        known = self._client.get_experiment_by_name(federation)
        experiment = (
            self._client.create_experiment(federation) if known is None else known.experiment_id
        )
        self._run = self._client.create_run(experiment, run_name=run).info.run_id

    @override
    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, _spelled(name), value, step=step)

    @override
    def end(self) -> None:
        if self._run:
            self._client.set_terminated(self._run)


def _spelled(name: str) -> str:
    """A name in the letters that MLflow takes; others by their number, so that none are one."""
    return re.sub(r"[^\w\-. /]", lambda found: f"_x{ord(found[0]):x}_", name)


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{extra} is not installed", hint=how_to_install(extra)) from error


@contextmanager
def tracked(config: FederationConfig, places: Iterable[str], inner: Observer) -> Iterator[Observer]:
    """An observer that tells trackers as well.

    Args:
        config: The run's settings.
        places: As `--track` names them.
        inner: Who is told everything.

    Raises:
        ConfigError: There is no such tracker, or it is not installed.
    """
    observer, told = inner, []
    for tracker in [tracker_of(place) for place in places]:
        told.append(Tracked(config, tracker, observer))
        observer = told[-1]
    try:
        yield observer
    finally:
        for each in told:
            each.close()


TRACKERS: Final[Mapping[str, Callable[[str], Tracker]]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
}


def tracker_of(text: str) -> Tracker:
    """Opens what `--track` names, as `tensorboard:FOLDER` or `mlflow:URI`.

    Raises:
        ConfigError: There is no such tracker, it is not installed, or the rest is missing.
    """
    kind, _, place = text.partition(":")
    make = TRACKERS.get(kind)
    if make is None or not place:
        raise ConfigError(
            f"--track is {text!r}, expected tensorboard:FOLDER or mlflow:URI",
            hint="Write it as tensorboard:runs or mlflow:https://mlflow.example.",
        )
    try:
        return make(place)
    except FmflError:
        raise
    except Exception as error:
        raise ConfigError(
            f"--track {text!r} cannot be used: {error}",
            hint=f"Try what {kind} says, or leave it out.",
        ) from error
