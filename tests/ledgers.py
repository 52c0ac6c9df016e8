"""Ledgers as others than this version wrote them."""

from __future__ import annotations

from privacy import Ledger
from privacy.ledger.chain import new_record
from privacy.ledger.tables import insert
from privacy.storage import open_store


def write(place, kind, body, *, signer):
    """Append a signed record past the product, as version 0.1.0 or whoever has the key would."""
    records = Ledger(place).records()
    record = new_record(previous=records[-1], kind=kind, body=body, signer=signer)
    with open_store(place).write() as transaction:
        insert(transaction, record)


def written_grant(place, *, signer, epsilon, delta, **more):
    """A grant as 0.1.0 wrote it, which asked for no size; returns its number."""
    number = len(Ledger(place).budget().grants) + 1
    body = {
        "grant": number,
        "epsilon": float(epsilon).hex(),
        "delta": float(delta).hex(),
        "orders": [6, 7],
        "purpose": "as 0.1.0 wrote it",
    }
    write(place, "grant", body | more, signer=signer)
    return number
