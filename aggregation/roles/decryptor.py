"""The decryptor: a fresh key for every attempt, one opened sum a round, integers out.

`runtime.agents.decryptor` calls it by assignments of the server: `announce`, `confirm` once the
list is there, `release` with the sum, and in a rehearsal `reveal`. What it shares with a
custodian, admission and the one word a round, is in `release_once`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from aggregation.ckks import residues, suites
from aggregation.ckks.collective import CollectiveKeyHolder
from aggregation.ckks.residues import Residues
from aggregation.crypto.mac import decode_tags
from aggregation.errors import (
    OpeningError,
    PlanError,
    ReleaseError,
    RoleError,
    SealedError,
    StateError,
)
from aggregation.protocol import checks, messages
from aggregation.protocol.accusation import accuse, open_sigma
from aggregation.protocol.messages import (
    Announcement,
    Approval,
    Confirmation,
    OpeningList,
    Release,
    SumManifest,
)
from aggregation.protocol.rehearsal import Reveal
from aggregation.protocol.round import FixedCohort, Round
from aggregation.protocol.uploads import check_digests, sized_chunks, split_digests
from aggregation.roles.release_once import Gatekeeper, Held
from aggregation.threads import each_batch


@dataclass(slots=True, repr=False, kw_only=True)
class _Attempt(Held):
    key: suites.KeyHolder
    confirmed: bytes = b""  # digest of the one list that was confirmed
    confirmation: bytes = b""
    secrets: Residues | None = None  # the sum of the sites' secrets, under self-masks
    accusation: bytes = b""  # after which this attempt gets no other word

    def destroy(self) -> None:
        self.key.destroy()
        self.secrets = None


@dataclass(frozen=True, slots=True)
class _Sum:
    chunks: list[bytes]  # ciphertexts on the wire, every one of them valid
    self_masks: Residues | None
    tags: bytes


class Decryptor(Gatekeeper[_Attempt]):
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

    # Of the last rehearsal: the digest of its plan, and the private key, which is to be revealed.
    _rehearsed: tuple[bytes, bytes] | None = None

    ANNOUNCED = "decryptor/announced"
    SPOKEN = "decryptor/released"
    WORD = Release
    DONE = "released"

    def announce(self, plan_message: bytes) -> bytes:
        """Draw an attempt's key pair and publish its public half (step 4).

        The key of an earlier attempt at the same round is destroyed. A second call for the same
        plan returns the same message.

        Raises:
            RefusedError: The plan does not hold, or its cohort is too small.
            ReplayError: The round was released, or this attempt announced before a restart.
        """
        return self._announce(plan_message)

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
            SealedError: A site's box does not open. The key is destroyed, and what proves whose
                fault it is comes with the error.
            RefusedError: Something does not hold; nothing is confirmed.
        """
        attempt = self._need(self._find(cohort_message))
        cohort = self._admit(cohort_message, attempt)
        if not cohort.round.collective:
            checks.read_opening_list(cohort, opening_list)
            return opening_list
        digest = messages.digest(opening_list) if isinstance(opening_list, bytes) else b""
        if attempt.confirmed:
            if digest != attempt.confirmed:
                raise StateError("another list of this attempt was confirmed")
            return attempt.confirmation
        if attempt.accusation:
            error = SealedError("the key of this attempt was revealed, and it is over")
            error.accusation = attempt.accusation
            raise error
        self._check_own_material(cohort, attempt)
        signer, cap = cohort.round.plan.aggregator, cohort.round.cap(OpeningList)
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
        attempt = self._find(cohort_message)
        if attempt is None and plan_message is not None:
            cohort = self._admit(cohort_message, self._read_plan(plan_message))
        else:
            cohort = self._admit(cohort_message, self._need(attempt))
        if attempt is not None and attempt.confirmed and opening_list == attempt.confirmation:
            listed = attempt.confirmed  # verified when it was confirmed
        else:
            _, listed = checks.read_opening_list(cohort, opening_list)
        stored = self._repeat(cohort, listed)
        if stored is not None:
            return stored
        attempt = self._need(attempt)
        self._check_own_material(cohort, attempt)
        if cohort.round.collective and attempt.confirmed != listed:
            raise ReleaseError("the sum is of a list that was not confirmed here")
        summed = self._read_sum(cohort, listed, manifest, chunks)
        approved = self._read_approvals(cohort, listed, approvals)
        del self._attempts[cohort.round.round_key(self.public)]
        try:
            self._learn(cohort, attempt, summed, approved)
            packed = self._decrypt(cohort, attempt.key, summed.chunks)
        finally:
            attempt.destroy()
        return self._speak(
            cohort.round, Release(cohort.transcript, listed, packed, tags=summed.tags)
        )

    def reveal(self, plan_message: bytes, cohort_message: bytes) -> bytes:
        """Hand out the private key of a rehearsal, whatever became of it; again, the same bytes.

        Raises:
            StateError: The plan is of a round; or the key went with an earlier process, or a later
                rehearsal.
            RefusedError: Plan or cohort do not hold.
        """
        round_ = self._read_plan(plan_message)
        cohort = self._admit(cohort_message, round_)
        if self._rehearsed is None or self._rehearsed[0] != round_.digest:
            raise StateError("no key of this attempt is to be revealed")
        held = self._attempts.pop(round_.round_key(self.public), None)
        if held is not None:
            held.destroy()
        return messages.seal(self._identity, Reveal(cohort.transcript, self._rehearsed[1]))

    def _read_plan(self, plan_message: bytes) -> Round:
        round_ = checks.read_plan(plan_message, self._coordinator)
        if round_.plan.decryptor != self.public:
            raise PlanError(f"the plan's decryptor is {round_.plan.decryptor.name}, not this one")
        return round_

    def _draw(self, round_: Round) -> tuple[_Attempt, Announcement]:
        key = suites.new_key(round_.parameters)
        if round_.is_rehearsal and isinstance(key, CollectiveKeyHolder):
            self._rehearsed = round_.digest, key.reveal()
        return _Attempt(round=round_, key=key), Announcement(round_.digest, key.material)

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
        for name in cohort.names:
            message = next(iterator, None)
            if message is None:
                raise OpeningError(f"the sealed secret of {name} is missing")
            try:
                residues.add(total, open_sigma(cohort, name, message, key.open_box), modulus)
            except SealedError as error:
                attempt.accusation = accuse(self._identity, cohort, name, key.reveal())
                attempt.destroy()
                error.accusation = attempt.accusation
                raise
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
            name = messages.sender(message, Approval.CAP)
            by_name[name] = message
        if set(by_name) != {custodian.name for custodian in custodians}:
            raise ReleaseError("not every custodian of the plan approved")
        streams = []
        for custodian in custodians:
            message = by_name[custodian.name]
            body = messages.unseal(message, Approval, custodian)
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

    def _read_sum(
        self, cohort: FixedCohort, listed: bytes, manifest: bytes, chunks: Iterable[bytes]
    ) -> _Sum:
        round_, signer = cohort.round, cohort.round.plan.aggregator
        body = messages.unseal(manifest, SumManifest, signer, round_.cap(SumManifest))
        if body.transcript != cohort.transcript:
            raise ReleaseError("the sum is of another cohort")
        if body.opening_list != listed:
            raise ReleaseError("the sum is of another opening list")
        decode_tags(body.tags)
        digests = split_digests(body.chunk_digests, round_.upload_items)
        # All of them before the key is touched: a transfer that broke off costs no attempt.
        received = list(sized_chunks(chunks, len(digests), round_.chunk_size))

        def check(part: range) -> None:
            batch = received[part.start : part.stop]
            check_digests(batch, digests, part.start)
            round_.split_chunks(batch[: round_.packing.chunks - part.start])  # every residue

        for _ in each_batch(check, len(received)):
            pass
        self_masks = None
        if round_.collective:
            last, modulus = received.pop(), round_.parameters.modulus
            self_masks = residues.unpack(last, round_.packing.degree, modulus)
        return _Sum(received, self_masks, body.tags)

    def _decrypt(self, cohort: FixedCohort, key: suites.KeyHolder, chunks: list[bytes]) -> bytes:
        """The sum's integers, little endian, as a release carries them."""
        round_, packing = cohort.round, cohort.round.packing
        scale_bits = packing.encoding.scale_bits

        def opened(part: range) -> bytes:
            ciphertexts = round_.unpack_chunks(chunks[part.start : part.stop])
            opened = key.decrypt(ciphertexts, part.start)
            coefficients = residues.to_signed(opened, round_.parameters.modulus)
            # To the nearest multiple of the scale; the shift floors, negative values included.
            coefficients += 1 << (scale_bits - 1)
            coefficients >>= scale_bits
            integers = packing.unpack(coefficients, part.start, part.stop)
            checks.check_range(integers, cohort)
            return integers.astype(cohort.integer_dtype).tobytes()

        return b"".join(each_batch(opened, packing.chunks))
