"""Attacks on the protocol that it must withstand."""

import numpy as np
import pytest

from aggregation import (
    CohortError,
    ReleaseError,
    ReplayError,
    SignatureError,
    StateError,
    UploadError,
)
from aggregation.ckks import residues, suites
from aggregation.protocol import messages
from aggregation.protocol.messages import Cohort, SumManifest
from aggregation.protocol.round import of_plan
from aggregation.testing import Federation


def opened(fed, attempt, chunks):
    """What the key holder reads from chunks, were it to ignore every rule."""
    key = next(iter(fed.decryptor._attempts.values())).key
    round_ = of_plan(fed.plan(), attempt.plan_message)
    return key.decrypt(round_.unpack_chunks(chunks)), round_


def test_a_single_upload_is_noise_even_to_the_key_holder():
    """The next test is its reject arm: unmasked, the same key reads the update off."""
    fed = Federation(3, size=8192)
    attempt = fed.start()
    integers = np.full(8192, 7, dtype=np.int32)
    upload = attempt.sites["site-0"].upload(attempt.cohort, integers)
    read, round_ = opened(fed, attempt, upload.chunks)
    uniform = read[0] / round_.parameters.modulus
    # Kolmogorov-Smirnov distance from uniform: 4096 draws exceed 0.04 once in 10**5.
    distance = np.abs(np.sort(uniform) - np.arange(4096) / 4096).max()
    assert distance < 0.04
    assert not np.any(np.abs(residues.to_signed(read, round_.parameters.modulus)) < 2**30)


def test_the_same_reading_of_an_unmasked_upload_is_the_update():
    fed = Federation(3, size=8192)
    attempt = fed.start()
    round_ = of_plan(fed.plan(), attempt.plan_message)
    key = next(iter(fed.decryptor._attempts.values())).key
    integers = fed.random_integers()
    packing, modulus = round_.packing, round_.parameters.modulus
    scaled = packing.pack(integers) << packing.encoding.scale_bits
    encrypted = suites.encryptor(round_.parameters, key.material).encrypt(
        residues.from_signed(scaled, modulus)
    )
    centred = residues.to_signed(key.decrypt(encrypted), modulus)
    half = 1 << (packing.encoding.scale_bits - 1)
    read = packing.unpack((centred + half) >> packing.encoding.scale_bits)
    np.testing.assert_array_equal(read, integers)


def test_all_uploads_without_the_openings_are_noise():
    fed = Federation(3, size=8192)
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    round_ = of_plan(fed.plan(), attempt.plan_message)
    modulus = round_.parameters.modulus
    planes = aggregator._sum % np.uint64(modulus)
    sealed = [residues.pack(planes[:, k].T, modulus) for k in range(planes.shape[1])]
    read, _ = opened(fed, attempt, sealed)
    assert np.abs(residues.to_signed(read, modulus)).mean() > 2**57


def test_two_attempts_cannot_be_subtracted():
    """Attempt 1 over four sites, attempt 2 over three of them: their difference is noise.

    And had a site opened attempt 1, it would not join attempt 2 at all.
    """
    fed = Federation(4, size=4096)
    first = fed.start(fed.plan(names=fed.names))
    aggregator = fed.upload(first)
    second = fed.start(fed.plan(attempt=2, names=fed.names[:3]))
    again = fed.new_aggregator(second)
    for name in fed.names[:3]:
        upload = second.sites[name].upload(second.cohort, first.integers[name])
        again.add(upload.manifest, upload.chunks)
    modulus = of_plan(fed.plan(), b"").parameters.modulus
    difference = aggregator._sum % np.uint64(modulus)
    residues.subtract(difference, again._sum % np.uint64(modulus), modulus)
    centred = residues.to_signed(difference[0, 0], modulus)
    assert np.abs(centred).mean() > 2**57

    listed = aggregator.opening_list()
    first.sites["site-0"].open(listed)
    with pytest.raises(ReplayError):
        # Having opened attempt 1, site-0 does not open attempt 2 either.
        second.sites["site-0"].open(again.opening_list())
    with pytest.raises(ReplayError):
        fed.site("site-0", fed.coordinator.plan(fed.plan(attempt=3)))


def test_two_attempts_of_the_same_integers_share_no_mask():
    fed = Federation(3, size=4096)
    first = fed.start()
    fed.upload(first)
    second = fed.start(fed.plan(attempt=2))
    for name in fed.names:
        a = first.sites[name].upload(first.cohort, first.integers[name])
        b = second.sites[name].upload(second.cohort, first.integers[name])
        modulus = of_plan(fed.plan(), b"").parameters.modulus
        x, y = (residues.unpack(u.chunks[0], 8192, modulus)[:4096] for u in (a, b))
        assert not (x == y).any()


def test_messages_of_another_round_run_or_attempt_never_fit():
    fed = Federation(3)
    first, second = fed.start(), fed.start(fed.plan(round_=2))
    integers = fed.random_integers()
    with pytest.raises(CohortError):
        first.sites["site-0"].upload(second.cohort, integers)
    upload = first.sites["site-0"].upload(first.cohort, integers)
    with pytest.raises(UploadError, match="another cohort"):
        fed.new_aggregator(second).add(upload.manifest, upload.chunks)
    fed.open(second)
    total = fed.open(fed.start(fed.plan(round_=3))).total()
    with pytest.raises(ReleaseError):
        fed.decryptor.release(second.cohort, second.opening_list, total.manifest, total.chunks)
    fourth = fed.start(fed.plan(round_=4))
    release = fed.release(fourth)
    with pytest.raises(ReleaseError, match="another cohort"):
        fed.coordinator.verify(second.cohort, release)
    with pytest.raises(ReleaseError, match="another cohort"):
        second.sites["site-0"].verify(release)


def test_equivocation_only_breaks_the_attempt():
    """The coordinator shows site-0 another cohort; its masks then cancel with nobody's."""
    fed = Federation(4, size=4096)
    attempt = fed.start()
    plan = messages.digest(attempt.plan_message)
    readies = [attempt.sites[n].ready() for n in fed.names]
    fork = messages.seal(
        fed.identities["coordinator"], Cohort(plan, attempt.announcement, tuple(readies[:3]))
    )
    forked = attempt.sites["site-0"].upload(fork, fed.random_integers())
    with pytest.raises(UploadError, match="another cohort"):
        fed.new_aggregator(attempt).add(forked.manifest, forked.chunks)
    # and site-0 has spent its key: it will not upload for the true cohort as well
    with pytest.raises(StateError):
        attempt.sites["site-0"].upload(attempt.cohort, fed.random_integers())


def test_a_key_swapped_in_transit_is_refused():
    """Whoever carries the announcement cannot put a key of its own in its place."""
    fed = Federation(3)
    attempt = fed.start()
    plan = messages.digest(attempt.plan_message)
    readies = tuple(attempt.sites[n].ready() for n in fed.names)
    parameters = of_plan(fed.plan(), b"").parameters
    fake = messages.seal(
        fed.identities["coordinator"],
        messages.Announcement(plan, suites.new_key(parameters).material),
    )
    message = messages.seal(fed.identities["coordinator"], Cohort(plan, fake, readies))
    with pytest.raises(SignatureError):
        attempt.sites["site-0"].upload(message, fed.random_integers())


def test_a_key_meets_one_ciphertext_only():
    """A crafted sum costs the attempt its key: there is no second question to the oracle."""
    fed = Federation(3, size=8192)
    attempt = fed.start()
    total = fed.open(attempt).total()
    modulus = of_plan(fed.plan(), b"").parameters.modulus
    noise = np.random.default_rng().integers(0, modulus, 8192, dtype=np.uint64)
    chunk = residues.pack(noise, modulus)
    body = messages.unseal(total.manifest, SumManifest, fed.public["aggregator"], 10_000)
    crafted = messages.seal(
        fed.identities["aggregator"],
        SumManifest(body.transcript, body.opening_list, messages.digest(chunk), body.tags),
    )
    with pytest.raises(ReleaseError):
        fed.decryptor.release(attempt.cohort, attempt.opening_list, crafted, [chunk])
    with pytest.raises(StateError, match="no key"):
        fed.decryptor.release(attempt.cohort, attempt.opening_list, total.manifest, total.chunks)


def test_a_replaced_sum_is_refused_by_the_sites():
    fed = Federation(3)
    attempt = fed.start()
    aggregator = fed.open(attempt)
    round_ = of_plan(fed.plan(), attempt.plan_message)
    key = next(iter(fed.decryptor._attempts.values())).key
    packing, modulus = round_.packing, round_.parameters.modulus
    values = np.full(100, 5, dtype=np.int32)
    scaled = packing.pack(values) << packing.encoding.scale_bits
    own = suites.encryptor(round_.parameters, key.material).encrypt(
        residues.from_signed(scaled, modulus)
    )
    chunk = residues.pack(own[0], modulus)
    true = messages.unseal(
        aggregator.total().manifest, SumManifest, fed.public["aggregator"], 10_000
    )
    manifest = messages.seal(
        fed.identities["aggregator"],
        SumManifest(true.transcript, true.opening_list, messages.digest(chunk), true.tags),
    )
    release = fed.decryptor.release(attempt.cohort, attempt.opening_list, manifest, [chunk])
    with pytest.raises(ReleaseError):
        attempt.sites["site-0"].verify(release)
