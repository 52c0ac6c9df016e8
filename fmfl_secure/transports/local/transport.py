"""Between a party and the server in one process: calls, and documents by reference.

`transports.local.engine` gives one to each agent, over the one server. Whatever is sent is given
to the inbox by reference, and noted for the transcript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Literal, Protocol, Self

from typing_extensions import override

from aggregation import is_journal_head
from fmfl_secure.errors import Problem, Rejected
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.runtime.anchor_registry import AnchorsForSite
from fmfl_secure.runtime.inbox import SignedStatement
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.runtime.task_board import Document, Step
from fmfl_secure.runtime.transport import DocumentRef, ServerTransport, Work
from fmfl_secure.storage.message_store import MessageKey

# What the transcript tells: of a party's documents by name, and of who sees a party's messages.
_SEEN_BY_PARTY: Final = {
    SITE: {"plan": "plan", "cohort": "cohort", "list": "opening-list", "release": "release"},
    DECRYPTOR: {"plan": "plan", "sum": "sum"},
    CUSTODIAN: {"plan": "plan", "cohort": "cohort", "list": "opening-list"},
}
_SEEN_BY_SERVER: Final = {
    "announcement": "coordinator",
    "custodian-ready": "coordinator",
    "ready": "coordinator",
    "anchor": "coordinator",
    "release": "coordinator",
    "upload": "aggregator",
    "opening": "aggregator",
    "projections": "coordinator",
    "approval": DECRYPTOR,
}


class Saw(Protocol):
    """Told what each role gets to see; `Transcript.saw` is one."""

    def __call__(
        self,
        role: str,
        kind: str,
        message: bytes,
        *,
        round_number: int,
        attempt: int,
        **more: object,
    ) -> None:
        """Note a message."""
        ...


class DirectTransport(ServerTransport):
    """A `ServerTransport` by calls.

    Args:
        server: The run's server.
        name: The party.
        role: Its role: `SITE`, `DECRYPTOR` or `CUSTODIAN`.
        saw: Told what each role gets to see.
        refused: Told who takes no part any more, and the code for it.
        failed: Told who does not go on with an attempt, and the code for it.
    """

    def __init__(
        self,
        server: RunServer,
        name: str,
        role: str,
        *,
        saw: Saw,
        refused: Callable[[str, str], None],
        failed: Callable[[str, str], None],
    ) -> None:
        self.connected = True
        self._server = server
        self._name = name
        self._role = role
        self._label = name if role == DECRYPTOR else f"{role} {name}"
        self._saw = saw
        self._refused = refused
        self._failed = failed
        self._work: Work | None = None
        self._documents: dict[str, tuple[str, Document]] = {}
        self._manifest = b""  # of the upload whose chunks come next
        self._noted: set[tuple[str, bytes]] = set()  # of the attempt under way

    def __enter__(self) -> Self:
        """Nothing to open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    @override
    def work(self, after: int) -> Work:
        number, task = self._server.board.task(self._name)
        if self._work is not None and number == after == self._work.sequence:
            return self._work
        self._server.board.told(self._name, number)
        self._documents = {each.sha256: (name, each) for name, each in task.documents.items()}
        before, self._work = (
            self._work,
            Work(
                sequence=number,
                step=task.step,
                run=task.run,
                round=task.round,
                attempt=task.attempt,
                documents={n: DocumentRef(d.sha256, d.size) for n, d in task.documents.items()},
                sizes=list(task.sizes),
                membership=0,
                part_bytes=self._server.inbox.part_bytes,
            ),
        )
        if before is None or before.place != self._work.place:
            self._noted.clear()
        return self._work

    def membership(self, after: int) -> list[str]:  # noqa: ARG002
        """None: the members of a folder are the members."""
        return []

    def fetch(self, document: DocumentRef) -> bytes:
        """A document of the present assignment.

        Raises:
            Rejected: It is of an earlier one.
        """
        if document.sha256 not in self._documents:
            raise Rejected(404, "not-found", "this document is of no assignment")
        name, found = self._documents[document.sha256]
        data = found.slice(0, found.size)
        kind = _SEEN_BY_PARTY[self._role].get(name)
        if kind is not None:
            self._note(self._label, kind, data)
        return data

    def send(self, work: Work, kind: str, message: bytes) -> None:
        """Send a whole message.

        Raises:
            Rejected: It does not hold, or does not come now.
        """
        if kind == "upload":
            self._manifest = message
        elif kind == "chunks":
            size = len(self._manifest) + len(message)
            self._note_sent("upload", self._manifest, upload_bytes=size)
        else:
            self._note_sent(kind, message)
        key = MessageKey(work.run, work.round, work.attempt, self._name, kind)
        with _rejections():
            self._server.inbox.deliver(self._role, key, message)

    @override
    def join(self, run: str, visibility: Literal["private", "public"]) -> None:
        with _rejections():
            self._server.inbox.join(self._name, run, visibility)

    @override
    def refuse(self, run: str, code: str) -> None:
        with _rejections():
            self._server.inbox.refuse(self._name, run, code)
        self._refused(self._name, code)

    def fail(self, work: Work, code: str) -> None:
        """Not go on with an attempt."""
        with _rejections():
            self._server.inbox.fail(self._name, work.run, work.round, work.attempt, code)
        self._failed(self._name, code)

    @override
    def state(
        self, run: str, statement: SiteStatement | None, signature: str, *, final: bool
    ) -> None:
        stated = SignedStatement(statement, signature)
        with _rejections():
            self._server.inbox.state(self._name, run, stated, final=final)

    def heads(self, *, known: bool, since: str) -> AnchorsForSite:
        """Heads of ledgers that the coordinator keeps."""
        return self._server.heads.tell(self._name, known=known, since=since)

    def bring_heads(self, heads: dict[str, list[str]]) -> None:
        """Bring heads of others' ledgers."""
        with _rejections():
            self._server.heads.bring(heads)

    def give_head(self, head: str) -> None:
        """Give the own ledger's head."""
        # The one with a round's charge in it. Later ones are of the same head at another second.
        is_charge = not is_journal_head(head)
        if is_charge and self._work is not None and self._work.step == Step.READY:
            self._note_sent("anchor", head.encode())
        with _rejections():
            self._server.heads.give(self._name, head)

    def give_stop(self, statement: bytes) -> None:
        """Give a signed stop of the run."""
        with _rejections():
            self._server.take_stop(statement)

    def heartbeat(self) -> None:
        """Does nothing: nobody counts on any."""

    def _note_sent(self, kind: str, message: bytes, **more: object) -> None:
        role = _SEEN_BY_SERVER.get(kind)
        if role is not None:
            sender = {} if self._role == DECRYPTOR else {"sender": self._name}
            self._note(role, kind, message, **sender, **more)

    def _note(self, role: str, kind: str, message: bytes, **more: object) -> None:
        """Tell of a message of an attempt, the first time it is seen."""
        work = self._work
        if work is None or not work.attempt or (kind, message) in self._noted:
            return
        self._noted.add((kind, message))
        self._saw(role, kind, message, round_number=work.round, attempt=work.attempt, **more)


@contextmanager
def _rejections() -> Iterator[None]:
    """Say what the server does not want in the words of a transport."""
    try:
        yield
    except Problem as problem:
        raise Rejected(
            problem.status, problem.reason, str(problem), received=problem.received
        ) from problem
