"""Coordinator and aggregator of one run put together: all of a server but the way bytes come in.

HTTPS is one way (`transports.https`), Flower another (`transports.flower`). It computes on vectors
of a known layout and has neither base model nor PyTorch; what it has to know of them comes as a
`RunStart`.

The local engine, HTTPS (`transports.https.server`) and Flower each make a `RunServer`, pass what
parties send to its inbox, and call `drive` once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from aggregation import AggregationError, Identity
from fmfl_secure.errors import Problem, RunError
from fmfl_secure.parties.acts import ActLog
from fmfl_secure.parties.coordinator import Coordinator, check_resumable, start_run
from fmfl_secure.parties.membership import MembershipFolder, digest_of
from fmfl_secure.parties.stops import Stops
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR, Members
from fmfl_secure.provisioning.ceremony import keys_record, require_comparison
from fmfl_secure.provisioning.certificates import SERVER
from fmfl_secure.run.keys_record import save_keys
from fmfl_secure.run.observer import Observer, Silent
from fmfl_secure.run.record import RunRecord
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.runtime.inbox import Inbox
from fmfl_secure.runtime.results_apart import begin_results_apart, write_results_apart
from fmfl_secure.runtime.run_driver import Evaluator, RunDriver
from fmfl_secure.runtime.start import open_start
from fmfl_secure.runtime.task_board import TaskBoard
from fmfl_secure.runtime.waiting import PartyWaiter, Waiter
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.service import ServerSettings, Time
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.files import write_outputs
from fmfl_secure.storage.in_use import in_use
from fmfl_secure.storage.message_store import Messages, heads_location, open_store, run_location
from fmfl_secure.storage.run_store import RunStore, holds_run
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.start import RunStart

_LOG = logging.getLogger("fmfl_secure.runtime.server")


def take_stop(stops: Stops, statement: bytes) -> None:
    """Keep a stop that a party brings; durable when this returns, and no attempt follows.

    Args:
        stops: Where.
        statement: As it was signed.

    Raises:
        Problem: 422, it does not hold.
    """
    try:
        stop, path = stops.keep(statement)
    except (RunError, AggregationError) as error:
        raise Problem(422, "refused", "this is no stop that holds here") from error
    place = {"run": stop.run}
    _LOG.warning("%s stopped the run (%s): %s", stop.party, path, stop.reason, extra=place)


class RunServer:
    """A run, and where its parties' messages come in.

    Args:
        folder: A server's kit, or a federation's folder: keys in `coordinator/` and `aggregator/`.
        output: The run's folder; a run that is there goes on.
        config: The federation's settings.
        settings: The server's own.
        start: What the run starts from, if not what the kit's file says.
        write_results: Writes metrics and report from the run's state, if not in another process.
        evaluator: Measures adapters during the run, where there is a model to do it with.
        messages: Where messages under way are kept, if not where the settings say.
        keep_open: Whether all that is kept stays open until `close`: for a process that serves, so
            that no flood of connections can take the descriptors for it.
        waiter: Makes what waits for parties, if they are not waited for by the clock.
        observer: Told of the run's progress.

    Raises:
        FmflError, PrivacyError, AggregationError: Folder, settings or run cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        output: Path,
        *,
        config: FederationConfig,
        settings: ServerSettings,
        start: RunStart | None = None,
        write_results: Callable[[RunStore], RunRecord] | None = None,
        evaluator: Evaluator | None = None,
        messages: Messages | None = None,
        keep_open: bool = False,
        waiter: Callable[[Inbox, TaskBoard, Time], Waiter] = PartyWaiter,
        observer: Observer | None = None,
    ) -> None:
        require_comparison(folder)
        self._folder = folder
        self._keep_open = keep_open
        self.output = output
        self.config = config
        self.settings = settings
        self.membership = MembershipFolder(folder)
        self._start = start or open_start(folder, config)
        store, self.ended = self._open_run(output)
        save_keys(output, keys_record(folder))
        self.identity = self._load(COORDINATOR)
        self._acts = ActLog(folder, self.identity)
        self.coordinator = Coordinator(
            self.identity,
            members=self.members(),
            config=config,
            start=self._start,
            store=store,
        )
        self.board = TaskBoard()
        self.store = messages or open_store(settings.store, relative_to=folder)
        self.inbox = Inbox(self.store, part_bytes=settings.limits.part_bytes)
        self._kept_heads = self._anchors()
        self.heads = AnchorRegistry(
            self._kept_heads,
            self.store,
            self.members,
            # A charge a round and attempt, and what other runs charge meanwhile.
            per_run=256 + 8 * settings.time.attempts * config.federation.rounds,
        )
        self.run = RunDriver(
            self.coordinator,
            identity=self.identity,
            aggregator=self._load(AGGREGATOR),
            members=self.members,
            membership=lambda: digest_of(self.membership.last()),
            config=config,
            output=output,
            inbox=self.inbox,
            board=self.board,
            waiting=waiter(self.inbox, self.board, settings.time),
            observer=observer or Silent(),
            going_on=self._require_going,
            stops=lambda: self._stops.of(self.coordinator.run),
            save_adapter=self._save_adapter,
            write_results=write_results
            or partial(write_results_apart, database=run_location(settings.store)),
            begin_results=None
            if write_results
            else partial(begin_results_apart, database=run_location(settings.store)),
            evaluator=evaluator,
        )

    @property
    def parameters(self) -> int:
        """Values of an update, in the first round."""
        return self._start.layout(self.config.turn(1)).size

    def members(self) -> Members:
        """All parties, as the membership list in force has them."""
        return self.membership.members()

    def drive(self) -> None:
        """Carry the run to its end; of one that has ended, only what its sites still have to hear.

        Raises:
            Stopping: It was asked to stop.
            FmflError, PrivacyError, AggregationError: The run cannot go on.
        """
        with self.kept_open():
            if self.ended:
                self.run.close()
            else:
                self.run.drive()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """The run's state and the heads that are kept stay open inside."""
        with self.coordinator.store.kept_open(), self._kept_heads.kept_open():
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the run's folder and the server's keys for this process alone, while it carries.

        Raises:
            InUse: Another process carries the run, or another run with this server's keys.
        """
        with in_use(self.output, SERVER), in_use(self._folder / COORDINATOR, SERVER):
            yield

    @property
    def _stops(self) -> Stops:
        return Stops(self._folder, self.members())

    @property
    def stopped(self) -> str:
        """By whom the run was stopped and why, for people; empty where nobody has."""
        return self._stops.reason(self.coordinator.run)

    def take_stop(self, statement: bytes) -> None:
        """Keep a stop that a party brings; see `take_stop`."""
        take_stop(self._stops, statement)

    def stop(self) -> None:
        """Stop where it is; the run goes on when its server starts again."""
        self.run.stop()
        self.board.close()

    def close(self) -> None:
        """Release what was kept open."""
        for kept in (self.store, self.coordinator.store, self._kept_heads):
            kept.close()

    def _require_going(self) -> None:
        """Check that nobody has stopped the run, and that the log of acts is as others saw it.

        Raises:
            RunHalted: Somebody has.
            ActsDamaged: It lacks what others have seen of it.
        """
        self._stops.require_none(self.coordinator.run)
        self._acts.hold_to(self._kept_heads.journals(self.identity.public))
        head = self._acts.head()
        if head is not None:
            self.heads.give(COORDINATOR, head)

    def _save_adapter(self, adapter: bytes, folder: Path) -> None:
        write_outputs(
            folder,
            self._start.files.render(Adapter.read(adapter)),
            what="the adapter",
            hint="Check that the folder is writable and that there is space; the run is unharmed.",
        )

    def _load(self, role: str) -> Identity:
        return Identity.load(self._folder / role / "identity.pem", role)

    def _anchors(self) -> AnchorStore:
        file = self._folder / COORDINATOR / "anchors.sqlite"
        return AnchorStore(
            heads_location(self.settings.store, otherwise=file),
            most_bytes=self.settings.limits.heads_bytes,
            keep_open=self._keep_open,
        )

    def _open_run(self, output: Path) -> tuple[RunStore, bool]:
        """The run's state, and whether the run has ended already."""
        database = run_location(self.settings.store)
        if not holds_run(output):
            return start_run(
                output,
                config=self.config,
                members=self.members(),
                start=self._start,
                origin=self._folder,
                database=database,
                keep_open=self._keep_open,
            ), False
        store = RunStore(output, database=database, keep_open=self._keep_open)
        ended = store.state.ended
        if not ended:
            check_resumable(store, self.config, self._start)
        return store, ended
