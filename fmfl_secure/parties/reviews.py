"""Which decisions should have been looked at again by now: nothing ends then, somebody is told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from fmfl_secure.settings.federation import FederationConfig
from privacy import GrantStatus


def reviews_due(config: FederationConfig, grants: Iterable[GrantStatus] = ()) -> list[str]:
    """Decisions whose day of review is past, each with that day; in words, for people.

    Args:
        config: The federation's settings, whose epsilon somebody decided.
        grants: A site's own, where there are any; closed ones are over.
    """
    today = dt.datetime.now(dt.UTC).date()
    due = [
        f"grant {each.grant.number} by {each.grant.decided.review_on}"
        for each in grants
        if each.grant.decided.is_due(today) and not each.grant.closed
    ]
    if config.privacy.decided.is_due(today):
        due.append(f"privacy.epsilon in federation.toml by {config.privacy.review_on}")
    return due


def review_notice(due: Iterable[str]) -> str:
    """Words the reviews that are due for a page; empty where none is."""
    named = "; ".join(due)
    return f"somebody was to look again at {named}" if named else ""
