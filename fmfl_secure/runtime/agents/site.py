"""A site's process: it asks the server for work, decides for itself, and keeps its model loaded.

What leaves is the protocol's messages, its ledger's signed statement, and generic codes. The
secrets of an attempt live in this process only: after a restart the attempt is lost to this site,
and what it trained is sent again in the next one.

`transports.local.engine` steps it in one thread, and `fmfl-secure join` and Flower's host each in
a process of its own. `do` takes a step of the task board to its method, in the order join, ready,
exchange, upload, open, project, verify, end.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from aggregation import AggregationError, ReleaseError, ReplayError, RoundPlan, SiteAttempt
from aggregation.protocol import REFUSED, VERIFIED
from fmfl_secure.errors import (
    KNOWN_ERRORS,
    AdapterUnverified,
    NotApproved,
    Rejected,
    is_passing,
)
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.parties.workspace import Members
from fmfl_secure.run.end import evidence, read_end
from fmfl_secure.run.refusal_codes import leaving_code
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.runtime.agents.anchors import (
    LedgerOwner,
    SiteAnchors,
    check_journal,
    share_journal,
)
from fmfl_secure.runtime.agents.base import Agent, accuse, split
from fmfl_secure.runtime.agents.heartbeat import Heartbeat
from fmfl_secure.runtime.task_board import HISTORY, Step
from fmfl_secure.runtime.transport import ServerTransport, Work
from fmfl_secure.vectors.adapter import adapter_digest

_LOG = logging.getLogger("fmfl_secure.runtime.agents.site")


class Participant(LedgerOwner, Protocol):
    """A participant of one run: a `Site`, or a simulated one."""

    @property
    def visibility(self) -> Literal["private", "public"]:
        """Whether its data are private or public."""
        ...

    def check(self) -> None:
        """Check what can be known before anything is reserved."""
        ...

    def begin(self, call: bytes | None) -> None:
        """Check the run and reserve its cost, on the coordinator's signed call."""
        ...

    def admit(
        self, plan_message: bytes, adapter: bytes, history: Callable[[], bytes] = bytes
    ) -> SiteAttempt:
        """Decides about an attempt; trains where it has to."""
        ...

    def rehearse(self, plan_message: bytes) -> SiteAttempt:
        """Decides whether to take part in a rehearsal."""
        ...

    def train(
        self, plan: RoundPlan, adapter: bytes, on_step: Callable[[int], None] | None = None
    ) -> NDArray[np.int32]:
        """The stored or a newly trained update."""
        ...

    def recorded_opening(self, plan_message: bytes) -> bytes | None:
        """Returns the opening recorded in the plan's round before a restart, or None."""
        ...

    def keep(self, attempt: SiteAttempt) -> None:
        """Store what opens an attempt after a restart, where sites may vanish."""
        ...

    def kept(self, plan_message: bytes) -> SiteAttempt | None:
        """The attempt that was under way before a restart, to be opened; or None."""
        ...

    def opened(self) -> None:
        """Erase what was kept of the attempt under way."""
        ...

    def released(
        self, plan: RoundPlan, adapter: bytes, total: NDArray[np.int64], cohort: Sequence[str]
    ) -> bytes:
        """Apply a verified sum; returns the adapter that it gives."""
        ...

    def verdict_after_restart(self, plan_message: bytes, cohort_message: bytes) -> bytes:
        """The signed word about a release, where the attempt's secrets are lost."""
        ...

    def finish(self, evidence: str) -> None:
        """Closes the run in the ledger."""
        ...

    def statement(self) -> tuple[SiteStatement | None, str]:
        """The ledger's statement and its signature."""
        ...


@dataclass(slots=True)
class _Live:
    """An attempt whose secrets this process holds."""

    place: tuple[str, int, int]
    plan_message: bytes
    attempt: SiteAttempt
    adapter: bytes
    integers: NDArray[np.int32]
    cohort: bytes = b""
    is_told: bool = False  # whether others have the head with this round's charge
    is_kept: bool = False  # whether a restart would be a delay
    release: bytes = b""  # where norms are checked, which asks for it twice


class SiteAgent(Agent):
    """Takes part in run after run.

    Args:
        open_run: Makes the participant of a run.
        members: All parties, as this site trusts them now.
        transport: To the server.
        open_transport: Makes another transport, for heartbeats while it trains; None where the
            server does not count on any.
        stopping: Ends the loop.
        once: End after one run.
        on_step: Called with round and finished steps while it trains.
        approve: Called with the number of the membership list in force, before a plan is looked at.
        decisions: What people decided here.
    """

    def __init__(
        self,
        open_run: Callable[[str], Participant],
        *,
        members: Callable[[], Members],
        transport: ServerTransport,
        open_transport: Callable[[], ServerTransport] | None,
        stopping: threading.Event,
        once: bool,
        approve: Callable[[int], None] = lambda _: None,
        on_step: Callable[[int, int], None] = lambda *_: None,
        decisions: Decisions | None = None,
    ) -> None:
        super().__init__(transport, stopping=stopping, once=once, decisions=decisions)
        self._open_run = open_run
        self._coordinator = members().coordinator  # whose end of a run counts
        self._heads = SiteAnchors(transport, members)
        self._open_transport = open_transport
        self._approve = approve
        self._trained = on_step
        self._run = ""
        self._participant: Participant | None = None
        self._begun = False
        self._live: _Live | None = None
        self._adapter = b""
        self.training: tuple[int, int] | None = None  # round, step

    @property
    def party(self) -> Participant | None:
        """The participant of the present run, if there is one."""
        return self._participant

    @override
    def do(self, work: Work) -> None:
        does = {
            Step.JOIN: self._join,
            Step.READY: self._ready,
            Step.REHEARSE: self._rehearse,
            Step.EXCHANGE: self._exchange,
            Step.UPLOAD: self._upload,
            Step.OPEN: self._open,
            Step.PROJECT: self._project,
            Step.VERIFY: self._verify,
            Step.REVEAL: self._reveal,
            Step.END: self._end,
        }.get(work.step)
        if does is not None:
            does(work)

    def _opened_run(self, run: str) -> Participant:
        if self._participant is None or self._run != run:
            self._participant, self._run = self._open_run(run), run
            self._begun, self._live, self._adapter = False, None, b""
            self.refusal = ""
        return self._participant

    def prepare(self, run: str, *, part_bytes: int) -> None:
        """Open a run here, check it, and bring what is kept of others' ledgers, before any begins.

        A site does so itself when it begins. Where all parties start together, each can do it
        first, so that nobody begins before everybody's memory was asked.

        Args:
            run: The run.
            part_bytes: Largest body of a request.

        Raises:
            Rejected: The server takes none.
        """
        try:
            participant = self._opened_run(run)
            participant.check()
            self._heads.bring(participant, part_bytes=part_bytes)
        except Rejected:
            raise
        except KNOWN_ERRORS as error:
            self._refuse(run, error)

    def _begin(self, work: Work) -> Participant | None:
        """The participant of a run, its budget reserved; None where this site takes no part."""
        try:
            participant = self._opened_run(work.run)
            if not self._begun:
                self._heads.bring(participant, part_bytes=work.part_bytes)
                self._heads.settle(participant)
                call = work.documents.get("call")
                participant.begin(None if call is None else self.transport.fetch(call))
                self._heads.share(participant)
                self._begun = True
        except Rejected:
            raise
        except KNOWN_ERRORS as error:
            self._refuse(work.run, error)
            return None
        return participant

    def _refuse(self, run: str, error: Exception) -> None:
        """Take no part, for an error that stays; one of the surroundings is raised again."""
        if is_passing(error):
            raise error
        code = leaving_code(error)
        self.refusal = str(error)
        _LOG.error("takes no part (%s): %s", code, error, extra={"run": run})
        self.transport.refuse(run, code)

    def _join(self, work: Work) -> None:
        participant = self._begin(work)
        if participant is not None:
            self.transport.join(work.run, participant.visibility)
            self._state(work.run, participant, final=False)

    def _ready(self, work: Work) -> None:
        participant = self._begin(work)
        if participant is None:
            return
        live = self._live
        if live is None or live.place != work.place:
            self._live = live = self._admit(work, participant)
        if live is not None:
            live.is_told = live.is_told or self._share(work, participant)
            if live.is_told:
                self.transport.send(work, "ready", live.attempt.ready())

    def _admit(self, work: Work, participant: Participant) -> _Live | None:
        plan_message = self.transport.fetch(work.document("plan"))
        adapter = self._fetch_adapter(work)
        try:
            self._approve(work.membership)
            with self._heartbeat():  # the adapter is measured first, which takes its time too
                attempt = participant.admit(plan_message, adapter, lambda: self._history(work))
                # Again, as another site may have come since this one began, with what it kept.
                self._heads.settle(participant)
                self.is_training = True
                integers = participant.train(attempt.plan, adapter, self._on_step(work.round))
            attempt.ready()
        except Rejected:
            raise
        except (AdapterUnverified, ReplayError, NotApproved) as error:
            # Away for a while, joined before a restart, or opened: this attempt or round goes on
            # without this site, and it is asked again in the next.
            self.refusal = str(error)
            _LOG.warning("%s", error, extra={"run": work.run, "round": work.round})
            self.transport.fail(work, error.code)
            return None
        except KNOWN_ERRORS as error:
            self._refuse(work.run, error)
            return None
        finally:
            self.is_training, self.training = False, None
        return _Live(work.place, plan_message, attempt, adapter, integers)

    def _rehearse(self, work: Work) -> None:
        """As `_ready`, of public integers: no data are read, and nothing is charged."""
        participant = self._begin(work)
        if participant is None:
            return
        live = self._live
        if live is None or live.place != work.place:
            plan_message = self.transport.fetch(work.document("plan"))
            try:
                self._approve(work.membership)
                attempt = participant.rehearse(plan_message)
                attempt.ready()
            except Rejected:
                raise
            except KNOWN_ERRORS as error:
                if is_passing(error):
                    raise
                self.refusal = str(error)
                _LOG.warning("no rehearsal: %s", error, extra={"run": work.run})
                self.transport.fail(work, leaving_code(error))
                return
            integers = attempt.public_integers
            live = _Live(work.place, plan_message, attempt, b"", integers, is_kept=True)
            self._live = live
        self.transport.send(work, "ready", live.attempt.ready())

    def _reveal(self, work: Work) -> None:
        live = self._held(work)
        if live is None:
            return
        release = work.documents.get("release")
        try:
            message = live.attempt.reveal(b"" if release is None else self.transport.fetch(release))
        except AggregationError as error:
            self._fail(work, error)
            return
        self.transport.send(work, "reveal", message)

    def _on_step(self, round_number: int) -> Callable[[int], None]:
        def note(step: int) -> None:
            self.training = (round_number, step)
            self._trained(round_number, step)

        note(0)
        return note

    def _heartbeat(self) -> AbstractContextManager[object]:
        return nullcontext() if self._open_transport is None else Heartbeat(self._open_transport)

    def _fetch_adapter(self, work: Work) -> bytes:
        document = work.document("adapter")
        if hashlib.sha256(self._adapter).hexdigest() != document.sha256:
            self._adapter = self.transport.fetch(document)
        return self._adapter

    def _history(self, work: Work) -> bytes:
        """Fetches the sites' verdicts on earlier rounds, where the server gives them."""
        document = work.documents.get(HISTORY)
        return b"" if document is None else self.transport.fetch(document)

    def _held(self, work: Work) -> _Live | None:
        """The attempt under way, unless its secrets were lost with an earlier process."""
        if self._live is not None and self._live.place == work.place:
            return self._live
        _LOG.warning("this attempt's secrets are lost", extra={"round": work.round})
        self.transport.fail(work, "lost")
        return None

    def _exchange(self, work: Work) -> None:
        live = self._held(work)
        if live is None:
            return
        live.cohort = self.transport.fetch(work.document("cohort"))
        try:
            message = live.attempt.exchange(live.cohort)
        except AggregationError as error:
            self._fail(work, error)
            return
        self.transport.send(work, "exchange", message)

    def _upload(self, work: Work) -> None:
        live = self._held(work)
        if live is None:
            return
        exchanges = split(self.transport.fetch(work.document("exchanges")), work.sizes)
        try:
            upload = live.attempt.upload(live.cohort, live.integers, exchanges)
            if not live.is_kept and self._participant is not None:
                self._participant.keep(live.attempt)  # before anything of it leaves
                live.is_kept = True
        except AggregationError as error:
            self.refusal = str(error)
            self._fail(work, error)
            return
        self.transport.send(work, "upload", upload.manifest)
        self.transport.send(work, "chunks", b"".join(upload.chunks))

    def _open(self, work: Work) -> None:
        participant = self._begin(work)
        if participant is None:
            return
        live = self._live
        is_held = live is not None and live.place == work.place
        try:
            attempt = live.attempt if live is not None and is_held else None
            if attempt is None and not work.round:  # a rehearsal: nothing of it is kept
                self._held(work)
                return
            if attempt is None:
                # Opened before a restart, perhaps: what was recorded is sent again. Or kept, to
                # be opened now.
                plan_message = self.transport.fetch(work.document("plan"))
                recorded = participant.recorded_opening(plan_message)
                if recorded is not None:
                    self.transport.send(work, "opening", recorded)
                    return
                attempt = participant.kept(plan_message)
            if attempt is None:
                self._held(work)
                return
            check_journal(participant, self.transport)
            opening = attempt.open(self.transport.fetch(work.document("list")))
            participant.opened()
            # Before the opening leaves: from then on others notice a journal without it.
            share_journal(participant, self.transport)
        except AggregationError as error:
            self.refusal = str(error)
            self._fail(work, error)
            return
        self.transport.send(work, "opening", opening)

    def _project(self, work: Work) -> None:
        live = self._held(work)
        if live is None:
            return
        try:
            live.release = self.transport.fetch(work.document("release"))
            message = live.attempt.project(live.release)
        except AggregationError as error:
            self._fail(work, error)
            return
        self.transport.send(work, "projections", message)

    def _verify(self, work: Work) -> None:
        participant = self._begin(work)
        if participant is None:
            return
        live = self._live
        is_held = live is not None and live.place == work.place
        try:
            if live is None or not is_held:
                verdict = self._verdict_after_restart(work, participant)
            else:
                verdict = self._verdict(work, participant, live)
        except AggregationError as error:
            self._fail(work, error)
            return
        self.transport.send(work, "verdict", verdict)
        if is_held:
            self._share(work, participant)
            self._state(work.run, participant, final=False)

    def _verdict(self, work: Work, participant: Participant, live: _Live) -> bytes:
        try:
            document = work.document("release")
            release = live.release
            if not release or hashlib.sha256(release).hexdigest() != document.sha256:
                release = self.transport.fetch(document)
            sent = work.documents.get("projections")
            shown = [] if sent is None else split(self.transport.fetch(sent), work.sizes)
            total = live.attempt.verify(release, shown)
        except ReleaseError as error:
            _LOG.error("the sum is refused: %s", error, extra={"round": work.round})
            return live.attempt.verdict(REFUSED)
        names = [member.identity.name for member in live.attempt.cohort]
        self._adapter = participant.released(live.attempt.plan, live.adapter, total, names)
        return live.attempt.verdict(VERIFIED, adapter_digest(self._adapter))

    def _verdict_after_restart(self, work: Work, participant: Participant) -> bytes:
        """Says again what was said before; else that nothing more can be said."""
        plan, cohort = (self.transport.fetch(work.document(n)) for n in ("plan", "cohort"))
        return participant.verdict_after_restart(plan, cohort)

    def _end(self, work: Work) -> None:
        statement = self.transport.fetch(work.document("end"))
        try:
            read_end(statement, coordinator=self._coordinator, run=work.run)
            participant = self._opened_run(work.run)
            # An older ledger gets nothing back: it does not know what was started.
            self._heads.settle(participant)
            participant.finish(evidence(statement))
            self._heads.share(participant)
        except Rejected:
            raise
        except KNOWN_ERRORS as error:
            self._refuse(work.run, error)
            return
        self._state(work.run, participant, final=True)

    def _fail(self, work: Work, error: AggregationError) -> None:
        """Not go on with an attempt; for an error of the surroundings that is too early to say."""
        if is_passing(error):
            raise error
        _LOG.warning("%s: %s", work.step, error, extra={"run": work.run, "round": work.round})
        accuse(self.transport, work, error)
        self.transport.fail(work, error.code)

    def _share(self, work: Work, participant: Participant) -> bool:
        """Give the ledger's head as it is now; whether this site still takes part."""
        try:
            self._heads.share(participant)
        except Rejected:
            raise
        except KNOWN_ERRORS as error:
            self._refuse(work.run, error)
            return False
        return True

    def _state(self, run: str, participant: Participant, *, final: bool) -> None:
        try:
            statement, signature = participant.statement()
        except KNOWN_ERRORS as error:  # a ledger that was damaged since it was opened
            self._refuse(run, error)
            return
        try:
            self.transport.state(run, statement, signature, final=final)
        except Rejected as rejected:
            if rejected.reason != "not-shown":
                raise
            # Reports say so; nothing in the run depends on it.
            _LOG.error("%s", rejected, extra={"run": run})
            self.refusal = str(rejected)
