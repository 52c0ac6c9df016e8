"""What all roles check alike: a plan, a cohort, a release. No I/O and no secrets.

    step  message        from          who acts on it here
    1     plan           coordinator   everybody: `read_plan`
    2     -              -             site, decryptor: `admit`
    4     announcement   decryptor     coordinator and everybody after it: `read_cohort`
    4     ready          site          coordinator: `read_ready`
    4     cohort         coordinator   everybody: `read_cohort`
    5     upload         site          aggregator
    6     opening-list   aggregator    site, decryptor
    6     opening        site          aggregator
    7     sum            aggregator    decryptor
    8     release        decryptor     site, coordinator: `read_release`

A later message names the earlier ones by the transcript hash, so one of another round, run,
attempt or cohort never fits. The cohort message needs no trust: all it carries is signed by others
and hashed into the transcript.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from . import messages, residues, suites
from .errors import CohortError, PlanError, ReleaseError, UploadError
from .identity import PublicIdentity
from .messages import Announcement, Cohort, Member, Ready, Release, RoundPlan
from .packing import Packing
from .parameters import ParameterSet, parameter_set
from .residues import Residues

MIN_COHORT: Final = 3  # with fewer, a sum tells each of two sites the other's update


@dataclass(frozen=True, slots=True)
class Upload:
    """A site's upload, or the aggregator's sum.

    Attributes:
        manifest: Signed message with the digest of every chunk.
        chunks: Bit-packed residues, in order.
    """

    manifest: bytes
    chunks: Sequence[bytes] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes on the wire."""
        return len(self.manifest) + sum(len(chunk) for chunk in self.chunks)


SumUpload = Upload


@dataclass(frozen=True, slots=True)
class Round:
    """A plan whose signature was checked, and what follows from it."""

    plan: RoundPlan
    message: bytes
    digest: bytes
    parameters: ParameterSet
    packing: Packing

    @property
    def chunk_residues(self) -> int:
        """Residues of one chunk on the wire."""
        return self.parameters.polynomials * self.parameters.poly_modulus_degree

    @property
    def chunk_size(self) -> int:
        """Bytes of one chunk on the wire."""
        return residues.packed_size(self.chunk_residues, self.parameters.modulus)

    def unpack_chunk(self, chunk: bytes) -> Residues:
        """Validate a chunk; shape (P, N).

        Raises:
            UploadError: Another length, or a residue that is not below q.
        """
        flat = residues.unpack(chunk, self.chunk_residues, self.parameters.modulus)
        return flat.reshape(self.parameters.polynomials, -1)

    def round_key(self, identity: PublicIdentity) -> str:
        """Journal key of this round, for one party."""
        plan = self.plan
        return f"{identity.fingerprint}/{plan.federation}/{plan.run}/{plan.round}"

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
        keys: Their X25519 public keys, in the same order.
    """

    round: Round
    transcript: bytes
    material: bytes
    members: tuple[Member, ...]
    keys: tuple[bytes, ...]

    def member(self, name: str) -> PublicIdentity:
        """Identity of a member.

        Raises:
            CohortError: Nobody of that name is in the cohort.
        """
        for member in self.members:
            if member.identity.name == name:
                return member.identity
        raise CohortError("a message comes from outside the cohort")

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


def read_plan(message: bytes, coordinator: PublicIdentity) -> Round:
    """Verify a plan (step 1).

    Raises:
        RefusedError: It is not a plan by this coordinator.
    """
    plan = messages.unseal(message, RoundPlan, coordinator, messages.PLAN_CAP)
    if plan.coordinator != coordinator:
        raise PlanError("the plan names another coordinator than the one who signed it")
    return of_plan(plan, message)


def of_plan(plan: RoundPlan, message: bytes) -> Round:
    """Derive a round from a plan whose signature is known to be right."""
    parameters = parameter_set(plan.parameter_set)
    encoding = parameters.encoding(len(plan.members), plan.quantization.bits)
    packing = Packing(plan.quantization.size, parameters.poly_modulus_degree, encoding)
    return Round(plan, message, messages.digest(message), parameters, packing)


def effective_cohort(members: Iterable[Member]) -> Fraction:
    """(sum w)**2 / sum w**2: how many equal sites a weighted cohort is worth, exactly."""
    weights = [Fraction(m.weight) for m in members]
    if not weights:
        return Fraction(0)
    return sum(weights, Fraction(0)) ** 2 / sum((w * w for w in weights), Fraction(0))


def admit(
    plan: RoundPlan,
    members: Iterable[Member],
    own: PublicIdentity,
    pinned: Mapping[str, PublicIdentity],
    min_cohort: int,
) -> None:
    """Decide whether a cohort protects this party (step 2, and again once it is fixed).

    Only members that this party pinned count, since others may be one and the same adversary.

    Args:
        plan: The verified plan.
        members: Those invited, or those of the fixed cohort.
        own: This party.
        pinned: Identities this party trusts to be who they are, by name.
        min_cohort: This party's own smallest cohort, at least 3.

    Raises:
        PlanError: A pinned name with another key, a role nobody pinned, or too few members.
    """
    if min_cohort < MIN_COHORT:
        raise PlanError(
            f"min_cohort {min_cohort} is below {MIN_COHORT}: a sum of two hides nothing"
        )
    trusted = {**pinned, own.name: own}
    for role, party in (("aggregator", plan.aggregator), ("decryptor", plan.decryptor)):
        if trusted.get(party.name) != party:
            raise PlanError(f"the {role} {party.name} is not pinned with this key")
    counted: list[Member] = []
    for member in members:
        known = trusted.get(member.identity.name)
        if known is not None and known != member.identity:
            raise PlanError(f"the site {member.identity.name} is pinned with another key")
        if known is not None:
            counted.append(member)
    if len(counted) < min_cohort or effective_cohort(counted) < min_cohort:
        raise PlanError(
            f"{len(counted)} pinned sites, worth {float(effective_cohort(counted)):.2f} equal "
            f"ones by weight, are fewer than min_cohort {min_cohort}"
        )


def read_ready(round_: Round, message: bytes) -> tuple[Member, bytes]:
    """Verify a ready message (step 4).

    Returns:
        The member who sent it and its X25519 public key.

    Raises:
        RefusedError: Malformed, unsigned, of another plan or by nobody invited.
    """
    name = messages.sender(message, messages.READY_CAP)
    for member in round_.plan.members:
        if member.identity.name == name:
            break
    else:
        raise CohortError("a ready message comes from nobody the plan invites")
    ready = messages.unseal(message, Ready, member.identity, messages.READY_CAP)
    if ready.plan != round_.digest:
        raise CohortError(f"the ready message of {name} is of another plan")
    return member, ready.key


def read_announcement(round_: Round, message: bytes) -> bytes:
    """Verify the decryptor's announcement (step 4) and return its material.

    Raises:
        RefusedError: Malformed, unsigned, or of another plan.
    """
    cap = messages.ANNOUNCEMENT_CAP
    announcement = messages.unseal(message, Announcement, round_.plan.decryptor, cap)
    if announcement.plan != round_.digest:
        raise CohortError("the announcement is of another plan")
    suites.check_material(round_.parameters, announcement.material)
    return announcement.material


def read_cohort(round_: Round, message: bytes) -> FixedCohort:
    """Verify a cohort message and every message in it (step 4).

    Raises:
        RefusedError: Malformed, unsigned, of another plan, out of order or below `min_cohort`.
    """
    plan = round_.plan
    cohort = messages.unseal(message, Cohort, plan.coordinator, messages.COHORT_CAP)
    if cohort.plan != round_.digest:
        raise CohortError("the cohort is of another plan")
    material = read_announcement(round_, cohort.announcement)
    if len(cohort.readies) > len(plan.members):
        raise CohortError("the cohort is larger than the plan")
    entries = [read_ready(round_, ready) for ready in cohort.readies]
    position = {m.identity.name: i for i, m in enumerate(plan.members)}
    order = [position[member.identity.name] for member, _ in entries]
    if any(a >= b for a, b in pairwise(order)):
        raise CohortError("the cohort is not in the plan's order, each member once")
    members = tuple(member for member, _ in entries)
    keys = tuple(key for _, key in entries)
    if len(set(keys)) != len(keys):
        raise CohortError("two sites announce one key")
    if effective_cohort(members) < plan.min_cohort:
        raise CohortError(f"the cohort is below the plan's min_cohort {plan.min_cohort}")
    transcript = messages.transcript_hash(round_.message, cohort.announcement, cohort.readies)
    return FixedCohort(round_, transcript, material, members, keys)


def split_digests(digests: bytes, chunks: int) -> list[bytes]:
    """Split a manifest's digests.

    Raises:
        UploadError: Another number of chunks than the plan's.
    """
    size = messages.DIGEST_SIZE
    if len(digests) != chunks * size:
        raise UploadError(f"a manifest does not list {chunks} chunks")
    return [digests[i : i + size] for i in range(0, len(digests), size)]


def checked_chunks(chunks: Iterable[bytes], digests: Sequence[bytes], size: int) -> Iterator[bytes]:
    """Yield chunks of `size` bytes that are what a manifest lists, in order; exactly as many.

    Raises:
        UploadError: A chunk that is missing, altered, out of order or too much.
    """
    iterator = iter(chunks)
    for k, expected in enumerate(digests):
        chunk = next(iterator, None)
        if chunk is None:
            raise UploadError(f"chunk {k} of {len(digests)} is missing")
        if not isinstance(chunk, bytes) or len(chunk) != size:
            raise UploadError(f"chunk {k} is not {size} bytes")
        if messages.digest(chunk) != expected:
            raise UploadError(f"chunk {k} is not what the manifest lists")
        yield chunk
    if next(iterator, None) is not None:
        raise UploadError(f"there are more chunks than the {len(digests)} of the manifest")


def read_release(
    cohort: FixedCohort, message: bytes, opening_list: bytes | None = None
) -> npt.NDArray[np.int64]:
    """Verify a release (step 9).

    Args:
        cohort: The verified cohort.
        message: The decryptor's release.
        opening_list: Digest of the list this party opened for, if it did.

    Returns:
        The sum of the cohort's integers, shape (d,), int64.

    Raises:
        RefusedError: Not the decryptor's, not of this cohort, or out of range.
    """
    size = cohort.round.packing.size
    signer = cohort.round.plan.decryptor
    release = messages.unseal(message, Release, signer, messages.release_cap(size))
    if release.transcript != cohort.transcript:
        raise ReleaseError("the release is of another cohort")
    if opening_list is not None and release.opening_list != opening_list:
        raise ReleaseError("the release is of other uploads than this site opened for")
    dtype = cohort.integer_dtype
    if len(release.integers) != size * dtype.itemsize:
        raise ReleaseError("the release has another number of values than the plan")
    integers = np.frombuffer(release.integers, dtype=dtype).astype(np.int64)
    check_range(integers, cohort)
    return integers


def check_range(integers: npt.NDArray[np.int64], cohort: FixedCohort) -> None:
    """Refuse values that no sum of this cohort has.

    Raises:
        ReleaseError: Such a value.
    """
    if integers.max(initial=0) > cohort.limit or integers.min(initial=0) < -cohort.limit:
        raise ReleaseError("a value is beyond what this cohort's sum can be")
