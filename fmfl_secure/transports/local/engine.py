"""The embedded engine: all parties on one machine, as separate objects with separate keys.

The run is driven as a server drives it (`runtime`); only the ways between are shorter. Parties
take turns in one thread, messages pass by reference and are not kept, and sites share the base
model's memory; each party has its own folder, keys, ledger and journal. A site's secrets end with
the process: an attempt that was cut short is over, and a release that no site can verify any more
is not applied, so a round that had been opened is lost, as it is at a server.

`fmfl-secure run` (`cli.run`), `Federation.run` and questions on one machine (`asking`) make a
`LocalEngine` and call `run`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fmfl_secure.errors import RunError, RunStopped
from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import DECRYPTOR, Workspace
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.provisioning import certificates
from fmfl_secure.report.learning_curve import results_with_look
from fmfl_secure.run.observer import Observer
from fmfl_secure.run.record import RunRecord
from fmfl_secure.run.transcript import Transcript
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.agents.custodian import CustodianAgent
from fmfl_secure.runtime.agents.decryptor import DecryptorAgent
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.custodian_requests import LOST, SPENT
from fmfl_secure.runtime.inbox import REFUSED
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.settings.service import ServerSettings
from fmfl_secure.storage.in_use import in_use
from fmfl_secure.storage.message_memory import MemoryMessageStore
from fmfl_secure.storage.run_store import RunStore, require_folder
from fmfl_secure.training.admission import check_admission
from fmfl_secure.training.evaluator import Utility
from fmfl_secure.transports.local.pump import Pump
from fmfl_secure.transports.local.transport import DirectTransport

# So many parties have their files open for the whole run; of more, each has its own for its turn.
# A party's are at most 15 descriptors, and a process has 1,024 of them by default.
KEPT_OPEN = 32


class LocalEngine:
    """Runs a federation's folder from start to end, or on from where it was interrupted.

    Args:
        federation: Path of `federation.toml`.
        config: Other settings than it has, of the same parties; None for its own.
        adapter: What sites are asked about, where that is not what training starts from.
        output: The run's folder.
        resume: Go on with the run that is there.
        observer: Told about progress.

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
        config: FederationConfig | None = None,
        adapter: bytes = b"",
    ) -> None:
        self._config = config or load_federation(federation)
        self._workspace = Workspace(federation.parent)
        self._observer = observer
        self._task = build_task(self._config, relative_to=federation.parent)
        self._model = self._task.build_model(seed=self._config.federation.seed)
        check_admission(self._config, self._task, self._model)
        require_folder(output, resume=resume)
        self._agents: dict[str, Agent] = {}
        self._refusals: dict[str, str] = {}
        self._held: ExitStack | None = None  # what stays open until the run's end
        self._failure = ""  # why somebody did not go on with the last attempt that failed
        utility = Utility(self._config, self._task, self._model, federation.parent)
        utility.prepare()
        self._server = RunServer(
            federation.parent,
            output,
            config=self._config,
            settings=ServerSettings(),
            start=start_of(self._config, self._task, self._model, adapter=adapter),
            write_results=results_with_look(utility),
            evaluator=utility,
            messages=MemoryMessageStore(),
            waiter=lambda inbox, _, limits: Pump(inbox, limits, self._agents),
            observer=observer,
        )
        if self._server.ended:
            raise RunError(f"the run in {output} has ended; there is nothing to resume")
        if self.store.public().base_model_digest not in self._task.base.digests:
            raise RunError(
                f"the run in {output} was started with another base model than is at "
                f"model.base now, {self._task.base.digest}",
                hint="Put back the files that it was started with.",
            )
        self._transcript = Transcript(output / "transcript.jsonl")
        # The order of their turns. The decryptor's comes first: whether enough sites can still be
        # ready is then asked after each of them, and no further one trains in vain.
        self._agents[DECRYPTOR] = self._decryptor()
        for entry in self._config.sites:
            self._agents[entry.name] = self._site(entry)
        for name in self._config.aggregation.custodians:
            self._agents[name] = self._custodian(name)

    @property
    def store(self) -> RunStore:
        """The store of the run's state."""
        return self._server.coordinator.store

    def run(self) -> RunRecord:
        """Run what is left of the rounds, write adapter, metrics and report.

        Whatever interrupts it, the record of what was spent is written first.

        Returns:
            The run's record.

        Raises:
            InUse: Another process carries this run, or has one of the parties' folders.
            RunStopped: The run has ended, before its last round.
            FmflError, PrivacyError, AggregationError: The run cannot go on.
        """
        with ExitStack() as held:
            held.enter_context(self._server.alone())
            held.enter_context(self._server.kept_open())
            for folder, role in self._folders():
                held.enter_context(in_use(folder, role))
            if len(self._agents) <= KEPT_OPEN:
                for agent in self._agents.values():
                    if agent.party is not None:
                        held.enter_context(agent.party.kept_open())
                self._held = held
            try:
                return self._carry()
            finally:
                self._held = None

    def _folders(self) -> Iterator[tuple[Path, str]]:
        yield self._workspace.role(DECRYPTOR), certificates.DECRYPTOR
        for entry in self._config.sites:
            yield self._workspace.site(entry.name), certificates.SITE
        for name in self._config.aggregation.custodians:
            yield self._workspace.custodian(name), certificates.CUSTODIAN

    def _carry(self) -> RunRecord:
        driver, part_bytes = self._server.run, self._server.inbox.part_bytes
        try:
            driver.patiently(self._recall_refusals)
            for agent in self._agents.values():
                if isinstance(agent, SiteAgent):
                    prepare = partial(agent.prepare, driver.run, part_bytes=part_bytes)
                    driver.patiently(prepare)
            record = driver.drive()
        except BaseException:
            driver.interrupt("interrupted; --resume goes on from the last released round")
            raise
        finally:
            self._transcript.sync()
        if driver.stopped is not None:
            hint = driver.stopped.hint or self._failure
            raise RunStopped(str(driver.stopped), hint=hint) from driver.stopped
        return record

    def _recall_refusals(self) -> None:
        for name, code in self.store.state.refusals.items():
            self._refusals[name] = code
            self._server.store.note(self._server.run.run, REFUSED, name, code.encode())
            self._observer.site_refused(name, code, "refused before the interruption")

    # The parties.

    def _transport(self, name: str, role: str) -> DirectTransport:
        return DirectTransport(
            self._server,
            name,
            role,
            saw=self._transcript.saw,
            refused=self._note_refusal,
            failed=self._note_failure,
        )

    def _decryptor(self) -> DecryptorAgent:
        role = open_decryptor(
            self._workspace.role(DECRYPTOR), config=self._config, members=self._server.members()
        )
        transport = self._transport(DECRYPTOR, certificates.DECRYPTOR)
        return DecryptorAgent(
            role,
            transport,
            stopping=threading.Event(),
            once=False,
            decisions=Decisions(self._workspace.role(DECRYPTOR), self._server.members()),
        )

    def _custodian(self, name: str) -> CustodianAgent:
        custodian = Custodian(self._workspace.custodian(name), name, self._config)
        transport = self._transport(name, certificates.CUSTODIAN)
        return CustodianAgent(
            custodian,
            transport,
            stopping=threading.Event(),
            once=False,
            decisions=Decisions(self._workspace.custodian(name)),
        )

    def _site(self, entry: SiteEntry) -> SiteAgent:
        steps = self._config.privacy.steps_per_round
        return SiteAgent(
            lambda run: self._open_site(entry, run),
            members=MembershipFolder(self._workspace.site(entry.name)).members,
            transport=self._transport(entry.name, certificates.SITE),
            open_transport=None,
            stopping=threading.Event(),
            once=False,
            on_step=lambda number, step: self._observer.site_training(
                number, entry.name, step, steps
            ),
            decisions=Decisions(self._workspace.site(entry.name)),
        )

    def _open_site(self, entry: SiteEntry, run: str) -> Site:
        if run != self._server.run.run:
            raise RunError(f"{entry.name}: the plan's run is not the one agreed here")
        if self._config.trains:
            # A site that has not begun looks once at the adapter that the settings' seed gives.
            initial = self.store.public().initial_adapter
            set_adapter_tensors(self._model, load_adapter_bytes(initial))
        site = Site(
            self._workspace.site(entry.name),
            run=run,
            entry=entry,
            config=self._config,
            task=self._task,
            model=self._model,
        )
        if self._held is not None:
            self._held.enter_context(site.kept_open())
        return site

    # What the person running it gets to see.

    def _note_refusal(self, name: str, code: str) -> None:
        if self._refusals.get(name) == code:
            return  # it says so again at the end of the run
        self.store.move(lambda state: state.refused(name, code))
        self._refusals[name] = code
        self._observer.site_refused(name, code, self._agents[name].refusal)

    def _note_failure(self, name: str, code: str) -> None:
        reason = self._agents[name].refusal or code
        self._failure = f"{name}: {reason}"
        if name in self._config.aggregation.custodians and code not in {SPENT, LOST}:
            self._observer.site_refused(f"custodian {name}", code, reason)
