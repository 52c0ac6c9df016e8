"""The server's half of the way through Flower: assignments out as orders, answers in.

It decides nothing. The run is driven by the same code as over HTTPS: that puts assignments on the
task board and waits for what comes in. Here they are taken from the board and sent, one order at a
time to each party, and what a party answers is verified and handed on.

`transports.flower.server_app` and the simulation call `run`: the run is driven in a thread of its
own, and turn after turn this looks who is there, sends tasks, and takes replies.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from aggregation import PublicIdentity
from fmfl_secure.errors import ANY_FAILURE, FrameRefused, Problem, is_passing, said
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE
from fmfl_secure.runtime.anchor_registry import ALL, NOW
from fmfl_secure.runtime.inbox import UNAVAILABLE, SignedStatement
from fmfl_secure.runtime.patience import Patience
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.runtime.task_board import Assignment, Document, Step
from fmfl_secure.storage.message_store import MessageKey
from fmfl_secure.transports.flower.fingerprint import fingerprint
from fmfl_secure.transports.flower.frames import (
    HELLO,
    Answer,
    Failed,
    HeadGiven,
    HeadsBrought,
    Joined,
    Opened,
    Order,
    Present,
    Refused,
    Sent,
    Stating,
    StopGiven,
    Word,
    claimed_party,
    open_frame,
    reference,
    seal,
)

_LOG = logging.getLogger("fmfl_secure.transports.flower.server")
_NODES_S: Final = 1.0  # how often nodes are looked for
_AGAIN_S: Final = 2.0  # before an order that did not arrive is sent again
_TIMES: Final = 5  # that an order is given of which no answer arrives
_OVERDUE_S: Final = 900.0  # an order without an answer is sent again; done twice, it does no harm
_ORDERS_AT_ONCE: Final = 64
_BYTES_AT_ONCE: Final = 256 << 20
_WITH_HEADS: Final = frozenset(
    {Step.JOIN, Step.READY, Step.OPEN, Step.VERIFY, Step.END,
     Step.ANNOUNCE, Step.RELEASE, Step.APPROVE}
)  # fmt: skip


class Post(Protocol):
    """Flower's grid, as far as it is needed."""

    def nodes(self) -> Collection[int]:
        """Returns the nodes that are connected."""
        ...

    def send(self, node: int, frame: bytes) -> str | None:
        """Send a frame; returns the message's id, or None if the node is gone."""
        ...

    def replies(self, ids: Collection[str]) -> Iterable[tuple[str, bytes | None]]:
        """Frames that came in reply to messages, by their ids; None where there is an error."""
        ...


@dataclass(frozen=True, slots=True)
class _Out:
    """An order under way."""

    node: int
    party: str  # empty for a greeting
    number: int  # of the assignment
    task: Assignment
    digest: str
    size: int
    at: float  # seconds of the monotonic clock


class FlowerServer:
    """Carries one run.

    Args:
        side: The run, its board and its inbox.
        post: How frames go out and come in.
        pause_s: Between two looks for replies.
        after_turn: Called after each.
    """

    def __init__(
        self,
        side: RunServer,
        post: Post,
        *,
        pause_s: float = 0.1,
        after_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._side = side
        self._post = post
        self._pause_s = pause_s
        self._after_turn = after_turn
        self._sequence = 0
        self._nodes: dict[str, int] = {}  # of parties that said who they are
        self._known: set[int] = set()  # nodes that were greeted
        self._online: set[int] = set()
        self._looked = 0.0
        self._out: dict[str, _Out] = {}
        self._done: dict[str, int] = {}  # number of the last task that was answered, by party
        self._again: dict[str, float] = {}
        self._losses: dict[str, tuple[int, int]] = {}  # number of a task, how often it was lost
        self._joined: tuple[Document | None, bytes] = (None, b"")
        self._stopping = threading.Event()
        self._patience = Patience()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Carry the run to its end.

        Raises:
            Stopping: It was asked to stop; it goes on when it is started again.
            FmflError, PrivacyError, AggregationError: The run cannot go on, or another process
                carries it.
        """
        driver = threading.Thread(target=self._drive, name="run")
        with self._side.alone():
            self._carry(driver)
        if self._failure is not None:
            raise self._failure

    def _carry(self, driver: threading.Thread) -> None:
        driver.start()
        try:
            while driver.is_alive():
                if not self._turn():
                    self._stopping.wait(self._pause_s)
                self._after_turn()
        finally:
            if driver.is_alive():
                self._side.stop()
            driver.join()
            self._side.store.close()

    def stop(self) -> None:
        """Stop where it is. Safe from any thread."""
        self._stopping.set()
        self._side.stop()

    def _drive(self) -> None:
        try:
            self._side.drive()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._failure = error

    def _turn(self) -> bool:
        """A turn; where the surroundings fail it, the next one comes after a pause."""
        try:
            worked = self.turn()
        except ANY_FAILURE as error:
            if not is_passing(error):
                raise
            self._stopping.wait(self._patience.pause_after(error))
            return True
        self._patience.worked()
        return worked

    def turn(self) -> bool:
        """Send what there is to send and take what came; whether anything did."""
        self._look()
        sent = self._send_tasks()
        return self._take_replies() or sent

    # Who is there.

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _NODES_S:
            return
        self._looked = now
        self._online = set(self._post.nodes())
        self._known &= self._online  # one that comes back may be somebody else
        for party, node in list(self._nodes.items()):
            if node in self._online:
                self._side.board.heard(party)
            else:
                _LOG.warning("%s is no longer connected", party)
                del self._nodes[party]
                self._gone(party)
        for message, out in list(self._out.items()):
            if out.node not in self._online:
                del self._out[message]
        for node in self._online - self._known:
            if self._room():
                self._known.add(node)
                self._post_order(node, self._order(HELLO), "", 0, Assignment(), ())

    # Out.

    def _send_tasks(self) -> bool:
        sent, now = False, time.monotonic()
        for party, _ in self._parties():
            number, task = self._side.board.task(party)
            node = self._nodes.get(party)
            if node is None or task.step == Step.WAIT or number == self._done.get(party):
                continue
            if now < self._again.get(party, 0.0) or self._is_under_way(party, number, now):
                continue
            if not self._room():
                break
            self._send(party, node, number, task)
            sent = True
        return sent

    def _is_under_way(self, party: str, number: int, now: float) -> bool:
        """Whether this very task is with the party, and not for too long to have arrived."""
        return any(
            out.party == party and out.number == number and now - out.at < _OVERDUE_S
            for out in self._out.values()
        )

    def _parties(self) -> Iterator[tuple[str, str]]:
        members = self._side.members()
        yield DECRYPTOR, DECRYPTOR
        for name in members.custodians:
            yield name, CUSTODIAN
        for name in members.sites:
            yield name, SITE

    def _send(self, party: str, node: int, number: int, task: Assignment) -> None:
        documents = {name: self._bytes(document) for name, document in task.documents.items()}
        lists = self._side.membership.lists()
        order = self._order(
            task.step,
            party=party,
            run=task.run,
            round=task.round,
            attempt=task.attempt,
            documents={name: reference(data) for name, data in documents.items()},
            sizes=list(task.sizes),
            membership=len(lists),
            part_bytes=self._side.inbox.part_bytes,
            heads=(
                self._side.heads.tell(
                    party,
                    known=task.step == Step.JOIN,
                    since=NOW if task.step == Step.OPEN else ALL,
                )
                if task.step in _WITH_HEADS
                else None
            ),
            lists=[base64.b64encode(each).decode("ascii") for each in lists[1:]],
        )
        if not self._post_order(node, order, party, number, task, documents.values()):
            self._lost(party, number, task)

    def _order(self, step: str, *, party: str = "", **fields: object) -> Order:
        self._sequence = max(self._sequence + 1, time.time_ns())
        return Order(fingerprint(), party, self._sequence, step, **fields)  # type: ignore[arg-type]

    def _bytes(self, document: Document) -> bytes:
        """A document's bytes, joined once for all who get the same."""
        if self._joined[0] is not document:
            self._joined = (document, document.slice(0, document.size))
        return self._joined[1]

    def _post_order(
        self,
        node: int,
        order: Order,
        party: str,
        number: int,
        task: Assignment,
        documents: Iterable[bytes],
    ) -> bool:
        frame = seal(self._side.identity, order, documents)
        message = self._post.send(node, frame)
        if message is None:
            return False
        _, opened = open_frame(frame, Order, self._side.identity.public)
        self._out[message] = _Out(
            node, party, number, task, opened.digest, len(frame), time.monotonic()
        )
        return True

    def _room(self) -> bool:
        under_way = sum(out.size for out in self._out.values())
        return len(self._out) < _ORDERS_AT_ONCE and under_way < _BYTES_AT_ONCE

    # In.

    def _take_replies(self) -> bool:
        came = False
        for message, frame in list(self._post.replies(list(self._out)) if self._out else ()):
            out = self._out.pop(message, None)
            if out is None:
                continue
            came = True
            try:
                if frame is None:
                    raise FrameRefused("no answer came")
                if out.party:
                    self._take(out, frame)
                else:
                    self._greeted(out, frame)
            except ANY_FAILURE as error:
                if is_passing(error):  # the order goes out again; done twice, it does no harm
                    _LOG.warning(
                        "%s cannot be taken now: %s", out.party or "a greeting", said(error)
                    )
                    self._again[out.party] = time.monotonic() + _AGAIN_S
                    self._known.discard(-1 if out.party else out.node)
                    continue
                if not isinstance(error, FrameRefused):
                    raise
                _LOG.warning("node %s, %s: %s", out.node, out.party or "a greeting", error)
                if out.party:
                    self._lost(out.party, out.number, out.task)
                else:
                    self._known.discard(out.node)
        return came

    def _greeted(self, out: _Out, frame: bytes) -> None:
        name = claimed_party(frame)
        answer, _ = open_frame(frame, Answer, self._identity(name))
        if answer.order != out.digest:
            raise FrameRefused("an answer to another order")
        package = next((w.package for w in answer.words if isinstance(w, Present)), "")
        if package != fingerprint():
            _LOG.error("%s runs %s, this is %s", name, package, fingerprint())
            return  # it stays greeted, and out
        self._nodes[name] = out.node
        self._side.board.heard(name)
        _LOG.info("%s is node %s", name, out.node)

    def _take(self, out: _Out, frame: bytes) -> None:
        answer, opened = open_frame(frame, Answer, self._identity(out.party))
        if answer.order != out.digest or answer.party != out.party:
            raise FrameRefused("an answer to another order")
        self._side.board.heard(out.party)
        self._side.board.told(out.party, out.number)
        for word in answer.words:
            try:
                self._hear(out, word, opened)
            except Problem as problem:
                _LOG.warning("%s, %s: %s", out.party, out.task.step, problem)
                if problem.reason == "not-shown":  # reports say so; the run does not depend on it
                    continue
                if problem.reason not in {"over", "out-of-order", "conflict"}:
                    self._fail(out.party, out.task, "refused")
                break
        self._done[out.party] = max(out.number, self._done.get(out.party, 0))

    def _hear(self, out: _Out, word: Word, opened: Opened) -> None:
        inbox, party, task = self._side.inbox, out.party, out.task
        match word:
            case Sent(kind, document):
                self._message(out, kind, opened.fetch(document))
            case Joined(visibility):
                inbox.join(party, task.run, visibility)
            case Refused(code):
                inbox.refuse(party, task.run, code)
            case Failed(code):
                inbox.fail(party, task.run, task.round, task.attempt, code)
            case Stating(statement, signature, final):
                inbox.state(party, task.run, SignedStatement(statement, signature), final=final)
            case HeadGiven(head):
                self._side.heads.give(party, head)
            case HeadsBrought(heads):
                self._side.heads.bring(heads)
            case StopGiven(statement):
                self._side.take_stop(statement)
            case Present():
                pass

    def _message(self, out: _Out, kind: str, data: bytes) -> None:
        task = out.task
        key = MessageKey(task.run, task.round, task.attempt, out.party, kind)
        document, step = reference(data), self._side.inbox.part_bytes
        for start in range(0, max(1, len(data)), step):
            self._side.inbox.part(
                self._role(out.party),
                key,
                sha256=document.sha256,
                size=document.size,
                offset=start,
                data=data[start : start + step],
            )

    def _lost(self, party: str, number: int, task: Assignment) -> None:
        """An order, or the answer to it, did not arrive.

        It is given again: a step that is done twice gives the same words. A site of which nothing
        arrives then either is left out of the attempt; decryptor and custodians, without whom none
        opens, are asked on.
        """
        self._again[party] = time.monotonic() + _AGAIN_S
        earlier, times = self._losses.get(party, (number, 0))
        times = times + 1 if earlier == number else 1
        self._losses[party] = number, times
        if times >= _TIMES:
            self._side.board.lost(party)
            self._fail(party, task, UNAVAILABLE)

    def _gone(self, party: str) -> None:
        """A node is gone. Until it shows itself again nobody counts on its party.

        But while it is to open: a sum needs every opening, and one that was recorded is sent again
        by a process that comes back. So it has the time that a silent party has over HTTPS.
        """
        if self._side.board.task(party)[1].step != Step.OPEN:
            self._side.board.lost(party)

    def _fail(self, party: str, task: Assignment, code: str) -> None:
        if self._role(party) != SITE or not task.attempt:
            return
        try:
            self._side.inbox.fail(party, task.run, task.round, task.attempt, code)
        except Problem as problem:
            _LOG.debug("%s", problem)  # the attempt is over already

    def _role(self, party: str) -> str:
        return next(role for name, role in self._parties() if name == party)

    def _identity(self, name: str) -> PublicIdentity:
        members = self._side.members()
        known = {DECRYPTOR: members.decryptor, **members.custodians, **members.sites}
        if name not in known:
            raise FrameRefused("no member of this federation")
        return known[name]
