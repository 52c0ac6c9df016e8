"""What sites state during a run, as the run's state keeps it."""

from __future__ import annotations

from typing import Literal

import msgspec

from fmfl_secure.run.record import SiteStatement
from fmfl_secure.storage.run_store import RunStore


class SiteNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the coordinator keeps of a site.

    Attributes:
        visibility: Of its data, as it declares.
        refusal: Code, if it takes no further part.
        statement: Of its ledger, if it made one.
        signature: Of the statement.
    """

    visibility: Literal["private", "public"]
    refusal: str | None
    statement: SiteStatement | None
    signature: str


def site_note(
    name: str,
    *,
    visibility: Literal["private", "public"],
    refusal: str | None,
    statement: SiteStatement | None,
    signature: str,
) -> tuple[str, bytes]:
    """The site, and what it states as the run's state keeps it."""
    note = SiteNote(visibility, refusal, statement, signature)
    return name, msgspec.msgpack.encode(note)


def read_site_note(note: bytes) -> SiteNote:
    """Read what `site_note` made.

    Raises:
        msgspec.DecodeError: It is something else.
    """
    return msgspec.msgpack.decode(note, type=SiteNote)


def noted_visibility(store: RunStore) -> dict[str, Literal["private", "public"]]:
    """What sites declared of their data, as far as they were noted."""
    return {name: read_site_note(note).visibility for name, note in store.state.sites.items()}
