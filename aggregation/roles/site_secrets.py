"""A site's secrets for one attempt, and what they hide.

Single-use keys, what they give together with neighbours and custodians, and the seed of the
self-mask. They encrypt and mask one update, once, and are of no use afterwards.

`SiteAttempt` goes through it in order: `draw`, `choose`, `encapsulate`, `take`, `encrypt`,
`spend_key`, and `forget` when the seed has been revealed. `roles.rehearsed` rebuilds one from what
a site revealed, to compute what it should have sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.ckks import residues, suites
from aggregation.ckks.collective import CollectiveEncryptor
from aggregation.crypto import graph, masking, pairwise, sealed_box
from aggregation.crypto.masking import Pair, SiteMasks, Stream
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.errors import StateError
from aggregation.protocol.exchange import Exchanged, Part
from aggregation.protocol.messages import Ready
from aggregation.protocol.rehearsal import Reveal
from aggregation.protocol.round import FixedCohort, Round
from aggregation.protocol.uploads import Chunks
from aggregation.roles.kept_attempt import KeptAttempt
from aggregation.roles.site_shares import SiteShares
from aggregation.threads import each_batch


@dataclass(frozen=True, slots=True)
class Drawn:
    """The contents of an exchange message, drawn and not yet signed.

    Attributes:
        chosen: Positions of the neighbours, where sites choose.
        parts: By reader's place (`exchange.Exchanged`).
        key: Where sites may vanish, the commitment to the MAC key, or zeros.
    """

    chosen: tuple[int, ...]
    parts: dict[int, Part]
    key: bytes | msgspec.UnsetType


class SiteSecrets:
    """The secrets of one site in one attempt: drawn once, used once, never copied."""

    def __init__(self, round_: Round, name: str) -> None:
        self._round = round_
        self._name = name
        self._seed = secrets.token_bytes(masking.SEED_SIZE)
        self._key: EphemeralKey | None = None
        self._kem: dict[int, tuple[bytes, bytes]] = {}
        self._custodian_kem: list[tuple[bytes, bytes]] = []
        self._pairs: list[Pair] = []
        # Those this site chose, and those who chose it, where sites choose.
        self._chosen: tuple[int, ...] = ()
        self._chosen_by: set[int] = set()
        self.shares = SiteShares(name) if round_.shares else None
        # Of a rehearsal, every private key: nothing of it is worth hiding.
        self._to_reveal: tuple[bytes, bytes | msgspec.UnsetType] | None = None

    @classmethod
    def revealed(cls, round_: Round, name: str, seed: bytes, key: EphemeralKey) -> SiteSecrets:
        """Rebuilds the secrets that a site had in a rehearsal from what it revealed."""
        made = cls(round_, name)
        made._seed, made._key = seed, key
        return made

    def __repr__(self) -> str:
        return "SiteSecrets(secret)"

    def __reduce__(self) -> str:
        raise TypeError("the secrets of an attempt are not copied or stored")

    @property
    def key(self) -> EphemeralKey:
        """The single-use keys.

        Raises:
            StateError: Not drawn yet, or spent.
        """
        if self._key is None:
            raise StateError("the single-use key of this attempt is not drawn yet, or spent")
        return self._key

    @property
    def seed(self) -> bytes:
        """The self-mask's seed, 32 bytes: to be revealed at the opening."""
        return self._seed

    @property
    def announced(self) -> Ready:
        """The `ready` message's body, which announces the single-use keys.

        Raises:
            StateError: They are not drawn yet, or spent.
        """
        box = self.shares.box_key if self.shares is not None else msgspec.UNSET
        return Ready(self._round.digest, self.key.public, self.key.kem_public, box)

    def draw(self) -> Ready:
        """Draw the single-use keys; what announces them."""
        self._key = EphemeralKey(hybrid=self._round.hybrid)
        if self._round.is_rehearsal:
            box = msgspec.UNSET if self.shares is None else self.shares.reveal()
            self._to_reveal = (self._key.reveal_all(), box)
        return self.announced

    def reveal(self, cohort: FixedCohort, *, verified: bool | msgspec.UnsetType) -> Reveal:
        """Every secret of a rehearsal.

        Raises:
            StateError: It is none, or the keys are not drawn yet.
        """
        if self._to_reveal is None:
            raise StateError("keys are revealed of a rehearsal alone, once they were announced")
        key, box = self._to_reveal
        return Reveal(cohort.transcript, key, self._seed, box, verified)

    def choose(self, cohort: FixedCohort) -> tuple[int, ...]:
        """Positions of those that this site has something for; where sites choose, drawn once.

        Nobody has another draw by having this fail: what was drawn stays drawn.
        """
        own, sites = cohort.position(self._name), len(cohort.members)
        if not cohort.chooses:
            return tuple(index for index in range(sites) if index != own)
        # Drawn once everybody's keys are fixed, by this site alone: nobody can place it.
        self._chosen = self._chosen or graph.choose(sites, own)
        return self._chosen

    def encapsulate(self, cohort: FixedCohort, parts: Mapping[int, Part]) -> Drawn:
        """In a hybrid plan make the secrets this site initiates; where sites may vanish, deal.

        Args:
            cohort: The verified cohort, in which this site chose.
            parts: By reader's place, what else is said to each.
        """
        own, sites = cohort.position(self._name), len(cohort.members)
        filled = dict(parts)
        key: bytes | msgspec.UnsetType = msgspec.UNSET

        def add(place: int, **fields: bytes) -> None:
            filled[place] = msgspec.structs.replace(filled.get(place, Part()), **fields)

        if self.shares is not None:
            dealt, key = self.shares.deal(cohort, self._seed)
            for place, (box, commitment) in enumerate(dealt):
                add(place, box=box, commitment=commitment)
        if self._round.hybrid:
            for j in self._chosen or cohort.initiates(own):
                self._kem[j] = sealed_box.encapsulate(cohort.readies[j].kem)
                add(j, ciphertext=self._kem[j][1])
            for i, custodian in enumerate(cohort.custodians):
                self._custodian_kem.append(sealed_box.encapsulate(custodian.kem))
                add(sites + i, ciphertext=self._custodian_kem[-1][1])
        return Drawn(self._chosen, filled, key)

    def take(self, cohort: FixedCohort, exchanges: Iterable[Exchanged]) -> None:
        """Take the secrets that neighbours sent to this site.

        Raises:
            RefusedError: A ciphertext is none.
        """
        own = cohort.position(self._name)
        for sent in exchanges:
            if own not in sent.initiates:
                continue
            self._chosen_by.add(sent.sender)
            if self._round.hybrid and not (sent.sender in self._chosen and own < sent.sender):
                # Where two chose each other, the earlier's counts.
                ciphertext = sent.parts[own].ciphertext
                self._kem[sent.sender] = (self.key.decapsulate(ciphertext), ciphertext)

    def _neighbours(self, cohort: FixedCohort) -> list[int]:
        if cohort.chooses:
            return sorted({*self._chosen, *self._chosen_by})
        own = cohort.position(self._name)
        return [index for index in range(len(cohort.members)) if index != own]

    def commitment(self, cohort: FixedCohort) -> bytes:
        """Returns the commitment H(b_i) to the self-mask's seed, 32 bytes."""
        return masking.commitment(self._seed, cohort.transcript, self._name)

    def encrypt(
        self, cohort: FixedCohort, packed: npt.NDArray[np.int64]
    ) -> tuple[Chunks, list[bytes], bytes | None]:
        """Encrypt and mask.

        Args:
            cohort: Whom with.
            packed: Packed integers, shape (chunks, N), int64.

        Returns:
            The chunks, their digests, and in the collective suite the box with this site's masked
            secret.

        Raises:
            CohortError: A neighbour's key or secret is missing or not valid.
        """
        round_ = self._round
        modulus, packing = round_.parameters.modulus, round_.packing
        encryptor = suites.encryptor(round_.parameters, cohort.material, cohort.transcript)
        masks = self.agree(cohort, self._neighbours(cohort), self._kem)
        chunks = Chunks(packing.chunks, round_.chunk_size)

        def encrypt(part: range) -> list[bytes]:
            scaled = packed[part.start : part.stop] << packing.encoding.scale_bits
            encrypted = encryptor.encrypt(residues.from_signed(scaled, modulus), part.start)
            masks.apply(encrypted[:, 0], part.start)
            residues.pack_into(chunks.part(part), encrypted, modulus)
            return chunks.digests(part)

        digests = list(chain.from_iterable(each_batch(encrypt, packing.chunks)))
        box = None
        if isinstance(encryptor, CollectiveEncryptor):
            box = self._seal(cohort, encryptor)
        return chunks, digests, box

    def agree(
        self,
        cohort: FixedCohort,
        neighbours: Iterable[int],
        kem: Mapping[int, tuple[bytes, bytes]],
    ) -> SiteMasks:
        """Agree on secrets with neighbours, for this and for `sigma_masks` and `mask_tags`.

        Args:
            cohort: The verified cohort.
            neighbours: Their positions.
            kem: In a hybrid plan, by neighbour, the ML-KEM secret and its ciphertext.

        Returns:
            The masks of c0.

        Raises:
            CohortError: A neighbour's key or secret is missing or not valid.
        """
        round_, transcript, own = self._round, cohort.transcript, cohort.position(self._name)
        keys = [ready.key for ready in cohort.readies]
        needed = kem if round_.hybrid else None
        self._pairs = pairwise.pairs(
            self.key, transcript, cohort.names, keys, own, neighbours, needed
        )
        # Where the secret is masked, its masks alone decide when a sum opens.
        self_masks = () if round_.collective else (self._self_stream(cohort, masking.SELF_LABEL),)
        return masking.site_masks(
            self._pairs,
            transcript,
            masking.PAIR_LABEL,
            round_.parameters.modulus,
            round_.packing.degree,
            self_masks,
        )

    def mask_tags(self, cohort: FixedCohort, tags: npt.NDArray[np.uint64], prime: int) -> None:
        """Mask tags in place, shape (n,), with what is shared with the neighbours.

        Tags that come with the upload are under the self-mask too: without it, those of two
        cohorts of which neither opened would tell their difference.
        """
        transcript, label, count = cohort.transcript, masking.PAIR_TAGS_LABEL, len(tags)
        own = (
            (masking.self_tags_stream(self._seed, transcript, self._name, prime, count),)
            if cohort.shares
            else ()
        )
        masks = masking.site_masks(self._pairs, transcript, label, prime, count, own)
        masks.apply(tags[np.newaxis], 0)

    def spend_key(self) -> None:
        """Forget the single-use keys: everything was agreed."""
        self._key = None

    def recall(self, kept: KeptAttempt) -> None:
        """Have what an opening takes, after a restart; of no use for anything else."""
        self._seed = kept.seed
        if self.shares is not None:
            self.shares.recall(kept.held)

    def forget(self) -> None:
        """Forget what hides the update, once the seed is revealed."""
        self._key = None
        self._pairs, self._kem, self._custodian_kem = [], {}, []
        if self.shares is not None:
            self.shares.forget()

    def _self_stream(self, cohort: FixedCohort, label: bytes) -> Stream:
        modulus, degree = self._round.parameters.modulus, self._round.packing.degree
        return masking.self_stream(
            self._seed, cohort.transcript, self._name, modulus, degree, label
        )

    def _seal(self, cohort: FixedCohort, encryptor: CollectiveEncryptor) -> bytes:
        """sigma: the secret under masks of its own, in a box for the decryptor."""
        sigma = encryptor.secret()[np.newaxis]
        self.sigma_masks(cohort).apply(sigma, 0)
        content = residues.pack(sigma, self._round.parameters.modulus)
        return sealed_box.seal_box(
            cohort.material, content, cohort.transcript + self._name.encode()
        )

    def sigma_masks(self, cohort: FixedCohort) -> SiteMasks:
        """The masks of the secret, once `agree` was called."""
        modulus, degree = self._round.parameters.modulus, self._round.packing.degree
        transcript, name = cohort.transcript, self._name
        streams = [self._self_stream(cohort, masking.SELF_SIGMA_LABEL)]
        for i, custodian in enumerate(self._round.plan.custodians):
            shared = self.key.exchange(cohort.custodians[i].key)
            if self._round.hybrid:
                kem = self._custodian_kem[i]
                shared = pairwise.combine(shared, *kem, transcript, name, custodian.name)
            key = masking.derive(shared, transcript, masking.CUSTODIAN_LABEL, name, custodian.name)
            streams.append(Stream(key, modulus, degree))
        return masking.site_masks(
            self._pairs, transcript, masking.PAIR_SIGMA_LABEL, modulus, degree, streams
        )
