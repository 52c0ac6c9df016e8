"""Whose keys are whose, in sentences: who drew them, and who has compared fingerprints."""

from __future__ import annotations

import msgspec

from fmfl_secure.report.names import capital, count, listing
from fmfl_secure.run.keys_record import KeysRecord
from fmfl_secure.run.record import RunRecord

_ONE_PLACE = (
    "A simulation: all parties' keys were drawn in one place. Whoever has access to it can sign as "
    "any site and open what any single site sends; no separation of the parties is shown."
)
_UNSAID = (
    "This record does not say who drew the parties' keys, or who compared them: nothing here shows "
    "that they are not all one party's, which could sign as any site and open what any single site "
    "sends. Ask each site for its own fingerprint."
)


def warnings(record: RunRecord) -> list[str]:
    """Warns on the first page of keys that one party drew, or nobody compared."""
    keys = record.keys
    if isinstance(keys, msgspec.UnsetType):
        return [_UNSAID]
    if keys.one_place:
        return [_ONE_PLACE]
    found = []
    drawn = _drawn_elsewhere(keys)
    if drawn:
        found.append(
            f"The keys of {listing(drawn)} were drawn by somebody else, who can sign and open in "
            "their place."
        )
    if keys.missing:
        found.append(
            f"{capital(listing(keys.missing))} had not signed, as far as the server knew when the "
            "run began, that the keys in use are the parties' own. Somebody between them could "
            "hold other keys."
        )
    return found


def sentences(record: RunRecord) -> list[str]:
    """Says who drew the keys and who compared them, for the page's part about encryption."""
    keys = record.keys
    if isinstance(keys, msgspec.UnsetType):
        return [_UNSAID]
    if keys.one_place:
        return warnings(record)
    compared = sorted(keys.compared, key=lambda one: one.party)
    if not compared:
        return warnings(record)
    dates = sorted({one.at[:10] for one in compared})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    signed = (
        f"{capital(listing([one.party for one in compared]))} signed ({span}) that another party "
        f"read the fingerprint of all keys to them and that it was theirs: {keys.fingerprint}."
    )
    own = [one.party for one in compared if one.drew_own_keys]
    drew = f"Of these, {count(len(own), 'party', 'parties')} signed to have drawn their own keys."
    return [signed, drew, *warnings(record)]


def _drawn_elsewhere(keys: KeysRecord) -> list[str]:
    return sorted(one.party for one in keys.compared if not one.drew_own_keys)
