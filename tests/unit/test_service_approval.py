"""A site takes over lists that only remove; a newcomer waits for the site's own people."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from aggregation import Identity
from fmfl_secure.errors import KNOWN_ERRORS, NotApproved, ServiceError
from fmfl_secure.parties.membership import MembershipFolder, next_list
from fmfl_secure.parties.workspace import Members
from fmfl_secure.transports.https.membership import decode_lists, follow_removals

NAMES = ("site-1", "site-2", "site-3", "site-4")


class Held:
    """A site's folder with the first list, and a coordinator that signs further ones."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = Identity.generate("coordinator")
        public = {n: Identity.generate(n).public for n in ("aggregator", "decryptor")}
        sites = {n: Identity.generate(n).public for n in NAMES}
        self.members = Members(self.coordinator.public, **public, sites=sites)
        (folder / "members.json").write_bytes(self.members.encode())
        self.folder = MembershipFolder(folder)
        self.lists = [self.sign(None, *NAMES)]
        self.folder.begin(self.lists[0])

    def sign(self, current: bytes | None, *names: str, new: str = "") -> bytes:
        sites = {n: self.members.sites[n] for n in names}
        if new:
            sites[new] = Identity.generate(new).public
        members = replace(self.members, sites=sites)
        return next_list(self.coordinator, current, federation="tiny", members=members)

    def change_to(self, *names: str, new: str = "") -> None:
        self.lists.append(self.sign(self.lists[-1], *names, new=new))

    def fetch(self, after: int) -> list[str]:
        return [base64.b64encode(message).decode() for message in self.lists[after:]]


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


def test_lists_that_only_remove_are_taken_over(held: Held) -> None:
    held.change_to("site-1", "site-2", "site-3")
    held.change_to("site-1", "site-2")
    follow_removals(held.folder, 3, held.fetch)
    assert set(held.folder.members().sites) == {"site-1", "site-2"}
    assert held.folder.last() == held.lists[-1]


def test_a_newcomer_waits_for_approval(held: Held) -> None:
    held.change_to("site-1", "site-2", "site-3")
    held.change_to("site-1", "site-2", "site-3", new="site-5")
    with pytest.raises(NotApproved, match="site-5"):
        follow_removals(held.folder, 3, held.fetch)
    assert set(held.folder.members().sites) == {"site-1", "site-2", "site-3"}
    held.folder.approve(held.lists[2])
    follow_removals(held.folder, 3, held.fetch)
    assert "site-5" in held.folder.members().sites


def test_a_member_s_new_key_waits_for_approval(held: Held) -> None:
    held.change_to("site-1", "site-2", "site-3", new="site-4")
    with pytest.raises(NotApproved, match="site-4"):
        follow_removals(held.folder, 2, held.fetch)


def test_a_forged_list_changes_nothing(held: Held) -> None:
    held.coordinator = Identity.generate("coordinator")
    held.lists.append(held.sign(None, "site-1"))
    with pytest.raises(KNOWN_ERRORS):
        follow_removals(held.folder, 2, held.fetch)
    assert set(held.folder.members().sites) == set(NAMES)


def test_a_server_that_has_no_more_lists_is_believed_nothing(held: Held) -> None:
    follow_removals(held.folder, 9, held.fetch)
    assert len(held.folder.lists()) == 1
    with pytest.raises(ServiceError, match="malformed"):
        decode_lists(["***"])
