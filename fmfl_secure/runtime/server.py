"""Coordinator and aggregator of one run put together: all of a server but the way bytes come in.

HTTPS is one way (`transports.https`), Flower another (`transports.flower`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from aggregation import Identity
from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.parties.coordinator import Coordinator, check_resumable, start_run
from fmfl_secure.parties.membership import MembershipFolder, digest_of
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR, Members
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.provisioning.ceremony import keys_record, require_comparison
from fmfl_secure.run.keys_record import save_keys
from fmfl_secure.run.observer import Observer, Silent
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.runtime.inbox import Inbox
from fmfl_secure.runtime.run_driver import RunDriver
from fmfl_secure.runtime.task_board import TaskBoard
from fmfl_secure.runtime.waiting import PartyWaiter, Waiter
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.service import ServerSettings, Time
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.message_store import Messages, heads_location, open_store, run_location
from fmfl_secure.storage.run_store import RunStore, holds_run
from fmfl_secure.tasks import Task
from fmfl_secure.training.evaluator import Utility


class RunServer:
    """A run, and where its parties' messages come in.

    Args:
        folder: A server's kit, or a federation's folder: keys in `coordinator/` and `aggregator/`.
        output: The run's folder; a run that is there goes on.
        config: The federation's settings.
        settings: The server's own.
        learner: The task and a model of it, where the caller shares its own.
        messages: Where messages under way are kept, if not where the settings say.
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
        learner: tuple[Task, nn.Module] | None = None,
        messages: Messages | None = None,
        waiter: Callable[[Inbox, TaskBoard, Time], Waiter] = PartyWaiter,
        observer: Observer | None = None,
    ) -> None:
        require_comparison(folder)
        self._folder = folder
        self.output = output
        self.config = config
        self.settings = settings
        self.membership = MembershipFolder(folder)
        self._task, self._model = learner or self._build(config)
        self._start = start_of(config, self._task, self._model)
        store, self.ended = self._open_run(output)
        save_keys(output, keys_record(folder))
        self.identity = self._load(COORDINATOR)
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
        self.heads = AnchorRegistry(self._anchors(), self.store, self.members)
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
            save_adapter=self._save_adapter,
            evaluator=Utility(config, self._task, self._model, folder),
        )

    @property
    def parameters(self) -> int:
        """Length of an update."""
        return self._start.layout(1).size

    def members(self) -> Members:
        """All parties, as the membership list in force has them."""
        return self.membership.members()

    def drive(self) -> None:
        """Carry the run to its end; of one that has ended, only what its sites still have to hear.

        Raises:
            Stopping: It was asked to stop.
            FmflError, PrivacyError, AggregationError: The run cannot go on.
        """
        if self.ended:
            self.run.close()
        else:
            self.run.drive()

    def stop(self) -> None:
        """Stop where it is; the run goes on when its server starts again."""
        self.run.stop()
        self.board.close()

    def _build(self, config: FederationConfig) -> tuple[Task, nn.Module]:
        task = build_task(config, relative_to=self._folder)
        model = task.build_model(seed=config.federation.seed)
        return task, model

    def _save_adapter(self, adapter: bytes, folder: Path) -> None:
        set_adapter_tensors(self._model, load_adapter_bytes(adapter))
        self._task.save_adapter(self._model, folder)

    def _load(self, role: str) -> Identity:
        return Identity.load(self._folder / role / "identity.pem", role)

    def _anchors(self) -> AnchorStore:
        file = self._folder / COORDINATOR / "anchors.sqlite"
        return AnchorStore(heads_location(self.settings.store, otherwise=file))

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
            ), False
        store = RunStore(output, database=database)
        ended = store.state.ended
        if not ended:
            check_resumable(store, self.config)
        return store, ended
