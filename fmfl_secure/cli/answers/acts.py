"""Answers of the commands about a party's log of acts."""

from __future__ import annotations

from typing import Any, Literal

from fmfl_secure.cli.answers.base import Answer


class ActShown(Answer, frozen=True, kw_only=True):
    """An act, or what the log found by itself.

    Attributes:
        entry: Place of the entry that it begins with.
        at: UTC time of that.
        user: Who acted, by the operating system.
        permit: Number of the permit that they said they act under; empty for none.
        act: Which command; empty for what the log found, and for a log in place of a lost one.
        state: `done`, `refused`, `interrupted` or `failed`; `begun` while no end is recorded: under
            way, or cut off; `found`, settings that say something else than before; `recovered`,
            that the log stands in place of one that was lost.
        ended: UTC time of its end; empty while there is none.
        code: Word of the error that ended it.
        facts: What the command lists of its arguments and of its answer, by name.
    """

    entry: int
    at: str
    user: str
    permit: str
    act: str
    state: Literal["begun", "done", "refused", "interrupted", "failed", "found", "recovered"]
    ended: str
    code: str
    facts: dict[str, Any]


class ActsShown(Answer, frozen=True, kw_only=True):
    """A party's log of acts, verified.

    Attributes:
        party: Whose.
        entries: How many entries it has.
        acts: What happened, from the first.
    """

    party: str
    entries: int
    acts: tuple[ActShown, ...]


class ActsVerified(Answer, frozen=True, kw_only=True):
    """A log of acts, or an export of one, that verifies.

    Attributes:
        party: Whose.
        signed_by: Fingerprint of the key that signed it.
        entries: How many entries it has.
        heads: How many heads that others kept of it, or exports, were held against it.
    """

    party: str
    signed_by: str
    entries: int
    heads: int


class ActsRecovered(Answer, frozen=True, kw_only=True):
    """A log that was begun in place of one that does not hold.

    Attributes:
        log: Its file.
        aside: Where the old one is now; empty where nothing of it was left.
    """

    log: str
    aside: str
