"""Derives what follows from a verified plan, and from a verified cohort. No I/O, no secrets.

`checks.read_plan` makes the first, `checks.read_cohort` the second; all roles work with these two
and never with a plan or a cohort message that was not verified.

`roles.site`, `roles.aggregator` and `roles.decryptor` hold one of each for an attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from aggregation.ckks import residues
from aggregation.ckks.packing import Packing
from aggregation.ckks.parameters import COLLECTIVE, ParameterSet, parameter_set
from aggregation.ckks.residues import Residues
from aggregation.crypto import graph
from aggregation.crypto.identity import PublicIdentity
from aggregation.crypto.pairwise import HYBRID
from aggregation.errors import CohortError
from aggregation.protocol import messages
from aggregation.protocol.messages import Body, Ready
from aggregation.protocol.plan import Member, RoundPlan


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """A verified plan, and what follows from it: two of one message are equal."""

    plan: RoundPlan
    message: bytes
    digest: bytes
    parameters: ParameterSet
    packing: Packing
    _members: Mapping[str, Member] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_name = {member.identity.name: member for member in self.plan.members}
        object.__setattr__(self, "_members", by_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Round) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def invited(self, name: str) -> Member:
        """Whom the plan invites by this name.

        Raises:
            CohortError: Nobody.
        """
        member = self._members.get(name)
        if member is None:
            raise CohortError("a ready message comes from nobody the plan invites")
        return member

    @property
    def collective(self) -> bool:
        """Whether sites encrypt under secrets of their own."""
        return self.parameters.suite == COLLECTIVE

    @property
    def hybrid(self) -> bool:
        """Whether pairwise secrets hang on ML-KEM too."""
        return self.plan.key_agreement == HYBRID

    @property
    def shares(self) -> bool:
        """Whether sites share their self-masks out, so that some may vanish."""
        return self.plan.vanishing is not msgspec.UNSET

    @property
    def checks_norms(self) -> bool:
        """Whether sites send projections of their updates, so that norms can be checked."""
        return self.plan.norms is not msgspec.UNSET

    @property
    def is_rehearsal(self) -> bool:
        """Whether it is of no round: on public integers, with secrets that are all revealed."""
        return self.plan.rehearsal is not msgspec.UNSET

    @property
    def upload_items(self) -> int:
        """Entries of a manifest: the chunks, and in the collective suite one for the secret."""
        return self.packing.chunks + (1 if self.collective else 0)

    @property
    def polynomial_size(self) -> int:
        """Bytes of one polynomial's residues on the wire."""
        return residues.packed_size(self.packing.degree, self.parameters.modulus)

    @property
    def chunk_residues(self) -> int:
        """Residues of one chunk on the wire."""
        return self.parameters.polynomials * self.parameters.poly_modulus_degree

    @property
    def chunk_size(self) -> int:
        """Bytes of one chunk on the wire."""
        return residues.packed_size(self.chunk_residues, self.parameters.modulus)

    def cap(self, kind: type[Body]) -> int:
        """Largest message of a kind in this round, in bytes."""
        return kind.cap(chunks=self.upload_items, values=self.packing.size)

    def unpack_chunks(self, chunks: Sequence[bytes]) -> Residues:
        """Validate a few chunks; shape (n, P, N).

        Raises:
            UploadError: Another length, or a residue that is not below q.
        """
        count, modulus = len(chunks) * self.chunk_residues, self.parameters.modulus
        flat = residues.unpack(b"".join(chunks), count, modulus)
        return flat.reshape(len(chunks), self.parameters.polynomials, -1)

    def split_chunks(self, chunks: Sequence[bytes]) -> Residues:
        """As `unpack_chunks`, but pairs of residues split; shape (2, n, half a chunk's residues).

        Raises:
            UploadError: Another length, or a residue that is not below q.
        """
        count, modulus = len(chunks) * self.chunk_residues, self.parameters.modulus
        planes = residues.split(b"".join(chunks), count, modulus)
        return planes.reshape(2, len(chunks), self.chunk_residues // 2)

    def round_key(self, identity: PublicIdentity) -> str:
        """Journal key of this round, for one party; a rehearsal's is no round's."""
        plan = self.plan
        number = f"rehearsal/{plan.round}" if self.is_rehearsal else f"{plan.round}"
        return f"{identity.fingerprint}/{plan.federation}/{plan.run}/{number}"

    def attempt_key(self, identity: PublicIdentity) -> str:
        """Journal key of this attempt, for one party."""
        return f"{self.round_key(identity)}/{self.plan.attempt}"


@dataclass(frozen=True, slots=True)
class FixedCohort:
    """A cohort whose every signature was checked.

    Attributes:
        round: The plan's round.
        transcript: Hash over plan, announcement and all ready messages.
        material: The decryptor's announced public material.
        members: Who takes part, in the plan's order.
        readies: Their single-use public keys, in the same order.
        custodians: Those of the plan's custodians, in the plan's order.
        names: Names of the members.
    """

    round: Round
    transcript: bytes
    material: bytes
    members: tuple[Member, ...]
    readies: tuple[Ready, ...]
    custodians: tuple[Ready, ...]
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _places: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(member.identity.name for member in self.members)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "_places", {name: place for place, name in enumerate(names)})

    @property
    def chooses(self) -> bool:
        """Whether each site chooses its neighbours; in any other cohort they are all pairs."""
        return len(self.members) > graph.ALL_PAIRS_UP_TO

    @property
    def shares(self) -> bool:
        """Whether sites share their self-masks out, so that some may vanish."""
        return self.round.shares

    @property
    def exchanges(self) -> bool:
        """Whether `exchange` messages are needed before anything is masked."""
        return self.round.hybrid or self.chooses or self.shares

    @property
    def openings(self) -> int:
        """How many sites must open before the sum does: all, or t where some may vanish."""
        allowed = self.round.plan.vanishing
        if allowed is msgspec.UNSET:
            return len(self.members)
        return max(len(self.members) - allowed.sites, allowed.openings)

    def initiates(self, index: int) -> tuple[int, ...]:
        """Of all pairs, those of a position that it sends key material for."""
        return graph.initiates(len(self.members), index, self.transcript)

    def position(self, name: str) -> int:
        """Place of a member.

        Raises:
            CohortError: Nobody of that name is in the cohort.
        """
        place = self._places.get(name)
        if place is None:
            raise CohortError("a message comes from outside the cohort")
        return place

    def member(self, name: str) -> PublicIdentity:
        """Identity of a member.

        Raises:
            CohortError: Nobody of that name is in the cohort.
        """
        return self.members[self.position(name)].identity

    @property
    def integer_dtype(self) -> np.dtype[np.signedinteger]:
        """Narrowest little-endian integer that holds every possible sum."""
        for code in ("<i2", "<i4"):
            if self.limit <= np.iinfo(code).max:
                return np.dtype(code)
        return np.dtype("<i8")

    @property
    def limit(self) -> int:
        """Largest absolute value of a released integer."""
        return len(self.members) * self.round.packing.encoding.limit


def of_plan(plan: RoundPlan, message: bytes) -> Round:
    """Derive a round from a plan whose signature is known to be right."""
    parameters = parameter_set(plan.parameter_set)
    encoding = parameters.encoding(len(plan.members), plan.quantization.bits)
    packing = Packing(plan.quantization.size, parameters.poly_modulus_degree, encoding)
    return Round(plan, message, messages.digest(message), parameters, packing)
