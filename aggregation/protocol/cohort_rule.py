"""Whether a cohort would protect a party: what a site, a decryptor and a custodian ask alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Final

import msgspec

from aggregation.crypto.identity import PublicIdentity
from aggregation.errors import PlanError
from aggregation.protocol.plan import Member, RoundPlan

MIN_COHORT: Final = 3  # with fewer, a sum tells each of two sites the other's update


def effective_cohort(members: Iterable[Member]) -> Fraction:
    """(sum w)**2 / sum w**2: how many equal sites a weighted cohort is worth, exactly."""
    # A weight is at least 2**-10 and has 53 bits, so this many places hold it exactly.
    weights = [int(math.ldexp(m.weight, 63)) for m in members]
    return Fraction(sum(weights) ** 2, sum(w * w for w in weights) or 1)


def admit(
    plan: RoundPlan,
    members: Iterable[Member],
    own: PublicIdentity,
    pinned: Mapping[str, PublicIdentity],
    min_cohort: int,
    floor: int = 0,
) -> None:
    """Decide whether a cohort protects this party (step 2, and again once it is fixed).

    Only members that this party pinned count, since others may be one and the same adversary.

    Args:
        plan: The verified plan.
        members: Those invited, or those of the fixed cohort.
        own: This party.
        pinned: Identities this party trusts to be who they are, by name.
        min_cohort: This party's own smallest cohort, at least 3, as many equal sites.
        floor: The same, counting sites whatever they weigh: its share of all that it pinned. Who
            picks a cohort could else pick the fewest, colluding but for one.

    Raises:
        PlanError: A pinned name with another key, a role nobody pinned, or too few members; or a
            member nobody pinned, where sites may vanish.
    """
    if min_cohort < MIN_COHORT:
        raise PlanError(
            f"min_cohort {min_cohort} is below {MIN_COHORT}: a sum of two hides nothing"
        )
    trusted = {**pinned, own.name: own}
    parties = [("aggregator", plan.aggregator), ("decryptor", plan.decryptor)]
    parties += [("custodian", custodian) for custodian in plan.custodians]
    for role, party in parties:
        if trusted.get(party.name) != party:
            raise PlanError(f"the {role} {party.name} is not pinned with this key")
    counted: list[Member] = []
    for member in members:
        known = trusted.get(member.identity.name)
        if known is not None and known != member.identity:
            raise PlanError(f"the site {member.identity.name} is pinned with another key")
        if known is None and plan.vanishing is not msgspec.UNSET:
            # Its opening would count like any other, and whose it is nobody knows.
            raise PlanError(f"the site {member.identity.name} is pinned nowhere, and may open")
        if known is not None:
            counted.append(member)
    if len(counted) < min_cohort or effective_cohort(counted) < min_cohort:
        raise PlanError(
            f"{len(counted)} pinned sites, worth {float(effective_cohort(counted)):.2f} equal "
            f"ones by weight, are fewer than min_cohort {min_cohort}"
        )
    if len(counted) < floor:
        raise PlanError(
            f"{len(counted)} pinned sites are fewer than the {floor} that this party's share of "
            "all sites comes to"
        )
