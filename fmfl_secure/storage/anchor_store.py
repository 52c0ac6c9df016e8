"""One party's store of the others' heads, of ledgers and journals, for as long as it lives.

A site gives its ledger's head, signed, to the coordinator and to the other sites whenever it has
charged something. Before it reserves in a later run it asks for all of them again: a ledger that
was rolled back in between lacks the later ones.

`parties.site` keeps one of the other sites, and `runtime.anchor_registry` one of all. `keep` and
`keep_journals` take heads in, `held` and `journals` give them to whoever asks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from aggregation import PublicIdentity, read_journal_head
from fmfl_secure.errors import Nature, RunError
from fmfl_secure.storage.errors import make_missing, storage_errors
from privacy import Anchor
from privacy.storage import is_url, open_store, split_schema, with_schema

_TABLES = {
    "sqlite": (
        """CREATE TABLE anchors (public_key TEXT NOT NULL, population TEXT NOT NULL,
             sequence INTEGER NOT NULL, digest TEXT NOT NULL, line TEXT NOT NULL,
             PRIMARY KEY (public_key, population, sequence, digest)) STRICT""",
    ),
    "postgresql": (
        """CREATE TABLE anchors (public_key TEXT NOT NULL, population TEXT NOT NULL,
             sequence BIGINT NOT NULL, digest TEXT NOT NULL, line TEXT NOT NULL,
             PRIMARY KEY (public_key, population, sequence, digest))""",
    ),
}
# Of journals; in a store of their own, since one of 0.1.0 has the table above alone.
_JOURNALS = {
    "sqlite": (
        """CREATE TABLE journal_heads (public_key TEXT NOT NULL, journal TEXT NOT NULL,
             sequence INTEGER NOT NULL, line TEXT NOT NULL PRIMARY KEY) STRICT""",
    ),
    "postgresql": (
        """CREATE TABLE journal_heads (public_key TEXT NOT NULL, journal TEXT NOT NULL,
             sequence BIGINT NOT NULL, line TEXT NOT NULL PRIMARY KEY)""",
    ),
}
_KEEP_JOURNAL = "INSERT INTO journal_heads VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
# One that lacks an earlier head of its own chain lacks the latest too; forks are all kept.
_LATEST = """SELECT h.public_key, h.journal, h.sequence, h.line FROM journal_heads AS h JOIN
               (SELECT public_key, journal, MAX(sequence) AS latest FROM journal_heads
                GROUP BY public_key, journal) AS newest
               ON h.public_key = newest.public_key AND h.journal = newest.journal
                  AND h.sequence = newest.latest"""
# Only the latest of each is ever looked at.
_DROP_EARLIER = "DELETE FROM journal_heads WHERE public_key = ? AND journal = ? AND sequence < ?"
_TAKEN = "SELECT COALESCE(SUM(LENGTH(line)), 0) FROM anchors WHERE public_key = ?"
_KEEP = "INSERT INTO anchors VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_IS_KEPT = """SELECT 1 FROM anchors
                 WHERE public_key = ? AND population = ? AND sequence = ? AND digest = ?"""
_HELD = "SELECT line FROM anchors WHERE public_key = ? ORDER BY population, sequence, digest"


MOST_BYTES: Final = 4 << 20  # of one party's ledger heads; some 7,000 of them
MOST_JOURNALS: Final = 256  # heads of one party's journals: a journal has one, and one a fork


_JournalRow = tuple[str, str, int, str]  # key, journal, sequence, line


class HeadsFull(RunError):
    """A party has given as many heads as are kept of one; no more are."""

    nature: ClassVar[Nature] = "decided"


class AnchorStore:
    """Anchors of others' ledgers, all that were ever given: a fork shows in the ones it lacks.

    What one party can make this one keep has a limit, `most_bytes` and `MOST_JOURNALS`.

    Args:
        location: SQLite file, or URL of a PostgreSQL database; made when first written.
        most_bytes: Of one party's ledger heads.
        keep_open: Whether its connections are kept until `close`.
    """

    def __init__(
        self, location: Path | str, *, most_bytes: int = MOST_BYTES, keep_open: bool = False
    ) -> None:
        self._most_bytes = most_bytes
        self._store = open_store(location, schema="fmfl_anchors", keep_open=keep_open)
        if isinstance(location, str) and is_url(location):
            named = split_schema(location)[1] or "fmfl_anchors"
            beside: Path | str = with_schema(location, f"{named}_journals")
        else:
            beside = Path(location).with_name(f"journal-{Path(location).name}")
        self._journals = open_store(beside, schema="fmfl_journal_heads", keep_open=keep_open)
        # What this process kept last, by key: everybody is told everybody's heads many times a
        # round, and each would be verified and written again. One process writes a store.
        self._lock = threading.Lock()
        self._last: dict[str, tuple[str, tuple[str, str, int, str]]] = {}
        self._latest: dict[str, dict[str, tuple[int, set[str]]]] | None = None

    def close(self) -> None:
        """Release connections that were kept."""
        self._store.close()
        self._journals.close()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Its connections stay open inside, for several calls."""
        with self._store.kept_open(), self._journals.kept_open():
            yield

    def keep(self, given: Iterable[tuple[PublicIdentity, str]]) -> None:
        """Keep anchors, each given by the site that signed it; durable when this returns.

        Raises:
            LedgerError: One is not an anchor.
            HeadsFull: Of who gave it so many are kept; of the others all were.
            RunError: It is not signed by who gave it, or cannot be written.
        """
        anchors: list[Anchor] = []
        names: dict[str, str] = {}
        for giver, line in given:
            last = self._last.get(giver.key.hex())
            if last is not None and last[0] == line:
                continue
            anchor = Anchor.parse(line)
            if anchor.public_key != giver.key.hex():
                raise RunError(f"{giver.name} gave an anchor that another identity signed")
            if last is None or last[1] != _head(anchor):  # of one head, each second has a line
                anchors.append(anchor)
                names[anchor.public_key] = giver.name
        if not anchors:
            return
        full: dict[str, int] = {}
        with storage_errors("cannot keep ledger heads"):
            make_missing(self._store, _TABLES)
            with self._store.write() as transaction:
                for a in anchors:
                    ((taken,),) = transaction.execute(_TAKEN, a.public_key)
                    if int(taken) + len(a.line) > self._most_bytes and not transaction.execute(
                        _IS_KEPT, *_head(a)
                    ):
                        full[a.public_key] = int(taken)
                    else:
                        transaction.execute(_KEEP, *_head(a), a.line)
        self._last |= {
            a.public_key: (a.line, _head(a)) for a in anchors if a.public_key not in full
        }
        for key, taken in full.items():
            raise HeadsFull(
                f"the heads of {names[key]}'s ledgers take {taken} bytes here, at most "
                f"{self._most_bytes} are kept of one party",
                hint="Ask who charges so often; at a server, raise [limits] heads_bytes in "
                "service.toml.",
            )

    def keep_journals(self, given: Iterable[tuple[PublicIdentity, str]]) -> None:
        """Keep heads of journals, each given by the party that signed it; durable on return.

        Raises:
            AggregationError: One is no head.
            HeadsFull: Of who gave it, heads of so many journals are kept.
            RunError: It is not signed by who gave it, or cannot be written.
        """
        rows: list[_JournalRow] = []
        full: list[str] = []
        for giver, line in given:
            if line in self.journals(giver):
                continue
            head = read_journal_head(line)
            if head.public_key != giver.key.hex():
                raise RunError(f"{giver.name} gave a journal's head that another identity signed")
            row = (head.public_key, head.head.journal, head.head.sequence, line)
            if self._has_room([*rows, row], of=head.public_key):
                rows.append(row)
            else:
                full.append(giver.name)
        if rows:
            with storage_errors("cannot keep journal heads"):
                make_missing(self._journals, _JOURNALS)
                with self._journals.write() as transaction:
                    for row in rows:
                        transaction.execute(_KEEP_JOURNAL, *row)
                        transaction.execute(_DROP_EARLIER, *row[:3])
            with self._lock:
                latest = self._latest_journals()
                for row in rows:
                    _note_latest(latest, *row)
        if full:
            raise HeadsFull(
                f"heads of {MOST_JOURNALS} journals and forks are kept of {full[0]}, and no more"
            )

    def _has_room(self, rows: Iterable[_JournalRow], *, of: str) -> bool:
        """Of each journal the latest head is kept, and others of the same number: forks."""
        with self._lock:
            kept = self._latest_journals().get(of, {})
            latest = {of: {journal: (at, set(lines)) for journal, (at, lines) in kept.items()}}
        for row in rows:
            if row[0] == of:
                _note_latest(latest, *row)
        return sum(len(lines) for _, lines in latest[of].values()) <= MOST_JOURNALS

    def journals(self, of: PublicIdentity) -> list[str]:
        """The latest head of each journal of a party, and any that others saw in its place.

        Raises:
            RunError: They cannot be read.
        """
        with self._lock:
            by_journal = self._latest_journals().get(of.key.hex(), {})
            return sorted(line for _, lines in by_journal.values() for line in lines)

    def _latest_journals(self) -> dict[str, dict[str, tuple[int, set[str]]]]:
        if self._latest is None:
            latest: dict[str, dict[str, tuple[int, set[str]]]] = {}
            with storage_errors("cannot read the journal heads kept"):
                if self._journals.exists():
                    with self._journals.read() as transaction:
                        for row in transaction.execute(_LATEST):
                            _note_latest(latest, *row)
            self._latest = latest
        return self._latest

    def held(self, of: PublicIdentity) -> list[str]:
        """All anchors kept of a site's ledgers.

        Raises:
            RunError: They cannot be read.
        """
        with storage_errors("cannot read the ledger heads kept"):
            if not self._store.exists():
                return []
            with self._store.read() as transaction:
                return [row[0] for row in transaction.execute(_HELD, of.key.hex())]


def _head(anchor: Anchor) -> tuple[str, str, int, str]:
    return anchor.public_key, anchor.population, anchor.sequence, anchor.digest


def _note_latest(
    latest: dict[str, dict[str, tuple[int, set[str]]]],
    public_key: str,
    journal: str,
    sequence: int,
    line: str,
) -> None:
    by_journal = latest.setdefault(public_key, {})
    known, lines = by_journal.get(journal, (-1, set()))
    if sequence > known:
        by_journal[journal] = sequence, {line}
    elif sequence == known:
        lines.add(line)
