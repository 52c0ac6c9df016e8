"""What one party keeps of the others' ledgers: the heads that it saw, for as long as it lives.

A site gives its ledger's head, signed, to the coordinator and to the other sites whenever it has
charged something. Before it reserves in a later run it asks for all of them again: a ledger that
was rolled back in between lacks the later ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aggregation import PublicIdentity
from fmfl_secure.errors import RunError
from fmfl_secure.storage.errors import make_missing, storage_errors
from privacy import Anchor
from privacy.storage import open_store

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
_KEEP = "INSERT INTO anchors VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_HELD = "SELECT line FROM anchors WHERE public_key = ? ORDER BY population, sequence, digest"


class AnchorStore:
    """Anchors of others' ledgers, all that were ever given: a fork shows in the ones it lacks.

    Args:
        location: SQLite file, or URL of a PostgreSQL database; made when first written.
    """

    def __init__(self, location: Path | str) -> None:
        self._store = open_store(location, schema="fmfl_anchors")

    def keep(self, given: Iterable[tuple[PublicIdentity, str]]) -> None:
        """Keep anchors, each given by the site that signed it; durable when this returns.

        Raises:
            LedgerError: One is not an anchor.
            RunError: It is not signed by who gave it, or cannot be written.
        """
        anchors = []
        for giver, line in given:
            anchor = Anchor.parse(line)
            if anchor.public_key != giver.key.hex():
                raise RunError(f"{giver.name} gave an anchor that another identity signed")
            anchors.append(anchor)
        if not anchors:
            return
        with storage_errors("cannot keep ledger heads"):
            make_missing(self._store, _TABLES)
            with self._store.write() as transaction:
                for a in anchors:
                    row = (a.public_key, a.population, a.sequence, a.digest, a.line)
                    transaction.execute(_KEEP, *row)

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
