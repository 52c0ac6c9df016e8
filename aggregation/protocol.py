"""What all roles check alike: a plan, a cohort, a release. No I/O and no secrets.

    step  message        from          who acts on it here
    1     plan           coordinator   everybody: `read_plan`
    2     -              -             site, decryptor: `admit`
    4     announcement   decryptor     coordinator and everybody after it: `read_cohort`
    4     ready          site          coordinator: `read_ready`
    4     cohort         coordinator   everybody: `read_cohort`
    4     exchange       site          site, custodian: `read_exchange`
    5     upload         site          aggregator
    6     opening-list   aggregator    site, decryptor, custodian: `read_opening_list`
    6     confirmation   decryptor     site, custodian: `read_opening_list`
    6     opening        site          aggregator
    6     approval       custodian     decryptor
    7     sum            aggregator    decryptor
    8     release        decryptor     site, coordinator: `read_release`

A later message names the earlier ones by the transcript hash, so one of another round, run,
attempt or cohort never fits. The cohort message needs no trust: all it carries is signed by others
and hashed into the transcript.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from . import messages, residues, sealed_box, suites
from .errors import CohortError, OpeningError, PlanError, ReleaseError, UploadError
from .graph import MaskGraph
from .identity import PublicIdentity
from .messages import (
    Announcement,
    Cohort,
    Confirmation,
    CustodianReady,
    Exchange,
    Member,
    OpeningList,
    Ready,
    Release,
    RoundPlan,
)
from .packing import Packing
from .pairwise import HYBRID
from .parameters import COLLECTIVE, ParameterSet, parameter_set
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
    def collective(self) -> bool:
        """Whether sites encrypt under secrets of their own."""
        return self.parameters.suite == COLLECTIVE

    @property
    def hybrid(self) -> bool:
        """Whether pairwise secrets hang on ML-KEM too."""
        return self.plan.key_agreement == HYBRID

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
        readies: Their single-use public keys, in the same order.
        custodians: Those of the plan's custodians, in the plan's order.
    """

    round: Round
    transcript: bytes
    material: bytes
    members: tuple[Member, ...]
    readies: tuple[Ready, ...]
    custodians: tuple[Ready, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(member.identity.name for member in self.members)

    @property
    def graph(self) -> MaskGraph:
        """Who shares masks with whom."""
        return MaskGraph.of(len(self.members), self.transcript)

    def position(self, name: str) -> int:
        """Place of a member.

        Raises:
            CohortError: Nobody of that name is in the cohort.
        """
        for i, member in enumerate(self.members):
            if member.identity.name == name:
                return i
        raise CohortError("a message comes from outside the cohort")

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
    # A weight is at least 2**-10 and has 53 bits, so this many places hold it exactly.
    weights = [int(math.ldexp(m.weight, 63)) for m in members]
    return Fraction(sum(weights) ** 2, sum(w * w for w in weights) or 1)


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
        if known is not None:
            counted.append(member)
    if len(counted) < min_cohort or effective_cohort(counted) < min_cohort:
        raise PlanError(
            f"{len(counted)} pinned sites, worth {float(effective_cohort(counted)):.2f} equal "
            f"ones by weight, are fewer than min_cohort {min_cohort}"
        )


def read_ready(round_: Round, message: bytes) -> tuple[Member, Ready]:
    """Verify a ready message (step 4).

    Returns:
        The member who sent it and its body, with its single-use public keys.

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
    _check_ready(round_, ready, name)
    return member, ready


def read_custodian(round_: Round, custodian: PublicIdentity, message: bytes) -> Ready:
    """Verify a custodian's ready message (step 4).

    Raises:
        RefusedError: Malformed, unsigned, or of another plan.
    """
    ready = messages.unseal(message, CustodianReady, custodian, messages.READY_CAP)
    _check_ready(round_, ready, custodian.name)
    return ready


def _check_ready(round_: Round, ready: Ready, name: str) -> None:
    if ready.plan != round_.digest:
        raise CohortError(f"the ready message of {name} is of another plan")
    if bool(ready.kem) != round_.hybrid:
        raise CohortError(f"{name} announces other kinds of keys than the plan's")


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
    if len(cohort.custodians) != len(plan.custodians):
        raise CohortError("the cohort does not carry every custodian's keys")
    custodians = tuple(
        read_custodian(round_, identity, ready)
        for identity, ready in zip(plan.custodians, cohort.custodians, strict=True)
    )
    members = tuple(member for member, _ in entries)
    readies = tuple(ready for _, ready in entries)
    keys = [ready.key for ready in (*readies, *custodians)]
    kems = [ready.kem for ready in (*readies, *custodians) if ready.kem]
    if len(set(keys)) != len(keys) or len(set(kems)) != len(kems):
        raise CohortError("two parties announce one key")
    if effective_cohort(members) < plan.min_cohort:
        raise CohortError(f"the cohort is below the plan's min_cohort {plan.min_cohort}")
    transcript = messages.transcript_hash(
        round_.message, cohort.announcement, cohort.readies, cohort.custodians
    )
    return FixedCohort(round_, transcript, material, members, readies, custodians)


def read_exchange(cohort: FixedCohort, message: bytes) -> tuple[int, list[bytes]]:
    """Verify an exchange message (step 4).

    Returns:
        The sender's position, and its ciphertexts: for the neighbours it initiates to, in cohort
        order, then for the custodians.

    Raises:
        RefusedError: Malformed, unsigned, or of another cohort.
    """
    own = cohort.position(messages.sender(message, messages.EXCHANGE_CAP))
    signer = cohort.members[own].identity
    body = messages.unseal(message, Exchange, signer, messages.EXCHANGE_CAP)
    if body.transcript != cohort.transcript:
        raise CohortError(f"the exchange message of {signer.name} is of another cohort")
    size = sealed_box.KEM_CIPHERTEXT_SIZE
    count = len(cohort.graph.initiates(own)) + len(cohort.custodians) if cohort.round.hybrid else 0
    if len(body.ciphertexts) != count * size:
        raise CohortError(f"the exchange message of {signer.name} has another length")
    return own, [body.ciphertexts[i * size : (i + 1) * size] for i in range(count)]


def read_opening_list(cohort: FixedCohort, message: bytes) -> tuple[OpeningList, bytes]:
    """Verify what sites open for (step 6): a list, in the collective suite confirmed.

    Returns:
        The aggregator's list and its digest.

    Raises:
        RefusedError: Not by the aggregator and, where needed, the decryptor; or of another cohort.
    """
    plan = cohort.round.plan
    cap = messages.list_cap(cohort.round.upload_items)
    if cohort.round.collective:
        message = messages.unseal(message, Confirmation, plan.decryptor, cap).opening_list
    listed = messages.unseal(message, OpeningList, plan.aggregator, cap)
    if listed.transcript != cohort.transcript:
        raise OpeningError("the list is of another cohort")
    if len(listed.manifests) != len(cohort.members):
        raise OpeningError("the list does not show every upload of the cohort")
    return listed, messages.digest(message)


def upload_size(parameters: ParameterSet, packing: Packing) -> int:
    """Bytes of one site's chunks, sealed secret and digests; envelopes are left out."""
    polynomial = residues.packed_size(packing.degree, parameters.modulus)
    size = packing.chunks * (parameters.polynomials * polynomial + messages.DIGEST_SIZE)
    if parameters.suite == COLLECTIVE:
        size += polynomial + sealed_box.OVERHEAD + messages.DIGEST_SIZE
    return size


def split_digests(digests: bytes, chunks: int) -> list[bytes]:
    """Split a manifest's digests.

    Raises:
        UploadError: Another number of chunks than the plan's.
    """
    size = messages.DIGEST_SIZE
    if len(digests) != chunks * size:
        raise UploadError(f"a manifest does not list {chunks} chunks")
    return [digests[i : i + size] for i in range(0, len(digests), size)]


def checked_chunks(
    chunks: Iterable[bytes], digests: Sequence[bytes], size: int, last_cap: int | None = None
) -> Iterator[bytes]:
    """Yield chunks that are what a manifest lists, in order; exactly as many.

    Args:
        chunks: What came off the wire.
        digests: What the manifest lists.
        size: Bytes of each.
        last_cap: Instead, the most bytes that the last may have.

    Raises:
        UploadError: A chunk that is missing, altered, out of order or too much.
    """
    iterator = iter(chunks)
    for k, expected in enumerate(digests):
        chunk = next(iterator, None)
        if chunk is None:
            raise UploadError(f"chunk {k} of {len(digests)} is missing")
        message = last_cap is not None and k == len(digests) - 1
        if not isinstance(chunk, bytes):
            raise UploadError(f"chunk {k} is not bytes")
        if len(chunk) > (last_cap or 0) if message else len(chunk) != size:
            raise UploadError(f"chunk {k} is not {size} bytes")
        if messages.digest(chunk) != expected:
            raise UploadError(f"chunk {k} is not what the manifest lists")
        yield chunk
    if next(iterator, None) is not None:
        raise UploadError(f"there are more chunks than the {len(digests)} of the manifest")


def read_release(
    cohort: FixedCohort, message: bytes, opening_list: bytes | None = None
) -> tuple[npt.NDArray[np.int64], bytes]:
    """Verify a release (step 9).

    Args:
        cohort: The verified cohort.
        message: The decryptor's release.
        opening_list: Digest of the list this party opened for, if it did.

    Returns:
        The sum of the cohort's integers, shape (d,), int64, and the summed tags: not yet checked
        against one another, which only a site can do.

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
    return integers, release.tags


def check_range(integers: npt.NDArray[np.int64], cohort: FixedCohort) -> None:
    """Refuse values that no sum of this cohort has.

    Raises:
        ReleaseError: Such a value.
    """
    if integers.max(initial=0) > cohort.limit or integers.min(initial=0) < -cohort.limit:
        raise ReleaseError("a value is beyond what this cohort's sum can be")
