"""Messages of a rehearsal, as they are kept: read back by anybody, who trusts no keeper.

Whoever holds it could have altered it. So every message in it has to be signed by the party that
it stands under, and the parties have to be those that the reader knows. What a keeper can leave
out is what never came: then somebody is named for silence, which nobody can prove.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from aggregation.crypto.identity import PublicIdentity
from aggregation.errors import CohortError
from aggregation.protocol import checks, messages
from aggregation.protocol.exchange import read_exchange
from aggregation.protocol.messages import Opening
from aggregation.protocol.norms import NormCheck
from aggregation.protocol.rehearsal import read_reveal
from aggregation.protocol.round import FixedCohort

# Bytes: a thousand sites send 0.6 MB each, uploads, exchange messages and all.
MOST_EVIDENCE: Final = 1 << 30


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that came in a rehearsal, as it came: what anybody needs to judge it again.

    Attributes:
        plan: The signed plan.
        cohort: The fixed cohort.
        exchanges: Exchange messages, by site.
        manifests: Signed manifests of the uploads, by site.
        chunks: By site its chunks, the sealed secret last.
        openings: Openings, by site.
        release: The decryptor's; empty where none came.
        projections: Where norms are checked, what sites sent of them, by site.
        reveals: What parties revealed, by party.
    """

    plan: bytes
    cohort: bytes
    exchanges: dict[str, bytes]
    manifests: dict[str, bytes]
    chunks: dict[str, tuple[bytes, ...]]
    openings: dict[str, bytes]
    release: bytes
    projections: dict[str, bytes]
    reveals: dict[str, bytes]


def read_evidence(
    raw: bytes, coordinator: PublicIdentity, pinned: Mapping[str, PublicIdentity]
) -> tuple[FixedCohort, Evidence]:
    """Read kept evidence and verify every signature in it.

    Args:
        raw: As it was kept.
        coordinator: The federation's, from elsewhere.
        pinned: Sites and decryptor, by name, from elsewhere.

    Raises:
        RefusedError: Malformed; or a message is of another attempt, or by nobody who is pinned; or
            one that others build on is missing.
        CohortError: It is of no rehearsal, or a party has another key than the pinned one.
    """
    kept = messages.decode(raw, Evidence, MOST_EVIDENCE)
    cohort = checks.read_cohort(checks.read_plan(kept.plan, coordinator), kept.cohort)
    if not cohort.round.is_rehearsal:
        raise CohortError("it is of an attempt at a round, which nobody judges")
    decryptor = cohort.round.plan.decryptor
    for identity in (*(member.identity for member in cohort.members), decryptor):
        if pinned.get(identity.name) != identity:
            raise CohortError(
                f"{identity.name} took part with the key {identity.fingerprint}, which is not the "
                "one that is known here"
            )
    _require_signed(cohort, kept)
    return cohort, kept


def _require_signed(cohort: FixedCohort, kept: Evidence) -> None:
    # A site uploads once it has every exchange message: without one, masks would seem wrong.
    if kept.manifests and cohort.exchanges and set(kept.exchanges) != set(cohort.names):
        raise CohortError("sites uploaded, and an exchange message is missing")
    if set(kept.chunks) != set(kept.manifests):
        raise CohortError("chunks without the message that signs them, or the other way round")
    for name, message in kept.exchanges.items():
        _require_of(name, cohort.names[read_exchange(cohort, message).sender])
    for name, message in kept.manifests.items():
        _require_of(name, checks.read_upload(cohort, message)[0])
    for name, message in kept.openings.items():
        opening = messages.unseal(message, Opening, cohort.member(name))
        if opening.transcript != cohort.transcript:
            raise CohortError(f"the opening of {name} is of another attempt")
    for name, message in kept.reveals.items():
        _require_of(name, read_reveal(cohort, message)[0])
    _require_release(cohort, kept)


def _require_release(cohort: FixedCohort, kept: Evidence) -> None:
    if not kept.release:
        if kept.projections:
            raise CohortError("projections without the release that they are of")
        return
    release = checks.read_release(cohort, kept.release)
    for name, message in kept.projections.items():
        _require_of(name, NormCheck(cohort, release.mark).read(message)[0])


def _require_of(name: str, sender: str) -> None:
    if name != sender:
        raise CohortError(f"a message of {sender} stands under the name of {name}")
