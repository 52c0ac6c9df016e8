"""The decryptor: a fresh key for every attempt, one opened sum a round, integers out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from . import messages, protocol, residues, sealed_box, suites
from .collective import CollectiveKeyHolder
from .errors import (
    OpeningError,
    PlanError,
    RecordedError,
    ReleaseError,
    ReplayError,
    RoleError,
    StateError,
)
from .identity import Identity, PublicIdentity
from .journal import Journal
from .mac import decode_tags
from .messages import (
    Announcement,
    Approval,
    Cohort,
    Confirmation,
    OpeningList,
    Release,
    Sigma,
    SumManifest,
)
from .protocol import FixedCohort, Round
from .residues import Residues

_BATCH: Final = 15  # chunks decrypted at a time; the CKKS transform takes as many in one go

_ANNOUNCED: Final = "decryptor/announced"
_RELEASED: Final = "decryptor/released"


@dataclass(slots=True, repr=False)
class _Attempt:
    round: Round
    key: suites.KeyHolder
    announcement: bytes
    cohort_digest: bytes = b""
    cohort: FixedCohort | None = None  # verified already
    confirmed: bytes = b""  # digest of the one list that was confirmed
    confirmation: bytes = b""
    secrets: Residues | None = None  # the sum of the sites' secrets, under self-masks


@dataclass(frozen=True, slots=True)
class _Sum:
    ciphertexts: Residues  # shape (chunks, P, N)
    self_masks: Residues | None
    tags: bytes


class Decryptor:
    """Steps 4 and 8 of a round, for any number of rounds.

    4. `announce` draws the attempt's key pair, in memory only, and publishes one half.
    6. `confirm` opens every site's sealed secret, keeps their sum, which is still masked, and
       signs the aggregator's list. With the suite `ckks-pk` there are none, and the list is
       returned as it is.
    8. `release` checks that a sum is the aggregator's, over the uploads of one fixed cohort,
       decrypts it, rounds it to integers, records the release, destroys the key and signs.

    A message that fails a check before the key is used changes nothing. Once the key was used it
    is destroyed, whether or not anything is released: what an attempt's failure could tell about a
    key is worthless when no second ciphertext ever meets that key.

    One release a (run, round), across restarts; the same request gets the same bytes again. A
    process that dies has lost its keys, and its attempts need new ones. Calls must come from one
    thread at a time.
    """

    def __init__(
        self,
        identity: Identity,
        journal: Journal,
        *,
        coordinator: PublicIdentity,
        pinned: Mapping[str, PublicIdentity],
        min_cohort: int = protocol.MIN_COHORT,
    ) -> None:
        """Set the role up.

        Args:
            identity: The decryptor's key pair.
            journal: Its durable record.
            coordinator: Whose plans it follows.
            pinned: By name, the parties it knows: the aggregator and the sites.
            min_cohort: The fewest pinned sites it opens a sum for.

        Raises:
            RoleError: Something else than an identity was handed in.
        """
        if not isinstance(identity, Identity):
            raise RoleError("a decryptor signs with its own Identity")
        self._identity = identity
        self._journal = journal
        self._coordinator = coordinator
        self._pinned = dict(pinned)
        self._min_cohort = min_cohort
        self._attempts: dict[str, _Attempt] = {}

    def __repr__(self) -> str:
        return f"Decryptor({self._identity.public.name!r})"

    def announce(self, plan_message: bytes) -> bytes:
        """Draw an attempt's key pair and publish its public half (step 4).

        The key of an earlier attempt at the same round is destroyed. A second call for the same
        plan returns the same message.

        Raises:
            RefusedError: The plan does not hold, or its cohort is too small.
            ReplayError: The round was released, or this attempt announced before a restart.
        """
        round_ = self._read_plan(plan_message)
        own = self._identity.public
        protocol.admit(round_.plan, round_.plan.members, own, self._pinned, self._min_cohort)
        slot = round_.round_key(own)
        current = self._attempts.get(slot)
        if current is not None and current.round.digest == round_.digest:
            return current.announcement
        if self._journal.lookup(_RELEASED, slot) is not None:
            raise ReplayError("this round was released already")
        key = suites.new_key(round_.parameters)
        message = messages.seal(self._identity, Announcement(round_.digest, key.material))
        try:
            self._journal.record(_ANNOUNCED, round_.attempt_key(own), messages.digest(message))
        except RecordedError:
            raise ReplayError("this attempt was announced already; plan a new one") from None
        if current is not None:
            current.key.destroy()
        self._attempts[slot] = _Attempt(round_, key, message)
        return message

    def confirm(
        self, cohort_message: bytes, opening_list: bytes, sealed_secrets: Iterable[bytes] = ()
    ) -> bytes:
        """Confirm that everything needed to open is here, before any site opens (step 6).

        Args:
            cohort_message: The fixed cohort.
            opening_list: The aggregator's list.
            sealed_secrets: In the collective suite, one a site, in cohort order.

        Returns:
            What sites open for: the signed confirmation, or in `ckks-pk` the list itself. A second
            call for the same list returns the same bytes.

        Raises:
            StateError: No key is held for this plan, or another list was confirmed.
            RefusedError: Something does not hold; nothing is confirmed.
        """
        round_, attempt = self._find(cohort_message, None)
        if attempt is None or not round_.collective:
            if attempt is None:
                raise StateError("no key is held for this plan: a new attempt is needed")
            cohort = self._read_cohort(round_, attempt, cohort_message)
            protocol.read_opening_list(cohort, opening_list)
            return opening_list
        digest = messages.digest(opening_list) if isinstance(opening_list, bytes) else b""
        if attempt.confirmed:
            if digest != attempt.confirmed:
                raise StateError("another list of this attempt was confirmed")
            return attempt.confirmation
        cohort = self._read_cohort(round_, attempt, cohort_message)
        own = self._identity.public
        protocol.admit(round_.plan, cohort.members, own, self._pinned, self._min_cohort)
        self._check_own_material(cohort, attempt)
        signer = round_.plan.aggregator
        cap = messages.list_cap(round_.upload_items)
        listed = messages.unseal(opening_list, OpeningList, signer, cap)
        if listed.transcript != cohort.transcript or len(listed.manifests) != len(cohort.members):
            raise OpeningError("the list is not of the uploads of this cohort")
        attempt.secrets = self._sum_secrets(cohort, attempt, sealed_secrets)
        confirmation = messages.seal(self._identity, Confirmation(opening_list))
        attempt.confirmed, attempt.confirmation = digest, confirmation
        return confirmation

    def release(
        self,
        cohort_message: bytes,
        opening_list: bytes,
        manifest: bytes,
        chunks: Iterable[bytes],
        *,
        plan_message: bytes | None = None,
        approvals: Iterable[bytes] = (),
    ) -> bytes:
        """Open a sum (step 8).

        Args:
            cohort_message: The fixed cohort.
            opening_list: What the sites opened for: what `confirm` returned.
            manifest: The aggregator's manifest of the sum.
            chunks: Its chunks, in order.
            plan_message: The plan; needed only to have a stored release repeated after a restart.
            approvals: Of every custodian of the plan.

        Returns:
            The signed release.

        Raises:
            StateError: No key is held for this plan.
            ReplayError: The round was released for another cohort or other uploads.
            RefusedError: Something does not hold.
        """
        round_, attempt = self._find(cohort_message, plan_message)
        cohort = self._read_cohort(round_, attempt, cohort_message)
        own = self._identity.public
        protocol.admit(round_.plan, cohort.members, own, self._pinned, self._min_cohort)
        _, listed = protocol.read_opening_list(cohort, opening_list)
        stored = self._journal.lookup(_RELEASED, round_.round_key(own))
        if stored is not None:
            return self._repeat(cohort, listed, stored)
        if attempt is None:
            raise StateError("no key is held for this plan: a new attempt is needed")
        self._check_own_material(cohort, attempt)
        if round_.collective and attempt.confirmed != listed:
            raise ReleaseError("the sum is of a list that was not confirmed here")
        summed = self._read_sum(cohort, listed, manifest, chunks)
        approved = self._read_approvals(cohort, listed, approvals)
        del self._attempts[round_.round_key(own)]
        try:
            self._learn(cohort, attempt, summed, approved)
            integers = self._decrypt(cohort, attempt.key, summed.ciphertexts)
        finally:
            attempt.key.destroy()
            attempt.secrets = None
        message = messages.seal(
            self._identity,
            Release(
                transcript=cohort.transcript,
                opening_list=listed,
                integers=integers.astype(cohort.integer_dtype).tobytes(),
                tags=summed.tags,
            ),
        )
        try:
            self._journal.record(_RELEASED, round_.round_key(own), message)
        except RecordedError:
            raise ReplayError("this round was released already") from None
        return message

    def close(self) -> None:
        """Destroy every key; attempts under way end unopened."""
        for attempt in self._attempts.values():
            attempt.key.destroy()
        self._attempts.clear()

    def _read_plan(self, plan_message: bytes) -> Round:
        round_ = protocol.read_plan(plan_message, self._coordinator)
        if round_.plan.decryptor != self._identity.public:
            raise PlanError(f"the plan's decryptor is {round_.plan.decryptor.name}, not this one")
        return round_

    def _find(
        self, cohort_message: bytes, plan_message: bytes | None
    ) -> tuple[Round, _Attempt | None]:
        if isinstance(cohort_message, bytes):
            known = messages.digest(cohort_message)
            for attempt in self._attempts.values():
                if attempt.cohort is not None and attempt.cohort_digest == known:
                    return attempt.round, attempt
        body = messages.unseal(cohort_message, Cohort, self._coordinator, messages.COHORT_CAP)
        for attempt in self._attempts.values():
            if attempt.round.digest == body.plan:
                return attempt.round, attempt
        if plan_message is None:
            raise StateError("no key is held for this plan: a new attempt is needed")
        return self._read_plan(plan_message), None

    def _read_cohort(self, round_: Round, attempt: _Attempt | None, message: bytes) -> FixedCohort:
        if attempt is None:
            return protocol.read_cohort(round_, message)
        digest = messages.digest(message)
        if attempt.cohort is None or attempt.cohort_digest != digest:
            attempt.cohort = protocol.read_cohort(round_, message)
            attempt.cohort_digest = digest
        return attempt.cohort

    def _check_own_material(self, cohort: FixedCohort, attempt: _Attempt) -> None:
        if cohort.material != attempt.key.material:
            raise ReleaseError("the cohort carries another announcement than this key's")

    def _sum_secrets(
        self, cohort: FixedCohort, attempt: _Attempt, sealed_secrets: Iterable[bytes]
    ) -> Residues:
        """Open each box, check it, and keep the sum only."""
        key, round_ = attempt.key, cohort.round
        if not isinstance(key, CollectiveKeyHolder):
            raise RoleError("this key opens no sealed secrets")
        modulus, degree = round_.parameters.modulus, round_.packing.degree
        total = np.zeros(degree, dtype=np.uint64)
        iterator = iter(sealed_secrets)
        for member in cohort.members:
            name = member.identity.name
            message = next(iterator, None)
            if message is None:
                raise OpeningError(f"the sealed secret of {name} is missing")
            body = messages.unseal(message, Sigma, member.identity, messages.SIGMA_CAP)
            if body.transcript != cohort.transcript:
                raise OpeningError(f"the sealed secret of {name} is of another cohort")
            if len(body.box) != sealed_box.OVERHEAD + round_.polynomial_size:
                raise OpeningError(f"the sealed secret of {name} has another length")
            content = key.open_box(body.box, cohort.transcript + name.encode())
            residues.add(total, residues.unpack(content, degree, modulus), modulus)
        if next(iterator, None) is not None:
            raise OpeningError("there are more sealed secrets than sites")
        return total

    def _read_approvals(
        self, cohort: FixedCohort, listed: bytes, approvals: Iterable[bytes]
    ) -> list[Residues]:
        """Verify that every custodian approved this very list."""
        custodians = cohort.round.plan.custodians
        by_name = {}
        for message in approvals:
            name = messages.sender(message, messages.APPROVAL_CAP)
            by_name[name] = message
        if set(by_name) != {custodian.name for custodian in custodians}:
            raise ReleaseError("not every custodian of the plan approved")
        streams = []
        for custodian in custodians:
            message = by_name[custodian.name]
            body = messages.unseal(message, Approval, custodian, messages.APPROVAL_CAP)
            if body.transcript != cohort.transcript or body.opening_list != listed:
                raise ReleaseError(f"{custodian.name} approved other uploads")
            parameters = cohort.round.parameters
            streams.append(
                residues.unpack(body.streams, parameters.poly_modulus_degree, parameters.modulus)
            )
        return streams

    def _learn(
        self, cohort: FixedCohort, attempt: _Attempt, summed: _Sum, approved: list[Residues]
    ) -> None:
        """Take the last masks off the sum of the secrets: self-masks and custodians' streams."""
        key = attempt.key
        if not isinstance(key, CollectiveKeyHolder):
            return
        if attempt.secrets is None or summed.self_masks is None:
            raise ReleaseError("the secrets of this attempt were never confirmed")
        modulus = cohort.round.parameters.modulus
        for masks in (summed.self_masks, *approved):
            residues.subtract(attempt.secrets, masks, modulus)
        key.learn(attempt.secrets, len(cohort.members), cohort.transcript)

    def _repeat(self, cohort: FixedCohort, listed: bytes, stored: bytes) -> bytes:
        cap = messages.release_cap(cohort.round.packing.size)
        body = messages.unseal(stored, Release, self._identity.public, cap)
        if body.transcript != cohort.transcript or body.opening_list != listed:
            raise ReplayError("this round was released already, for other uploads")
        return stored

    def _read_sum(
        self, cohort: FixedCohort, listed: bytes, manifest: bytes, chunks: Iterable[bytes]
    ) -> _Sum:
        round_, signer = cohort.round, cohort.round.plan.aggregator
        cap = messages.manifest_cap(round_.upload_items)
        body = messages.unseal(manifest, SumManifest, signer, cap)
        if body.transcript != cohort.transcript:
            raise ReleaseError("the sum is of another cohort")
        if body.opening_list != listed:
            raise ReleaseError("the sum is of another opening list")
        decode_tags(body.tags)
        digests = protocol.split_digests(body.chunk_digests, round_.upload_items)
        # All of them before the key is touched: a transfer that broke off costs no attempt.
        checked = list(protocol.checked_chunks(chunks, digests, round_.chunk_size))
        self_masks = None
        if round_.collective:
            last, modulus = checked.pop(), round_.parameters.modulus
            self_masks = residues.unpack(last, round_.packing.degree, modulus)
        ciphertexts = np.stack([round_.unpack_chunk(chunk) for chunk in checked])
        return _Sum(ciphertexts, self_masks, body.tags)

    def _decrypt(
        self, cohort: FixedCohort, key: suites.KeyHolder, ciphertexts: Residues
    ) -> npt.NDArray[np.int64]:
        round_ = cohort.round
        scale_bits = round_.packing.encoding.scale_bits
        coefficients = np.empty((len(ciphertexts), round_.packing.degree), dtype=np.int64)
        for start in range(0, len(ciphertexts), _BATCH):
            batch = ciphertexts[start : start + _BATCH]
            opened = key.decrypt(batch, start)
            centred = residues.to_signed(opened, round_.parameters.modulus)
            # To the nearest multiple of the scale; the shift floors, negative values included.
            coefficients[start : start + len(batch)] = (
                centred + (1 << (scale_bits - 1))
            ) >> scale_bits
        integers = round_.packing.unpack(coefficients)
        protocol.check_range(integers, cohort)
        return integers
