"""Notes of what sites state during a run, as the run's state keeps them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from aggregation.protocol import prepared
from fmfl_secure.errors import RunError
from fmfl_secure.run.statement import SiteStatement, read_statement
from fmfl_secure.storage.run_store import RunStore


class SiteNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The coordinator's note of a site.

    Attributes:
        visibility: Of its data, as it declares.
        refusal: Code, if it takes no further part.
        statement: Of its ledger, if it made one.
        signature: Of the statement.
        not_shown: Why the statement that it made is not shown; empty otherwise.
    """

    visibility: Literal["private", "public"]
    refusal: str | None
    statement: SiteStatement | None
    signature: str
    not_shown: str = ""


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    visibility: Literal["private", "public"]
    refusal: str | None
    statement: Any
    signature: str
    not_shown: str = ""


def site_note(
    name: str,
    *,
    visibility: Literal["private", "public"],
    refusal: str | None,
    statement: SiteStatement | None,
    signature: str,
    not_shown: str = "",
) -> tuple[str, bytes]:
    """The site, and what it states as the run's state keeps it."""
    note = SiteNote(visibility, refusal, statement, signature, not_shown)
    return name, msgspec.msgpack.encode(note)


def read_site_note(note: bytes) -> SiteNote:
    """Read what `site_note` made, of a version that looked at no ranges too.

    Raises:
        msgspec.DecodeError: It is something else.
    """
    kept = msgspec.msgpack.decode(note, type=prepared(_Kept))
    try:
        statement = None if kept.statement is None else read_statement(kept.statement)
    except RunError as error:
        return SiteNote(kept.visibility, kept.refusal, None, "", str(error))
    return SiteNote(kept.visibility, kept.refusal, statement, kept.signature, kept.not_shown)


def noted_visibility(store: RunStore) -> dict[str, Literal["private", "public"]]:
    """Returns the visibility that sites declared of their data, as far as noted."""
    return {name: read_site_note(note).visibility for name, note in store.state.sites.items()}
