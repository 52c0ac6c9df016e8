"""One round of this protocol with every role in this process, and a record of what each had.

The roles are the real ones. What is not real is only that nothing is forgotten: the recording
keeps what an honest decryptor or site wipes, so that the attacks can try with all of it.

`demonstration.run` calls `new_federation` and `run_round`, honest and tampered; the recordings go
to `demonstration.attacks` and `demonstration.views`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aggregation import (
    AggregationError,
    Quantization,
    RoleError,
    Segment,
    SumUpload,
    Upload,
    quantize,
)
from aggregation.ckks import residues
from aggregation.ckks.collective import CollectiveKeyHolder
from aggregation.ckks.residues import Residues
from aggregation.crypto.masking import Pair
from aggregation.protocol import messages
from aggregation.protocol.messages import Opening, Sigma, SumManifest
from aggregation.protocol.round import Round
from aggregation.testing import Attempt, Federation
from fmfl_secure.demonstration.collusion import Target
from fmfl_secure.demonstration.pictures import SIZES

BITS = 16
SUITE, KEY_AGREEMENT = "ckks-collective", "x25519-mlkem768"
_CAP = 1 << 20  # bytes; larger than any message here


@dataclass(slots=True, repr=False)
class Recording:
    """A round, and everything its parties had of it at some time.

    Attributes:
        federation: The parties.
        attempt: The attempt's messages.
        round: What follows from its plan.
        transcript: Its hash.
        integers: Each site's quantised update.
        uploads: What each site sent to the aggregator.
        pairs: The pairwise secrets of each site.
        sigmas: What the decryptor found in each site's box, still masked, shape (N,).
        seeds: Of the self-masks, as the sites opened them.
        total: What the aggregator handed to the decryptor.
        approvals: The custodians' words.
        release: The decryptor's signed release; empty if it refused.
        released: The integers in it, shape (d,); None if it refused.
        refusals: Who refused, and by what code.
    """

    federation: Federation
    attempt: Attempt
    round: Round
    transcript: bytes
    integers: dict[str, npt.NDArray[np.int32]] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    sigmas: dict[str, Residues] = field(default_factory=dict)
    seeds: dict[str, bytes] = field(default_factory=dict)
    total: SumUpload = field(default_factory=lambda: SumUpload(b"", ()))
    approvals: list[bytes] = field(default_factory=list)
    release: bytes = b""
    released: npt.NDArray[np.int64] | None = None
    refusals: dict[str, str] = field(default_factory=dict)

    def target(self, name: str) -> Target:
        """A site's upload, for whoever would open it."""
        chunks = self.uploads[name].chunks[: self.round.packing.chunks]
        return Target(
            name=name,
            transcript=self.transcript,
            parameters=self.round.parameters,
            c0=self.round.unpack_chunks(chunks)[:, 0],
            sigma=self.sigmas[name],
            seed=self.seeds[name],
        )


Handing = Callable[[Recording], SumUpload]
"""What an aggregator hands over; an honest one, `recording.total`."""


def new_federation(sites: int, custodians: int, largest: float) -> Federation:
    """The parties, and a grid that reaches to `largest`."""
    federation = Federation(
        sites,
        size=sum(SIZES),
        bits=BITS,
        suite=SUITE,
        key_agreement=KEY_AGREEMENT,
        custodians=custodians,
    )
    segments = zip(("weight", "bias"), SIZES, strict=True)
    federation.quantization = Quantization(
        bits=BITS, segments=tuple(Segment(name, size, largest) for name, size in segments)
    )
    return federation


def values_of(
    integers: npt.NDArray[np.integer], quantization: Quantization
) -> npt.NDArray[np.float64]:
    """Integers on the grid as values of an update."""
    step = quantization.segments[0].range / quantization.limit
    return integers.astype(np.float64) * step


def run_round(
    federation: Federation,
    number: int,
    updates: Mapping[str, npt.NDArray[np.float64]],
    handed: Handing = lambda recording: recording.total,
) -> Recording:
    """One round, from the plan to the sites' verdict on the sum.

    Args:
        federation: The parties.
        number: Of the round.
        updates: By site.
        handed: What the aggregator gives the decryptor, if not the sum.
    """
    attempt = federation.start(federation.plan(round_=number))
    aggregator = federation.new_aggregator(attempt)
    recording = Recording(federation, attempt, aggregator.round, aggregator.transcript)
    parts = federation.handed(attempt)
    for name, site in attempt.sites.items():
        integers = quantize(updates[name], federation.quantization)
        upload = site.upload(attempt.cohort, integers, parts[name])
        aggregator.add(upload.manifest, upload.chunks)
        recording.integers[name], recording.uploads[name] = integers, upload
        recording.pairs[name] = list(site._secrets._pairs)
    _open_boxes(recording)
    attempt.opening_list = federation.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for name, site in attempt.sites.items():
        opening = site.open(attempt.opening_list)
        recording.seeds[name] = messages.unseal(opening, Opening, federation.public[name]).seed
        aggregator.add_opening(opening)
    recording.approvals = federation.approvals(attempt)
    recording.total = aggregator.total()
    recording.total = handed(recording)
    _release(recording)
    return recording


def passing_one_upload(name: str) -> Handing:
    """An aggregator that hands one site's upload over as the sum."""

    def handed(recording: Recording) -> SumUpload:
        own = recording.uploads[name].chunks[: recording.round.packing.chunks]
        return _signed(recording, (*own, recording.total.chunks[-1]))

    return handed


def adding(constant: int) -> Handing:
    """An aggregator that adds a constant to the first value of the sum."""

    def handed(recording: Recording) -> SumUpload:
        round_, chunks = recording.round, recording.total.chunks
        values = round_.unpack_chunks([chunks[0]])[0]
        more = np.array([constant << round_.packing.encoding.scale_bits], dtype=np.uint64)
        residues.add(values[0, :1], more, round_.parameters.modulus)
        return _signed(recording, (residues.pack(values, round_.parameters.modulus), *chunks[1:]))

    return handed


def _signed(recording: Recording, chunks: tuple[bytes, ...]) -> SumUpload:
    """Chunks under a manifest that the aggregator signs, as it can for any."""
    federation = recording.federation
    signer = federation.identities["aggregator"]
    true = messages.unseal(recording.total.manifest, SumManifest, signer.public, _CAP)
    digests = b"".join(map(messages.digest, chunks))
    body = SumManifest(true.transcript, true.opening_list, digests, true.tags)
    return SumUpload(messages.seal(signer, body), chunks)


def _open_boxes(recording: Recording) -> None:
    """Keeps what a decryptor can keep before it adds the boxes' contents up."""
    federation, round_ = recording.federation, recording.round
    holder = next(iter(federation.decryptor._attempts.values())).key
    if not isinstance(holder, CollectiveKeyHolder):
        raise RoleError("only the collective suite has boxes to open")
    for name, upload in recording.uploads.items():
        box = messages.unseal(upload.chunks[-1], Sigma, federation.public[name], _CAP).box
        content = holder.open_box(box, recording.transcript + name.encode())
        recording.sigmas[name] = residues.unpack(
            content, round_.packing.degree, round_.parameters.modulus
        )


def _release(recording: Recording) -> None:
    federation, attempt = recording.federation, recording.attempt
    try:
        recording.release = federation.decryptor.release(
            attempt.cohort,
            attempt.opening_list,
            recording.total.manifest,
            recording.total.chunks,
            approvals=recording.approvals,
        )
    except AggregationError as error:
        recording.refusals["decryptor"] = error.code
        return
    recording.released = federation.coordinator.verify(attempt.cohort, recording.release)
    for name, site in attempt.sites.items():
        try:
            site.verify(recording.release)
        except AggregationError as error:
            recording.refusals[name] = error.code
