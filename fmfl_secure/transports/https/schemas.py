"""The forms of the server's requests and answers, as its OpenAPI description shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fmfl_secure.run.stop import MOST_STOP
from fmfl_secure.runtime.task_board import Step

Code = Annotated[str, Field(pattern=r"^[a-z][a-z_.-]{0,47}$")]
Head = Annotated[str, Field(min_length=1, max_length=4096)]


class Model(BaseModel):
    """Base of all bodies: strict, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ProblemBody(Model):
    """Why a request was not served."""

    code: str = Field(description="One word for programs.")
    message: str = Field(description="A sentence for people; never a value from the request.")
    received: int | None = Field(default=None, description="Of an upload: the bytes held here.")


class DocumentBody(Model):
    """A document that a party may fetch."""

    sha256: str
    size: int


class TaskBody(Model):
    """The present task of the party that asks."""

    sequence: int = Field(description="Hand it in as `after` to be told of the next change.")
    step: Step
    run: str
    round: int
    attempt: int
    documents: dict[str, DocumentBody]
    sizes: list[int] = Field(description="Lengths of the messages that one document joins.")
    membership: int = Field(description="Number of the membership list in force; 0 for none.")
    part_bytes: int = Field(description="Largest part of a message.")
    inline: dict[str, str] = Field(
        default={}, description="Where asked for: small documents that the step needs, base64."
    )


class ReceiptBody(Model):
    """How much of a message is here."""

    received: int
    whole: bool = Field(description="The message is here and was accepted.")


class ParticipationBody(Model):
    """A site takes part in a run."""

    visibility: Literal["private", "public"]


class RefusalBody(Model):
    """A party does not go on; a generic code and nothing else."""

    code: Code


class StatementBody(Model):
    """A site's statement of its ledger, signed; null for a run without one."""

    statement: dict[str, Any] | None
    signature: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")]
    final: bool = Field(description="The site has closed the run.")


class HeadBody(Model):
    """The head of the asking party's ledger or journal, signed by it."""

    head: Head


class BroughtHeadsBody(Model):
    """Heads that a site kept of others' ledgers and journals, by party."""

    heads: dict[str, list[Head]]


class HeadsBody(Model):
    """Heads that the server keeps."""

    own: list[str] = Field(description="All of the asking site's ledgers.")
    others: dict[str, str] = Field(description="The latest of each other site.")
    known: dict[str, list[str]] = Field(
        description="Where asked for: all of each other site, by the start of their SHA-256."
    )
    journals: list[str] = Field(description="The latest of the asking party's journals.")
    other_journals: dict[str, list[str]] = Field(
        description="For a site: the latest of each other party's journals."
    )
    upto: str = Field(
        description="What to ask `since` next time: then only what changed of others comes."
    )


class StopBody(Model):
    """A run's stop as its coordinator or a custodian signed it, base64."""

    statement: Annotated[str, Field(max_length=MOST_STOP * 2, pattern=r"^[A-Za-z0-9+/]+=*$")]


class MembershipBody(Model):
    """Signed membership lists, one after the other, base64."""

    lists: list[str]
