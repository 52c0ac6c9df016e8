"""Checks that all roles make alike: of a plan, a cohort, a release. No I/O and no secrets.

    step  message        from          who acts on it here
    1     plan           coordinator   everybody: `read_plan`
    2     -              -             site, decryptor: `admit`
    4     announcement   decryptor     coordinator and everybody after it: `read_cohort`
    4     ready          site          coordinator: `read_ready`
    4     cohort         coordinator   everybody: `read_cohort`
    4     exchange       site          site, custodian, server: `exchange`
    5     upload         site          aggregator: `read_upload`
    5     sigma          site          aggregator, decryptor: `read_sigma`
    6     opening-list   aggregator    site, decryptor, custodian: `read_opening_list`
    6     confirmation   decryptor     site, custodian: `read_opening_list`
    6     opening        site          aggregator
    6     approval       custodian     decryptor
    7     sum            aggregator    decryptor
    8     release        decryptor     site, coordinator: `read_release`

A later message names the earlier ones by the transcript hash, so one of another round, run,
attempt or cohort never fits. The cohort message needs no trust: all it carries is signed by others
and hashed into the transcript.

Roles call these in the order of the table: `roles.site`, `roles.decryptor` and `roles.aggregator`
each begin with `read_plan` and `read_cohort`.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.ckks import suites
from aggregation.crypto import mac, sealed_box
from aggregation.crypto.identity import PublicIdentity
from aggregation.crypto.sealed_box import X25519_SIZE
from aggregation.errors import (
    CohortError,
    MessageError,
    OpeningError,
    PlanError,
    ReleaseError,
    UploadError,
)
from aggregation.protocol import messages
from aggregation.protocol.cohort_rule import effective_cohort
from aggregation.protocol.messages import (
    Announcement,
    Cohort,
    Confirmation,
    CustodianReady,
    OpeningList,
    Ready,
    Release,
    Sigma,
    UploadManifest,
)
from aggregation.protocol.plan import Member, RoundPlan
from aggregation.protocol.round import FixedCohort, Round, of_plan

_verifying = threading.Lock()


def read_plan(message: bytes, coordinator: PublicIdentity) -> Round:
    """Verify a plan (step 1).

    Raises:
        RefusedError: It is not a plan by this coordinator.
    """
    with _verifying:
        return _read_plan(messages.checked_bytes(message), coordinator)


# A plan and a cohort are read at many steps, and where parties share a process by all of them. What
# was verified once is kept, by every byte that it was verified from; nothing in it is secret.
# One verifies and the others wait: threads that come together would each do the same.
@lru_cache(maxsize=4)
def _read_plan(message: bytes, coordinator: PublicIdentity) -> Round:
    plan = messages.unseal(message, RoundPlan, coordinator)
    if plan.coordinator != coordinator:
        raise PlanError("the plan names another coordinator than the one who signed it")
    return of_plan(plan, message)


def read_ready(round_: Round, message: bytes) -> tuple[Member, Ready]:
    """Verify a ready message (step 4).

    Returns:
        The member who sent it and its body, with its single-use public keys.

    Raises:
        RefusedError: Malformed, unsigned, of another plan or by nobody invited.
    """
    name = messages.sender(message, Ready.CAP)
    member = round_.invited(name)
    ready = messages.unseal(message, Ready, member.identity)
    _check_ready(round_, ready, name)
    return member, ready


def read_custodian(round_: Round, custodian: PublicIdentity, message: bytes) -> Ready:
    """Verify a custodian's ready message (step 4).

    Raises:
        RefusedError: Malformed, unsigned, or of another plan.
    """
    ready = messages.unseal(message, CustodianReady, custodian)
    _check_ready(round_, ready, custodian.name)
    return ready


def _check_ready(round_: Round, ready: Ready, name: str) -> None:
    if ready.plan != round_.digest:
        raise CohortError(f"the ready message of {name} is of another plan")
    if bool(ready.kem) != round_.hybrid:
        raise CohortError(f"{name} announces other kinds of keys than the plan's")
    is_site = not isinstance(ready, CustodianReady)
    if (ready.box is not msgspec.UNSET) != (round_.shares and is_site):
        raise CohortError(f"{name} announces other kinds of keys than the plan's")
    try:
        sealed_box.check_public(ready.key, ready.kem)
        if ready.box is not msgspec.UNSET:
            sealed_box.check_public(ready.box[:X25519_SIZE], ready.box[X25519_SIZE:])
    except MessageError as error:
        raise CohortError(f"{name} announces a key that nobody can use: {error}") from error


def read_announcement(round_: Round, message: bytes) -> bytes:
    """Verify the decryptor's announcement (step 4) and return its material.

    Raises:
        RefusedError: Malformed, unsigned, or of another plan.
    """
    announcement = messages.unseal(message, Announcement, round_.plan.decryptor)
    if announcement.plan != round_.digest:
        raise CohortError("the announcement is of another plan")
    suites.check_material(round_.parameters, announcement.material)
    return announcement.material


def read_cohort(round_: Round, message: bytes) -> FixedCohort:
    """Verify a cohort message and every message in it (step 4).

    Raises:
        RefusedError: Malformed, unsigned, of another plan, out of order or below `min_cohort`.
    """
    with _verifying:
        return _read_cohort(round_, messages.checked_bytes(message))


@lru_cache(maxsize=2)
def _read_cohort(round_: Round, message: bytes) -> FixedCohort:
    plan = round_.plan
    cohort = messages.unseal(message, Cohort, plan.coordinator)
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
    keys += [ready.kem for ready in (*readies, *custodians) if ready.kem]
    for ready in readies:
        if ready.box is not msgspec.UNSET:
            keys += [ready.box[:X25519_SIZE], ready.box[X25519_SIZE:]]
    if len(set(keys)) != len(keys):
        raise CohortError("two parties announce one key")
    if plan.vanishing is not msgspec.UNSET and len(members) < plan.vanishing.openings:
        raise CohortError(f"the cohort has fewer sites than the {plan.vanishing.openings} to open")
    if effective_cohort(members) < plan.min_cohort:
        raise CohortError(f"the cohort is below the plan's min_cohort {plan.min_cohort}")
    transcript = messages.transcript_hash(
        round_.message, cohort.announcement, cohort.readies, cohort.custodians
    )
    return FixedCohort(round_, transcript, material, members, readies, custodians)


def read_upload(cohort: FixedCohort, message: bytes) -> tuple[str, UploadManifest]:
    """Verify an upload's manifest (step 5).

    Returns:
        Its sender and its body.

    Raises:
        RefusedError: Malformed, unsigned, of another cohort, or of another number of MAC keys.
    """
    cap = cohort.round.cap(UploadManifest)
    name = messages.sender(message, cap)
    if name not in cohort.names:
        raise UploadError("an upload comes from outside the cohort")
    body = messages.unseal(message, UploadManifest, cohort.member(name), cap)
    if body.transcript != cohort.transcript:
        raise UploadError(f"the upload of {name} is of another cohort")
    keyed = 0 if cohort.shares else len(cohort.members) - 1
    if len(body.mac_boxes) != mac.BOX_SIZE * keyed:
        raise UploadError(f"the upload of {name} has another number of MAC keys")
    if (body.tags is not msgspec.UNSET) != cohort.shares:
        raise UploadError(f"the upload of {name} has tags where none belong, or none")
    if body.tags is not msgspec.UNSET:
        mac.decode_tags(body.tags)
    return name, body


def read_sigma(cohort: FixedCohort, name: str, message: bytes) -> bytes:
    """Verify all of a sealed secret that can be without its key (step 5); returns the box.

    Raises:
        RefusedError: Malformed, not signed by this site, of another cohort or another length.
    """
    body = messages.unseal(message, Sigma, cohort.member(name))
    if body.transcript != cohort.transcript:
        raise OpeningError(f"the sealed secret of {name} is of another cohort")
    if len(body.box) != sealed_box.OVERHEAD + cohort.round.polynomial_size:
        raise OpeningError(f"the sealed secret of {name} has another length")
    return body.box


def read_opening_list(cohort: FixedCohort, message: bytes) -> tuple[OpeningList, bytes]:
    """Verify what sites open for (step 6): a list, in the collective suite confirmed.

    Returns:
        The aggregator's list and its digest.

    Raises:
        RefusedError: Not by the aggregator and, where needed, the decryptor; or of another cohort.
    """
    round_ = cohort.round
    if round_.collective:
        cap = round_.cap(Confirmation)
        message = messages.unseal(message, Confirmation, round_.plan.decryptor, cap).opening_list
    signer, cap = round_.plan.aggregator, round_.cap(OpeningList)
    listed = messages.unseal(message, OpeningList, signer, cap)
    if listed.transcript != cohort.transcript:
        raise OpeningError("the list is of another cohort")
    if len(listed.manifests) != len(cohort.members):
        raise OpeningError("the list does not show every upload of the cohort")
    return listed, messages.digest(message)


class Released(NamedTuple):
    """A verified release; not yet checked against its tags, which only a site can do.

    Attributes:
        integers: The sum of the cohort's integers, shape (d,), int64.
        tags: The summed tags.
        mark: What names the message, `messages.unseal_marked`.
    """

    integers: npt.NDArray[np.int64]
    tags: bytes
    mark: bytes


def read_release(
    cohort: FixedCohort, message: bytes, opening_list: bytes | None = None
) -> Released:
    """Verify a release (step 9).

    Args:
        cohort: The verified cohort.
        message: The decryptor's release.
        opening_list: Digest of the list this party opened for, if it did.

    Raises:
        RefusedError: Not the decryptor's, not of this cohort, or out of range.
    """
    size = cohort.round.packing.size
    signer = cohort.round.plan.decryptor
    cap = cohort.round.cap(Release)
    release, mark = messages.unseal_marked(message, Release, signer, cap)
    if release.transcript != cohort.transcript:
        raise ReleaseError("the release is of another cohort")
    if opening_list is not None and release.opening_list != opening_list:
        raise ReleaseError("the release is of other uploads than this site opened for")
    dtype = cohort.integer_dtype
    if len(release.integers) != size * dtype.itemsize:
        raise ReleaseError("the release has another number of values than the plan")
    integers = np.frombuffer(release.integers, dtype=dtype).astype(np.int64)
    check_range(integers, cohort)
    return Released(integers, release.tags, mark)


def check_range(integers: npt.NDArray[np.int64], cohort: FixedCohort) -> None:
    """Refuse values that no sum of this cohort has.

    Raises:
        ReleaseError: Such a value.
    """
    if integers.max(initial=0) > cohort.limit or integers.min(initial=0) < -cohort.limit:
        raise ReleaseError("a value is beyond what this cohort's sum can be")
