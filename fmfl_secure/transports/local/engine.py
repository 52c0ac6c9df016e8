"""The embedded engine: all parties on one machine, as separate objects with separate keys.

It carries the protocol's bytes between them, in the order of `docs/protocol.md`, and decides
nothing that a party has to decide. Sites train one after the other and share the base model's
memory; each has its own folder, keys, ledger and journal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from aggregation import AggregationError, Aggregator, Identity, ReplayError, RoundPlan, SiteAttempt
from fmfl_secure.errors import KNOWN_ERRORS, RunError
from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.parties.coordinator import Coordinator, check_resumable, start_run
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR, DECRYPTOR, Members, Workspace
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.report.results import site_note, write_results
from fmfl_secure.run.observer import Observer
from fmfl_secure.run.record import RoundRecord, RunRecord
from fmfl_secure.run.refusal_codes import leaving_code
from fmfl_secure.run.transcript import Transcript
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.run_state import RunState, Status
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.tasks import Task
from fmfl_secure.training.admission import check_admission
from fmfl_secure.training.evaluator import Utility
from fmfl_secure.transports.local.custodians import Custodians
from fmfl_secure.transports.local.ledger_heads import HeadExchange

_MAX_ATTEMPTS = 5


@dataclass(slots=True)
class _Attempt:
    """One attempt at a round under way."""

    plan: RoundPlan
    message: bytes
    sites: dict[str, SiteAttempt] = field(default_factory=dict)
    updates: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    readies: dict[str, bytes] = field(default_factory=dict)
    custodians: list[bytes] = field(default_factory=list)


class LocalEngine:
    """Runs a federation's folder from start to end, or on from where it was interrupted.

    Args:
        federation: Path of `federation.toml`.
        output: The run's folder.
        resume: Go on with the run that is there.
        observer: Told about progress.

    Raises:
        FmflError, PrivacyError, AggregationError: Something rules the run out from the start.
    """

    def __init__(self, federation: Path, output: Path, *, resume: bool, observer: Observer) -> None:
        self._config: FederationConfig = load_federation(federation)
        self._workspace = Workspace(federation.parent)
        self._observer = observer
        self._output = output
        self._task: Task = build_task(self._config, relative_to=federation.parent)
        self._model: nn.Module = self._task.build_model(seed=self._config.federation.seed)
        self._members = members = Members.load(self._workspace.members_file)
        check_admission(self._config, self._task, self._model)
        start = start_of(self._config, self._task, self._model)
        if resume:
            store = RunStore(output)
            check_resumable(store, self._config)
        else:
            store = start_run(
                output,
                config=self._config,
                members=members,
                start=start,
                origin=federation.parent,
            )
        self._coordinator = Coordinator(
            self._identity(COORDINATOR),
            members=members,
            config=self._config,
            start=start,
            store=store,
        )
        self._decryptor = open_decryptor(
            self._workspace.role(DECRYPTOR), config=self._config, members=members
        )
        kept = AnchorStore(self._workspace.role(COORDINATOR) / "anchors.sqlite")
        self._heads = HeadExchange(kept, members)
        self._transcript = Transcript(output / "transcript.jsonl")
        self._custodians = Custodians(
            self._workspace, self._config, saw=self._saw, observer=observer
        )
        self._sites: dict[str, Site] = {}
        self._refusals: dict[str, str] = dict(store.state.refusals)  # of before an interruption
        self._utility = Utility(self._config, self._task, self._model, federation.parent)

    @property
    def store(self) -> RunStore:
        """The run's state."""
        return self._coordinator.store

    def _identity(self, role: str) -> Identity:
        return Identity.load(self._workspace.role(role) / "identity.pem", role)

    def run(self) -> RunRecord:
        """Run what is left of the rounds, write adapter, metrics and report.

        Whatever interrupts it, the record of what was spent is written first.

        Returns:
            The run's record.

        Raises:
            FmflError, PrivacyError, AggregationError: The run cannot go on.
        """
        try:
            self._open_sites()
            if self.store.state.outcome is None:  # else only the last bookkeeping is missing
                self._run_rounds()
                self.store.move(RunState.rounds_over)
        except RunError as error:
            reason = str(error)
            self.store.move(lambda state: state.rounds_over(reason))
            self._end()
            raise
        except BaseException:
            self._write("interrupted", "interrupted; --resume goes on from the last released round")
            raise
        return self._end()

    def _run_rounds(self) -> None:
        coordinator, rounds = self._coordinator, self._config.federation.rounds
        done = len(coordinator.rounds)
        self._observer.run_started(coordinator.run, first_round=done + 1, rounds=rounds)
        self._begin_sites()
        if self.store.state.initial_metrics is None:
            metrics = self._utility.before(coordinator.adapter)
            self.store.move(lambda state: state.measured(metrics))
        for round_number in range(done + 1, rounds + 1):
            self._run_round(round_number)

    def _open_sites(self) -> None:
        for name, code in self._refusals.items():
            self._observer.site_refused(name, code, "refused before the interruption")
        for entry in self._config.sites:
            try:
                self._sites[entry.name] = Site(
                    self._workspace.site(entry.name),
                    run=self._coordinator.run,
                    entry=entry,
                    config=self._config,
                    task=self._task,
                    model=self._model,
                )
            except KNOWN_ERRORS as error:
                self._refuse(entry.name, error)
        self._each(lambda site: self._heads.return_to(site, self._sites.values()))

    def _begin_sites(self) -> None:
        self._each(Site.begin)
        self._exchange_heads()
        participating = self._participating()
        if len(participating) < self._config.federation.min_sites:
            raise RunError(
                f"{len(participating)} of {len(self._config.sites)} sites take part, fewer than "
                f"min_sites = {self._config.federation.min_sites}; no data was read",
                hint="; ".join(f"{name}: {code}" for name, code in self._refusals.items()),
            )

    def _exchange_heads(self) -> None:
        """Every party keeps the head that each ledger has now."""
        self._each(self._heads.take)
        self._heads.keep()
        self._each(self._heads.share_with)

    def _each(self, call: Callable[[Site], object]) -> None:
        """Call something for every site that takes part; one that fails there is out."""
        for name in self._participating():
            try:
                call(self._sites[name])
            except KNOWN_ERRORS as error:
                self._refuse(name, error)

    def _participating(self) -> list[str]:
        return [name for name in self._sites if name not in self._refusals]

    def _refuse(self, name: str, error: Exception) -> None:
        code = leaving_code(error)
        self._refusals[name] = code
        self.store.move(lambda state: state.refused(name, code))
        self._observer.site_refused(name, code, str(error))

    # A round, step by step (docs/protocol.md).

    def _run_round(self, round_number: int) -> None:
        if self._recover_release(round_number):
            return
        for _ in range(_MAX_ATTEMPTS):
            invited = self._participating()
            opened: set[str] = set()
            attempt = self._ready(round_number, invited, opened)
            if attempt is None or len(invited) - len(opened) < self._config.federation.min_sites:
                # Sites that opened this round join no further attempt at it, nor do custodians
                # that let it open: it is spent.
                self._finish(self._coordinator.lose_round(round_number, self._refusals))
                return
            if len(attempt.readies) >= self._config.federation.min_sites:
                self._sum_and_release(attempt)
                return
        raise RunError(f"round {round_number} did not succeed in {_MAX_ATTEMPTS} attempts")

    def _ready(self, round_number: int, invited: list[str], opened: set[str]) -> _Attempt | None:
        plan, message = self._coordinator.plan_attempt(round_number, invited)  # 1
        attempt = _Attempt(plan, message)
        try:
            attempt.custodians = self._custodians.ready(plan, message)  # 4
        except ReplayError:
            return None
        for name in invited:
            self._saw(f"site {name}", "plan", message, plan)
            site = self._sites[name]
            try:
                site_attempt = site.admit(message, self._coordinator.adapter)  # 2
                attempt.updates[name] = site.train(  # 3
                    site_attempt.plan, self._coordinator.adapter, self._on_step(round_number, name)
                )
                ready = site_attempt.ready()  # 4
                head = self._heads.take(site)  # with this round's charge in it
                if head is not None:
                    self._saw("coordinator", "anchor", head.encode(), plan, sender=name)
                attempt.readies[name], attempt.sites[name] = ready, site_attempt
            except ReplayError:
                opened.add(name)
            except KNOWN_ERRORS as error:
                self._refuse(name, error)
        self._heads.keep()
        return attempt

    def _sum_and_release(self, attempt: _Attempt) -> None:
        plan, message = attempt.plan, attempt.message
        self._saw("decryptor", "plan", message, plan)
        announcement = self._decryptor.announce(message)  # 4
        self._saw("coordinator", "announcement", announcement, plan)
        for name, ready in attempt.readies.items():
            self._saw("coordinator", "ready", ready, plan, sender=name)
        cohort = self._coordinator.fix_cohort(
            plan, message, announcement, attempt.readies.values(), attempt.custodians
        )
        aggregator = Aggregator(
            self._identity(AGGREGATOR),
            message,
            cohort,
            coordinator=self._members.coordinator,
            pinned=self._members.pinned,
        )
        exchanges = []
        for name, site_attempt in attempt.sites.items():
            self._saw(f"site {name}", "cohort", cohort, plan)
            exchanges.append(site_attempt.exchange(cohort))
        largest = 0
        for name, site_attempt in attempt.sites.items():
            upload = site_attempt.upload(cohort, attempt.updates[name], exchanges)  # 5
            size = upload.size_bytes
            self._saw("aggregator", "upload", upload.manifest, plan, sender=name, upload_bytes=size)
            aggregator.add(upload.manifest, upload.chunks)
            largest = max(largest, size)
        self.store.move(lambda state: state.uploaded(largest))
        opening_list = self._decryptor.confirm(  # 6
            cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        approvals = self._custodians.approve(plan, cohort, opening_list, exchanges)
        self.store.list_openings(plan.round, plan.attempt, opening_list)
        for name, site_attempt in attempt.sites.items():
            self._saw(f"site {name}", "opening-list", opening_list, plan)
            opening = site_attempt.open(opening_list)
            self._saw("aggregator", "opening", opening, plan, sender=name)
            aggregator.add_opening(opening)
        total = aggregator.total()  # 7
        self._saw("decryptor", "sum", total.manifest, plan)
        release = self._decryptor.release(  # 8
            cohort, opening_list, total.manifest, total.chunks, approvals=approvals
        )
        verified = {}
        for name, site_attempt in attempt.sites.items():
            self._saw(f"site {name}", "release", release, plan)
            verified[name] = site_attempt.verify(release)  # 9
        self._apply(plan, message, cohort, release, list(attempt.sites), verified)

    def _apply(
        self,
        plan: RoundPlan,
        message: bytes,
        cohort: bytes,
        release: bytes,
        sites: list[str],
        verified: dict[str, NDArray[np.int64]],
    ) -> None:
        before = self._coordinator.adapter
        self._saw("coordinator", "release", release, plan)
        total = self._coordinator.apply(plan, message, cohort, release, sites=sites)
        metrics = self._utility.after(plan.round, self._coordinator.adapter)
        record = self._coordinator.finish_round(
            plan, release, sites=sites, refusals=self._refusals, metrics=metrics
        )
        for name in sites:
            self._sites[name].released(plan, before, verified.get(name, total), sites)
        self._finish(record)

    def _recover_release(self, round_number: int) -> bool:
        """Finish a round whose release the decryptor recorded before an interruption."""
        for opened in self.store.opened_attempts(round_number):
            try:
                release = self._decryptor.release(
                    opened.cohort, opened.opening_list, b"", (), plan_message=opened.plan
                )
            except AggregationError:
                continue  # nothing was released: that attempt is over
            plan, sites = self._coordinator.read_attempt(opened.plan, opened.cohort)
            self._apply(plan, opened.plan, opened.cohort, release, sites, {})
            return True
        return False

    # What the person running it gets to see.

    def _on_step(self, round_number: int, name: str) -> Callable[[int], None]:
        steps = self._config.privacy.steps_per_round
        self._observer.site_training(round_number, name, 0, steps)
        return lambda step: self._observer.site_training(round_number, name, step, steps)

    def _saw(self, role: str, kind: str, message: bytes, plan: RoundPlan, **more: object) -> None:
        self._transcript.saw(
            role, kind, message, round_number=plan.round, attempt=plan.attempt, **more
        )

    def _finish(self, record: RoundRecord) -> None:
        self._exchange_heads()
        self._transcript.sync()
        self._observer.round_finished(record, self._note_sites())

    def _note_sites(self) -> dict[str, float]:
        """Keep every site's statement; returns the epsilon spent so far of those taking part."""
        spent, notes = {}, {}
        for entry in self._config.sites:
            site = self._sites.get(entry.name)
            statement, signature = None, ""
            if site is not None:
                try:
                    statement, signature = site.statement()
                except KNOWN_ERRORS as error:  # a ledger that was damaged since it was opened
                    self._refuse(entry.name, error)
            name, note = site_note(
                entry.name,
                visibility="private" if site is None else site.visibility,
                refusal=self._refusals.get(entry.name),
                statement=statement,
                signature=signature,
            )
            notes[name] = note
            if site is not None and entry.name not in self._refusals:
                by_round = statement.epsilon_by_round if statement else ()
                spent[entry.name] = by_round[-1] if by_round else 0.0
        self.store.move(lambda state: state.noted(notes))
        return spent

    def _end(self) -> RunRecord:
        """Close the run: sites take back what never started, on the coordinator's signed word."""
        reason = self.store.state.outcome or ""  # why it stopped; empty if it did not
        evidence = self._coordinator.end()
        for name, site in self._sites.items():
            try:
                site.finish(evidence)
            except KNOWN_ERRORS as error:
                self._refuse(name, error)
        self._exchange_heads()
        return self._write("stopped" if reason else "finished", reason)

    def _write(self, status: Status, reason: str) -> RunRecord:
        """Bring everything in the run's folder up to date."""
        self._note_sites()
        self.store.move(lambda state: state.marked(status, reason))
        set_adapter_tensors(self._model, load_adapter_bytes(self._coordinator.adapter))
        self._task.save_adapter(self._model, self._output / "adapter")
        return write_results(self.store)
