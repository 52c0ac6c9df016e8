"""Attacks that recover a secret key from what is published: each works where it should."""

import numpy as np
import pytest
import tenseal.sealapi as seal

from aggregation import (
    ReleaseError,
    _ckks,
    collective,
    messages,
    parameter_set,
    protocol,
    residues,
    suites,
)
from aggregation.collective import CollectiveEncryptor, CollectiveKeyHolder
from aggregation.round import of_plan
from aggregation.testing import Federation

COLLECTIVE = parameter_set("ckks-collective-4096-60")
PUBLIC = parameter_set("ckks-pk-4096-60-20")
Q = COLLECTIVE.modulus
TRANSCRIPT = bytes(range(32))


def divide(numerator, points):
    """Coefficients of numerator / a, numerator and a given in NTT order."""
    context = _ckks.context(COLLECTIVE)
    quotient = [
        int(n) * pow(int(a), -1, Q) % Q
        for n, a in zip(numerator.tolist(), points.tolist(), strict=True)
    ]
    found = context.from_ntt(np.array([quotient], dtype=np.uint64))[0]
    return residues.to_signed(found, Q)


def is_secret(candidate, bound=1):
    return bool(np.abs(candidate).max() <= bound)


def raw_ckks(chunks):
    """CKKS ciphertexts as any TenSEAL program makes them, and the floats they decrypt to."""
    context = _ckks.context(PUBLIC)
    generator = seal.KeyGenerator(context.seal)
    public = seal.PublicKey()
    generator.create_public_key(public)
    encoder = seal.CKKSEncoder(context.seal)
    encryptor = seal.Encryptor(context.seal, public)
    decryptor = seal.Decryptor(context.seal, generator.secret_key())
    plain, item, seen = seal.Plaintext(), seal.Ciphertext(), []
    for _ in range(chunks):
        encoder.encode(np.random.default_rng().normal(size=2048).tolist(), 2.0**30, plain)
        encryptor.encrypt(plain, item)
        ciphertext = context.save_ciphertext(item, 2).copy()
        decryptor.decrypt(item, plain)
        seen.append((ciphertext, np.array(encoder.decode_double(plain))))
    return context, encoder, seen


def test_li_micciancio_recovers_the_key_of_raw_ckks():
    """eprint 2020/1533. Twice the real parts, encoded again, are m + m(1/X) to the last bit.

    At each root w that is one linear equation in s(w) and s(1/w); two chunks make two.
    """
    context, encoder, seen = raw_ckks(2)
    x = np.zeros((1, 4096), dtype=np.uint64)
    x[0, 1] = 1
    roots = [int(root) for root in context.to_ntt(x)[0]]
    place = {root: i for i, root in enumerate(roots)}
    mirror = [place[pow(root, -1, Q)] for root in roots]
    plain, rows = seal.Plaintext(), []
    for ciphertext, floats in seen:
        encoder.encode((2 * floats).tolist(), 2.0**30, plain)
        doubled = [int(v) for v in context.save_plaintext(plain)]
        c0, c1 = ciphertext.tolist()
        known = [(d - a - c0[m]) % Q for d, a, m in zip(doubled, c0, mirror, strict=True)]
        rows.append((c1, known))
    secret = np.empty((1, 4096), dtype=np.uint64)
    (a, u), (b, v) = rows
    for i, m in enumerate(mirror):
        determinant = pow(a[i] * b[m] - a[m] * b[i], -1, Q)
        secret[0, i] = (u[i] * b[m] - v[i] * a[m]) * determinant % Q
    found = residues.to_signed(context.from_ntt(secret)[0], Q)
    assert is_secret(found), "the attack must work on raw CKKS"
    assert found.any()


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
    message = packing.pack_sum(integers, 0, 1) << packing.encoding.scale_bits
    context = _ckks.context(COLLECTIVE)
    encoded = context.to_ntt(residues.from_signed(message, Q))[0]
    summed = round_.unpack_chunks([total.chunks[0]])[0]
    if suite == "ckks-pk":
        c0, points = summed
    else:
        c0 = context.to_ntt(summed[:1])[0]
        cohort = protocol.read_cohort(round_, attempt.cohort)
        points = collective.public_points(cohort.transcript, 0, COLLECTIVE)
        # C0 = X + E - a S: the same division would give S.
        encoded, c0 = c0, encoded
    residues.subtract(encoded, c0, Q)
    assert not is_secret(divide(encoded, points), bound=2**40)


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
    points = collective.public_points(TRANSCRIPT, 0, COLLECTIVE)
    opened = _ckks.Multiplier(context, encryptor._secret).times(points[None])[0]
    residues.add(opened, c0, Q)
    errors = residues.to_signed(opened, Q) - x
    assert np.abs(errors).max() <= 21
    assert 0.93 * np.sqrt(10.5) < errors.std() < 1.07 * np.sqrt(10.5)
    assert np.mean(errors == 0) < 0.2  # not 1.0, as in floats
    known = residues.from_signed(x, Q)
    residues.subtract(known, c0, Q)
    assert not is_secret(divide(context.to_ntt(known[None])[0], points), bound=2**40)


def test_noise_added_in_floats_is_erased_and_the_secret_falls_out():
    """The arm that works: x + e through float64, as any encoder through complex slots has it.

    With 3 x 2**57 in every coefficient, all of e is below half a unit of float64. x is known or
    guessed for one chunk: padding, a public initial value, what the sum of a round gave away.
    """
    context = _ckks.context(COLLECTIVE)
    x = np.random.default_rng(6).choice([-1, 1], 4096) * np.int64(3 * 2**57)
    secret = collective.draw_ternary(4096)
    noisy = (x.astype(np.float64) + collective.draw_errors((1, 4096))[0]).astype(np.int64)
    points = collective.public_points(TRANSCRIPT, 0, COLLECTIVE)
    c0 = residues.from_signed(noisy, Q)
    residues.subtract(c0, _ckks.Multiplier(context, secret).times(points[None])[0], Q)
    known = residues.from_signed(x, Q)
    residues.subtract(known, c0, Q)
    np.testing.assert_array_equal(divide(context.to_ntt(known[None])[0], points), secret)


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
