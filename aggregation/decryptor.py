"""The decryptor: a fresh key for every attempt, one opened sum a round, integers out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from . import messages, protocol, residues, suites
from .errors import (
    PlanError,
    RecordedError,
    ReleaseError,
    ReplayError,
    RoleError,
    StateError,
)
from .identity import Identity, PublicIdentity
from .journal import Journal
from .messages import Announcement, Cohort, OpeningList, Release, SumManifest
from .protocol import FixedCohort, Round

_BATCH: Final = 15  # chunks decrypted at a time; the CKKS transform takes as many in one go

_ANNOUNCED: Final = "decryptor/announced"
_RELEASED: Final = "decryptor/released"


@dataclass(slots=True, repr=False)
class _Attempt:
    round: Round
    key: suites.KeyHolder
    announcement: bytes


class Decryptor:
    """Steps 4 and 8 of a round, for any number of rounds.

    4. `announce` draws the attempt's key pair, in memory only, and publishes one half.
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

    def release(
        self,
        cohort_message: bytes,
        opening_list: bytes,
        manifest: bytes,
        chunks: Iterable[bytes],
        *,
        plan_message: bytes | None = None,
    ) -> bytes:
        """Open a sum (step 8).

        Args:
            cohort_message: The fixed cohort.
            opening_list: The aggregator's list that the sites opened for.
            manifest: The aggregator's manifest of the sum.
            chunks: Its chunks, in order.
            plan_message: The plan; needed only to have a stored release repeated after a restart.

        Returns:
            The signed release.

        Raises:
            StateError: No key is held for this plan.
            ReplayError: The round was released for another cohort or other uploads.
            RefusedError: Something does not hold.
        """
        round_, attempt = self._find(cohort_message, plan_message)
        cohort = protocol.read_cohort(round_, cohort_message)
        own = self._identity.public
        protocol.admit(round_.plan, cohort.members, own, self._pinned, self._min_cohort)
        self._check_list(cohort, opening_list)
        stored = self._journal.lookup(_RELEASED, round_.round_key(own))
        if stored is not None:
            return self._repeat(cohort, opening_list, stored)
        if attempt is None:
            raise StateError("no key is held for this plan: a new attempt is needed")
        if cohort.material != attempt.key.material:
            raise ReleaseError("the cohort carries another announcement than this key's")
        listed = self._sum_chunks(cohort, opening_list, manifest, chunks)
        del self._attempts[round_.round_key(own)]
        try:
            integers = self._decrypt(cohort, attempt.key, listed)
        finally:
            attempt.key.destroy()
        message = messages.seal(
            self._identity,
            Release(
                transcript=cohort.transcript,
                opening_list=messages.digest(opening_list),
                integers=integers.astype(cohort.integer_dtype).tobytes(),
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
        body = messages.unseal(cohort_message, Cohort, self._coordinator, messages.COHORT_CAP)
        for attempt in self._attempts.values():
            if attempt.round.digest == body.plan:
                return attempt.round, attempt
        if plan_message is None:
            raise StateError("no key is held for this plan: a new attempt is needed")
        return self._read_plan(plan_message), None

    def _check_list(self, cohort: FixedCohort, opening_list: bytes) -> None:
        signer = cohort.round.plan.aggregator
        listed = messages.unseal(opening_list, OpeningList, signer, messages.LIST_CAP)
        if listed.transcript != cohort.transcript:
            raise ReleaseError("the opening list is of another cohort")
        if len(listed.manifests) != len(cohort.members):
            raise ReleaseError("the opening list does not show every upload of the cohort")

    def _repeat(self, cohort: FixedCohort, opening_list: bytes, stored: bytes) -> bytes:
        cap = messages.release_cap(cohort.round.packing.size)
        body = messages.unseal(stored, Release, self._identity.public, cap)
        same_list = body.opening_list == messages.digest(opening_list)
        if body.transcript != cohort.transcript or not same_list:
            raise ReplayError("this round was released already, for other uploads")
        return stored

    def _sum_chunks(
        self, cohort: FixedCohort, opening_list: bytes, manifest: bytes, chunks: Iterable[bytes]
    ) -> list[bytes]:
        packing, signer = cohort.round.packing, cohort.round.plan.aggregator
        cap = messages.manifest_cap(packing.chunks)
        body = messages.unseal(manifest, SumManifest, signer, cap)
        if body.transcript != cohort.transcript:
            raise ReleaseError("the sum is of another cohort")
        if body.opening_list != messages.digest(opening_list):
            raise ReleaseError("the sum is of another opening list")
        digests = protocol.split_digests(body.chunk_digests, packing.chunks)
        # All of them before the key is touched: a transfer that broke off costs no attempt.
        listed = list(protocol.checked_chunks(chunks, digests, cohort.round.chunk_size))
        for chunk in listed:
            cohort.round.unpack_chunk(chunk)
        return listed

    def _decrypt(
        self, cohort: FixedCohort, key: suites.KeyHolder, chunks: list[bytes]
    ) -> npt.NDArray[np.int64]:
        round_ = cohort.round
        scale_bits = round_.packing.encoding.scale_bits
        coefficients = np.empty((len(chunks), round_.packing.degree), dtype=np.int64)
        for start in range(0, len(chunks), _BATCH):
            batch = chunks[start : start + _BATCH]
            opened = key.decrypt(np.stack([round_.unpack_chunk(chunk) for chunk in batch]))
            centred = residues.to_signed(opened, round_.parameters.modulus)
            # To the nearest multiple of the scale; the shift floors, negative values included.
            coefficients[start : start + len(batch)] = (
                centred + (1 << (scale_bits - 1))
            ) >> scale_bits
        integers = round_.packing.unpack(coefficients)
        protocol.check_range(integers, cohort)
        return integers
