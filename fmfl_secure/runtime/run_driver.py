"""One run at the server: who joins, round after round, and its end.

`RunServer` makes one, and a transport calls `drive`, across machines in a thread of its own. It
goes through the rounds with a `RoundDriver`, and that through attempts with an `AttemptDriver`.
All three give parties their tasks by the board and wait for what the inbox takes in. After the
last round it writes the results and the signed end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from aggregation import Identity
from fmfl_secure.errors import ANY_FAILURE, RunError, is_passing, said
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.workspace import DECRYPTOR, Members
from fmfl_secure.run.observer import Observer
from fmfl_secure.run.record import RunRecord
from fmfl_secure.run.refusal_codes import GENERIC, MEANINGS
from fmfl_secure.run.site_notes import noted_visibility, site_note
from fmfl_secure.run.stop import RunHalted
from fmfl_secure.runtime.inbox import CLOSED, JOINED, REFUSED, Inbox, Stated, statements
from fmfl_secure.runtime.patience import Patience
from fmfl_secure.runtime.round_driver import RoundDriver
from fmfl_secure.runtime.task_board import STOP, Assignment, Document, Step, TaskBoard
from fmfl_secure.runtime.waiting import Stopping, Waiter
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.storage.run_state import Status
from fmfl_secure.storage.run_store import RunStore

_LOG = logging.getLogger("fmfl_secure.runtime.run_driver")

T = TypeVar("T")


class Evaluator(Protocol):
    """Measures the adapter on data that were declared public; needs the base model."""

    def before(self, adapter: bytes) -> dict[str, float]:
        """Metrics before the first round."""
        ...

    def after(self, round_number: int, adapter: bytes) -> dict[str, float]:
        """Metrics after a round; empty where that one is not evaluated."""
        ...


class RunDriver:
    """Carries a run from its sites' joining to its signed end.

    Args:
        coordinator: With the run's state.
        identity: The coordinator's key pair.
        aggregator: The aggregator's.
        members: All parties, as of now.
        membership: Name of the membership list in force.
        config: The federation's settings.
        output: The run's folder.
        inbox: Where parties' messages come in.
        board: Where parties look for what to do.
        waiting: Waits for them.
        observer: Told of the run's progress; of refusals and training by who sees them.
        save_adapter: Writes an adapter's files into a folder.
        write_results: Writes metrics and report from the run's state.
        going_on: Raises where the run was stopped for good; asked before every attempt.
        stops: Signed stops of the run, by who signed them: every party is given them at the end.
        evaluator: Where there is none, the run's metrics stay empty.
        begin_results: As `write_results`, by a process that nobody waits for: for where this one is
            told to stop. None writes them all the same.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        identity: Identity,
        aggregator: Identity,
        members: Callable[[], Members],
        membership: Callable[[], str],
        config: FederationConfig,
        output: Path,
        inbox: Inbox,
        board: TaskBoard,
        waiting: Waiter,
        observer: Observer,
        save_adapter: Callable[[bytes, Path], None],
        write_results: Callable[[RunStore], RunRecord],
        going_on: Callable[[], None] = lambda: None,
        stops: Callable[[], Mapping[str, bytes]] = dict,
        evaluator: Evaluator | None = None,
        begin_results: Callable[[RunStore], object] | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._members = members
        self._membership = membership
        self._config = config
        self._output = output
        self._inbox = inbox
        self._board = board
        self.waiting = waiting
        self._observer = observer
        self._called: Document | None = None
        self.stopped: RunError | None = None  # what ended it early, with what to do about it
        self._patience = Patience()
        self._failed_in = ""  # a phase
        # In this process.
        self._has_begun = self._has_gathered = self._is_interrupted = False
        self._save_adapter = save_adapter
        self._write_results = write_results
        self._begin_results = begin_results
        self._evaluator = evaluator
        self._going_on = going_on
        self._stops = stops
        self.rounds = RoundDriver(
            coordinator,
            identity=identity,
            aggregator=aggregator,
            members=members,
            inbox=inbox,
            board=board,
            waiting=self.waiting,
            smallest_cohort=config.smallest_cohort(len(members().sites)),
            evaluate=self._evaluate,
            rehearsals=config.federation.rehearsals,
        )
        inbox.open_run(coordinator.run, members().sites)

    @property
    def _helpers(self) -> tuple[str, ...]:
        """Who must be there for a sum to open, besides sites."""
        return (DECRYPTOR, *self._config.aggregation.custodians)

    @property
    def _least(self) -> int:
        return self._config.smallest_cohort(len(self._members().sites))

    @property
    def run(self) -> str:
        """The id of the run."""
        return self._coordinator.run

    def stop(self) -> None:
        """Ask the run to stop where it is; it goes on when the server starts again."""
        self.waiting.stop()

    def drive(self) -> RunRecord:
        """Run what is left of the rounds, write adapter, metrics and report.

        What the surroundings fail is tried again from what is kept, and is no end of the run.

        Raises:
            Stopping: It was asked to stop; everything is kept.
            FmflError, PrivacyError, AggregationError: The run cannot go on now: what is kept is
                damaged, or cannot be used for too long.
        """

        def carry() -> RunRecord:
            self._drive()
            return self._end()

        return self.patiently(carry)

    def _drive(self) -> None:
        store = self._coordinator.store
        if store.state.outcome is not None:
            return
        try:
            if self.stopped is None:
                self._drive_rounds()
        except Stopping:
            self.interrupt("the server stopped; it goes on when it is started again")
            raise
        except RunError as error:
            if error.nature != "decided":
                raise
            self.stopped = self._halted() or error
            _LOG.error("run stopped: %s", self.stopped, extra={"run": self.run})
        reason = "" if self.stopped is None else str(self.stopped)
        store.move(lambda state: state.rounds_over(reason))

    def _halted(self) -> RunHalted | None:
        """Who stopped the run, where somebody did: whatever else came of it."""
        try:
            self._going_on()
        except RunHalted as halted:
            return halted
        return None

    def patiently(self, call: Callable[[], T]) -> T:
        """Do something that can be begun again, until the surroundings let it.

        Raises:
            Stopping: This process is asked to go down.
            FmflError, PrivacyError, AggregationError: It fails for another reason, or for too long.
        """
        is_behind = False
        while True:
            try:
                if is_behind:  # what did not become durable has not happened
                    self._coordinator.recall()
                is_behind = False
                return call()
            except Stopping:
                raise
            except ANY_FAILURE as error:
                if not is_passing(error):
                    raise
                is_behind = True
                self._endure(error)

    def _endure(self, error: Exception) -> None:
        """Wait before another try, or end here where it has failed for too long."""
        if self.rounds.attempts.phase != self._failed_in:  # it got further than the last time
            self._patience.worked()
        self._failed_in = self.rounds.attempts.phase
        try:
            pause_s = self._patience.pause_after(error)
        except ANY_FAILURE:
            self.interrupt(f"interrupted; it goes on when it is started again: {said(error)}")
            raise
        self.waiting.pause(pause_s)

    def interrupt(self, reason: str) -> None:
        """Write what there is of a run that goes on another time, and why it does not now.

        As far as that is possible: where it is not, the run is kept as it was.
        """
        if self._is_interrupted:
            return
        self._is_interrupted = True
        try:
            if not self._coordinator.store.state.ended:
                self._mark("interrupted", reason)
            if self.waiting.stopping and self._begin_results is not None:
                self._write_files()
                self._begin_results(self._coordinator.store)
            else:
                self._write()
        except ANY_FAILURE as error:
            _LOG.warning("cannot write what there is of the run: %s", said(error))

    def _evaluate(self, round_number: int) -> dict[str, float]:
        turn = self._config.turn(round_number)
        if self._evaluator is None or turn.asked is not None:
            return {}
        return self._evaluator.after(turn.training, self._coordinator.adapter)

    def _drive_rounds(self) -> None:
        self._going_on()
        store, rounds = self._coordinator.store, self._config.all_rounds
        done = len(self._coordinator.rounds)
        if not self._has_begun:
            self._begin(done + 1, rounds)
        if not self._has_gathered:
            self._gather()
            self._has_gathered = True
        if store.state.initial_metrics is None:
            evaluator = self._evaluator if self._config.trains else None
            metrics = evaluator.before(self._coordinator.adapter) if evaluator else {}
            store.move(lambda state: state.measured(metrics))
        for number in range(done + 1, rounds + 1):
            record = self.rounds.run_round(number, self._invite, self._refusals)
            spent = self._note_sites()
            self._observer.round_finished(record, spent, store.state.upload_bytes)
            _LOG.info(record.status, extra={"run": self.run, "round": number})
            self._patience.worked()

    def _begin(self, first: int, rounds: int) -> None:
        _LOG.info("run", extra={"run": self.run, "round": first})
        if self._evaluator is None and self._config.evaluation.file and self._config.trains:
            _LOG.warning(
                "this server has no base model: fmfl-secure evaluate adds the run's figures"
            )
        self._observer.run_started(self.run, first_round=first, rounds=rounds)
        self._has_begun = True

    # Who takes part.

    def _call(self) -> None:
        """Ask every site that has neither joined nor refused to join, if enough of them can."""
        joined, refused = self._joined(), self._refusals()
        if len(self._members().sites) - len(refused) < self._least:
            return  # whoever were asked would reserve for nothing
        names = [n for n in self._members().sites if n not in joined and n not in refused]
        call = Document([self._coordinator.call()])
        if self._called is None or self._called.sha256 != call.sha256:
            self._called = call  # the same one while it holds: whoever was asked is not asked anew
        task = Assignment(step=Step.JOIN, run=self.run, documents={"call": self._called})
        self._board.assign(names, task)

    def _gather(self) -> None:
        """Wait for all sites; after a while, for enough of them."""
        self.rounds.attempts.phase = "gather"

        def settled() -> bool:
            self._call()
            return len(self._joined()) + len(self._refusals()) >= len(self._members().sites)

        gather_s = self.waiting.limits.gather_s
        with self.waiting.awaiting(self._not_joined, gather_s):
            self.waiting.until(settled, gather_s)
        self._invite()

    def _invite(self) -> list[str]:
        """Sites that joined and were heard of lately, once there are enough of them.

        Raises:
            RunHalted: The run was stopped.
            RunError: There were not enough for too long.
        """
        self._going_on()
        minimum = self._least

        def enough() -> bool:
            self._call()
            helpers = all(self._is_present(name) for name in self._helpers)
            return helpers and len(self._present()) >= minimum

        everyone = len(self._members().sites)
        wait_s = self.waiting.limits.wait_for_sites_s
        with self.waiting.awaiting(self._absent, wait_s):
            self.waiting.until(
                lambda: enough() or everyone - len(self._refusals()) < minimum, wait_s
            )
        if not enough():
            raise self._too_few()
        self._coordinator.membership_digest = self._membership()
        return self._present()

    def _too_few(self) -> RunError:
        minimum, refusals = self._least, self._refusals()
        needed = self._config.smallest_cohort_in_words(len(self._members().sites))
        present, everyone = len(self._present()), len(self._members().sites)
        number = len(self._coordinator.rounds) + 1
        if everyone - len(refusals) >= minimum:
            text = (
                f"{present} of {everyone} sites take part, fewer than {needed}, "
                f"or there is no {' or no '.join(self._helpers)}"
            )
        elif number == 1 and not self._coordinator.store.attempts(number):
            able = everyone - len(refusals)
            text = f"{able} of {everyone} sites take part, fewer than {needed}; nothing was charged"
        else:
            text = f"{present} sites are left for round {number}, fewer than {needed}"
        told = [
            f"{name}: {code}, {MEANINGS.get(code, MEANINGS[GENERIC])}"
            for name, code in refusals.items()
        ]
        hint = f"Read each one's own log, which says more. {'; '.join(told)}" if told else ""
        return RunError(text, hint=hint)

    def _present(self) -> list[str]:
        joined = self._joined()
        sites = self._members().sites
        return [e.name for e in self._config.sites
                if e.name in joined and e.name in sites and self._is_present(e.name)]  # fmt: skip

    def _not_joined(self) -> list[str]:
        settled = {**self._joined(), **self._refusals()}
        return [name for name in self._members().sites if name not in settled]

    def _absent(self) -> list[str]:
        """Whom a next attempt waits for: silent helpers, and sites that have not refused."""
        refused = self._refusals()
        here = self._present()
        return [
            *(name for name in self._helpers if not self._is_present(name)),
            *(n for n in self._members().sites if n not in here and n not in refused),
        ]

    def _is_present(self, party: str) -> bool:
        return self.waiting.is_present(party)

    def _joined(self) -> dict[str, str]:
        refused = self._refusals()
        notes = self._inbox.store.notes(self.run, JOINED)
        return {name: value.decode() for name, value in notes.items() if name not in refused}

    def _refusals(self) -> dict[str, str]:
        notes = self._inbox.store.notes(self.run, REFUSED)
        return {name: value.decode() for name, value in notes.items()}

    # The end, and what people get to see.

    def _end(self) -> RunRecord:
        self._inbox.open_attempt(None)
        self._coordinator.end()
        return self._close()

    def close(self) -> RunRecord:
        """Give every party the end, wait for sites that joined to close, and write the results.

        Raises:
            Stopping: It was asked to stop; the results are written all the same.
            FmflError, PrivacyError, AggregationError: They cannot be written for too long.
        """
        return self.patiently(self._close)

    def _close(self) -> RunRecord:
        self.rounds.attempts.phase = "end"
        stops = {f"{STOP}{signer}": Document([each]) for signer, each in self._stops().items()}
        documents = {"end": Document([self._coordinator.signed_end()]), **stops}
        task = Assignment(step=Step.END, run=self.run, documents=documents)
        self._board.assign(self._members().sites, task)
        ended = Assignment(step=Step.END, run=self.run, documents=stops)
        self._board.assign(self._helpers, ended)

        parties = (*self._members().sites, *self._helpers)

        def closed() -> bool:
            done = self._inbox.store.notes(self.run, CLOSED)
            waiting = {name for name in self._joined() if name not in done}
            # Nobody can be told once this process is gone, and would wait for it to come back.
            waiting |= {name for name in parties if not self._board.was_told(name)}
            return not any(self._is_present(name) for name in waiting)

        try:
            self.waiting.until(closed, self.waiting.limits.end_s)
        finally:
            # Not before: a run that was killed while its sites closed it has not ended yet.
            reason = self._coordinator.store.state.outcome or ""
            self._mark("stopped" if reason else "finished", reason)
            record = self._write()
        return record

    def _note_sites(self) -> dict[str, float]:
        """Keep what sites stated; returns the epsilon spent so far of those that take part."""
        joined = self._inbox.store.notes(self.run, JOINED)
        stated = statements(self._inbox.store, self.run)
        refused, notes, spent = self._refusals(), {}, {}
        visibility = noted_visibility(self._coordinator.store)  # of before a restart
        for name, declared in joined.items():
            visibility[name] = "public" if declared == b"public" else "private"
        for entry in self._config.sites:
            word = stated.get(entry.name, Stated())
            name, note = site_note(
                entry.name,
                visibility=visibility.get(entry.name, "private"),
                refusal=refused.get(entry.name),
                statement=word.statement,
                signature=word.signature,
                not_shown=word.not_shown,
            )
            notes[name] = note
            if entry.name in joined and entry.name not in refused:
                by_round = word.statement.epsilon_by_round if word.statement else ()
                spent[entry.name] = by_round[-1] if by_round else 0.0
        self._coordinator.store.move(lambda state: state.noted(notes))
        return spent

    def _mark(self, status: Status, reason: str) -> None:
        self._coordinator.store.move(lambda state: state.marked(status, reason))

    def _write(self) -> RunRecord:
        """Bring everything in the run's folder up to date."""
        self._write_files()
        return self._write_results(self._coordinator.store)

    def _write_files(self) -> None:
        self._note_sites()
        if self._config.trains:
            self._save_adapter(self._coordinator.adapter, self._output / "adapter")
