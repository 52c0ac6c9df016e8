"""The aggregator: adds masked ciphertexts, and holds nothing that could open one."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from aggregation.ckks import residues
from aggregation.ckks.residues import Residues
from aggregation.crypto import mac, masking
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import OpeningError, PlanError, RoleError, StateError, UploadError
from aggregation.protocol import checks, messages
from aggregation.protocol.messages import Opening, OpeningList, Sigma, SumManifest
from aggregation.protocol.round import Round
from aggregation.protocol.uploads import (
    Chunks,
    SumUpload,
    check_digests,
    sized_chunks,
    split_digests,
)
from aggregation.threads import BATCH, each_batch, in_order


@dataclass(slots=True)
class _Arrival:
    site: str
    manifest: bytes
    commitment: bytes
    digests: list[bytes]
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
       by; `add_opening` takes the seeds and tags.
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
        """Members whose seed has not come."""
        names = (m.identity.name for m in self._cohort.members)
        return tuple(n for n in names if n not in self._seeds)

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
            first = self._arrivals[self._cohort.names[0]].manifest
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
        expected = masking.commitment(body.seed, self._cohort.transcript, name)
        if not hmac.compare_digest(expected, self._arrivals[name].commitment):
            raise OpeningError(f"the seed of {name} is not the one it committed to")
        tags = mac.decode_tags(body.tags)
        self._seeds[name], self._tags[name] = body.seed, tags

    def total(self) -> SumUpload:
        """Take the self-masks away and sign the sum (step 7).

        Raises:
            StateError: A seed is missing.
        """
        if self._total is not None:
            return self._total
        if self._list is None or self.unopened:
            raise StateError(f"openings are missing: {', '.join(self.unopened)}")
        modulus, transcript = self._round.parameters.modulus, self._cohort.transcript
        degree, collective = self._round.packing.degree, self._round.collective
        label = masking.SELF_SIGMA_LABEL if collective else masking.SELF_LABEL
        streams = [
            masking.self_stream(seed, transcript, name, modulus, degree, label)
            for name, seed in self._seeds.items()
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
        tags: tuple[int, ...] = (0,) * mac.TAGS
        for each in self._tags.values():
            tags = mac.add_tags(tags, each)
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
            known = self._arrivals[name] = _Arrival(name, manifest, body.commitment, digests)
        elif known.manifest != manifest:
            raise UploadError(f"{name} sent another upload before")
        return known


def _batched(chunks: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    rest, first = iter(chunks), 0
    while batch := list(islice(rest, BATCH)):
        yield first, batch
        first += len(batch)
