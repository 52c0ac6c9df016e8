"""Who belongs to a federation: a signed list, each naming the one before it.

A change of members, a new key or a revocation is a new list with the next number. What was revoked
never comes back. A plan may name the list it was made under; a site that is given the list then
takes part only with those on it. Plan, list and fingerprints all go into the transcript.
"""

from __future__ import annotations

from typing import ClassVar

from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import PlanError
from aggregation.protocol import messages
from aggregation.protocol.messages import Body
from aggregation.protocol.plan import Counter, RoundPlan


class MembershipList(Body, frozen=True, forbid_unknown_fields=True):
    """The members of a federation at one time.

    Attributes:
        federation: Its name.
        number: 1, then one more with every change.
        previous: `sha256:` of the message before; empty for the first.
        members: Sites, by name and key.
        revoked: Fingerprints that must never be trusted again.
    """

    KIND: ClassVar[str] = "membership"
    CAP: ClassVar[int] = 4 * 1024 * 1024

    federation: str
    number: Counter
    previous: str
    members: tuple[PublicIdentity, ...]
    revoked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = [m.key for m in self.members]
        names = [m.name for m in self.members]
        if len(set(keys)) != len(keys) or len(set(names)) != len(names):
            raise PlanError("two members of a federation have one name or one key")
        still = {m.fingerprint for m in self.members} & set(self.revoked)
        if still:
            raise PlanError(f"a revoked key is on the list: {min(still)}")
        if bool(self.previous) != (self.number > 1):
            raise PlanError("only the first list of a federation names none before it")


def membership_name(message: bytes) -> str:
    """How a plan or the next list names a list: `sha256:` of the whole message."""
    return "sha256:" + messages.digest(message).hex()


def read_membership(message: bytes, coordinator: PublicIdentity) -> MembershipList:
    """Verify a list.

    Raises:
        RefusedError: Malformed, or not the coordinator's.
    """
    return messages.unseal(message, MembershipList, coordinator)


def follow_membership(
    current: bytes, following: bytes, coordinator: PublicIdentity
) -> MembershipList:
    """Verify that a list is the next after the one that is held.

    Raises:
        PlanError: Not the next, of another federation, or it forgets a revocation.
        RefusedError: Malformed, or not the coordinator's.
    """
    old, new = read_membership(current, coordinator), read_membership(following, coordinator)
    if new.previous != membership_name(current) or new.number != old.number + 1:
        raise PlanError("a membership list is not the next after the one held here")
    if new.federation != old.federation:
        raise PlanError("a membership list is of another federation")
    forgotten = set(old.revoked) - set(new.revoked)
    if forgotten:
        raise PlanError(f"a membership list forgets a revocation: {min(forgotten)}")
    return new


def check_plan(plan: RoundPlan, message: bytes, coordinator: PublicIdentity) -> None:
    """Refuse a plan that is not of this list.

    Raises:
        PlanError: It names another list, or invites somebody who is not on it or was revoked.
    """
    held = read_membership(message, coordinator)
    if plan.membership_digest != membership_name(message) or plan.federation != held.federation:
        raise PlanError("the plan was made under another membership list")
    known = set(held.members)
    strangers = {m.identity.name for m in plan.members if m.identity not in known}
    if strangers:
        raise PlanError(f"the plan invites who is no member: {', '.join(sorted(strangers))}")
    roles = (plan.aggregator, plan.decryptor, *plan.custodians)
    revoked = {party.fingerprint for party in roles} & set(held.revoked)
    if revoked:
        raise PlanError(f"the plan gives a role to a revoked key: {min(revoked)}")


def sign_membership(identity: Identity, body: MembershipList) -> bytes:
    """Sign a list; what the coordinator does.

    Raises:
        MessageError: A field has another type or is out of range.
    """
    message = messages.seal(identity, body)
    read_membership(message, identity.public)  # a constructor checks no types; the wire does
    return message
