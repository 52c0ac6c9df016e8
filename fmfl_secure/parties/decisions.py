"""Decisions of people at a party, which its process obeys and carries to others."""

from __future__ import annotations

from pathlib import Path

from fmfl_secure.parties.acts import ActLog
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.stops import Stops
from fmfl_secure.parties.workspace import Members


class Decisions:
    """A party's, in its folder.

    Args:
        folder: The party's.
        members: All parties, as this one trusts them; None takes them from the folder each time.

    Attributes:
        acts: Its log of what was done here, whose head others keep.

    Raises:
        AggregationError: Its key cannot be read.
    """

    def __init__(self, folder: Path, members: Members | None = None) -> None:
        self._folder = folder
        self._members = members
        self._held = MembershipFolder(folder)
        self.acts = ActLog(folder)

    @property
    def stops(self) -> Stops:
        """The stops of runs that are kept here."""
        return Stops(self._folder, self._members or self._held.members())
