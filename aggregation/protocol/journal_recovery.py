"""A journal in place of one that was lost: it keeps what is left, and opens nothing old.

What was lost is what was opened, so of any run that may be in it this party joins nothing any more.
The heads that others kept of the lost journal hold the new one no longer; of the new one, others
keep heads again.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from aggregation.crypto.identity import PublicIdentity
from aggregation.errors import JournalUnavailable
from aggregation.protocol.journal import FEDERATION, SqliteJournal
from aggregation.protocol.journal_heads import RECOVERED
from aggregation.protocol.replay import bar


def recover_journal(
    path: str | os.PathLike[str], own: PublicIdentity, *, reason: str, runs: Iterable[str]
) -> list[str]:
    """Make a journal in place of one that is missing, was put back, or does not verify.

    Args:
        path: Where it is; what is there is set aside under another name.
        own: Whose it is.
        reason: What happened, kept in the new one.
        runs: Every run that the lost one may have taken part in.

    Returns:
        The runs of which nothing is joined any more, those that are in what is left included.

    Raises:
        JournalError: What is there cannot be read, or the new one not written.
    """
    place = Path(path)
    try:
        entries = _read(place) if place.exists() else []
    except (OSError, sqlite3.Error) as error:
        raise JournalUnavailable(f"cannot read the journal {place}: {error}") from error
    set_aside(place)
    made = SqliteJournal(place)
    for kind, key, value in entries:
        made.record(kind, key, value)
    prefix = f"{own.fingerprint}/"
    known = {key.removeprefix(prefix) for kind, key, _ in entries
             if kind == FEDERATION and key.startswith(prefix)}  # fmt: skip
    barred = sorted(known | set(runs))
    for run in barred:
        bar(made, own, run)
    made.record(RECOVERED, made.head.journal, reason.encode())
    return barred


def set_aside(place: Path) -> Path | None:
    """Rename a journal that does not hold, so that another may be made in its place.

    Returns:
        Where it is now; None where there was nothing.

    Raises:
        JournalUnavailable: It cannot be renamed.
    """
    aside = place.with_name(f"{place.name}.lost-{secrets.token_hex(4)}")
    try:
        for ending in ("-wal", "-shm", ""):
            found = place.with_name(f"{place.name}{ending}")
            if found.exists():
                found.rename(aside.with_name(f"{aside.name}{ending}"))
        place.with_name(f"{place.name}.made").unlink(missing_ok=True)
    except OSError as error:
        raise JournalUnavailable(f"cannot set the journal {place} aside: {error}") from error
    return aside if aside.exists() else None


def _read(place: Path) -> list[tuple[str, str, bytes]]:
    with closing(sqlite3.connect(place)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        if "entries" not in tables:
            return []
        query = "SELECT kind, key, value FROM entries ORDER BY kind, key"
        return [(kind, key, bytes(value)) for kind, key, value in connection.execute(query)]
