"""Rehearsals of a run: when one is due, what it finds, and what is kept of it.

A rehearsal is an attempt on public integers, step by step as any, after which everybody reveals
its keys. No data are read for it, nothing is charged, and no adapter follows. Whoever sent what
does not fit is named and left out of the next attempts; where nobody is, the fault was none that
shows in a rehearsal, and the record says that.

`runtime.round_driver` calls `at_start` before the first attempt of a run and `after_failure` when
one has ended; `_hold` then rehearses until nobody more is named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from aggregation import DEVIATIONS, UNREVEALED, AggregationError, judge
from aggregation.protocol import MAX_ATTEMPTS, prepared
from fmfl_secure.errors import RunError
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.workspace import DECRYPTOR
from fmfl_secure.run.record import RehearsalRecord
from fmfl_secure.run.rehearsal_words import deviation_in_words, rehearsal_in_words
from fmfl_secure.runtime.attempt_driver import AttemptDriver
from fmfl_secure.runtime.attempt_state import ServerAttempt
from fmfl_secure.runtime.inbox import Inbox
from fmfl_secure.runtime.left_out import LeftOut
from fmfl_secure.runtime.waiting import AttemptOver, TooFewReady
from fmfl_secure.storage.files import write_files

_LOG = logging.getLogger("fmfl_secure.runtime.rehearsals")
REHEARSALS: Final = "rehearsals"  # kind of the notes, by number; and the folder of what was sent
_BEGUN: Final = b""  # of one that a restart cut short: there is nothing to tell of it
_MOST: Final = 3  # in a row: each that fails leaves somebody out of the next
_EXPLAINED: Final = frozenset({"invalid", "silent", "failed", "gone"})

Occasion = Literal["start", "failure"]


class Rehearsals:
    """Holds a run's rehearsals, and keeps what they found.

    Args:
        setting: `federation.rehearsals`.
        coordinator: Plans them.
        open_attempt: Makes an attempt of a signed plan.
        steps: Goes through the steps.
        inbox: Where parties' messages come in.
        left_out: Leaves out whom they name.
    """

    def __init__(
        self,
        setting: str,
        coordinator: Coordinator,
        *,
        open_attempt: Callable[[bytes], ServerAttempt],
        steps: AttemptDriver,
        inbox: Inbox,
        left_out: LeftOut,
    ) -> None:
        self._setting = setting
        self._coordinator = coordinator
        self._open = open_attempt
        self._steps = steps
        self._inbox = inbox
        self._left_out = left_out

    def at_start(self, number: int, choose: Callable[[], list[str]]) -> None:
        """Rehearse, if the settings want it before the first round and none has ended yet.

        Args:
            number: The round that follows.
            choose: Names sites that can take part.

        Raises:
            RunError: It names the decryptor, or shows that the server or it changes sums.
        """
        if self._setting == "always" and not self.of_run():
            self._hold(number, "start", choose)

    def after_failure(
        self, over: AttemptOver, found: dict[str, str], number: int, choose: Callable[[], list[str]]
    ) -> bool:
        """Rehearse, if an attempt failed and nobody knows by whom.

        Args:
            over: What ended it.
            found: Whom it failed by, and why, as the server saw it.
            number: Its round.
            choose: Names sites that can take part.

        Returns:
            Whether one was held and named somebody.

        Raises:
            RunError: As `at_start`.
        """
        known = isinstance(over, TooFewReady) or any(w in _EXPLAINED for w in found.values())
        if self._setting == "never" or known:
            return False
        return self._hold(number, "failure", choose)

    def of_run(self) -> list[RehearsalRecord]:
        """All that ended, in order."""
        notes = self._inbox.store.notes(self._coordinator.run, REHEARSALS)
        kept = [note for note in notes.values() if note != _BEGUN]
        found = [msgspec.json.decode(note, type=prepared(RehearsalRecord)) for note in kept]
        return sorted(found, key=lambda record: record.number)

    def of_round(self, number: int) -> tuple[RehearsalRecord, ...]:
        """Those before a round and between its attempts."""
        return tuple(record for record in self.of_run() if record.before == number)

    def _hold(self, number: int, occasion: Occasion, choose: Callable[[], list[str]]) -> bool:
        """Rehearse until the public sum comes out, or nobody more is found; whether anybody was."""
        found, store = False, self._inbox.store
        for _ in range(_MOST):
            if len(store.notes(self._coordinator.run, REHEARSALS)) >= MAX_ATTEMPTS:
                _LOG.warning("no rehearsal: a run has %d at most", MAX_ATTEMPTS)
                return found
            try:
                sites = choose()
            except RunError as error:  # what follows needs as many, and says so itself
                _LOG.warning("no rehearsal: %s", error, extra={"round": number})
                return found
            record = self._rehearse(number, occasion, sites)
            self._require_helpers(record)
            found = found or bool(record.named)
            if record.holds and not record.named:
                return found
        return found

    def _rehearse(self, before: int, occasion: Occasion, sites: Sequence[str]) -> RehearsalRecord:
        run, store = self._coordinator.run, self._inbox.store
        number = len(store.notes(run, REHEARSALS)) + 1
        store.note(run, REHEARSALS, str(number), _BEGUN)  # sites join each number once
        attempt = self._open(self._coordinator.plan_rehearsal(number, sites))
        self._inbox.open_attempt(attempt)
        try:
            over = self._steps.rehearse(attempt)
            named = {} if over is None else dict(self._left_out.count(attempt, over))
            judged, holds = self._judge(attempt)
        finally:
            self._inbox.open_attempt(None)
        self._strike(attempt, judged)
        record = RehearsalRecord(
            number=number,
            before=before,
            occasion=occasion,
            cohort=attempt.sites,
            holds=holds,
            named={**named, **judged},
            reason="" if over is None else str(over),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if attempt.sites and not (holds and not record.named):
            self._keep_evidence(attempt, number)
        store.note(run, REHEARSALS, str(number), msgspec.json.encode(record))
        store.forget(run, 0)
        _LOG.log(
            logging.INFO if holds and not record.named else logging.ERROR,
            rehearsal_in_words(record),
            extra={"run": run, "round": before},
        )
        return record

    def _strike(self, attempt: ServerAttempt, judged: dict[str, str]) -> None:
        """Leave out whom it names; one that only has not answered, as such a one always is."""
        for name, word in judged.items():
            if name not in attempt.invited:
                continue
            if word != UNREVEALED:
                self._left_out.strike(attempt, name, "rehearsed")
            else:
                self._left_out.unanswered(attempt, name)

    def _judge(self, attempt: ServerAttempt) -> tuple[dict[str, str], bool]:
        """Whom it names, and whether the public sum came out."""
        cohort = attempt.cohort
        if cohort is None:
            return {}, False
        try:
            found = judge(cohort, attempt.evidence())
        except AggregationError as error:
            raise RunError(f"what came in a rehearsal does not hold together: {error}") from error
        return found.named, found.holds

    def _keep_evidence(self, attempt: ServerAttempt, number: int) -> None:
        """Writes what anybody needs to judge it again into the run's folder."""
        folder = self._coordinator.store.folder / REHEARSALS
        folder.mkdir(exist_ok=True)
        write_files(folder, {f"{number}.msgpack": msgspec.msgpack.encode(attempt.evidence())})

    @staticmethod
    def _require_helpers(record: RehearsalRecord) -> None:
        if DECRYPTOR in record.named and record.named[DECRYPTOR] in DEVIATIONS:
            raise RunError(
                f"rehearsal {record.number} names the decryptor: "
                f"{deviation_in_words(record.named[DECRYPTOR])}",
                hint="Nothing opens without it. Ask whoever runs it, and start the run again.",
            )
        if not record.holds and not record.named and not record.reason:
            raise RunError(
                f"rehearsal {record.number}: every site sent what is right, and another sum was "
                "released",
                hint="The decryptor or this server changes sums. Compare what both have installed.",
            )
