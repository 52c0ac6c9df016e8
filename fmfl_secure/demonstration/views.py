"""Views of a round by role, in this run's own bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aggregation.ckks import residues
from aggregation.protocol import messages
from fmfl_secure.demonstration.findings import Seen, View
from fmfl_secure.demonstration.naive import NaiveRound
from fmfl_secure.demonstration.protected import Recording, values_of

_BYTES = 16
_NUMBERS = 4


def views_here(recording: Recording, victim: str) -> tuple[View, ...]:
    """Site, coordinator, aggregator, decryptor, other sites and custodians."""
    attempt, upload = recording.attempt, recording.uploads[victim]
    quantization = recording.federation.quantization
    own = values_of(recording.integers[victim], quantization)
    chunks = recording.round.packing.chunks
    modulus = recording.round.parameters.modulus
    released = (
        _none("the released sum")
        if recording.released is None
        else _numbers("the sum's first integers, verified", recording.released)
    )
    masked = residues.to_signed(recording.target(victim).c0[0], modulus)
    sigma = residues.to_signed(recording.sigmas[victim], modulus)
    found = [
        View(
            f"{victim}, a site",
            "its picture, its ledger, its identity key, its own secrets of one attempt",
            (
                _numbers("its own update's first values, noise included", own),
                _numbers("the same as integers on the grid", recording.integers[victim]),
                _bytes("the upload that it sends", b"".join(upload.chunks[:chunks])),
                released,
            ),
            "another site's picture or update",
        ),
        View(
            "Coordinator",
            "the round's plan, the adapter",
            (
                _bytes("the plan that it signed", attempt.plan_message),
                _bytes("the cohort, with every party's fresh public keys", attempt.cohort),
                _bytes("the release", recording.release),
                released,
            ),
            "any upload, any single update",
        ),
        View(
            "Aggregator, the server",
            "nothing secret",
            (
                _bytes(f"{victim}'s upload", b"".join(upload.chunks[:chunks])),
                _numbers("its first residues: uniform, whatever was encrypted", masked),
                _bytes(f"{victim}'s sealed box, for the decryptor", upload.chunks[-1]),
                _bytes("the seed of its self-mask, once all uploads were listed", _seed(recording)),
                _bytes("the sum that it hands over", b"".join(recording.total.chunks)),
            ),
            "any update, and the sum before its release",
        ),
        View(
            "Decryptor, the key holder",
            "what opens this attempt's sum, in memory only, destroyed with this one use",
            (
                _bytes("the list of all uploads that it confirmed", attempt.opening_list),
                _numbers(f"what was in {victim}'s box: its secret under masks, uniform", sigma),
                _bytes("one ciphertext", b"".join(recording.total.chunks)),
                released,
            ),
            "any single update, also with everything that the aggregator has",
        ),
        View(
            "Other sites",
            "each its own picture, keys and secrets; one mask with each other site",
            (
                _bytes(f"{victim}'s fresh public keys, in the cohort", attempt.cohort),
                _bytes("the list of uploads, digests only", attempt.opening_list),
                released,
            ),
            f"{victim}'s update, while one more site is honest",
        ),
    ]
    for custodian, word in zip(recording.federation.custodians, recording.approvals, strict=True):
        seen = (
            _bytes("the list of uploads of the round that it let open", attempt.opening_list),
            _bytes("its word, which it gives once a round", word),
        )
        held = "keys of one attempt, in memory only"
        found.append(View(f"{custodian}, asked before anything opens", held, seen, "any update"))
    return tuple(found)


def views_naive(naive: NaiveRound, victim: str) -> tuple[View, ...]:
    """Sites, server and key holder of the naive pattern."""
    upload = b"".join(naive.uploads[victim])
    published = _numbers("the published sum, as floats", naive.published)
    return (
        View(
            "Every site",
            "its picture, and the federation's secret key",
            (_bytes("the upload that it sends", upload), published),
            "nothing, once it sees another's upload: it holds the key",
        ),
        View(
            "The server",
            "the context without its secret key",
            (
                _bytes("the context", naive.key.public_context()),
                _bytes(f"{victim}'s upload", upload),
                _bytes("the sum", b"".join(naive.total)),
                published,
            ),
            "an upload at once; the key takes it a second (below)",
        ),
        View(
            "The key holder",
            "the same secret key, for good",
            (
                _bytes("whatever the server calls the sum", b"".join(naive.total)),
                _numbers("what it opens to", naive.published),
            ),
            "whether that was a sum",
        ),
    )


def _seed(recording: Recording) -> bytes:
    return next(iter(recording.seeds.values()))


def _bytes(what: str, data: bytes) -> Seen:
    shown = data[:_BYTES].hex(" ") + (" …" if len(data) > _BYTES else "")
    digest = messages.digest(data)[:4].hex()
    return Seen(f"{what} (SHA-256 {digest}…)", shown, len(data))


def _numbers(what: str, values: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> Seen:
    first = values[:_NUMBERS].tolist()
    text = ", ".join(f"{v:.4f}" if isinstance(v, float) else f"{v:,}" for v in first)
    return Seen(what, f"{text}, …")


def _none(what: str) -> Seen:
    return Seen(what, "none")
