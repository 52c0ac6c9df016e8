"""The aggregator: adds masked ciphertexts, and holds nothing that could open one.

`runtime.attempt_state` makes one for an attempt once its cohort is fixed, and calls `add_exchange`
where sites may vanish, `add` for every upload, `opening_list`, `add_opening`, and `total`. Uploads
may come in any order; the sum grows as they do, and no upload is kept.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import msgspec
import numpy as np

from aggregation.ckks import residues
from aggregation.ckks.residues import Residues
from aggregation.crypto import mac, masking
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import OpeningError, PlanError, RoleError, StateError, UploadError
from aggregation.protocol import checks, messages
from aggregation.protocol.exchange import read_exchange
from aggregation.protocol.messages import Opening, OpeningList, Sigma, SumManifest
from aggregation.protocol.round import Round
from aggregation.protocol.uploads import (
    Chunks,
    SumUpload,
    check_digests,
    sized_chunks,
    split_digests,
)
from aggregation.roles.opened_shares import OpenedShares
from aggregation.threads import BATCH, each_batch, in_order


@dataclass(slots=True)
class _Arrival:
    site: str
    manifest: bytes
    commitment: bytes
    digests: list[bytes]
    tags: tuple[int, ...]  # where they come with the upload
    added: int = 0  # chunks that are in the sum
    secret: bytes = b""  # the collective suite's sealed secret, which only the decryptor opens
    complete: bool = False


class Aggregator:
    """Steps 5 to 7 of one attempt. Pure NumPy: no CKKS library, no key, no context.

    5. `add` takes a site's upload chunk by chunk, in any interleaving of sites. What is kept is
       one running sum, whatever the number of sites. An upload that breaks off may be handed in
       again: chunks already added are skipped. In the collective suite an upload ends with a box
       for the decryptor, 32 KiB a site, which is kept and passed on.
    6. `opening_list` states what arrived; `sealed_secrets` are what the decryptor confirms it
       by; `add_opening` takes the seeds and tags. Where sites may vanish, `add_exchange` comes
       first, the tags came with the uploads, and the others' shares give the seeds of those who
       do not open.
    7. `total` takes the self-masks away and signs the sum. In the collective suite they lie on
       the secrets only, and their sum goes to the decryptor as the last chunk.

    Calls must come from one thread at a time.
    """

    def __init__(
        self,
        identity: Identity,
        plan_message: bytes,
        cohort_message: bytes,
        *,
        coordinator: PublicIdentity,
        pinned: Mapping[str, PublicIdentity] | None = None,
    ) -> None:
        """Start an attempt.

        Args:
            identity: The aggregator's signing key, the only secret it has.
            plan_message: The coordinator's signed plan.
            cohort_message: The cohort fixed for it.
            coordinator: Whose plans this aggregator follows.
            pinned: Parties it knows, by name; a known name with another key is refused.

        Raises:
            RoleError: Something else than an identity was handed in.
            RefusedError: Plan or cohort do not hold.
        """
        if not isinstance(identity, Identity):
            raise RoleError("an aggregator holds an Identity and nothing else that is secret")
        self._identity = identity
        self._round = checks.read_plan(plan_message, coordinator)
        plan = self._round.plan
        if plan.aggregator != identity.public:
            raise PlanError(f"the plan's aggregator is {plan.aggregator.name}, not this one")
        self._cohort = checks.read_cohort(self._round, cohort_message)
        for party in (*(m.identity for m in self._cohort.members), plan.decryptor):
            if (pinned or {}).get(party.name, party) != party:
                raise PlanError(f"{party.name} is pinned with another key")
        # Pairs of residues are kept split, as they come off the wire, and additions are reduced
        # only when a word could overflow.
        shape = (2, self._round.packing.chunks, self._round.chunk_residues // 2)
        self._sum = np.zeros(shape, dtype=np.uint64)
        self._unreduced = np.zeros(self._round.packing.chunks, dtype=np.int64)
        self._room = (1 << 64) // self._round.parameters.modulus - 1
        self._arrivals: dict[str, _Arrival] = {}
        self._list: bytes | None = None
        self._seeds: dict[str, bytes] = {}
        self._tags: dict[str, tuple[int, ...]] = {}
        self._shares = OpenedShares(self._cohort)
        self._total: SumUpload | None = None

    @property
    def round(self) -> Round:
        """The verified plan and what follows from it."""
        return self._round

    @property
    def transcript(self) -> bytes:
        """The attempt's transcript hash; public among its parties."""
        return self._cohort.transcript

    @property
    def missing(self) -> tuple[str, ...]:
        """Members whose upload is not complete."""
        names = (m.identity.name for m in self._cohort.members)
        return tuple(n for n in names if n not in self._arrivals or not self._arrivals[n].complete)

    @property
    def unopened(self) -> tuple[str, ...]:
        """Members that have not opened."""
        names = (m.identity.name for m in self._cohort.members)
        return tuple(n for n in names if n not in self._seeds)

    @property
    def opens(self) -> bool:
        """Whether enough have opened for the sum to: all, but for those that may vanish."""
        return len(self._seeds) >= self._cohort.openings

    @property
    def false_dealers(self) -> tuple[str, ...]:
        """Members whose shares, each as they signed it, do not give the seed that they signed.

        Known once enough have opened; what they spoiled is the sum only if they vanished as well.
        """
        if not self._cohort.shares or not self.opens:
            return ()
        return tuple(
            name for name in self._cohort.names if not self._fits(name, self._shares.seed_of(name))
        )

    def add_exchange(self, message: bytes) -> None:
        """Take what a site signed of its shares (step 4), where sites may vanish.

        Raises:
            RefusedError: It does not hold.
        """
        self._shares.expect(read_exchange(self._cohort, message))

    def add(self, manifest: bytes, chunks: Iterable[bytes]) -> None:
        """Add one site's upload to the sum (step 5).

        Raises:
            UploadError: Another upload of the same site, or a chunk that is missing, altered or
                too much. Nothing of a refused chunk is in the sum; hand the upload in again.
            RefusedError: The manifest does not hold.
        """
        arrival = self._arrival(manifest)
        if arrival.complete:
            return
        cap = Sigma.CAP if self._round.collective else None
        digests, count = arrival.digests, self._round.packing.chunks
        sized = sized_chunks(chunks, len(digests), self._round.chunk_size, cap)
        known = arrival.added  # of an upload that broke off; checked again, and not added again

        def split(batch: tuple[int, list[bytes]]) -> Residues:
            first, parts = batch
            check_digests(parts, digests, first)
            return self._round.split_chunks(parts[max(known - first, 0) :])

        for planes in in_order(split, _batched(islice(sized, count)), count // BATCH):
            self._add(arrival.added, planes)
            arrival.added += planes.shape[1]
        for last in sized:
            check_digests([last], digests, count)
            # What is in the box is the decryptor's to see; that it is this site's, seen here.
            checks.read_sigma(self._cohort, arrival.site, last)
            arrival.secret = last
        arrival.complete = True

    def opening_list(self) -> bytes:
        """State, signed, what arrived from the whole cohort (step 6).

        Raises:
            StateError: An upload is missing.
        """
        if self._list is None:
            if self.missing:
                raise StateError(f"uploads are missing: {', '.join(self.missing)}")
            digests = tuple(
                messages.digest(self._arrivals[m.identity.name].manifest)
                for m in self._cohort.members
            )
            # It carries the MAC key, which came in the exchange where sites may vanish.
            shares = self._cohort.shares
            first = b"" if shares else self._arrivals[self._cohort.names[0]].manifest
            listed = OpeningList(self._cohort.transcript, digests, first)
            self._list = messages.seal(self._identity, listed)
        return self._list

    def sealed_secrets(self) -> tuple[bytes, ...]:
        """The sites' sealed secrets, in cohort order; empty but in the collective suite.

        Raises:
            StateError: An upload is missing.
        """
        if self.missing:
            raise StateError(f"uploads are missing: {', '.join(self.missing)}")
        if not self._round.collective:
            return ()
        return tuple(self._arrivals[name].secret for name in self._cohort.names)

    def add_opening(self, opening: bytes) -> None:
        """Take a site's seed (step 6).

        Raises:
            StateError: No list was stated yet.
            RefusedError: Not the seed this site committed to, or for another list.
        """
        if self._list is None:
            raise StateError("state the opening list first")
        name = messages.sender(opening, Opening.CAP)
        signer = self._cohort.member(name)
        body = messages.unseal(opening, Opening, signer)
        if body.transcript != self._cohort.transcript:
            raise OpeningError(f"the opening of {name} is of another cohort")
        if body.opening_list != messages.digest(self._list):
            raise OpeningError(f"the opening of {name} is for another list")
        if not self._fits(name, body.seed):
            raise OpeningError(f"the seed of {name} is not the one it committed to")
        self._take_rest(name, body)
        self._seeds[name] = body.seed

    def _fits(self, name: str, seed: bytes) -> bool:
        expected = masking.commitment(seed, self._cohort.transcript, name)
        return hmac.compare_digest(expected, self._arrivals[name].commitment)

    def _take_rest(self, name: str, body: Opening) -> None:
        """Of an opening its tags, or where those came with the upload its shares."""
        if (body.shares is not msgspec.UNSET) != self._cohort.shares:
            raise OpeningError(f"the opening of {name} is of another form")
        if body.shares is not msgspec.UNSET and body.tags is msgspec.UNSET:
            self._shares.add(name, body.shares)
        elif body.shares is msgspec.UNSET and body.tags is not msgspec.UNSET:
            self._tags[name] = mac.decode_tags(body.tags)
        else:
            raise OpeningError(f"the opening of {name} is of another form")

    def _recovered(self) -> dict[str, bytes]:
        """By name, the seeds of those who vanished.

        Raises:
            OpeningError: A site dealt shares that do not give its seed; names it.
        """
        seeds = {name: self._shares.seed_of(name) for name in self.unopened}
        for name, seed in seeds.items():
            if not self._fits(name, seed):
                raise OpeningError(f"the shares that {name} dealt do not give its seed")
        return seeds

    def total(self) -> SumUpload:
        """Take the self-masks away and sign the sum (step 7).

        Raises:
            StateError: A seed is missing.
            OpeningError: A site vanished, and dealt shares that do not give its seed.
        """
        if self._total is not None:
            return self._total
        if self._list is None or not self.opens:
            raise StateError(f"openings are missing: {', '.join(self.unopened)}")
        seeds = {**self._seeds, **self._recovered()}
        modulus, transcript = self._round.parameters.modulus, self._cohort.transcript
        degree, collective = self._round.packing.degree, self._round.collective
        label = masking.SELF_SIGMA_LABEL if collective else masking.SELF_LABEL
        streams = [
            masking.self_stream(seed, transcript, name, modulus, degree, label)
            for name, seed in seeds.items()
        ]
        chunks = Chunks(self._round.packing.chunks, self._round.chunk_size)

        def pack(part: range) -> list[bytes]:
            planes = self._sum[:, part.start : part.stop]
            residues.reduce(planes, modulus)
            self._unreduced[part.start : part.stop] = 1
            if not collective:
                planes = planes.copy()  # the sum stays as it is until all is done
                masks = masking.sum_streams(streams, part.start, len(part), modulus, degree)
                pairs = masks.reshape(len(masks), -1, 2).transpose(2, 0, 1)
                residues.subtract(planes[:, :, : degree // 2], pairs, modulus)
            residues.join_into(chunks.part(part), planes.reshape(2, -1), modulus)
            return chunks.digests(part)

        digests = list(chain.from_iterable(each_batch(pack, self._round.packing.chunks)))
        if collective:
            masks = masking.sum_streams(streams, 0, 1, modulus, degree)
            chunks.end_with(residues.pack(masks, modulus))
            digests.append(messages.digest(chunks[-1]))
        tags = self._summed_tags(seeds)
        manifest = SumManifest(
            transcript=transcript,
            opening_list=messages.digest(self._list),
            chunk_digests=b"".join(digests),
            tags=mac.encode_tags(tags),
        )
        # The sum is packed in place and not needed any more: two of them would double the memory.
        self._sum = np.empty((2, 0, 0), dtype=np.uint64)
        self._total = SumUpload(messages.seal(self._identity, manifest), chunks)
        return self._total

    def _summed_tags(self, seeds: Mapping[str, bytes]) -> tuple[int, ...]:
        """The sum of the tags; where they came with the uploads, out from under self-masks."""
        tags: tuple[int, ...] = (0,) * mac.TAGS
        for each in self._tags.values():
            tags = mac.add_tags(tags, each)
        if not self._cohort.shares:
            return tags
        for arrival in self._arrivals.values():
            tags = mac.add_tags(tags, arrival.tags)
        transcript = self._cohort.transcript
        streams = [
            masking.self_tags_stream(seed, transcript, name, mac.PRIME, mac.TAGS)
            for name, seed in seeds.items()
        ]
        masks = masking.sum_streams(streams, 0, 1, mac.PRIME, mac.TAGS)[0]
        return tuple((tag - int(mask)) % mac.PRIME for tag, mask in zip(tags, masks, strict=True))

    def _add(self, first: int, planes: Residues) -> None:
        part = slice(first, first + planes.shape[1])
        if self._unreduced[part].max(initial=0) >= self._room:
            residues.reduce(self._sum[:, part], self._round.parameters.modulus)
            self._unreduced[part] = 1
        self._sum[:, part] += planes
        self._unreduced[part] += 1

    def _arrival(self, manifest: bytes) -> _Arrival:
        name, body = checks.read_upload(self._cohort, manifest)
        known = self._arrivals.get(name)
        if known is None:
            digests = split_digests(body.chunk_digests, self._round.upload_items)
            tags = () if body.tags is msgspec.UNSET else mac.decode_tags(body.tags)
            known = _Arrival(name, manifest, body.commitment, digests, tags)
            self._arrivals[name] = known
        elif known.manifest != manifest:
            raise UploadError(f"{name} sent another upload before")
        return known


def _batched(chunks: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    rest, first = iter(chunks), 0
    while batch := list(islice(rest, BATCH)):
        yield first, batch
        first += len(batch)
