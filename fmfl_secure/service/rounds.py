"""The server's round: which step waits for whom, for how long, and what follows if none comes.

The steps are those of `docs/protocol.md`, and every one may be entered again: what it waits for
may have come before a restart. A party that is lost ends the attempt, never the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from aggregation import AggregationError, Identity
from aggregation import Coordinator as ProtocolCoordinator
from fmfl_secure.coordinator import Coordinator
from fmfl_secure.errors import FmflError, RunError
from fmfl_secure.record import RoundRecord
from fmfl_secure.service.attempt import ServerAttempt
from fmfl_secure.service.board import Board, Document, Step, Task
from fmfl_secure.service.intake import OVER, REFUSED, Intake, failures
from fmfl_secure.service.settings import Time
from fmfl_secure.service.store import MessageKey, MessageStore
from fmfl_secure.workspace import DECRYPTOR, Members

_LOG = logging.getLogger("fmfl_secure.service.rounds")
_TICK_S: Final = 1.0  # how often silence is looked at
_SUSPENDED_S: Final = 5.0  # a tick that much too long is no wait
# The order in which an attempt's messages build on one another.
_ORDER: Final = (
    "announcement", "ready", "exchange", "upload", "chunks",
    "confirmation", "opening", "release", "verdict",
)  # fmt: skip


class Stopping(FmflError):
    """This process is asked to go down; the run goes on when it starts again."""

    code = "stopping"


class AttemptOver(FmflError):
    """An attempt ended without a release; another may follow."""

    code = "attempt"


class TooFewReady(AttemptOver):
    """Fewer sites than `min_sites` could take part."""


class Rounds:
    """Carries the rounds of one run.

    Args:
        coordinator: Plans and applies.
        identity: The coordinator's key pair.
        aggregator: The aggregator's.
        members: All parties.
        intake: Where parties' messages come in.
        board: Where parties look for what to do.
        limits: How long each step waits.
        min_sites: Smallest cohort.
        evaluate: Metrics of the adapter as it stands.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        identity: Identity,
        aggregator: Identity,
        members: Callable[[], Members],
        intake: Intake,
        board: Board,
        limits: Time,
        min_sites: int,
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        self._coordinator = coordinator
        self._protocol = ProtocolCoordinator(identity)
        self._aggregator = aggregator
        self._members = members
        self._intake = intake
        self._messages: MessageStore = intake.store
        self._board = board
        self._limits = limits
        self._min_sites = min_sites
        self._evaluate = evaluate
        self.stopping = False
        self.phase = ""

    def wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something that parties bring about.

        Returns:
            Whether it came about in time.

        Raises:
            Stopping: This process is asked to go down.
        """
        deadline = time.monotonic() + timeout_s
        with self._intake.changed:
            while True:
                if self.stopping:
                    raise Stopping("the server is going down")
                if until():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                before = time.monotonic()
                self._intake.changed.wait(min(left, _TICK_S))
                lost_s = time.monotonic() - before - _TICK_S
                if lost_s > _SUSPENDED_S:
                    # This process was suspended: nobody could have been heard of meanwhile.
                    _LOG.warning("suspended for %.0f s", lost_s)
                    deadline += lost_s
                    self._board.pardon(lost_s)

    def run_round(
        self, number: int, invite: Callable[[], list[str]], refusals: Callable[[], dict[str, str]]
    ) -> RoundRecord:
        """Carry a round to its release, or to the point where it is lost.

        Args:
            number: The round.
            invite: Waits for sites that can take part, and names them.
            refusals: Codes by site that took no part.

        Raises:
            RunError: No attempt succeeded, and none was opened.
        """
        reason = ""
        store = self._coordinator.store
        while store.attempts(number) <= self._limits.attempts:
            try:
                attempt = self._resume(number)
                if attempt is None:
                    if store.attempts(number) == self._limits.attempts:
                        break
                    attempt = self._plan(number, invite())
                record = self._carry(attempt, refusals)
            except AttemptOver as over:
                reason = str(over)
                _LOG.warning("attempt over: %s", reason, extra={"round": number})
                self._close(number, reason)
                if isinstance(over, TooFewReady) and store.opened_attempts(number):
                    break
                continue
            self._intake.open_attempt(None)
            self._messages.forget(self._coordinator.run, number)
            return record
        self._intake.open_attempt(None)
        if store.opened_attempts(number):
            # Sites that opened this round join no further attempt at it: it is spent.
            _LOG.error("round lost: %s", reason, extra={"round": number})
            return self._coordinator.lose_round(number, refusals())
        raise RunError(
            f"round {number} did not succeed in {self._limits.attempts} attempts: {reason}"
        )

    def _plan(self, number: int, sites: Sequence[str]) -> ServerAttempt:
        _, message = self._coordinator.plan_attempt(number, sites)  # 1
        return self._open(message)

    def _open(self, message: bytes) -> ServerAttempt:
        return ServerAttempt(
            message,
            coordinator=self._protocol,
            aggregator=self._aggregator,
            members=self._members(),
        )

    def _resume(self, number: int) -> ServerAttempt | None:
        """The attempt that a restart cut short, with everything that had come."""
        last = self._coordinator.store.last_attempt(number)
        if last is None:
            return None
        attempt = self._open(last.plan)
        run, place = self._coordinator.run, attempt.plan.attempt
        if f"{number}/{place}" in self._messages.notes(run, OVER):
            return None
        keys = sorted(
            self._messages.accepted(run, number, place), key=lambda key: _ORDER.index(key.kind)
        )
        for key in keys:
            if last.cohort is not None and attempt.cohort is None and key.kind not in _ORDER[:2]:
                attempt.fix_cohort(last.cohort)
            self._replay(attempt, key)
        if last.cohort is not None and attempt.cohort is None:
            attempt.fix_cohort(last.cohort)
        _LOG.info("attempt goes on", extra={"round": number, "attempt": place})
        return attempt

    def _replay(self, attempt: ServerAttempt, key: MessageKey) -> None:
        try:
            attempt.receive(key.party, key.kind, self._messages.read(key))
        except AggregationError as error:
            raise RunError(f"a stored {key.kind} of {key.party} does not hold: {error}") from error

    def _close(self, number: int, reason: str) -> None:
        attempt = self._intake.attempt
        self._intake.open_attempt(None)
        if attempt is not None:
            place = f"{number}/{attempt.plan.attempt}"
            self._messages.note(self._coordinator.run, OVER, place, reason.encode())
            self._board.assign((*attempt.invited, DECRYPTOR), Task(run=self._coordinator.run))

    # A round, step by step.

    def _carry(self, attempt: ServerAttempt, refusals: Callable[[], dict[str, str]]) -> RoundRecord:
        self._intake.open_attempt(attempt)
        self._collect_ready(attempt)
        self._exchange(attempt)
        self._collect_uploads(attempt)
        self._confirm(attempt)
        self._collect_openings(attempt)
        self._release(attempt)
        self._verify(attempt)
        self._enter("apply", attempt)
        return self._apply(attempt, refusals)

    def _collect_ready(self, attempt: ServerAttempt) -> None:
        if attempt.cohort is not None:
            return
        self._enter("train", attempt)
        adapter = self._coordinator.adapter
        documents = {"plan": attempt.message, "adapter": adapter}
        self._assign(attempt, attempt.invited, Step.READY, documents)
        self._assign(attempt, [DECRYPTOR], Step.ANNOUNCE, {"plan": attempt.message})
        self._require(attempt, [DECRYPTOR], lambda: _present(attempt.announcement), "announce")
        waited = self._limits.ready_s
        missing = self._missing(attempt, attempt.invited, lambda: attempt.readies, waited)
        ready = {name: attempt.readies[name] for name in attempt.invited if name in attempt.readies}
        if len(ready) < self._min_sites:
            raise TooFewReady(
                f"{len(ready)} sites are ready, fewer than min_sites = {self._min_sites}; "
                f"missing: {', '.join(missing)}"
            )
        if attempt.announcement is None:
            raise AttemptOver("the decryptor did not announce")
        cohort = self._coordinator.fix_cohort(
            attempt.plan, attempt.message, attempt.announcement, ready.values()
        )
        attempt.fix_cohort(cohort)
        late = set(attempt.invited) - set(attempt.sites)
        self._board.assign(late, Task(run=self._coordinator.run))

    def _exchange(self, attempt: ServerAttempt) -> None:
        self._enter("exchange", attempt)
        self._assign(attempt, attempt.sites, Step.EXCHANGE, {"cohort": _bytes(attempt)})
        self._require(attempt, attempt.sites, lambda: attempt.exchanges, "exchange")

    def _collect_uploads(self, attempt: ServerAttempt) -> None:
        self._enter("upload", attempt)
        exchanges = [attempt.exchanges[name] for name in attempt.sites]
        task = Task(
            step=Step.UPLOAD,
            run=attempt.plan.run,
            round=attempt.plan.round,
            attempt=attempt.plan.attempt,
            documents={"exchanges": Document(exchanges)},
            sizes=[len(message) for message in exchanges],
        )
        self._board.assign(attempt.sites, task)
        self._require(
            attempt,
            attempt.sites,
            lambda: set(attempt.sites) - set(attempt.missing_uploads),
            "upload",
        )
        store = self._coordinator.store
        if attempt.upload_bytes:
            store.set_fact("upload_bytes", b"%d" % attempt.upload_bytes)

    def _confirm(self, attempt: ServerAttempt) -> None:
        self._enter("confirm", attempt)
        secrets = attempt.sealed_secrets()
        task = Task(
            step=Step.CONFIRM,
            run=attempt.plan.run,
            round=attempt.plan.round,
            attempt=attempt.plan.attempt,
            documents={
                "plan": Document([attempt.message]),
                "cohort": Document([_bytes(attempt)]),
                "list": Document([attempt.opening_list()]),
                "secrets": Document(secrets),
            },
            sizes=[len(secret) for secret in secrets],
        )
        self._board.assign([DECRYPTOR], task)
        self._require(attempt, [DECRYPTOR], lambda: _present(attempt.confirmation), "confirm")
        # Recorded before any site hears of it.
        self._coordinator.store.list_openings(
            attempt.plan.round, attempt.plan.attempt, attempt.confirmation or b""
        )

    def _collect_openings(self, attempt: ServerAttempt) -> None:
        self._enter("open", attempt)
        documents = {"plan": attempt.message, "list": attempt.confirmation or b""}
        self._assign(attempt, attempt.sites, Step.OPEN, documents)
        self._require(
            attempt, attempt.sites, lambda: set(attempt.sites) - set(attempt.unopened), "open"
        )

    def _release(self, attempt: ServerAttempt) -> None:
        if attempt.release is not None:
            return
        self._enter("release", attempt)
        total = attempt.total()
        task = Task(
            step=Step.RELEASE,
            run=attempt.plan.run,
            round=attempt.plan.round,
            attempt=attempt.plan.attempt,
            documents={
                "plan": Document([attempt.message]),
                "cohort": Document([_bytes(attempt)]),
                "list": Document([attempt.confirmation or b""]),
                "sum": Document([total.manifest]),
                "chunks": Document(total.chunks),
            },
            sizes=[len(chunk) for chunk in total.chunks],
        )
        self._board.assign([DECRYPTOR], task)
        # A decryptor that is away may have recorded its release: it is waited for to the end.
        self._require(
            attempt, [DECRYPTOR], lambda: _present(attempt.release), "release", patient=True
        )

    def _verify(self, attempt: ServerAttempt) -> None:
        self._enter("verify", attempt)
        self._board.assign([DECRYPTOR], Task(run=attempt.plan.run))
        self._assign(attempt, attempt.sites, Step.VERIFY, {"release": attempt.release or b""})
        self._missing(attempt, attempt.sites, lambda: attempt.verdicts, self._limits.verify_s)
        refused = sorted(name for name, verified in attempt.verdicts.items() if not verified)
        if refused:
            raise AttemptOver(f"the sum does not verify at {', '.join(refused)}")
        if not attempt.verdicts:
            # Only sites can check the MAC: a sum that none of them has checked is not applied.
            raise AttemptOver("no site could verify the sum")

    def _apply(self, attempt: ServerAttempt, refusals: Callable[[], dict[str, str]]) -> RoundRecord:
        plan, release = attempt.plan, attempt.release or b""
        self._coordinator.apply(
            plan, attempt.message, _bytes(attempt), release, sites=attempt.sites
        )
        return self._coordinator.finish_round(
            plan, release, sites=attempt.sites, refusals=refusals(), metrics=self._evaluate()
        )

    # Waiting.

    def _enter(self, phase: str, attempt: ServerAttempt) -> None:
        self.phase = phase
        _LOG.info(
            phase,
            extra={
                "run": attempt.plan.run,
                "round": attempt.plan.round,
                "attempt": attempt.plan.attempt,
                "phase": phase,
                "sites": len(attempt.sites or attempt.invited),
            },
        )

    def _assign(
        self,
        attempt: ServerAttempt,
        parties: Collection[str],
        step: Step,
        documents: dict[str, bytes],
    ) -> None:
        plan = attempt.plan
        self._board.assign(
            parties,
            Task(
                step=step,
                run=plan.run,
                round=plan.round,
                attempt=plan.attempt,
                documents={name: Document([data]) for name, data in documents.items()},
            ),
        )

    def _missing(
        self,
        attempt: ServerAttempt,
        parties: Collection[str],
        here: Callable[[], Collection[str]],
        timeout_s: float,
        *,
        patient: bool = False,
    ) -> list[str]:
        """Wait until all parties are here, or nobody is left to wait for; names who is not."""
        plan = attempt.plan
        kind = failures(plan.round, plan.attempt)

        def missing() -> list[str]:
            present = here()
            return [party for party in parties if party not in present]

        def settled() -> bool:
            left = missing()
            if not left:
                return True
            gone = {
                **self._messages.notes(plan.run, kind),
                **self._messages.notes(plan.run, REFUSED),
            }
            return all(
                party in gone
                or (not patient and self._board.silent_s(party) > self._limits.absent_s)
                for party in left
            )

        self.wait(settled, timeout_s)
        return missing()

    def _require(
        self,
        attempt: ServerAttempt,
        parties: Collection[str],
        here: Callable[[], Collection[str]],
        step: str,
        *,
        patient: bool = False,
    ) -> None:
        """Wait for all parties of a step that needs every one of them.

        Raises:
            AttemptOver: Somebody did not come.
        """
        timeout_s: float = getattr(self._limits, f"{step}_s")
        missing = self._missing(attempt, parties, here, timeout_s, patient=patient)
        if missing:
            raise AttemptOver(f"{', '.join(missing)} did not {step}")


def _present(message: bytes | None) -> tuple[str, ...]:
    return () if message is None else (DECRYPTOR,)


def _bytes(attempt: ServerAttempt) -> bytes:
    return attempt.cohort_message or b""
