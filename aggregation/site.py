"""A site's side of one attempt: it alone sees its update, and opens only what everybody fixed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from . import masking, messages, protocol, residues, suites
from .errors import (
    CohortError,
    InputError,
    OpeningError,
    PlanError,
    RecordedError,
    ReplayError,
    RoleError,
    StateError,
)
from .identity import Identity, PublicIdentity
from .journal import Journal
from .messages import Member, Opening, OpeningList, Ready, RoundPlan, UploadManifest
from .protocol import FixedCohort, Upload

_BATCH: Final = 15  # chunks encrypted at a time; the CKKS transform takes as many in one go

_READY: Final = "site/ready"
_OPENED: Final = "site/opened"


class SiteAttempt:
    """Steps 2, 4, 5, 6 and 9 of one attempt at a round.

    2. Construction verifies the plan and decides whether its cohort would protect this site.
    4. `ready` draws a single-use key, records it, and announces it. Before it the caller stores
       the quantised update and commits its privacy budget: being ready depends on the data.
    5. `upload` encrypts and masks the integers for a fixed cohort. Once: a second call returns the
       same bytes, and other integers or another cohort are refused, because two uploads under one
       set of masks would open their difference.
    6. `open` reveals the self-mask's seed, once the aggregator's signed list shows this very
       upload among those of the whole cohort. It is recorded first; a round is opened once, and
       no later attempt at it is joined.
    9. `verify` checks the release.

    What this object cannot know is the caller's to check on `plan`, before `ready`: that the
    federation, the model and training digests and the parameter set are those the site agreed to,
    that its budget covers the round, and that integers stored for one (run, round) are never
    offered to another.

    The secrets of an attempt live in this object only. A process that dies between 4 and 6 has
    lost them, and a new attempt is needed. Calls must come from one thread at a time.
    """

    def __init__(
        self,
        identity: Identity,
        plan_message: bytes,
        *,
        coordinator: PublicIdentity,
        pinned: Mapping[str, PublicIdentity],
        journal: Journal,
        min_cohort: int = protocol.MIN_COHORT,
    ) -> None:
        """Admit a plan.

        Args:
            identity: This site's key pair.
            plan_message: The coordinator's signed plan.
            coordinator: Whose plans this site follows.
            pinned: By name, the parties this site knows: aggregator, decryptor and other sites.
            journal: This site's durable record.
            min_cohort: The fewest pinned sites, itself included, it will be summed with.

        Raises:
            RefusedError: The plan does not hold, or this site takes no part in it.
            ReplayError: This attempt was joined before, or the round was opened.
        """
        if not isinstance(identity, Identity):
            raise RoleError("a site signs with its own Identity")
        self._identity = identity
        self._journal = journal
        self._pinned = dict(pinned)
        self._min_cohort = min_cohort
        self._round = protocol.read_plan(plan_message, coordinator)
        own = identity.public
        if all(m.identity != own for m in self.plan.members):
            raise PlanError(f"the plan does not invite {own.name} with this key")
        protocol.admit(self.plan, self.plan.members, own, self._pinned, min_cohort)
        self._refuse_replay()
        self._key: masking.EphemeralKey | None = None
        self._ready: bytes | None = None
        self._seed = secrets.token_bytes(masking.SEED_SIZE)
        self._cohort: FixedCohort | None = None
        self._cohort_digest = b""
        self._integers_digest = b""
        self._upload: Upload | None = None
        self._opening_list: bytes | None = None
        self._opening: bytes | None = None

    def __repr__(self) -> str:
        plan = self.plan
        name = self._identity.public.name
        return f"SiteAttempt({name!r}, round={plan.round}, attempt={plan.attempt})"

    @property
    def plan(self) -> RoundPlan:
        """The verified plan."""
        return self._round.plan

    @property
    def cohort(self) -> tuple[Member, ...]:
        """Who takes part, in the plan's order; empty before `upload`."""
        return self._cohort.members if self._cohort is not None else ()

    def ready(self) -> bytes:
        """Announce a single-use key (step 4). A second call returns the same message.

        Raises:
            ReplayError: This attempt was joined before, or the round was opened.
        """
        if self._ready is None:
            self._refuse_replay()
            key = masking.EphemeralKey()
            message = messages.seal(self._identity, Ready(self._round.digest, key.public))
            self._record(_READY, self._round.attempt_key(self._identity.public), message)
            self._key, self._ready = key, message
        return self._ready

    def upload(self, cohort_message: bytes, integers: npt.NDArray[np.int32]) -> Upload:
        """Encrypt and mask the update for a fixed cohort (step 5).

        Args:
            cohort_message: The coordinator's cohort, with this site's ready message in it.
            integers: The quantised update, shape (d,), int32, |v| <= 2**(bits - 1) - 1.

        Returns:
            The signed manifest and its chunks; the same bytes on every call.

        Raises:
            StateError: `ready` comes first; or other integers, or another cohort than before.
            InputError: The integers are not what the plan asks for.
            RefusedError: The cohort does not hold, or would not protect this site.
        """
        if self._ready is None:
            raise StateError("announce a key with ready() first")
        if not isinstance(integers, np.ndarray) or integers.dtype != np.int32:
            raise InputError("quantised integers must be a NumPy array of int32")
        integers_digest = hashlib.sha256(integers.tobytes()).digest()
        if self._upload is not None:
            same_cohort = isinstance(cohort_message, bytes) and (
                messages.digest(cohort_message) == self._cohort_digest
            )
            if not same_cohort or integers_digest != self._integers_digest:
                raise StateError(
                    "this attempt uploaded already, for another cohort or other integers"
                )
            return self._upload
        cohort = self._read_cohort(cohort_message)
        upload = self._encrypt(cohort, integers)
        self._cohort, self._upload = cohort, upload
        self._cohort_digest = messages.digest(cohort_message)
        self._integers_digest = integers_digest
        self._key = None  # single use
        return upload

    def open(self, opening_list: bytes) -> bytes:
        """Reveal the self-mask's seed (step 6). A second call returns the same message.

        Raises:
            StateError: Nothing was uploaded, or another list was opened.
            OpeningError: The list does not show this site's upload and all others.
            ReplayError: This round was opened in another attempt.
        """
        if self._cohort is None or self._upload is None:
            raise StateError("there is no upload to open")
        listed = messages.unseal(opening_list, OpeningList, self.plan.aggregator, messages.LIST_CAP)
        digest = messages.digest(opening_list)
        if self._opening is not None:
            if digest != self._opening_list:
                raise StateError("this attempt opened for another list")
            return self._opening
        cohort = self._cohort
        if listed.transcript != cohort.transcript:
            raise OpeningError("the list is of another cohort")
        if len(listed.manifests) != len(cohort.members):
            raise OpeningError("the list does not show every upload of the cohort")
        own = [m.identity for m in cohort.members].index(self._identity.public)
        if listed.manifests[own] != messages.digest(self._upload.manifest):
            raise OpeningError("the list does not show this site's upload")
        opening = messages.seal(self._identity, Opening(cohort.transcript, digest, self._seed))
        self._record(_OPENED, self._round.round_key(self._identity.public), opening)
        self._opening_list, self._opening = digest, opening
        return opening

    def verify(self, release: bytes) -> npt.NDArray[np.int64]:
        """Check a release (step 9).

        Returns:
            The sum of the cohort's integers, shape (d,), int64.

        Raises:
            StateError: This site opened nothing.
            RefusedError: It is not the release of what this site opened.
        """
        if self._cohort is None or self._opening_list is None:
            raise StateError("this site has opened nothing that could be released")
        return protocol.read_release(self._cohort, release, self._opening_list)

    def _read_cohort(self, message: bytes) -> FixedCohort:
        cohort = protocol.read_cohort(self._round, message)
        own = self._identity.public
        protocol.admit(self.plan, cohort.members, own, self._pinned, self._min_cohort)
        pairs = zip(cohort.members, cohort.keys, strict=True)
        announced = [key for member, key in pairs if member.identity == own]
        if self._key is None or announced != [self._key.public]:
            raise CohortError("the cohort does not carry this site's ready message")
        return cohort

    def _encrypt(self, cohort: FixedCohort, integers: npt.NDArray[np.int32]) -> Upload:
        if self._key is None:
            raise StateError("the single-use key of this attempt is spent")
        round_, name = self._round, self._identity.public.name
        modulus, packing = round_.parameters.modulus, round_.packing
        encryptor = suites.encryptor(round_.parameters, cohort.material)
        masks = masking.site_masks(
            self._key,
            self._seed,
            cohort.transcript,
            zip((m.identity.name for m in cohort.members), cohort.keys, strict=True),
            name,
            modulus,
            packing.degree,
        )
        chunks: list[bytes] = []
        for start in range(0, packing.chunks, _BATCH):
            stop = min(start + _BATCH, packing.chunks)
            messages_ = packing.pack(integers, start, stop)
            messages_ <<= packing.encoding.scale_bits
            encrypted = encryptor.encrypt(residues.from_signed(messages_, modulus))
            for k, chunk in enumerate(encrypted, start):
                masks.apply(chunk[0], k)
                chunks.append(residues.pack(chunk, modulus))
        manifest = UploadManifest(
            transcript=cohort.transcript,
            chunk_digests=b"".join(messages.digest(chunk) for chunk in chunks),
            commitment=masking.commitment(self._seed, cohort.transcript, name),
        )
        return Upload(messages.seal(self._identity, manifest), tuple(chunks))

    def _refuse_replay(self) -> None:
        own = self._identity.public
        if self._journal.lookup(_OPENED, self._round.round_key(own)) is not None:
            raise ReplayError("this site opened this round already")
        if self._journal.lookup(_READY, self._round.attempt_key(own)) is not None:
            raise ReplayError("this site joined this attempt already; ask for a new one")

    def _record(self, kind: str, key: str, message: bytes) -> None:
        try:
            self._journal.record(kind, key, message)
        except RecordedError:
            raise ReplayError(f"{kind} happened already for this round or attempt") from None
