"""A site's side of one attempt: it alone sees its update, and opens only what everybody fixed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from . import mac, masking, messages, pairwise, protocol, residues, sealed_box, suites
from .collective import CollectiveEncryptor
from .errors import (
    CohortError,
    InputError,
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
from .mac import LinearMac
from .membership import check_plan
from .messages import (
    Exchange,
    Member,
    Opening,
    OpeningList,
    Ready,
    RoundPlan,
    Sigma,
    UploadManifest,
)
from .pairwise import EphemeralKey
from .protocol import FixedCohort, Upload

_BATCH: Final = 15  # chunks encrypted at a time; the CKKS transform takes as many in one go

_READY: Final = "site/ready"
_OPENED: Final = "site/opened"


class SiteAttempt:
    """Steps 2, 4, 5, 6 and 9 of one attempt at a round.

    2. Construction verifies the plan and decides whether its cohort would protect this site.
    4. `ready` draws single-use keys, records them, and announces them. Before it the caller stores
       the quantised update and commits its privacy budget: being ready depends on the data.
       In a hybrid plan `exchange` follows once the cohort is fixed: ML-KEM ciphertexts for
       others. In any other it says nothing, and may be left out.
    5. `upload` encrypts and masks the integers for a fixed cohort. Once: a second call returns the
       same bytes, and other integers or another cohort are refused, because two uploads under one
       set of masks would open their difference.
    6. `open` reveals the self-mask's seed and this site's masked tags, once the aggregator's
       signed list, in the collective suite confirmed by the decryptor, shows this very upload
       among those of the whole cohort. It is recorded first; a round is opened once, and no later
       attempt at it is joined.
    9. `verify` checks the release against the summed tags. What it returns is, but for sites that
       gave the MAC key away, the sum of what this cohort uploaded.

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
        custodians: Iterable[str] = (),
        membership: bytes | None = None,
    ) -> None:
        """Admit a plan.

        Args:
            identity: This site's key pair.
            plan_message: The coordinator's signed plan.
            coordinator: Whose plans this site follows.
            pinned: By name, the parties this site knows: aggregator, decryptor and other sites.
            journal: This site's durable record.
            min_cohort: The fewest pinned sites, itself included, it will be summed with.
            custodians: Names of the custodians without whom nothing of this site's opens.
            membership: The federation's signed membership list, if it keeps one.

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
        if membership is not None:
            check_plan(self.plan, membership, coordinator)
        missing = set(custodians) - {c.name for c in self.plan.custodians}
        if missing:
            raise PlanError(f"the plan leaves out a custodian: {', '.join(sorted(missing))}")
        self._refuse_replay()
        self._key: EphemeralKey | None = None
        self._ready: bytes | None = None
        self._seed = secrets.token_bytes(masking.SEED_SIZE)
        self._cohort: FixedCohort | None = None
        self._cohort_digest = b""
        self._exchange: bytes | None = None
        self._kem: dict[int, tuple[bytes, bytes]] = {}
        self._custodian_kem: list[tuple[bytes, bytes]] = []
        self._mac_key: bytes | None = None
        self._leader_secret = b""
        self._pairs: list[masking.Pair] = []
        self._mac: LinearMac | None = None
        self._integers: npt.NDArray[np.int32] | None = None
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
            key = EphemeralKey(hybrid=self._round.hybrid)
            body = Ready(self._round.digest, key.public, key.kem_public)
            message = messages.seal(self._identity, body)
            self._record(_READY, self._round.attempt_key(self._identity.public), message)
            self._key, self._ready = key, message
        return self._ready

    def exchange(self, cohort_message: bytes) -> bytes:
        """Send key material to neighbours (step 4). A second call returns the same message.

        Whoever carries it gives it to every site's `upload`; a site takes what is for it.

        Raises:
            StateError: `ready` comes first, or another cohort came before.
            RefusedError: The cohort does not hold, or would not protect this site.
        """
        if self._exchange is None or messages.digest(cohort_message) != self._cohort_digest:
            cohort = self._fix(cohort_message)
            own = cohort.position(self._identity.public.name)
            ciphertexts: list[bytes] = []
            if self._round.hybrid:
                for j in cohort.graph.initiates(own):
                    self._kem[j] = sealed_box.encapsulate(cohort.readies[j].kem)
                    ciphertexts.append(self._kem[j][1])
                for custodian in cohort.custodians:
                    self._custodian_kem.append(sealed_box.encapsulate(custodian.kem))
                    ciphertexts.append(self._custodian_kem[-1][1])
            body = Exchange(cohort.transcript, b"".join(ciphertexts))
            self._exchange = messages.seal(self._identity, body)
        return self._exchange

    def upload(
        self,
        cohort_message: bytes,
        integers: npt.NDArray[np.int32],
        exchanges: Iterable[bytes] = (),
    ) -> Upload:
        """Encrypt and mask the update for a fixed cohort (step 5).

        Args:
            cohort_message: The coordinator's cohort, with this site's ready message in it.
            integers: The quantised update, shape (d,), int32, |v| <= 2**(bits - 1) - 1.
            exchanges: In a hybrid plan, the cohort's exchange messages; at least those of this
                site's neighbours.

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
        cohort = self._fix(cohort_message)
        self._round.packing.check(integers)
        if self._round.hybrid:
            self._take_exchanges(cohort, cohort_message, exchanges)
        upload = self._encrypt(cohort, integers)
        self._upload = upload
        self._integers_digest = integers_digest
        self._integers = integers.copy()  # for the tags; the caller may reuse its array
        self._key = None  # single use
        return upload

    def open(self, opening_list: bytes) -> bytes:
        """Reveal the self-mask's seed (step 6). A second call returns the same message.

        Args:
            opening_list: The aggregator's list; in the collective suite the decryptor's
                confirmation of it.

        Raises:
            StateError: Nothing was uploaded, or another list was opened.
            OpeningError: The list does not show this site's upload and all others.
            ReplayError: This round was opened in another attempt.
        """
        if self._cohort is None or self._upload is None:
            raise StateError("there is no upload to open")
        cohort = self._cohort
        listed, digest = protocol.read_opening_list(cohort, opening_list)
        if self._opening is not None:
            if digest != self._opening_list:
                raise StateError("this attempt opened for another list")
            return self._opening
        own = cohort.position(self._identity.public.name)
        if listed.manifests[own] != messages.digest(self._upload.manifest):
            raise OpeningError("the list does not show this site's upload")
        keyed = LinearMac(
            self._read_mac_key(cohort, listed, own), cohort.transcript, self._round.packing.degree
        )
        tags = self._tags(cohort, keyed, own)
        opening = messages.seal(
            self._identity, Opening(cohort.transcript, digest, self._seed, tags)
        )
        self._record(_OPENED, self._round.round_key(self._identity.public), opening)
        self._mac, self._opening_list, self._opening = keyed, digest, opening
        self._pairs, self._leader_secret, self._integers = [], b"", None
        return opening

    def verify(self, release: bytes) -> npt.NDArray[np.int64]:
        """Check a release (step 9).

        Returns:
            The sum of the cohort's integers, shape (d,), int64.

        Raises:
            StateError: This site opened nothing.
            RefusedError: It is not the release of what this site opened, or not the sum.
        """
        if self._cohort is None or self._opening_list is None or self._mac is None:
            raise StateError("this site has opened nothing that could be released")
        total, tags = protocol.read_release(self._cohort, release, self._opening_list)
        packing, expected = self._round.packing, self._mac.pad()
        for start in range(0, packing.chunks, _BATCH):
            stop = min(start + _BATCH, packing.chunks)
            tag = self._mac.tag(packing.pack_sum(total, start, stop), start)
            expected = mac.add_tags(expected, tag)
        # Not secret any more, and every site refuses for itself: no constant time is needed.
        if mac.decode_tags(tags) != expected:
            raise ReleaseError("the release is not the sum of what the cohort uploaded")
        return total

    def _fix(self, message: bytes) -> FixedCohort:
        """Verify the cohort; the first that holds is the only one of this attempt."""
        if self._key is None or self._ready is None:
            raise StateError("announce a key with ready() first")
        if self._cohort is not None:
            if not isinstance(message, bytes) or messages.digest(message) != self._cohort_digest:
                raise StateError("this attempt has another cohort")
            return self._cohort
        cohort = protocol.read_cohort(self._round, message)
        own = self._identity.public
        protocol.admit(self.plan, cohort.members, own, self._pinned, self._min_cohort)
        pairs = zip(cohort.members, cohort.readies, strict=True)
        announced = [(r.key, r.kem) for member, r in pairs if member.identity == own]
        if announced != [(self._key.public, self._key.kem_public)]:
            raise CohortError("the cohort does not carry this site's ready message")
        self._cohort, self._cohort_digest = cohort, messages.digest(message)
        return cohort

    def _take_exchanges(
        self, cohort: FixedCohort, cohort_message: bytes, exchanges: Iterable[bytes]
    ) -> None:
        if self._key is None:
            raise StateError("the single-use key of this attempt is spent")
        self.exchange(cohort_message)
        own, graph = cohort.position(self._identity.public.name), cohort.graph
        for message in exchanges:
            claimed = cohort.position(messages.sender(message, messages.EXCHANGE_CAP))
            if own not in graph.initiates(claimed):
                continue  # nothing in it is for this site
            sender, ciphertexts = protocol.read_exchange(cohort, message)
            ciphertext = ciphertexts[graph.initiates(sender).index(own)]
            self._kem[sender] = (self._key.decapsulate(ciphertext), ciphertext)

    def _encrypt(self, cohort: FixedCohort, integers: npt.NDArray[np.int32]) -> Upload:
        if self._key is None:
            raise StateError("the single-use key of this attempt is spent")
        round_, name, transcript = self._round, self._identity.public.name, cohort.transcript
        modulus, packing = round_.parameters.modulus, round_.packing
        own = cohort.position(name)
        encryptor = suites.encryptor(round_.parameters, cohort.material, transcript)
        keys = [ready.key for ready in cohort.readies]
        kem = self._kem if round_.hybrid else None
        pairs = pairwise.pairs(self._key, transcript, cohort.names, keys, own, kem)
        self_mask = masking.self_stream(self._seed, transcript, name, modulus, packing.degree)
        # Where the secret is masked, its masks alone decide when a sum opens.
        masks = masking.site_masks(
            pairs,
            transcript,
            masking.PAIR_LABEL,
            modulus,
            packing.degree,
            () if round_.collective else (self_mask,),
        )
        chunks: list[bytes] = []
        for start in range(0, packing.chunks, _BATCH):
            stop = min(start + _BATCH, packing.chunks)
            messages_ = packing.pack(integers, start, stop)
            messages_ <<= packing.encoding.scale_bits
            encrypted = encryptor.encrypt(residues.from_signed(messages_, modulus), start)
            for k, chunk in enumerate(encrypted, start):
                masks.apply(chunk[0], k)
                chunks.append(residues.pack(chunk, modulus))
        if isinstance(encryptor, CollectiveEncryptor):
            chunks.append(self._seal_secret(cohort, self._key, pairs, encryptor))
        manifest = UploadManifest(
            transcript=transcript,
            chunk_digests=b"".join(messages.digest(chunk) for chunk in chunks),
            commitment=masking.commitment(self._seed, transcript, name),
            mac_boxes=self._mac_boxes(cohort, self._key, own),
        )
        self._pairs = pairs
        return Upload(messages.seal(self._identity, manifest), tuple(chunks))

    def _seal_secret(
        self,
        cohort: FixedCohort,
        key: EphemeralKey,
        pairs: list[masking.Pair],
        encryptor: CollectiveEncryptor,
    ) -> bytes:
        """sigma: the secret under masks of its own, in a box for the decryptor."""
        modulus, degree = self._round.parameters.modulus, self._round.packing.degree
        transcript, name = cohort.transcript, self._identity.public.name
        own = [
            masking.self_stream(
                self._seed, transcript, name, modulus, degree, masking.SELF_SIGMA_LABEL
            )
        ]
        for i, custodian in enumerate(self.plan.custodians):
            shared = key.exchange(cohort.custodians[i].key)
            if self._round.hybrid:
                kem = self._custodian_kem[i]
                shared = pairwise.combine(shared, *kem, transcript, name, custodian.name)
            stream_key = masking.derive(
                shared, transcript, masking.CUSTODIAN_LABEL, name, custodian.name
            )
            own.append(masking.Stream(stream_key, modulus, degree))
        masks = masking.site_masks(
            pairs, transcript, masking.PAIR_SIGMA_LABEL, modulus, degree, own
        )
        sigma = encryptor.secret()
        masks.apply(sigma, 0)
        box = sealed_box.seal_box(
            cohort.material, residues.pack(sigma, modulus), transcript + name.encode()
        )
        return messages.seal(self._identity, Sigma(transcript, box))

    def _mac_boxes(self, cohort: FixedCohort, key: EphemeralKey, own: int) -> bytes:
        """The first site draws the MAC key; every other notes what opens its box."""
        names = cohort.names
        if own:
            self._leader_secret = key.exchange(cohort.readies[0].key)
            return bytes(mac.BOX_SIZE * (len(names) - 1))  # all uploads are of one size
        self._mac_key = mac.new_key()
        return b"".join(
            mac.seal_key(self._mac_key, key.exchange(ready.key), cohort.transcript, names[0], name)
            for name, ready in zip(names[1:], cohort.readies[1:], strict=True)
        )

    def _read_mac_key(self, cohort: FixedCohort, listed: OpeningList, own: int) -> bytes:
        if self._mac_key is not None:
            return self._mac_key
        leader = cohort.members[0].identity
        if messages.digest(listed.first) != listed.manifests[0]:
            raise OpeningError("the list does not carry the first site's manifest")
        cap = messages.manifest_cap(self._round.upload_items)
        boxes = messages.unseal(listed.first, UploadManifest, leader, cap).mac_boxes
        if len(boxes) != mac.BOX_SIZE * (len(cohort.members) - 1):
            raise OpeningError("the first site sent another number of MAC keys")
        box = boxes[(own - 1) * mac.BOX_SIZE : own * mac.BOX_SIZE]
        name = self._identity.public.name
        return mac.open_key(box, self._leader_secret, cohort.transcript, leader.name, name)

    def _tags(self, cohort: FixedCohort, keyed: LinearMac, own: int) -> bytes:
        packing = self._round.packing
        if self._integers is None:
            raise StateError("there is no upload to open")
        tags = (0,) * mac.TAGS if own else keyed.pad()
        for start in range(0, packing.chunks, _BATCH):
            stop = min(start + _BATCH, packing.chunks)
            tag = keyed.tag(packing.pack(self._integers, start, stop), start)
            tags = mac.add_tags(tags, tag)
        masked = np.array(tags, dtype=np.uint64)
        masking.site_masks(
            self._pairs, cohort.transcript, masking.PAIR_TAGS_LABEL, mac.PRIME, mac.TAGS
        ).apply(masked, 0)
        return mac.encode_tags(tuple(int(tag) for tag in masked))

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
