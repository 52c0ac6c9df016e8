"""The loop of a party's process over its tasks, one for sites and for the decryptor.

A party's process over HTTPS makes an agent and calls `run`, which loops over `step`. In one
process `local` calls `step` itself, and over Flower an order is a `perform`. Each task is in the
subclasses: `agents.site`, `agents.decryptor`, `agents.custodian`.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from contextlib import nullcontext

from aggregation import AggregationError, SealedError
from fmfl_secure.errors import ANY_FAILURE, Rejected, RunError, is_passing
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.runtime.agents.anchors import JournalOwner, carry_acts
from fmfl_secure.runtime.patience import Patience
from fmfl_secure.runtime.task_board import STOP, Step
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
        decisions: What people decided at this party; None of a simulated one.
    """

    def __init__(
        self,
        transport: ServerTransport,
        *,
        stopping: threading.Event,
        once: bool,
        decisions: Decisions | None = None,
    ) -> None:
        self.transport = transport
        self._decisions = decisions
        self._acts_of = ""  # the run at whose beginning its acts were told
        self._stops: set[tuple[str, str]] = set()  # run and signer of those that the server has
        self._stopping = stopping
        self._once = once
        self._patience = Patience()
        self._after = -1  # number of the last assignment that was looked at
        self._ended = False
        self.work: Work | None = None
        self.refusal = ""  # what this party's own people are told, and nobody else
        self.is_training = False  # something is charged, and lost if this process ends now

    def run(self) -> None:
        """Work until told to stop, or with `once` until a run ended.

        What its surroundings fail is tried again, with pauses; nobody hears of that.

        Raises:
            Rejected: The server shuts this party out.
            FmflError, PrivacyError, AggregationError: Its surroundings failed it for too long.
        """
        while not self._stopping.is_set():
            try:
                self.step()
            except ANY_FAILURE as error:
                self.endure(error)
            if self._ended and self._once:
                return

    def endure(self, error: Exception) -> None:
        """Wait before another try at what failed by the surroundings; told to stop, no longer.

        Raises:
            Exception: The error itself: it is of another nature, or has lasted too long.
        """
        if not is_passing(error):
            raise error
        if not self._stopping.is_set():
            self._stopping.wait(self._patience.pause_after(error))

    def step(self) -> bool:
        """Ask for work once, and do what is new.

        Returns:
            Whether there was anything new.

        Raises:
            Rejected: The server shuts this party out.
            FmflError, PrivacyError, AggregationError: The surroundings failed it: the same work, or
                what replaced it meanwhile, comes again.
        """
        before = self._after
        work = self.transport.work(before)
        if work.sequence == before or self._stopping.is_set():
            if not self._stopping.is_set():
                self._give_stops(work)
            return False
        self._after, self.work = work.sequence, work
        _LOG.info(work.step, extra={"run": work.run, "round": work.round, "attempt": work.attempt})
        try:
            self.perform(work)
        except Rejected as rejected:
            if rejected.reason not in _MOVED_ON:
                raise
            _LOG.warning("the server has moved on: %s", rejected)
        except ANY_FAILURE:
            self._after = before
            raise
        else:
            self._ended = work.step == Step.END
        self.worked()
        return True

    def perform(self, work: Work) -> None:
        """Do a task, and carry what people decided here and elsewhere.

        Raises:
            FmflError, PrivacyError, AggregationError: See `do`; or this party's log of acts lacks
                what others have seen of it.
        """
        party = self.party
        with nullcontext() if party is None else party.kept_open():
            self._tell_acts(work)
            self._give_stops(work)
            self._take_stops(work)
            self.do(work)

    def _tell_acts(self, work: Work) -> None:
        """As a run begins and ends here: what was done at this party since, others hold from now.

        Raises:
            ActsDamaged, AggregationError: The log lacks what somebody has seen, or cannot be read.
        """
        is_new = bool(work.run) and work.run != self._acts_of
        if self._decisions is not None and (is_new or work.step == Step.END):
            carry_acts(self._decisions.acts, self.transport)
            self._acts_of = work.run

    def _give_stops(self, work: Work) -> None:
        """Bring the server the stops of its run that are kept here, each once."""
        if self._decisions is None or not work.run or work.step == Step.END:
            return
        for signer, statement in self._decisions.stops.of(work.run).items():
            if (work.run, signer) in self._stops:
                continue
            try:
                self.transport.give_stop(statement)
            except Rejected as rejected:  # it holds here all the same
                _LOG.error("the server does not take the stop by %s: %s", signer, rejected)
            self._stops.add((work.run, signer))

    def _take_stops(self, work: Work) -> None:
        """Keep the stops that came with a task: whoever carries it later, this party obeys them."""
        for name, document in work.documents.items():
            if self._decisions is not None and name.startswith(STOP):
                try:
                    stop, _ = self._decisions.stops.keep(self.transport.fetch(document))
                except (RunError, AggregationError) as error:
                    _LOG.error("what came as a stop is none: %s", error, extra={"run": work.run})
                else:
                    _LOG.warning("%s stopped the run: %s", stop.party, stop.reason,
                                 extra={"run": stop.run})  # fmt: skip

    @property
    def stopped(self) -> str:
        """By whom its run was stopped and why, as kept here; empty where nobody has."""
        if self.work is None or self._decisions is None:
            return ""
        return self._decisions.stops.reason(self.work.run)

    def worked(self) -> None:
        """Something went well: what fails after it is waited for anew."""
        self._patience.worked()

    @property
    @abstractmethod
    def party(self) -> JournalOwner | None:
        """Who keeps a journal here; None before there is one."""

    @abstractmethod
    def do(self, work: Work) -> None:
        """Do a task.

        Raises:
            Rejected, Unreachable: The server does not want it, or went away for good.
        """


def accuse(transport: ServerTransport, work: Work, error: Exception) -> None:
    """Send what proves whose fault an error is, if anything does, before this party gives up."""
    if isinstance(error, SealedError) and error.accusation:
        transport.send(work, "accusation", error.accusation)


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut a document into the messages that it joins."""
    out, start = [], 0
    for size in sizes:
        out.append(data[start : start + size])
        start += size
    return out
