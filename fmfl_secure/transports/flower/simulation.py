"""`--engine flower-sim`: a federation's folder on Flower's simulation, which runs on Ray.

Every party but coordinator and aggregator is a node. Ray's actors are couriers; parties live in a
few processes beside them, each with its share of the sites and one copy of the base model.

`fmfl-secure run --engine flower-sim` (`cli.run`) makes a `Simulation` and calls `run`: hosts start
first, then Flower with its couriers, and in its server app `FlowerServer` carries the run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.simulation import run_simulation

from fmfl_secure.errors import FlowerError, RunError, RunStopped
from fmfl_secure.parties.workspace import COORDINATOR
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.report.results import write_results
from fmfl_secure.run.observer import Observer
from fmfl_secure.run.record import RunRecord
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ServerSettings, Time, load_settings
from fmfl_secure.storage.run_store import require_folder
from fmfl_secure.training.evaluator import Utility
from fmfl_secure.transports.flower import host_socket
from fmfl_secure.transports.flower.client_app import Address, client_app
from fmfl_secure.transports.flower.deployment import OFFLINE
from fmfl_secure.transports.flower.parties import narrowed, party_names
from fmfl_secure.transports.flower.progress import ProgressWatcher
from fmfl_secure.transports.flower.server import FlowerServer
from fmfl_secure.transports.flower.server_app import GridPost, server_app

_PAUSE_S: Final = 0.05
_END_S: Final = 120.0  # for a host to finish an order that is under way
_DAY_S: Final = 86_400.0
# Parties on one machine are never out of reach, only busy, and hundreds take their turns.
_PATIENT: Final = Time(
    announce_s=_DAY_S,
    ready_s=_DAY_S,
    exchange_s=_DAY_S,
    upload_s=_DAY_S,
    confirm_s=_DAY_S,
    approve_s=_DAY_S,
    open_s=_DAY_S,
    release_s=_DAY_S,
    verify_s=_DAY_S,
    end_s=_DAY_S,
)


class Running(Protocol):
    """A host's process, as `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """Its exit status, once it has ended."""
        ...

    def terminate(self) -> None:
        """Asks the process to end."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; returns the exit code."""
        ...


class Starter(Protocol):
    """Starts a host; `host_socket.start` does."""

    def __call__(self, folder: Path, path: Path, *options: str) -> Running:
        """Start the host of a folder at a socket."""
        ...


class Simulation:
    """Runs a federation's folder on Flower's simulation.

    Args:
        federation: Path of `federation.toml`.
        output: The run's folder.
        resume: Go on with the run that is there.
        observer: Told about progress.
        sites: Take the first so many sites only; 0 takes all.
        workers: Processes that the sites are spread over.
        simulate: Sites that train nothing, for load.
        start: Starts such a process.

    Raises:
        FmflError, PrivacyError, AggregationError: Something rules the run out from the start.
    """

    def __init__(
        self,
        federation: Path,
        output: Path,
        *,
        resume: bool,
        observer: Observer,
        sites: int = 0,
        workers: int = 0,
        simulate: bool = False,
        start: Starter = host_socket.start,
    ) -> None:
        self._folder = federation.parent.resolve()
        self._sites = sites
        self._simulate = simulate
        self._start = start
        config = narrowed(load_federation(federation), sites)
        self._parties = party_names(config)
        self._workers = min(workers or os.cpu_count() or 1, len(self._parties))
        require_folder(output, resume=resume)
        file = self._folder / "service.toml"
        settings = (
            load_settings(file, ServerSettings)
            if file.exists()
            else ServerSettings(store=f"sqlite:{COORDINATOR}/service.sqlite", time=_PATIENT)
        )
        # On this machine the base model is at hand, and so are figures while the run goes on.
        task = build_task(config, relative_to=self._folder)
        model = task.build_model(seed=config.federation.seed)
        utility = Utility(config, task, model, self._folder)
        utility.prepare()
        self._side = RunServer(
            self._folder,
            output,
            config=config,
            settings=settings,
            start=start_of(config, task, model),
            write_results=write_results,
            evaluator=utility,
        )
        if self._side.ended:
            raise RunError(f"the run in {output} has ended; there is nothing to resume")
        self._output = output
        self._watching = ProgressWatcher(self._side, observer)
        self._carrier: FlowerServer | None = None
        self._failure: BaseException | None = None

    def run(self) -> RunRecord:
        """Run what is left of the rounds.

        Returns:
            The run's record.

        Raises:
            FmflError, PrivacyError, AggregationError: The run cannot go on.
        """
        with _quiet_flower(), self._hosts() as sockets:
            try:
                run_simulation(
                    server_app=server_app(self._carry),
                    client_app=_couriers(sockets, self._parties),
                    num_supernodes=len(self._parties),
                    backend_config={
                        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                        "init_args": {"num_cpus": self._workers, "include_dashboard": False},
                    },
                )
            finally:
                if self._carrier is not None:
                    self._carrier.stop()
        if self._failure is not None:
            raise self._failure
        self._watching.look(now=True)
        record = write_results(self._side.coordinator.store)
        if record.status == "stopped":
            raise RunStopped(record.stop_reason)
        return record

    def _carry(self, grid: Grid, _: Context) -> None:
        self._carrier = FlowerServer(
            self._side, GridPost(grid), pause_s=_PAUSE_S, after_turn=self._watching.look
        )
        try:
            self._carrier.run()
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._failure = error

    @contextmanager
    def _hosts(self) -> Iterator[list[Path]]:
        """Sockets of the processes that hold the parties."""
        # Short, as a socket's path must be, and nobody else's.
        folder = Path(tempfile.mkdtemp(prefix="fmfl-"))
        sockets = [folder / f"{number}" for number in range(self._workers)]
        # They go with this process, however it ends.
        options = [f"--sites={self._sites}", "--threads=1", f"--parent={os.getpid()}"]
        options += ["--simulate"] if self._simulate else []
        running = [self._start(self._folder, path, *options) for path in sockets]
        try:
            for path, process in zip(sockets, running, strict=True):
                _wait_for(path, process)
            yield sockets
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(_END_S)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(path: Path, process: Running) -> None:
    try:
        host_socket.wait_for(path, lambda: process.poll() is None)
    except OSError as error:
        raise FlowerError(str(error), hint="Try fmfl-secure flower host on the folder.") from error


def _couriers(sockets: list[Path], parties: list[str]) -> ClientApp:
    def address(context: Context) -> Address:
        partition = int(context.node_config["partition-id"])
        return sockets[partition % len(sockets)], parties[partition], None

    return client_app(address)


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Flower with a home of its own for the time of a run, and no words to anybody outside."""
    with tempfile.TemporaryDirectory(prefix="fmfl-flwr-") as home:
        before = {name: os.environ.get(name) for name in (*OFFLINE, "FLWR_HOME")}
        os.environ.update(OFFLINE, FLWR_HOME=home)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
