"""A party's own copy of who belongs to the federation: what it pinned, and each signed change.

    members.json              public keys of all parties, as this party trusts them
    membership/00001.list     the coordinator's signed lists that this party approved, in order

A folder without lists knows `members.json` alone, as in the embedded engine, and at a party that
drew its own keys until it first meets the server.

Each party opens its own (`runtime.server`, `parties.site`); the coordinator signs a list with a
change, and a site's people approve it (`cli.members`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aggregation import Identity, MembershipList, PublicIdentity
from aggregation.protocol import (
    follow_membership,
    membership_name,
    read_membership,
    sign_membership,
)
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.workspace import Members
from fmfl_secure.storage.files import write_files

_TICK_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """Members that a next list adds and removes.

    Attributes:
        number: Of the list.
        added: New members, and members with a new key.
        removed: Names of members that are gone.
    """

    number: int
    added: tuple[PublicIdentity, ...]
    removed: tuple[str, ...]


class MembershipFolder:
    """A party's folder, as far as membership goes.

    Args:
        folder: With `members.json`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: tuple[object, Members] | None = None
        self._approved: tuple[object, list[bytes]] | None = None

    def members(self) -> Members:
        """Everyone this party trusts now.

        Raises:
            ConfigError: `members.json` is missing or malformed.
        """
        file = self._folder / "members.json"
        # A server asks at every request; the file is read again once it was replaced.
        try:
            found = file.stat()
        except OSError:
            return Members.load(file)  # which says what is wrong
        version = found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
        if self._read is None or self._read[0] != version:
            self._read = version, Members.load(file)
        return self._read[1]

    def lists(self) -> list[bytes]:
        """Approved lists, from the first."""
        # As for members: a server asks at every request, and a new list is a new file.
        try:
            found = (self._folder / "membership").stat()
        except FileNotFoundError:
            return []
        version = found.st_ino, found.st_mtime_ns, found.st_ctime_ns
        if self._approved is not None and self._approved[0] == version:
            return list(self._approved[1])
        paths = sorted((self._folder / "membership").glob("*.list"))
        lists = [path.read_bytes() for path in paths]
        # Another change at the same tick of the clock would go unseen.
        settled = time.time_ns() - found.st_mtime_ns > _TICK_NS
        self._approved = (version, lists) if settled else None
        return list(lists)

    def last(self) -> bytes | None:
        """The list in force here, or None."""
        lists = self.lists()
        return lists[-1] if lists else None

    def begin(self, message: bytes) -> None:
        """Keep the first list.

        Raises:
            ConfigError: There is one, or it is not a first list.
        """
        body = read_membership(message, self.members().coordinator)
        if self.last() is not None or body.number != 1:
            raise ConfigError("this party has a membership list already, or this is not the first")
        self._write(body, message)

    def adopt(self, lists: Sequence[bytes]) -> int:
        """Keep the lists up to the one that has whom this party pinned; it has none yet.

        They change nothing in whom the party trusts, so that nobody has to approve them. Lists
        after that one go the usual way.

        Args:
            lists: From the first on, as far as there are any.

        Returns:
            How many were kept.

        Raises:
            ConfigError: There is a list here, or none of these has the sites that are pinned.
            AggregationError: One does not follow, or is not the coordinator's.
        """
        members = self.members()
        if self.last() is not None:
            raise ConfigError("this party has a membership list already")
        kept = 0
        for number, message in enumerate(lists, 1):
            if number == 1:
                body = read_membership(message, members.coordinator)
            else:
                body = follow_membership(lists[number - 2], message, members.coordinator)
            if body.number != number:
                raise ConfigError("the coordinator's lists of members do not begin with the first")
            if {member.name: member for member in body.members} == members.sites:
                kept = number
        if not kept:
            raise ConfigError(
                "no list of the coordinator's has the sites that this party pinned",
                hint="Compare fingerprints with the others: fmfl-secure ceremony show KIT.",
            )
        named = {f"{number:05}.list": each for number, each in enumerate(lists[:kept], 1)}
        write_files(self._folder / "membership", named)
        return kept

    def change(self, message: bytes) -> Change:
        """Compares a next list with the one held; nothing is written.

        Raises:
            ConfigError: There is no list to follow on.
            AggregationError: It does not follow, or is not the coordinator's.
        """
        held, following = self._following(message)
        old = {member.name: member for member in held.members}
        new = {member.name: member for member in following.members}
        return Change(
            number=following.number,
            added=tuple(member for name, member in new.items() if old.get(name) != member),
            removed=tuple(sorted(set(old) - set(new))),
        )

    def approve(self, message: bytes) -> None:
        """Take over the next list; from now on its members are trusted, and no others.

        Raises:
            ConfigError: There is no list to follow on.
            AggregationError: It does not follow, or is not the coordinator's.
        """
        _, following = self._following(message)
        self._write(following, message)

    def _following(self, message: bytes) -> tuple[MembershipList, MembershipList]:
        current, coordinator = self.last(), self.members().coordinator
        if current is None:
            raise ConfigError("this party has no membership list to follow on")
        return read_membership(current, coordinator), follow_membership(
            current, message, coordinator
        )

    def _write(self, body: MembershipList, message: bytes) -> None:
        members = replace(self.members(), sites={m.name: m for m in body.members})
        # The list last: a crash between the two leaves a list that can be approved again.
        write_files(self._folder, {"members.json": members.encode()})
        write_files(self._folder / "membership", {f"{body.number:05}.list": message})


def next_list(
    identity: Identity, current: bytes | None, *, federation: str, members: Members
) -> bytes:
    """Sign the list that follows on `current` and has these sites; whoever is gone is revoked.

    Args:
        identity: The coordinator's.
        current: The list in force; None makes the first.
        federation: Name of the federation.
        members: All parties.

    Raises:
        AggregationError: `current` is not the coordinator's, or a revoked key would come back.
    """
    sites = tuple(members.sites.values())
    if current is None:
        return sign_membership(identity, MembershipList(federation, 1, "", sites))
    held = read_membership(current, identity.public)
    gone = {m.fingerprint for m in held.members} - {m.fingerprint for m in sites}
    revoked = tuple(sorted(set(held.revoked) | gone))
    following = MembershipList(
        federation, held.number + 1, membership_name(current), sites, revoked
    )
    return sign_membership(identity, following)


def digest_of(message: bytes | None) -> str:
    """How plans name a list; empty for none."""
    return "" if message is None else membership_name(message)
