"""The board of tasks: what each party is to do, the bytes for it, and who was heard when.

The driver, in a thread of its own, assigns tasks; requests, in the event loop, wait for them.
Nothing here is durable: after a restart the driver assigns anew.

`runtime.run_driver`, `runtime.round_driver` and `runtime.attempt_driver` assign; a transport waits
for a party's task, serves its documents, and notes by `heard` that the party lives.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

APPROVAL: Final = "approval "  # begins the names of documents with a custodian's word
STOP: Final = "stop "  # begins the names of documents with a signed stop of the run
HISTORY: Final = "history"  # the document with what sites signed of earlier rounds


class Step(StrEnum):
    """A step that a party may be assigned."""

    WAIT = "wait"
    JOIN = "join"
    READY = "ready"
    REHEARSE = "rehearse"
    EXCHANGE = "exchange"
    UPLOAD = "upload"
    OPEN = "open"
    PROJECT = "project"
    VERIFY = "verify"
    REVEAL = "reveal"
    ANNOUNCE = "announce"
    CONFIRM = "confirm"
    APPROVE = "approve"
    RELEASE = "release"
    END = "end"


class Document:
    """Bytes that parties fetch, in pieces that are never joined.

    Args:
        pieces: The bytes.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self.size = sum(len(piece) for piece in pieces)
        state = hashlib.sha256()
        for piece in pieces:
            state.update(piece)
        self.sha256 = state.hexdigest()

    def slice(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        out: list[bytes] = []
        start = 0
        for piece in self._pieces:
            if start >= offset + length:
                break
            if start + len(piece) > offset:
                out.append(piece[max(0, offset - start) : offset + length - start])
            start += len(piece)
        return b"".join(out)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One party's present task.

    Attributes:
        step: What.
        run: Run id; empty where there is none.
        round: Round; 0 where there is none.
        attempt: Attempt; 0 where there is none.
        documents: What it needs, by name.
        sizes: For each of several messages that one document joins, its length.
    """

    step: Step = Step.WAIT
    run: str = ""
    round: int = 0
    attempt: int = 0
    documents: Mapping[str, Document] = field(default_factory=dict)
    sizes: Sequence[int] = ()


class TaskBoard:
    """Tasks by party. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, Assignment] = {}
        # Starts anywhere, so that a party that polled another process is answered at once.
        self._sequence = secrets.randbits(40)
        self._changed: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._waiters: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self._heard: dict[str, float] = {}
        self._started = time.monotonic()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether this process is going down."""
        return self._closed

    def assign(self, parties: Iterable[str], task: Assignment) -> None:
        """Give parties something to do; whoever waits for it is woken."""
        with self._lock:
            for party in parties:
                if self._tasks.get(party) != task:
                    self._tasks[party] = task
                    self._sequence += 1
                    self._changed[party] = self._sequence
                    self._wake(party)

    def close(self) -> None:
        """Wake everyone: this process is going down."""
        with self._lock:
            self._closed = True
            for party in list(self._waiters):
                self._wake(party)

    def task(self, party: str) -> tuple[int, Assignment]:
        """Returns a party's assignment, and the number of its last change."""
        with self._lock:
            return self._changed.get(party, 0), self._tasks.get(party, Assignment())

    async def wait(self, party: str, after: int, timeout_s: float) -> tuple[int, Assignment]:
        """The same, once it is another than number `after`, or when time is up."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._lock:
            if self._changed.get(party, 0) != after or self._closed:
                return self._tell(party)
            self._waiters.setdefault(party, set()).add((loop, event))
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiters[party].discard((loop, event))
        self.heard(party)
        with self._lock:
            return self._tell(party)

    def told(self, party: str, number: int) -> None:
        """Note that a party knows its task of this number."""
        with self._lock:
            self._told[party] = max(number, self._told.get(party, 0))

    def was_told(self, party: str) -> bool:
        """Whether a party knows its present task."""
        with self._lock:
            return self._told.get(party, 0) == self._changed.get(party, 0)

    def document(self, party: str, sha256: str) -> Document | None:
        """A document of the party's present task."""
        with self._lock:
            task = self._tasks.get(party, Assignment())
        return next((d for d in task.documents.values() if d.sha256 == sha256), None)

    def heard(self, party: str) -> None:
        """Note that a party was heard of just now."""
        with self._lock:
            self._heard[party] = time.monotonic()

    def lost(self, party: str) -> None:
        """Note that a party is gone: it counts as silent until it is heard of again."""
        with self._lock:
            self._heard[party] = -math.inf

    def silent_s(self, party: str) -> float:
        """Seconds since a party was heard of, or since this process began."""
        with self._lock:
            return time.monotonic() - self._heard.get(party, self._started)

    def pardon(self, seconds: float) -> None:
        """Count so many seconds of everybody's silence for nothing."""
        with self._lock:
            now = time.monotonic()
            self._started = min(now, self._started + seconds)
            for party, at in self._heard.items():
                self._heard[party] = min(now, at + seconds)

    def was_heard(self, party: str) -> bool:
        """Whether this process ever heard of a party."""
        with self._lock:
            return party in self._heard

    def _tell(self, party: str) -> tuple[int, Assignment]:
        number = self._changed.get(party, 0)
        if not self._closed:  # otherwise the answer is that this process goes down
            self._told[party] = number
        return number, self._tasks.get(party, Assignment())

    def _wake(self, party: str) -> None:
        for loop, event in self._waiters.get(party, ()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)
