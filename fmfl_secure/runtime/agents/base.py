"""What a party's process does with a task: one loop for sites and for the decryptor."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from fmfl_secure.errors import Rejected, Unreachable
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import ServerTransport, Work

_LOG = logging.getLogger("fmfl_secure.runtime.agents.base")
# The answers that a party can go on after: the server has moved on.
_MOVED_ON = frozenset({"over", "out-of-order", "not-found", "conflict"})


class Agent(ABC):
    """Asks for work and does it, until it is told to stop.

    Args:
        transport: To the server.
        stopping: Ends the loop.
        once: End after one run.
    """

    def __init__(
        self, transport: ServerTransport, *, stopping: threading.Event, once: bool
    ) -> None:
        self.transport = transport
        self._stopping = stopping
        self._once = once
        self.work: Work | None = None

    def run(self) -> None:
        """Work until told to stop, or with `once` until a run ended.

        Raises:
            Rejected: The server shuts this party out.
        """
        after = -1
        while not self._stopping.is_set():
            try:
                work = self.transport.work(after)
                changed = work.sequence != after
                after, self.work = work.sequence, work
                if not changed:
                    continue
                place = {"run": work.run, "round": work.round, "attempt": work.attempt}
                _LOG.info(work.step, extra=place)
                self.do(work)
            except Rejected as rejected:
                if rejected.reason not in _MOVED_ON:
                    raise
                _LOG.warning("the server has moved on: %s", rejected)
            except Unreachable:
                if not self._stopping.is_set():
                    raise
                return  # told to stop while the server did not answer
            else:
                if work.step == Step.END and self._once:
                    return

    @abstractmethod
    def do(self, work: Work) -> None:
        """Do a task.

        Raises:
            Rejected, Unreachable: The server does not want it, or went away for good.
        """


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut a document into the messages that it joins."""
    out, start = [], 0
    for size in sizes:
        out.append(data[start : start + size])
        start += size
    return out
