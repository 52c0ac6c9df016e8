"""Attacks that recover a secret key from what is published: each works where it should."""

import numpy as np
import pytest

from aggregation import ReleaseError, parameter_set
from aggregation.ckks import _ckks, collective, residues, suites
from aggregation.ckks.collective import CollectiveEncryptor, CollectiveKeyHolder
from aggregation.protocol import checks, messages
from aggregation.protocol.round import of_plan
from aggregation.testing import Federation
from fmfl_secure.demonstration import key_recovery
from fmfl_secure.demonstration.key_recovery import is_secret
from fmfl_secure.demonstration.naive import run_naive
from fmfl_secure.demonstration.per_tensor_ckks import PublicView
from fmfl_secure.demonstration.pictures import SIZES

COLLECTIVE = parameter_set("ckks-collective-4096-60-aes")
PUBLIC = parameter_set("ckks-pk-4096-60-20")
Q = COLLECTIVE.modulus
TRANSCRIPT = bytes(range(32))


def divide(numerator, points):
    return key_recovery.divide(numerator, points, _ckks.context(COLLECTIVE))


def test_li_micciancio_recovers_the_key_of_raw_ckks():
    """The naive pattern's own bytes and floats, of one sum; then another site's upload opens."""
    updates = {f"site-{i}": np.random.default_rng(i).normal(size=sum(SIZES)) for i in range(3)}
    naive = run_naive(updates)
    found, read = naive.with_recovered_key("site-1")
    assert is_secret(found), "the attack must work on raw CKKS"
    assert found.any()
    np.testing.assert_allclose(read, updates["site-1"], atol=1e-6)


def test_li_micciancio_needs_the_floats_as_they_are():
    """Rounded to what a grid of 16 bits keeps, they no longer give the key."""
    updates = {f"site-{i}": np.random.default_rng(i).normal(size=sum(SIZES)) for i in range(3)}
    naive = run_naive(updates)
    view = PublicView(naive.key.public_context())
    rounded = np.round(naive.published[: SIZES[0]], 4)
    assert not is_secret(key_recovery.recover_key(view, [(naive.total[0], rounded)]), 2**40)


@pytest.mark.parametrize("suite", ["ckks-pk", "ckks-collective"])
def test_li_micciancio_fails_on_released_integers(suite):
    fed = Federation(3, size=8192, suite=suite)
    attempt = fed.start()
    total = fed.open(attempt).total()
    release = fed.decryptor.release(
        attempt.cohort, attempt.opening_list, total.manifest, total.chunks
    )
    integers = attempt.sites["site-0"].verify(release)
    round_ = of_plan(fed.plan(), attempt.plan_message)
    packing = round_.packing
    message = packing.pack_sum(integers, 0, 1)[0] << packing.encoding.scale_bits
    context = _ckks.context(COLLECTIVE)
    summed = round_.unpack_chunks([total.chunks[0]])[0]
    if suite == "ckks-collective":
        cohort = checks.read_cohort(round_, attempt.cohort)
        points = collective.public_stream(cohort.transcript, COLLECTIVE).chunk(0)
        found = key_recovery.secret_of_a_sum(message, summed[0], points, context)
    else:
        encoded = context.to_ntt(residues.from_signed(message[None], Q))[0]
        residues.subtract(encoded, summed[0], Q)
        found = divide(encoded, summed[1])
    assert not is_secret(found, bound=2**40)


# The float-encoding attack on the collective suite.


def near_capacity():
    """Message coefficients as large as the encoding lets them be."""
    encoding = COLLECTIVE.encoding(128, 16)
    largest = (encoding.base**encoding.digits - 1) // (2 * encoding.sites) << encoding.scale_bits
    rng = np.random.default_rng(5)
    return rng.integers(-largest, largest, 4096) >> 13 << 13


def test_no_noise_is_lost_near_capacity():
    """The same chunk through this suite: every error is there, and division gives nothing."""
    context = _ckks.context(COLLECTIVE)
    x = near_capacity()
    encryptor = CollectiveEncryptor(_ckks, COLLECTIVE, TRANSCRIPT)
    c0 = encryptor.encrypt(residues.from_signed(x[None], Q))[0, 0]
    points = collective.public_stream(TRANSCRIPT, COLLECTIVE).chunk(0)
    opened = _ckks.Multiplier(context, encryptor._secret).times(context.to_ntt(points[None]))[0]
    residues.add(opened, c0, Q)
    errors = residues.to_signed(opened, Q) - x
    assert np.abs(errors).max() <= 21
    assert 0.93 * np.sqrt(10.5) < errors.std() < 1.07 * np.sqrt(10.5)
    assert np.mean(errors == 0) < 0.2  # not 1.0, as in floats
    known = residues.from_signed(x, Q)
    residues.subtract(known, c0, Q)
    assert not is_secret(divide(*context.to_ntt(np.stack([known, points]))), bound=2**40)


def test_noise_added_in_floats_is_erased_and_the_secret_falls_out():
    """The arm that works: x + e through float64, as any encoder through complex slots has it.

    With 3 x 2**57 in every coefficient, all of e is below half a unit of float64. x is known or
    guessed for one chunk: padding, a public initial value, what the sum of a round gave away.
    """
    context = _ckks.context(COLLECTIVE)
    x = np.random.default_rng(6).choice([-1, 1], 4096) * np.int64(3 * 2**57)
    secret = collective.draw_ternary(4096)
    noisy = (x.astype(np.float64) + collective.draw_errors((1, 4096))[0]).astype(np.int64)
    points = collective.public_stream(TRANSCRIPT, COLLECTIVE).chunk(0)
    c0 = residues.from_signed(noisy, Q)
    product = _ckks.Multiplier(context, secret).times(context.to_ntt(points[None]))[0]
    residues.subtract(c0, product, Q)
    known = residues.from_signed(x, Q)
    residues.subtract(known, c0, Q)
    np.testing.assert_array_equal(divide(*context.to_ntt(np.stack([known, points]))), secret)


# The crafted-share oracle.


def crafted(ciphertext, alpha):
    """A share that adds alpha to c1, so that the sum carries alpha times the secret key."""
    changed = ciphertext.copy()
    residues.add(changed[0, 1], np.full(4096, alpha, dtype=np.uint64), Q)
    return changed


def test_a_long_lived_key_without_a_mac_is_read_through_one_crafted_share():
    scale_bits = PUBLIC.encoding(3, 16).scale_bits
    holder = suites.new_key(PUBLIC)  # long-lived: the arm that works
    encryptor = suites.encryptor(PUBLIC, holder.material)
    honest = encryptor.encrypt(np.zeros((1, 4096), dtype=np.uint64))
    opened = residues.to_signed(holder.decrypt(crafted(honest, 1 << scale_bits)), Q)
    secret = (opened[0] + (1 << scale_bits - 1)) >> scale_bits
    assert is_secret(secret)
    # The next round's upload under the same key, opened without the key holder.
    values = np.random.default_rng().integers(-500, 500, (1, 4096)) << scale_bits
    later = encryptor.encrypt(residues.from_signed(values, Q))
    context = _ckks.context(COLLECTIVE)
    read = _ckks.Multiplier(context, secret).times(later[:, 1])
    residues.add(read, context.from_ntt(later[:, 0]), Q)
    error = residues.to_signed(read, Q) - values
    assert np.abs(error).max() <= PUBLIC.noise_bound(1)


def test_the_crafted_share_fails_here():
    """The decryptor may well release it; no site accepts, and the key it would tell is gone."""
    fed = Federation(3, size=8192)
    attempt = fed.start()
    aggregator = fed.open(attempt)
    scale_bits = aggregator.round.packing.encoding.scale_bits
    residues.add(
        aggregator._sum[:, :1, 2048:], np.full((2, 1, 2048), 1 << scale_bits, np.uint64), Q
    )
    total = aggregator.total()
    arguments = (attempt.cohort, attempt.opening_list, total.manifest, total.chunks)
    try:
        release = fed.decryptor.release(*arguments)
    except ReleaseError:
        release = None
    if release is not None:
        for site in attempt.sites.values():
            with pytest.raises(ReleaseError, match="not the sum"):
                site.verify(release)
    assert not fed.decryptor._attempts  # destroyed with this one use
    later = fed.start(fed.plan(round_=2))
    old = messages.unseal(
        attempt.announcement, messages.Announcement, fed.public["decryptor"], 1 << 20
    )
    new = messages.unseal(
        later.announcement, messages.Announcement, fed.public["decryptor"], 1 << 20
    )
    assert old.material != new.material


def test_the_sum_of_secrets_is_checked_and_forgotten():
    holder = CollectiveKeyHolder(_ckks, COLLECTIVE)
    over = np.zeros(4096, dtype=np.int64)
    over[7] = 4
    with pytest.raises(ReleaseError):
        holder.learn(residues.from_signed(over, Q), 3, TRANSCRIPT)
    over[7] = 3
    holder.learn(residues.from_signed(over, Q), 3, TRANSCRIPT)
    holder.destroy()
    with pytest.raises(ReleaseError):
        holder.decrypt(np.zeros((1, 1, 4096), dtype=np.uint64))
