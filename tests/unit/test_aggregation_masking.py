import numpy as np
import pytest

from aggregation import CohortError
from aggregation.ckks import residues
from aggregation.crypto import masking, pairwise
from aggregation.crypto.pairwise import EphemeralKey

Q = 1152921504606830593
SMALL = 40961  # 16 bits, so three words in eight are rejected
TRANSCRIPT = bytes(range(32))


def others(sites, index):
    """All pairs, as in every cohort of up to 128 sites."""
    return [j for j in range(sites) if j != index]


def masks_of(sites, *, transcript=TRANSCRIPT, keys=None, seeds=None, q=Q, count=64):
    names = [f"s{i}" for i in range(sites)]
    keys = keys or [EphemeralKey() for _ in names]
    seeds = seeds or [bytes([i]) * 32 for i in range(sites)]
    public = [k.public for k in keys]
    return [
        masking.site_masks(
            pairwise.pairs(k, transcript, names, public, i, others(sites, i)),
            transcript,
            masking.PAIR_LABEL,
            q,
            count,
            [masking.self_stream(s, transcript, names[i], q, count)],
        )
        for i, (k, s) in enumerate(zip(keys, seeds, strict=True))
    ]


@pytest.mark.parametrize("sites", [2, 3, 7, 16, 33, 40])
@pytest.mark.parametrize("q", [Q, SMALL])
def test_masks_cancel_but_for_the_self_masks(sites, q):
    total = np.zeros(64, dtype=np.uint64)
    for masks in masks_of(sites, q=q):
        masks.apply(total[np.newaxis], 5)
    for i in range(sites):
        stream = masking.self_stream(bytes([i]) * 32, TRANSCRIPT, f"s{i}", q, 64)
        residues.subtract(total, stream.chunk(5), q)
    assert not total.any()


def test_streams_differ_by_use_pair_chunk_and_transcript():
    secret = b"k" * 32
    seen = set()
    for label in (masking.PAIR_LABEL, masking.SELF_LABEL, masking.COMMITMENT_LABEL):
        for names in (("a", "b"), ("b", "a"), ("ab",), ("a",), ("", "ab")):
            for transcript in (TRANSCRIPT, bytes(32)):
                seen.add(masking.derive(secret, transcript, label, *names))
    assert len(seen) == 3 * 5 * 2
    stream = masking.Stream(secret, Q, 64)
    assert not np.array_equal(stream.chunk(0), stream.chunk(1))
    np.testing.assert_array_equal(stream.chunk(1), stream.chunk(1))


def test_rejection_keeps_order_and_range():
    stream = masking.Stream(b"k" * 32, SMALL, 4000)
    values = stream.chunk(3)
    assert values.shape == (4000,)
    assert values.max() < SMALL
    # A prefix of a chunk is a prefix of a longer chunk: refilling only appends.
    np.testing.assert_array_equal(masking.Stream(b"k" * 32, SMALL, 100).chunk(3), values[:100])


def test_two_transcripts_give_other_masks_under_the_same_keys():
    keys = [EphemeralKey() for _ in range(3)]
    a, b = np.zeros(64, dtype=np.uint64), np.zeros(64, dtype=np.uint64)
    masks_of(3, keys=keys)[0].apply(a[np.newaxis], 0)
    masks_of(3, keys=keys, transcript=bytes(32))[0].apply(b[np.newaxis], 0)
    assert not (a == b).any()


def test_a_key_of_low_order_is_refused():
    with pytest.raises(CohortError, match="low order"):
        EphemeralKey().exchange(bytes(32))


def test_secrets_have_no_useful_repr_and_are_not_pickled():
    key = EphemeralKey()
    assert repr(key) == "EphemeralKey(secret)"
    assert repr(masking.Stream(bytes(32), Q, 4)) == "Stream(secret)"
    assert "Stream" not in repr(masks_of(2)[0])
    with pytest.raises(TypeError):
        key.__reduce__()
