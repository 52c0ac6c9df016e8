"""An aggregator that hands over something else than the sum; each arm that a MAC must stop works
without it."""

import numpy as np
import pytest

from aggregation import AggregationError, ReleaseError
from aggregation.ckks import residues, suites
from aggregation.ckks.collective import CollectiveEncryptor
from aggregation.crypto import mac
from aggregation.protocol import checks, messages
from aggregation.protocol.messages import SumManifest
from aggregation.testing import Federation

SUITES = ["ckks-pk", "ckks-collective"]
SIZE = 20_000  # three chunks of 16-bit values


def handed_over(fed, attempt, chunks):
    """Sign any chunks as the sum, as a malicious aggregator would, and have them released."""
    true = messages.unseal(
        attempt.aggregator.total().manifest, SumManifest, fed.public["aggregator"], 1 << 20
    )
    manifest = messages.seal(
        fed.identities["aggregator"],
        SumManifest(
            true.transcript,
            true.opening_list,
            b"".join(messages.digest(chunk) for chunk in chunks),
            true.tags,
        ),
    )
    return fed.decryptor.release(attempt.cohort, attempt.opening_list, manifest, chunks)


def refused_by_all(fed, attempt, release):
    for site in attempt.sites.values():
        with pytest.raises(ReleaseError, match="not the sum"):
            site.verify(release)


def ready_to_hand_over(suite, **more):
    fed = Federation(4, size=SIZE, suite=suite, **more)
    attempt = fed.start()
    total = fed.open(attempt).total()
    return fed, attempt, list(total.chunks), attempt.aggregator.round


def negated(round_, chunk):
    values = round_.unpack_chunks([chunk])[0]
    zero = np.zeros_like(values)
    residues.subtract(zero, values, round_.parameters.modulus)
    return residues.pack(zero, round_.parameters.modulus)


@pytest.mark.parametrize("trick", ["swapped", "zeroed", "negated", "doubled", "all zero"])
def test_public_key_chunks_are_malleable_and_only_the_mac_tells(trick):
    """Without the MAC all of these pass: the coordinator, who has no MAC key, accepts them."""
    fed, attempt, chunks, round_ = ready_to_hand_over("ckks-pk")
    if trick == "swapped":
        chunks[0], chunks[1] = chunks[1], chunks[0]
    elif trick == "zeroed":
        chunks[0] = residues.pack(np.ones((2, 4096), dtype=np.uint64), round_.parameters.modulus)
    elif trick == "negated":
        chunks = [negated(round_, chunk) for chunk in chunks]
    elif trick == "doubled":
        chunks[1] = chunks[0]
    else:
        one = residues.pack(np.ones((2, 4096), dtype=np.uint64), round_.parameters.modulus)
        chunks = [one] * len(chunks)
    release = handed_over(fed, attempt, chunks)
    fed.coordinator.verify(attempt.cohort, release)
    refused_by_all(fed, attempt, release)


@pytest.mark.parametrize("trick", ["swapped", "zeroed", "negated", "doubled"])
def test_collective_chunks_are_bound_to_their_place(trick):
    """Each chunk opens with its own a_k: another one there is noise, and not the others' sum.

    Where the range of a sum fills the modulus, noise may pass the decryptor's checks of range and
    padding; it never passes the sites'.
    """
    fed, attempt, chunks, round_ = ready_to_hand_over("ckks-collective")
    if trick == "swapped":
        chunks[0], chunks[1] = chunks[1], chunks[0]
    elif trick == "zeroed":
        chunks[0] = residues.pack(np.zeros(4096, dtype=np.uint64), round_.parameters.modulus)
    elif trick == "negated":
        chunks[0] = negated(round_, chunks[0])
    else:
        chunks[1] = chunks[0]
    try:
        release = handed_over(fed, attempt, chunks)
    except ReleaseError:
        return
    values = attempt.aggregator.round.packing.values_per_chunk
    exact = np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)
    released = fed.coordinator.verify(attempt.cohort, release)
    wrong = released[:values] if trick != "doubled" else released[values : 2 * values]
    right = exact[:values] if trick != "doubled" else exact[values : 2 * values]
    assert abs(np.corrcoef(wrong, right)[0, 1]) < 0.1
    refused_by_all(fed, attempt, release)


@pytest.mark.parametrize("suite", SUITES)
def test_an_added_constant_is_released_and_refused_by_the_sites(suite):
    fed, attempt, chunks, round_ = ready_to_hand_over(suite)
    scale_bits, modulus = round_.packing.encoding.scale_bits, round_.parameters.modulus
    values = round_.unpack_chunks([chunks[0]])[0].copy()
    delta = np.zeros((1, 4096), dtype=np.uint64)
    delta[0, 0] = 1 << scale_bits
    if suite == "ckks-pk":
        delta[:] = delta[0, 0]  # the constant polynomial in NTT order
    residues.add(values[:1], delta, modulus)
    chunks[0] = residues.pack(values, modulus)
    release = handed_over(fed, attempt, chunks)
    fed.coordinator.verify(attempt.cohort, release)
    refused_by_all(fed, attempt, release)


def test_an_encryption_of_its_own_under_the_public_key():
    fed, attempt, _, round_ = ready_to_hand_over("ckks-pk")
    modulus, packing = round_.parameters.modulus, round_.packing
    material = next(iter(fed.decryptor._attempts.values())).key.material
    values = np.full(SIZE, 5, dtype=np.int32)
    scaled = packing.pack(values) << packing.encoding.scale_bits
    own = suites.encryptor(round_.parameters, material).encrypt(
        residues.from_signed(scaled, modulus)
    )
    release = handed_over(fed, attempt, [residues.pack(chunk, modulus) for chunk in own])
    np.testing.assert_array_equal(fed.coordinator.verify(attempt.cohort, release), values)
    refused_by_all(fed, attempt, release)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("trick", ["one", "subset", "twice"])
def test_one_upload_a_subset_or_a_share_twice_is_noise(suite, trick):
    """The masks do not cancel, so what the decryptor sees is uniform: never released."""
    fed, attempt, chunks, round_ = ready_to_hand_over(suite)
    modulus = round_.parameters.modulus
    handed = fed.handed(attempt)
    uploads = [
        site.upload(attempt.cohort, attempt.integers[name], handed[name])
        for name, site in attempt.sites.items()
    ]
    chosen = {"one": [0], "subset": [0, 1, 2], "twice": [0, 1, 2, 3, 0]}[trick]
    made = []
    for k in range(round_.packing.chunks):
        values = round_.unpack_chunks([uploads[chosen[0]].chunks[k]])[0].copy()
        for i in chosen[1:]:
            residues.add(values, round_.unpack_chunks([uploads[i].chunks[k]])[0], modulus)
        made.append(residues.pack(values, modulus))
    made += chunks[round_.packing.chunks :]
    with pytest.raises(ReleaseError):
        handed_over(fed, attempt, made)


@pytest.mark.parametrize("suite", SUITES)
def test_last_rounds_sum_is_not_this_rounds(suite):
    fed, first, old, _ = ready_to_hand_over(suite)
    handed_over(fed, first, old)
    second = fed.start(fed.plan(round_=2))
    fed.open(second)
    with pytest.raises(ReleaseError):
        handed_over(fed, second, old)
    third = fed.start(fed.plan(round_=3))
    fed.open(third)
    manifest = first.aggregator.total().manifest
    with pytest.raises(ReleaseError, match="another cohort"):
        fed.decryptor.release(third.cohort, third.opening_list, manifest, old)


@pytest.mark.parametrize("suite", SUITES)
def test_tags_changed_by_the_aggregator_or_the_decryptor(suite):
    fed, attempt, chunks, _ = ready_to_hand_over(suite)
    release = handed_over(fed, attempt, chunks)
    body = messages.unseal(release, messages.Release, fed.public["decryptor"], 1 << 20)
    for tags in (bytes(16), body.tags[8:] + body.tags[:8], b"\xff" * 16):
        wrong = messages.Release(body.transcript, body.opening_list, body.integers, tags)
        with pytest.raises(AggregationError):
            attempt.sites["site-0"].verify(messages.seal(fed.identities["decryptor"], wrong))
    integers = np.frombuffer(body.integers, dtype="<i4").copy()
    integers[17] += 1  # a decryptor that releases something else than it decrypted
    wrong = messages.Release(body.transcript, body.opening_list, integers.tobytes(), body.tags)
    refused_by_all(fed, attempt, messages.seal(fed.identities["decryptor"], wrong))
    attempt.sites["site-0"].verify(release)


def test_a_site_that_gives_the_mac_key_away_takes_the_protection_from_all():
    """The documented limit: with kappa, an aggregator forges."""
    fed, attempt, chunks, round_ = ready_to_hand_over("ckks-collective")
    keyed = attempt.sites["site-2"]._mac.keyed
    scale_bits, modulus = round_.packing.encoding.scale_bits, round_.parameters.modulus
    values = round_.unpack_chunks([chunks[0]])[0].copy()
    delta = np.zeros((1, 4096), dtype=np.int64)
    delta[0, 0] = 1
    residues.add(values, (delta << scale_bits).astype(np.uint64), modulus)
    chunks[0] = residues.pack(values, modulus)
    true = messages.unseal(
        attempt.aggregator.total().manifest, SumManifest, fed.public["aggregator"], 1 << 20
    )
    tags = mac.add_tags(mac.decode_tags(true.tags), keyed.tag(delta))
    forged = messages.seal(
        fed.identities["aggregator"],
        SumManifest(
            true.transcript,
            true.opening_list,
            b"".join(messages.digest(chunk) for chunk in chunks),
            mac.encode_tags(tags),
        ),
    )
    release = fed.decryptor.release(attempt.cohort, attempt.opening_list, forged, chunks)
    exact = np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)
    accepted = attempt.sites["site-0"].verify(release)
    assert (accepted != exact).sum() == 1


def test_a_wrong_sigma_costs_the_round_and_tells_nothing():
    """A site that sends noise for its secret: S does not hold, nothing is released."""
    fed = Federation(3, suite="ckks-collective")
    attempt = fed.start()
    site = attempt.sites["site-1"]
    original = suites.encryptor

    class Liar:
        def __init__(self, inner):
            self.inner = inner
            self.encrypt = inner.encrypt

        def secret(self):
            return residues.from_signed(np.full(4096, 2), self.inner._parameters.modulus)

    def lying(parameters, material, transcript=b""):
        made = original(parameters, material, transcript)
        made.secret = Liar(made).secret
        assert isinstance(made, CollectiveEncryptor)
        return made

    suites.encryptor = lying
    own = fed.random_integers()
    try:
        site.upload(attempt.cohort, own)
    finally:
        suites.encryptor = original
    attempt.aggregator = aggregator = fed.new_aggregator(attempt)
    for name, each in attempt.sites.items():
        attempt.integers[name] = fed.random_integers() if name != "site-1" else own
        upload = each.upload(attempt.cohort, attempt.integers[name])
        aggregator.add(upload.manifest, upload.chunks)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for each in attempt.sites.values():
        aggregator.add_opening(each.open(listed))
    total = aggregator.total()
    with pytest.raises(ReleaseError):
        fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
    assert not fed.decryptor._attempts


@pytest.mark.parametrize("trick", ["missing", "too many", "swapped", "of another attempt", "cut"])
def test_a_withheld_or_replaced_sigma_ends_the_attempt_unopened(trick):
    fed = Federation(3, suite="ckks-collective")
    other = fed.upload(fed.start(fed.plan(round_=2))).sealed_secrets()
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    sealed = list(aggregator.sealed_secrets())
    wrong = {
        "missing": sealed[:2],
        "too many": [*sealed, sealed[0]],
        "swapped": [sealed[1], sealed[0], sealed[2]],
        "of another attempt": [other[0], *sealed[1:]],
        "cut": [sealed[0][:-1], *sealed[1:]],
    }[trick]
    listed = aggregator.opening_list()
    with pytest.raises(
        checks.OpeningError if trick != "swapped" and trick != "cut" else AggregationError
    ):
        fed.decryptor.confirm(attempt.cohort, listed, wrong)
    for site in attempt.sites.values():
        with pytest.raises(AggregationError):
            site.open(listed)  # not confirmed, so nobody opens
    confirmed = fed.decryptor.confirm(attempt.cohort, listed, sealed)
    attempt.sites["site-0"].open(confirmed)
