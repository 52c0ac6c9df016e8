"""Whose fault a rehearsal failed by: computed by anybody, from what came and what was revealed.

What a site should have sent follows from the public integers and from its own keys and its
neighbours', which all were announced before anybody sent anything:

    shares      each opens with its reader's box key, is the one that was signed, and all of a
                dealer's lie on one polynomial that gives its seed
    MAC key     one for all, from the first site
    sigma       less the masks that its keys give: a secret of ones, zeros and minus ones
    c0          less its masks, its integers and its secret's product: an error of 21 at most
    tags        less their masks: those of its integers
    projections where norms are checked: those of its integers

So where every site reveals and none is named, each sent what an honest one could have sent, and the
sum opens to the sum of the public integers. A release that is another is then the fault of neither.
Of two sites that share a mask the one is named whose own words do not fit together: the ciphertext
for another is signed by whoever made it, and both would have used what is in it.

A site that reveals nothing is named for that, and whoever shares masks with it is not looked at:
there is another rehearsal for those, without it.

`runtime.rehearsals` calls `judge` when a rehearsal has ended, and `report.rehearsed` calls it
again, years later, on the evidence that was kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.ckks import residues
from aggregation.ckks.collective import public_stream
from aggregation.ckks.exact_product import ExactMultiplier
from aggregation.ckks.parameters import KEY_ERROR
from aggregation.crypto import mac, masking, shamir
from aggregation.crypto.mac import LinearMac
from aggregation.crypto.masking import SiteMasks
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.crypto.sealed_box import BoxKey
from aggregation.errors import (
    AggregationError,
    CohortError,
    MessageError,
    RefusedError,
    SealedError,
)
from aggregation.protocol import checks, dealt, messages
from aggregation.protocol.accusation import open_mac_key, open_sigma
from aggregation.protocol.evidence import Evidence
from aggregation.protocol.exchange import Exchanged, read_exchange
from aggregation.protocol.messages import Opening, UploadManifest
from aggregation.protocol.norms import NormCheck
from aggregation.protocol.rehearsal import Reveal, public_integers, read_reveal
from aggregation.protocol.round import FixedCohort
from aggregation.protocol.uploads import split_digests
from aggregation.roles.site_secrets import SiteSecrets
from aggregation.threads import batches

# Why a party is named; `DEVIATIONS` says each in words.
UNREVEALED: Final = "unrevealed"
KEYS: Final = "keys"
SHARES: Final = "shares"
MAC_KEY: Final = "mac-key"
SIGMA: Final = "secret"
UPLOAD: Final = "upload"
SEED: Final = "seed"
TAGS: Final = "tags"
PROJECTIONS: Final = "projections"
VERDICT: Final = "verdict"
DEVIATIONS: Final[Mapping[str, str]] = {
    UNREVEALED: "it did not reveal its keys of the rehearsal",
    KEYS: "it revealed other keys than it had announced",
    SHARES: "the shares that it dealt of its mask do not open it",
    MAC_KEY: "it gave other sites different MAC keys, or none",
    SIGMA: "the secret that it sealed for the decryptor is none: a wrong sigma",
    UPLOAD: "what it uploaded is no encryption of the public integers under its own keys",
    SEED: "it committed to another seed of its mask than the one that it used",
    TAGS: "its tags are not those of the public integers",
    PROJECTIONS: "the projections that it sent are not those of what it uploaded",
    VERDICT: "it says that the right sum does not verify",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of a rehearsal: parties that deviated, and whether the sum is right.

    Attributes:
        named: By party, why: a word of `DEVIATIONS`.
        holds: Whether the release is the sum of the public integers.
    """

    named: dict[str, str] = field(default_factory=dict)
    holds: bool = False


class _Deviates(Exception):
    """A site did, by a word of `DEVIATIONS`."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def judge(cohort: FixedCohort, evidence: Evidence) -> Judgement:
    """Name whoever sent what its keys and the public integers do not give.

    Args:
        cohort: The rehearsal's, verified: `read_cohort` of the evidence's own plan and cohort.
        evidence: What came.

    Raises:
        CohortError: The attempt is no rehearsal, or chunks are not those that their sites signed.
    """
    return _Judge(cohort, evidence).judge()


class _Judge:
    def __init__(self, cohort: FixedCohort, evidence: Evidence) -> None:
        self._cohort, self._evidence = cohort, evidence
        self._named: dict[str, str] = {}
        self._reveals: dict[str, Reveal] = {}
        self._keys: dict[int, EphemeralKey] = {}
        self._boxes: dict[int, BoxKey] = {}
        self._decryptor: BoxKey | None = None
        self._exchanged: dict[int, Exchanged] = {}
        self._manifests: dict[str, UploadManifest] = {}
        self._mac_key = b""
        self._norms: NormCheck | None = None

    def judge(self) -> Judgement:
        if not self._cohort.round.is_rehearsal:
            raise CohortError("an attempt at a round is judged by nobody")
        self._read_reveals()
        self._read_exchanges()
        self._read_manifests()
        if self._cohort.shares:
            self._check_shares()
        elif self._manifests.get(self._cohort.names[0]) is not None:
            self._check_mac_key()
        for place, name in enumerate(self._cohort.names):
            if name in self._named or name not in self._manifests:
                continue
            try:
                self._check(place, name)
            except _Deviates as found:
                self._named[name] = found.word
        holds = self._holds()
        if holds and not self._named:  # else honest sites refused it by rights
            lies = [name for name, said in self._reveals.items() if said.verified is False]
            self._named.update(dict.fromkeys(lies, VERDICT))
        return Judgement(self._named, holds)

    def _read_reveals(self) -> None:
        cohort = self._cohort
        decryptor = cohort.round.plan.decryptor.name
        for name in (*cohort.names, decryptor):
            message = self._evidence.reveals.get(name)
            try:
                sender, said = read_reveal(cohort, message or b"")
            except RefusedError:
                self._named[name] = UNREVEALED
                continue
            try:
                self._take_keys(name, said, is_decryptor=name == decryptor)
            except (AggregationError, _Deviates):
                self._named[name] = KEYS
                continue
            if sender == name:
                self._reveals[name] = said

    def _take_keys(self, name: str, said: Reveal, *, is_decryptor: bool) -> None:
        cohort = self._cohort
        if is_decryptor:
            key = BoxKey(said.key)
            _require(key.public == cohort.material, KEYS)
            self._decryptor = key
            return
        place = cohort.position(name)
        ready = cohort.readies[place]
        own = EphemeralKey(hybrid=cohort.round.hybrid, revealed=said.key)
        _require((own.public, own.kem_public) == (ready.key, ready.kem), KEYS)
        _require(said.seed is not msgspec.UNSET, KEYS)
        if cohort.shares:
            box = BoxKey(said.box if isinstance(said.box, bytes) else b"")
            _require(box.public == ready.box, KEYS)
            self._boxes[place] = box
        self._keys[place] = own

    def _read_exchanges(self) -> None:
        for message in self._evidence.exchanges.values():
            try:
                sent = read_exchange(self._cohort, message)
            except RefusedError:
                continue  # nobody signed it who could be named
            self._exchanged[sent.sender] = sent

    def _read_manifests(self) -> None:
        for message in self._evidence.manifests.values():
            try:
                name, manifest = checks.read_upload(self._cohort, message)
            except AggregationError:
                continue  # nothing that this site signed, so nobody could take it
            digests = split_digests(manifest.chunk_digests, self._cohort.round.upload_items)
            chunks = self._evidence.chunks.get(name, ())
            if [messages.digest(chunk) for chunk in chunks] != digests:
                raise CohortError(f"the chunks of {name} are not those that it signed")
            self._manifests[name] = manifest

    def _check_shares(self) -> None:
        cohort = self._cohort
        for sent in self._exchanged.values():
            dealer = cohort.names[sent.sender]
            shares: dict[int, bytes] = {}
            try:
                for place, name in enumerate(cohort.names):
                    if place == sent.sender or place not in self._boxes:
                        continue
                    share = dealt.open_share(cohort, sent, name, self._boxes[place].open)
                    shares[place + 1] = share.salted[shamir.SALT_SIZE :]
                    if not sent.sender:
                        self._mac_key = share.key
                if not self._share_one(shares, dealer):
                    self._named.setdefault(dealer, SHARES)
            except SealedError:
                self._named.setdefault(dealer, SHARES)

    def _share_one(self, shares: Mapping[int, bytes], dealer: str) -> bool:
        """Whether all that are known are values of one polynomial, and that gives the seed.

        Windows of as many as it takes: two that follow on one another have all places but one in
        common, and 0, so they determine one polynomial.
        """
        said, needed = self._reveals.get(dealer), self._cohort.openings
        places = sorted(shares)
        if said is None or len(places) < needed:
            return True  # nothing can be said of it
        for first in range(len(places) - needed + 1):
            window = shamir.at_zero(places[first : first + needed])
            try:
                if shamir.combine(shares, window) != said.seed:
                    return False
            except MessageError:
                return False
        return True

    def _check_mac_key(self) -> None:
        first, *others = self._cohort.names
        found = set()
        for name in others:
            key = self._keys.get(self._cohort.position(name))
            if key is None:
                continue
            try:
                found.add(open_mac_key(self._cohort, name, self._manifests[first], key))
            except SealedError:
                found.add(b"")
        if len(found) > 1 or found == {b""}:
            self._named.setdefault(first, MAC_KEY)
        elif found:
            self._mac_key = found.pop()

    def _check(self, place: int, name: str) -> None:
        """Checks what one site uploaded and opened against its revealed secrets.

        Raises:
            _Deviates: It is something else than its keys and the public integers give.
        """
        cohort, manifest = self._cohort, self._manifests[name]
        seed = self._reveals[name].seed
        if not isinstance(seed, bytes):
            raise _Deviates(KEYS)
        expected = masking.commitment(seed, cohort.transcript, name)
        _require(manifest.commitment == expected, SEED)
        kem = self._kem(place)
        if kem is None or self._decryptor is None:
            return
        secrets = SiteSecrets.revealed(cohort.round, name, seed, self._keys[place])
        masks = secrets.agree(cohort, kem, kem)
        packed = cohort.round.packing.pack(public_integers(cohort.round, name))
        *chunks, sealed = self._evidence.chunks.get(name, ()) or (b"",)
        secret = self._secret(name, sealed, secrets)
        self._check_chunks(chunks, packed, masks, secret)
        self._check_tags(place, name, packed, secrets)
        self._check_projections(name)

    def _kem(self, place: int) -> dict[int, tuple[bytes, bytes]] | None:
        """By neighbour the ML-KEM secret, as its reader reads it; None where one is not known."""
        found: dict[int, tuple[bytes, bytes]] = {}
        for other in range(len(self._cohort.members)):
            if other == place:
                continue
            early, late = min(place, other), max(place, other)
            for maker, reader in ((early, late), (late, early)):  # of two the earlier's counts
                sent = self._exchanged.get(maker)
                if sent is None or reader not in sent.initiates:
                    continue
                if reader not in self._keys:
                    return None
                ciphertext = b""
                if self._cohort.round.hybrid:
                    ciphertext = sent.parts[reader].ciphertext
                kem = self._keys[reader].decapsulate(ciphertext) if ciphertext else b""
                found[other] = (kem, ciphertext)
                break
            else:
                if not self._cohort.chooses and self._cohort.exchanges:
                    return None
                if not self._cohort.chooses:
                    found[other] = (b"", b"")
        return found

    def _secret(self, name: str, sealed: bytes, secrets: SiteSecrets) -> npt.NDArray[np.int64]:
        """s_i, shape (N,): from its box, out from under the masks that its keys give."""
        cohort, modulus = self._cohort, self._cohort.round.parameters.modulus
        if self._decryptor is None:
            raise _Deviates(SIGMA)
        try:
            sigma = open_sigma(cohort, name, sealed, self._decryptor.open)[np.newaxis]
        except AggregationError:
            raise _Deviates(SIGMA) from None
        masks = np.zeros_like(sigma)
        secrets.sigma_masks(cohort).apply(masks, 0)
        residues.subtract(sigma, masks, modulus)
        secret = residues.to_signed(sigma[0], modulus)
        _require(int(np.abs(secret).max()) <= 1, SIGMA)
        return secret

    def _check_chunks(
        self,
        chunks: Sequence[bytes],
        packed: npt.NDArray[np.int64],
        masks: SiteMasks,
        secret: npt.NDArray[np.int64],
    ) -> None:
        round_, modulus = self._cohort.round, self._cohort.round.parameters.modulus
        _require(len(chunks) == round_.packing.chunks, UPLOAD)
        multiplier = ExactMultiplier(secret, modulus)
        points = public_stream(self._cohort.transcript, round_.parameters)
        for part in batches(round_.packing.chunks):
            try:
                found = round_.unpack_chunks(chunks[part.start : part.stop])[:, 0].copy()
            except AggregationError:
                raise _Deviates(UPLOAD) from None
            scaled = packed[part.start : part.stop] << round_.packing.encoding.scale_bits
            expected = residues.from_signed(scaled, modulus)
            masks.apply(expected, part.start)
            residues.subtract(found, expected, modulus)
            # e - a s is left: with a s it is e, as the decryptor's arithmetic has it.
            left = multiplier.times(points.chunks(part.start, len(part))).view(np.uint64)
            left += found
            left += np.uint64(modulus)
            residues.reduce(left, modulus)
            errors = residues.to_signed(left, modulus)
            _require(int(np.abs(errors).max(initial=0)) <= KEY_ERROR, UPLOAD)

    def _check_tags(
        self, place: int, name: str, packed: npt.NDArray[np.int64], secrets: SiteSecrets
    ) -> None:
        cohort = self._cohort
        if cohort.shares:
            said = self._manifests[name].tags
        else:
            message = self._evidence.openings.get(name)
            if message is None:
                return
            try:
                said = messages.unseal(message, Opening, cohort.member(name)).tags
            except AggregationError:
                raise _Deviates(TAGS) from None
        if not self._mac_key:
            return  # its giver is named
        masked = np.array(self._tags(place, packed), dtype=np.uint64)
        secrets.mask_tags(cohort, masked, mac.PRIME)
        _require(said == mac.encode_tags(tuple(int(tag) for tag in masked)), TAGS)

    def _check_projections(self, name: str) -> None:
        """Checks a site's projections, if norms are checked and it sent any."""
        cohort, message = self._cohort, self._evidence.projections.get(name)
        if message is None or not cohort.round.checks_norms:
            return  # who sent none is left out for its silence
        if self._norms is None:
            mark = checks.read_release(cohort, self._evidence.release).mark
            self._norms = NormCheck(cohort, mark)
        try:
            _, found = self._norms.read(message)
        except AggregationError:
            raise _Deviates(PROJECTIONS) from None
        largest = cohort.round.packing.encoding.limit
        expected = self._norms.signs.project(public_integers(cohort.round, name), largest)
        _require(np.array_equal(found, expected), PROJECTIONS)

    def _tags(self, place: int, packed: npt.NDArray[np.int64]) -> tuple[int, ...]:
        """A site's tags before they are masked; the first site's have the pad on them."""
        degree = self._cohort.round.packing.degree
        keyed = LinearMac(self._mac_key, self._cohort.transcript, degree)
        parts = (keyed.tag(packed[p.start : p.stop], p.start) for p in batches(len(packed)))
        return reduce(mac.add_tags, parts, (0,) * mac.TAGS if place else keyed.pad())

    def _holds(self) -> bool:
        """Whether what was released is the sum of the public integers, and of their tags."""
        try:
            total, tags, _ = checks.read_release(self._cohort, self._evidence.release)
        except AggregationError:
            return False
        if not self._mac_key:
            return False
        round_, found = self._cohort.round, np.zeros_like(total)
        summed: tuple[int, ...] = (0,) * mac.TAGS
        for place, name in enumerate(self._cohort.names):
            integers = public_integers(round_, name)
            found += integers
            summed = mac.add_tags(summed, self._tags(place, round_.packing.pack(integers)))
        return np.array_equal(total, found) and tags == mac.encode_tags(summed)


def _require(holds: bool, word: str) -> None:
    if not holds:
        raise _Deviates(word)
