"""The server's round: one attempt after the other until a sum is released, or none can be any more.

An attempt that a restart cut short goes on with everything that had come.

`runtime.run_driver` calls `run_round`: it goes on with an attempt that is half done or plans one
with the sites that are present and not left out, drives it, and after a failure counts whose it
was. It ends with a release, with attempts used up, or once no other attempt can open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from aggregation import AggregationError, Identity, NormError
from aggregation import Coordinator as ProtocolCoordinator
from fmfl_secure.errors import RunDamaged, RunError
from fmfl_secure.parties.coordinator import Coordinator, Opened
from fmfl_secure.parties.workspace import DECRYPTOR, Members
from fmfl_secure.run.record import RehearsalRecord, RoundRecord
from fmfl_secure.runtime.attempt_driver import AttemptDriver
from fmfl_secure.runtime.attempt_state import ACCUSATION, ServerAttempt
from fmfl_secure.runtime.inbox import OVER, Inbox
from fmfl_secure.runtime.left_out import CODE, FORGIVEN, LeftOut
from fmfl_secure.runtime.rehearsals import Rehearsals
from fmfl_secure.runtime.task_board import Assignment, TaskBoard
from fmfl_secure.runtime.waiting import AttemptOver, RoundSpent, TooFewReady, Waiter
from fmfl_secure.storage.message_store import MessageKey, Messages

_LOG = logging.getLogger("fmfl_secure.runtime.round_driver")
# The order in which an attempt's messages build on one another.
_BEFORE_COHORT: Final = ("custodian-ready", "announcement", "ready")
_ORDER: Final = (
    *_BEFORE_COHORT, "exchange", "upload", "chunks",
    "confirmation", "approval", "opening", ACCUSATION, "release", "projections", "verdict",
)  # fmt: skip


class RoundDriver:
    """Carries the rounds of one run.

    Args:
        coordinator: Plans and applies.
        identity: The coordinator's key pair.
        aggregator: The aggregator's.
        members: All parties.
        inbox: Where parties' messages come in.
        board: Where parties look for what to do.
        waiting: Waits for them.
        smallest_cohort: The fewest sites whose sum is opened.
        evaluate: From a round to the metrics of the adapter as it stands after it.
        rehearsals: When the sites rehearse, `federation.rehearsals`.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        identity: Identity,
        aggregator: Identity,
        members: Callable[[], Members],
        inbox: Inbox,
        board: TaskBoard,
        waiting: Waiter,
        smallest_cohort: int,
        evaluate: Callable[[int], dict[str, float]],
        rehearsals: str = "never",
    ) -> None:
        self._coordinator = coordinator
        self._protocol = ProtocolCoordinator(identity)
        self._aggregator = aggregator
        self._members = members
        self._inbox = inbox
        self._messages: Messages = inbox.store
        self._board = board
        self._waiting = waiting
        self._left_out = LeftOut(
            self._messages, waiting, coordinator.run, coordinator.store.all_attempts
        )
        self.attempts = AttemptDriver(
            coordinator,
            board=board,
            waiting=waiting,
            smallest_cohort=smallest_cohort,
            evaluate=evaluate,
            rehearsed=self._rehearsed,
        )
        self.rehearsals = Rehearsals(
            rehearsals,
            coordinator,
            open_attempt=self._open,
            steps=self.attempts,
            inbox=inbox,
            left_out=self._left_out,
        )

    def _rehearsed(self, number: int) -> tuple[RehearsalRecord, ...]:
        return self.rehearsals.of_round(number)

    def run_round(
        self, number: int, invite: Callable[[], list[str]], refusals: Callable[[], dict[str, str]]
    ) -> RoundRecord:
        """Carry a round to its release, or to the point where it is lost.

        Args:
            number: The round.
            invite: Waits for sites that can take part, and names them.
            refusals: Codes by site that took no part.

        Raises:
            RunError: No attempt succeeded, and none was opened; or a custodian refuses; or a
                rehearsal shows that nothing right can be released.
        """

        def choose() -> list[str]:
            return self._left_out.choose(number, invite(), self._coordinator.enough)

        reason, spent = "", False
        suspected, refusing = self._left_out.suspected, dict[str, str]()
        store = self._coordinator.store
        attempts = self._waiting.limits.attempts
        while store.attempts(number) <= attempts:
            try:
                attempt = self._resume(number)
                if attempt is None:
                    if store.attempts(number) == attempts:
                        break
                    self.rehearsals.at_start(number, choose)
                    attempt = self._plan(number, self._choose(number, invite()))
                self._inbox.open_attempt(attempt)
                record = self.attempts.drive(attempt, self._counting(attempt, refusals))
            except AttemptOver as over:
                reason, found, failed = str(over), {}, self._inbox.attempt
                if failed is not None:
                    found = self._left_out.count(failed, over)
                refusing |= dict.fromkeys(over.outvoted, f"{CODE}refused")
                _LOG.warning("attempt over: %s", reason, extra={"round": number})
                self._close(number, reason)
                named = self.rehearsals.after_failure(over, found, number, choose)
                if failed is not None and not named and self._is_spoiled(failed, over, found):
                    self._left_out.spoiled(failed, self._coordinator.enough)
                spent = isinstance(over, RoundSpent)
                if spent or (isinstance(over, TooFewReady) and store.opened_attempts(number)):
                    break
                continue
            self._inbox.open_attempt(None)
            self._messages.forget(self._coordinator.run, number)
            return record
        self._inbox.open_attempt(None)
        if spent or store.opened_attempts(number):
            # Sites that opened this round join no further attempt at it, and custodians give their
            # word for no other: it is spent.
            _LOG.error("round lost: %s", reason, extra={"round": number})
            record = self._coordinator.lose_round(
                number,
                {**refusing, **self._left_out.codes(suspected), **refusals()},
                self.rehearsals.of_round(number),
            )
            self._messages.forget(self._coordinator.run, number)
            return record
        raise RunError(f"round {number} did not succeed in {attempts} attempts: {reason}")

    def _is_spoiled(self, attempt: ServerAttempt, over: AttemptOver, found: dict[str, str]) -> bool:
        """Whether an attempt went to its end with a wrong sum, and nobody is known to be at fault.

        The decryptor cannot open what was summed, projections do not add up, or sites refuse it.
        """
        if found:
            return False
        if attempt.release is not None:
            return bool(attempt.refused) or isinstance(over.__cause__, NormError)
        said = self._waiting.failed(attempt).get(DECRYPTOR)
        opened = attempt.confirmation is not None and attempt.opens
        return opened and said is not None and said not in FORGIVEN

    def _choose(self, number: int, present: Sequence[str]) -> list[str]:
        try:
            opened = self._coordinator.opened_before(number)
            if opened.cohort:
                return self._same(number, opened)
            return self._left_out.choose(number, present, self._coordinator.enough)
        except RunError as error:
            if self._coordinator.store.opened_attempts(number):
                raise TooFewReady(str(error)) from error  # the round is lost, and the run goes on
            raise

    def _same(self, number: int, opened: Opened) -> list[str]:
        """Whoever was invited when sites opened; all that were in the cohort are waited for."""
        out = self._left_out.twice(number)
        able = [name for name in opened.cohort if name not in out]

        def absent() -> list[str]:
            return [name for name in able if not self._waiting.is_present(name)]

        if able == list(opened.cohort):
            wait_s = self._waiting.limits.gather_s
            with self._waiting.awaiting(absent, wait_s):
                self._waiting.until(lambda: not absent(), wait_s)
        missing = [name for name in opened.cohort if name not in able or name in absent()]
        if missing:
            raise RunError(
                f"round {number} opens with the same sites or not at all, and "
                f"{', '.join(missing)} cannot take part again"
            )
        return list(opened.invited)

    def _counting(
        self, attempt: ServerAttempt, refusals: Callable[[], dict[str, str]]
    ) -> Callable[[], dict[str, str]]:
        def told() -> dict[str, str]:
            self._left_out.count(attempt, None)  # whoever was gone on without
            return {**self._left_out.codes(), **refusals()}

        return told

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
        live = self._inbox.attempt
        if live is not None and live.message == last.plan:
            return live  # what failed was around it
        attempt = self._open(last.plan)
        run, place = self._coordinator.run, attempt.plan.attempt
        if f"{number}/{place}" in self._messages.notes(run, OVER):
            return None
        keys = sorted(
            self._messages.accepted(run, number, place), key=lambda key: _ORDER.index(key.kind)
        )
        early = [key for key in keys if key.kind in _BEFORE_COHORT]
        for key in early:
            self._replay(attempt, key)
        if last.cohort is not None:
            attempt.fix_cohort(last.cohort)
        for key in keys[len(early) :]:
            self._replay(attempt, key)
        if last.opening_list is not None and attempt.confirmation is None:
            attempt.recall(last.opening_list)  # its messages went with an earlier process
        _LOG.info("attempt goes on", extra={"round": number, "attempt": place})
        return attempt

    def _replay(self, attempt: ServerAttempt, key: MessageKey) -> None:
        try:
            attempt.receive(key.party, key.kind, self._messages.read(key))
        except AggregationError as error:
            raise RunDamaged(
                f"a stored {key.kind} of {key.party} does not hold: {error}"
            ) from error

    def _close(self, number: int, reason: str) -> None:
        attempt = self._inbox.attempt
        if attempt is not None:
            self._inbox.open_attempt(None)  # no word is acknowledged from here on
            if attempt.verdict_messages:
                self._coordinator.keep_verdicts(attempt.plan, attempt.verdict_messages)
            place = f"{number}/{attempt.plan.attempt}"
            self._messages.note(self._coordinator.run, OVER, place, reason.encode())
            parties = (*attempt.invited, *attempt.custodians, DECRYPTOR)
            self._board.assign(parties, Assignment(run=self._coordinator.run))
