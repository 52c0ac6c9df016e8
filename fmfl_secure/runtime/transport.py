"""The interface between a party and the server, whatever carries it: HTTPS or Flower."""

from __future__ import annotations

from types import TracebackType
from typing import Annotated, Final, Literal, Protocol, Self

import msgspec

from fmfl_secure.errors import BadAnswer
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.run.stop import MOST_STOP
from fmfl_secure.runtime.anchor_registry import AnchorsForSite
from fmfl_secure.runtime.task_board import STOP, Step
from fmfl_secure.settings.service import PartBytes

# What a server says may be anything: these are the ranges of what it can mean.
Place = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # over Flower, nanoseconds of a clock
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
RunId = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{8,64})?\Z")]
MOST_INLINE: Final = 256 << 10  # bytes of a document that comes with the work it is for
_SMALL: Final = {"call": 1 << 16, "plan": 8 << 20, "cohort": 8 << 20, "end": 8 << 20}  # bytes


class DocumentRef(msgspec.Struct, frozen=True):
    """A document to fetch: its digest and length."""

    sha256: Digest
    size: Size


class Work(msgspec.Struct, frozen=True):
    """The server's wish to this party; fields as `transports.https.schemas.TaskBody`."""

    sequence: Sequence
    step: Step
    run: RunId
    round: Place
    attempt: Place
    documents: dict[str, DocumentRef]
    sizes: list[Size]
    membership: Place
    part_bytes: PartBytes
    inline: dict[Digest, bytes] = {}  # small documents that came with it, by their SHA-256

    def __post_init__(self) -> None:
        for name, most_bytes in _SMALL.items():
            document = self.documents.get(name)
            if document is not None and document.size > most_bytes:
                raise ValueError(f"the {name} has {document.size} bytes, at most {most_bytes}")
        if any(name.startswith(STOP) and document.size > MOST_STOP
               for name, document in self.documents.items()):  # fmt: skip
            raise ValueError(f"a stop has more than {MOST_STOP} bytes")

    @property
    def place(self) -> tuple[str, int, int]:
        """Run, round and attempt, as a key."""
        return self.run, self.round, self.attempt

    def document(self, name: str) -> DocumentRef:
        """A document that the step takes.

        Raises:
            BadAnswer: The server did not name it.
        """
        found = self.documents.get(name)
        if found is None:
            raise BadAnswer(f"the server asks to {self.step} and names no {name}")
        return found


class ServerTransport(Protocol):
    """How a party reaches the server, whatever carries it; as `HttpsTransport` describes."""

    connected: bool

    def __enter__(self) -> Self:
        """Use it."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        ...

    def work(self, after: int) -> Work:
        """Asks for this party's task; waits until it is another than number `after`."""
        ...

    def membership(self, after: int) -> list[str]:
        """Signed membership lists after a number, base64."""
        ...

    def fetch(self, document: DocumentRef) -> bytes:
        """Fetches the bytes of a document."""
        ...

    def send(self, work: Work, kind: str, message: bytes) -> None:
        """Send a message of an attempt."""
        ...

    def join(self, run: str, visibility: Literal["private", "public"]) -> None:
        """Says that this site takes part."""
        ...

    def refuse(self, run: str, code: str) -> None:
        """Says, by a generic code, that this site takes no part."""
        ...

    def fail(self, work: Work, code: str) -> None:
        """Not go on with an attempt."""
        ...

    def state(
        self, run: str, statement: SiteStatement | None, signature: str, *, final: bool
    ) -> None:
        """Sends this site's statement of its ledger."""
        ...

    def heads(self, *, known: bool, since: str) -> AnchorsForSite:
        """Heads of ledgers that the server keeps; arguments as `AnchorRegistry.tell`."""
        ...

    def bring_heads(self, heads: dict[str, list[str]]) -> None:
        """Bring heads of others' ledgers."""
        ...

    def give_head(self, head: str) -> None:
        """Give the own ledger's head."""
        ...

    def give_stop(self, statement: bytes) -> None:
        """Give a signed stop of the run, as this party or another signed it."""
        ...

    def heartbeat(self) -> None:
        """Show that this party lives."""
        ...
