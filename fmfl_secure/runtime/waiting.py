"""How the server waits for parties: until they are here, gone, or late; and why it goes on without.

A party that is lost ends the attempt, never the run.

`runtime.attempt_driver` calls `require` or `missing` at each step, and `runtime.run_driver` waits
for sites to join. The local engine has a waiter of its own, under which waiting means letting the
next party work (`transports.local.pump`).
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

from typing_extensions import override

from fmfl_secure.errors import FmflError, Nature
from fmfl_secure.runtime.attempt_state import ServerAttempt
from fmfl_secure.runtime.inbox import REFUSED, Inbox, failures
from fmfl_secure.runtime.task_board import TaskBoard
from fmfl_secure.settings.service import Time

_LOG = logging.getLogger("fmfl_secure.runtime.waiting")
_TICK_S: Final = 1.0  # how often silence is looked at
LOST: Final = b"lost"  # what a site says whose secrets went with an earlier process
_SUSPENDED_S: Final = 5.0  # a tick that much too long is no wait


class Stopping(FmflError):
    """This process is asked to go down; the run goes on when it starts again."""

    nature: ClassVar[Nature] = "passing"
    code = "stopping"


class AttemptOver(FmflError):
    """An attempt ended without a release; another may follow.

    Attributes:
        missing: Who did not come, where somebody was needed.
        outvoted: Sites that refused a sum which more others verified.
    """

    nature: ClassVar[Nature] = "decided"
    code = "attempt"
    missing: tuple[str, ...] = ()
    outvoted: tuple[str, ...] = ()


class TooFewReady(AttemptOver):
    """Fewer sites than the smallest cohort could take part."""

    nature: ClassVar[Nature] = "decided"


class RoundSpent(AttemptOver):
    """No other attempt at this round can open.

    A custodian gave its word for one that is over, or the decryptor has released.
    """

    nature: ClassVar[Nature] = "decided"


@dataclass(frozen=True, slots=True)
class Awaited:
    """Whom a run waits for now, for those who look at it.

    Attributes:
        missing: Names of who has not come yet.
        until: Unix time at which it goes on without them.
    """

    missing: Callable[[], list[str]]
    until: float


class Waiter(ABC):
    """How a run's driver waits: the port behind which is either time, or nothing but work.

    Args:
        inbox: Where parties' messages come in.
        limits: How long each step waits.
    """

    def __init__(self, inbox: Inbox, limits: Time) -> None:
        self._inbox = inbox
        self.limits = limits
        self._told = threading.Event()  # to stop
        self.awaited: Awaited | None = None

    @property
    def stopping(self) -> bool:
        """Whether this process is asked to go down."""
        return self._told.is_set()

    @abstractmethod
    def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something.

        Returns:
            Whether it came about in time.

        Raises:
            Stopping: This process is asked to go down.
        """

    @abstractmethod
    def is_present(self, party: str) -> bool:
        """Whether a party was heard of lately enough to be waited for."""

    def stop(self) -> None:
        """End whatever is waited for."""
        self._told.set()

    def pause(self, seconds: float) -> None:
        """Do nothing for a while.

        Raises:
            Stopping: This process is asked to go down.
        """
        if self._told.wait(seconds):
            raise Stopping("the server is going down")

    @contextmanager
    def awaiting(self, missing: Callable[[], list[str]], timeout_s: float) -> Iterator[None]:
        """Show whom what is done meanwhile waits for."""
        self.awaited = Awaited(missing, time.time() + timeout_s)
        try:
            yield
        finally:
            self.awaited = None

    def missing(
        self,
        attempt: ServerAttempt,
        parties: Collection[str],
        here: Callable[[], Collection[str]],
        timeout_s: float,
        *,
        patient: bool = False,
        needed: int = 0,
        forgiving: bool = False,
    ) -> list[str]:
        """Wait until all parties are here, or nobody is left to wait for; names who is not.

        Args:
            attempt: The attempt under way.
            parties: Who is waited for.
            here: Those of whom what is waited for has come.
            timeout_s: For how long.
            patient: Whether a party that is silent is waited for to the end.
            needed: How many must come for it to be of use; once fewer can, the wait is over.
            forgiving: Whether a party that failed the attempt earlier is waited for all the same,
                unless that was for want of its secrets, which do not come back.
        """

        def missing() -> list[str]:
            present = here()
            return [party for party in parties if party not in present]

        def settled() -> bool:
            left = missing()
            if not left:
                return True
            refused = self._inbox.store.notes(attempt.plan.run, REFUSED)
            failed = self.failed(attempt)
            if forgiving:
                failed = {party: code for party, code in failed.items() if code == LOST}
            gone = refused | failed
            if sum(party not in gone for party in parties) < needed:
                return True
            return all(
                party in gone or (not patient and not self.is_present(party)) for party in left
            )

        with self.awaiting(missing, timeout_s):
            self.until(settled, timeout_s)
        return missing()

    def require(
        self,
        attempt: ServerAttempt,
        parties: Collection[str],
        here: Callable[[], Collection[str]],
        step: str,
        *,
        patient: bool = False,
    ) -> None:
        """Wait for all parties of a step that needs every one of them.

        Args:
            attempt: The attempt under way.
            parties: Who is waited for.
            here: Those of whom what is waited for has come.
            step: Name of the step; `[time]` says how long it may take.
            patient: Whether a party that is silent is waited for to the end.

        Raises:
            AttemptOver: Somebody did not come.
        """
        timeout_s: float = getattr(self.limits, f"{step}_s")
        missing = self.missing(attempt, parties, here, timeout_s, patient=patient)
        if missing:
            over = AttemptOver(f"{', '.join(missing)} did not {step}")
            over.missing = tuple(missing)
            raise over

    def convict(self, attempt: ServerAttempt, names: Iterable[str]) -> None:
        """Note that what these sites signed does not hold: they are left out for a while."""
        self._inbox.convict(attempt.plan.run, attempt.place, names)

    def failed(self, attempt: ServerAttempt) -> dict[str, bytes]:
        """Codes by party that cannot go on with an attempt."""
        return self._inbox.store.notes(attempt.plan.run, failures(*attempt.place))


class PartyWaiter(Waiter):
    """Waits for parties elsewhere: for their requests, by the clock.

    Args:
        inbox: Where their messages come in.
        board: Who was heard of when.
        limits: How long is waited.
    """

    def __init__(self, inbox: Inbox, board: TaskBoard, limits: Time) -> None:
        super().__init__(inbox, limits)
        self._board = board

    @override
    def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        with self._inbox.changed:
            while True:
                if self.stopping:
                    raise Stopping("the server is going down")
                if holds():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                before = time.monotonic()
                self._inbox.changed.wait(min(left, _TICK_S))
                lost_s = time.monotonic() - before - _TICK_S
                if lost_s > _SUSPENDED_S:
                    # This process was suspended: nobody could have been heard of meanwhile.
                    _LOG.warning("suspended for %.0f s", lost_s)
                    deadline += lost_s
                    self._board.pardon(lost_s)

    @override
    def is_present(self, party: str) -> bool:
        return self._board.silent_s(party) <= self.limits.absent_s

    @override
    def stop(self) -> None:
        super().stop()
        with self._inbox.changed:
            self._inbox.changed.notify_all()
