import numpy as np
import pytest
import tenseal.sealapi as seal
from exchanges import signed_anew

from aggregation import (
    AggregationError,
    CohortError,
    OpeningError,
    ReleaseError,
    StateError,
    UploadError,
    parameter_set,
)
from aggregation.ckks import _ckks, collective, residues
from aggregation.ckks.collective import CollectiveEncryptor, CollectiveKeyHolder
from aggregation.protocol import messages, read_exchange
from aggregation.testing import Federation

SET = parameter_set("ckks-collective-4096-60-aes")
Q = SET.modulus
TRANSCRIPT = bytes(range(32))
HYBRID = "x25519-mlkem768"


@pytest.mark.parametrize("key_agreement", ["x25519", HYBRID])
@pytest.mark.parametrize(("sites", "bits"), [(3, 16), (5, 8), (3, 32), (34, 16)])
def test_a_round_releases_the_exact_sum(sites, bits, key_agreement):
    fed = Federation(
        sites, size=9000, bits=bits, suite="ckks-collective", key_agreement=key_agreement
    )
    attempt = fed.start()
    release = fed.release(attempt)
    exact = np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)
    for site in attempt.sites.values():
        np.testing.assert_array_equal(site.verify(release), exact)


@pytest.mark.parametrize("value", [1, -1])
@pytest.mark.parametrize(("sites", "bits"), [(3, 16), (8, 8)])
def test_sums_at_full_capacity_are_exact(sites, bits, value):
    fed = Federation(sites, size=9000, bits=bits, suite="ckks-collective")
    limit = (1 << (bits - 1)) - 1
    fed.random_integers = lambda: np.full(9000, value * limit, dtype=np.int32)
    attempt = fed.start()
    released = attempt.sites["site-0"].verify(fed.release(attempt))
    assert (released == sites * value * limit).all()


def test_sums_of_zeros_are_released_like_any_other():
    fed = Federation(3, suite="ckks-collective")
    fed.random_integers = lambda: np.zeros(100, dtype=np.int32)
    attempt = fed.start()
    assert not attempt.sites["site-0"].verify(fed.release(attempt)).any()


def test_products_are_those_of_the_ring():
    """Against schoolbook multiplication modulo X**4096 + 1 in Python integers."""
    context = _ckks.context(SET)
    rng = np.random.default_rng(2)
    a = rng.integers(0, Q, (3, 4096), dtype=np.uint64)
    s = np.zeros(4096, dtype=np.int64)
    s[[0, 1, 17, 4095]] = [1, -1, 3, -2]
    products = _ckks.Multiplier(context, s).times(context.to_ntt(a))
    for row, product in zip(a.tolist(), products.tolist(), strict=True):
        for j in (0, 1, 16, 17, 4094, 4095):
            expected = 0
            for i in (0, 1, 17, 4095):
                place = j - i
                expected += int(s[i]) * (row[place] if place >= 0 else -row[place + 4096])
            assert product[j] == expected % Q


@pytest.mark.parametrize("n", [1, 2, 15, 16, 31])
def test_products_of_any_number_of_polynomials(n):
    context = _ckks.context(SET)
    a = np.random.default_rng().integers(0, Q, (n, 4096), dtype=np.uint64)
    one = np.zeros(4096, dtype=np.int64)
    one[0] = 1
    np.testing.assert_array_equal(_ckks.Multiplier(context, one).times(a), context.from_ntt(a))


def test_the_modular_sum_is_seals_residue_by_residue():
    """Sums of c0 as the aggregator makes them, against SEAL's own `Evaluator.add`."""
    fed = Federation(5, size=20_000, suite="ckks-collective")
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    context, evaluator = _ckks.context(SET), None
    evaluator = seal.Evaluator(context.seal)
    uploads = [s.upload(attempt.cohort, attempt.integers[n]) for n, s in attempt.sites.items()]
    for k in range(0, aggregator.round.packing.chunks - 1, 2):
        total = None
        for upload in uploads:
            two = np.stack([residues.unpack(upload.chunks[k + i], 4096, Q) for i in (0, 1)])
            item = context.load_ciphertext(two, ntt=False)
            if total is None:
                total = item
            else:
                evaluator.add_inplace(total, item)
        expected = context.save_ciphertext(total, 2)
        planes = aggregator._sum[:, k : k + 2] % np.uint64(Q)
        np.testing.assert_array_equal(planes.transpose(1, 2, 0).reshape(2, 4096), expected)


def test_noise_at_the_edge_of_the_modulus_wraps_to_the_right_residue(monkeypatch):
    """x + e - a s for the smallest and largest of each: no outer edge is lost in a word."""

    class Edge:
        def __init__(self, _secret, _modulus):
            pass

        def times(self, points):
            return np.full(points.shape, product, dtype=np.int64)

    monkeypatch.setattr(collective, "ExactMultiplier", Edge)
    for product in (-(2**46), 0, Q - 1, 2**61 + 2**46):
        for x in (0, Q - 1):
            for e in (-21, 21):
                monkeypatch.setattr(
                    collective, "draw_errors", lambda shape, e=e: np.full(shape, e, np.int64)
                )
                encryptor = CollectiveEncryptor(_ckks, SET, TRANSCRIPT)
                made = encryptor.encrypt(np.full((1, 4096), x, dtype=np.uint64))
                assert set(made.ravel().tolist()) == {(x + e - product) % Q}


def test_public_points_are_uniform_fixed_and_differ():
    a, b = collective.public_stream(TRANSCRIPT, SET).chunks(0, 2)
    np.testing.assert_array_equal(a, collective.public_stream(TRANSCRIPT, SET).chunk(0))
    assert not (a == b).any()
    assert not (a == collective.public_stream(bytes(32), SET).chunk(0)).any()
    assert a.max() < Q


def test_drawn_secrets_and_errors():
    secret = collective.draw_ternary(30_000)
    counts = [np.mean(secret == v) for v in (-1, 0, 1)]
    assert set(np.unique(secret)) == {-1, 0, 1}
    assert all(abs(c - 1 / 3) < 5 * np.sqrt(2 / 9 / 30_000) for c in counts)
    assert not np.array_equal(secret, collective.draw_ternary(30_000))
    errors = collective.draw_errors((3, 4096))
    assert errors.shape == (3, 4096)
    assert np.abs(errors).max() <= 21


def test_a_chunk_is_encrypted_once():
    encryptor = CollectiveEncryptor(_ckks, SET, TRANSCRIPT)
    zeros = np.zeros((2, 4096), dtype=np.uint64)
    encryptor.encrypt(zeros, 0)
    with pytest.raises(ReleaseError, match="encrypted before"):
        encryptor.encrypt(zeros, 1)
    encryptor.encrypt(zeros, 2)


def test_keys_open_nothing_before_and_after():
    holder = CollectiveKeyHolder(_ckks, SET)
    with pytest.raises(ReleaseError):
        holder.decrypt(np.zeros((1, 1, 4096), dtype=np.uint64))
    holder.destroy()
    with pytest.raises(ReleaseError):
        holder.open_box(b"", b"")
    for secret in (holder, CollectiveEncryptor(_ckks, SET, TRANSCRIPT)):
        assert "secret" in repr(secret)
        with pytest.raises(TypeError):
            secret.__reduce__()


def test_uploads_are_of_one_size_and_resent_byte_for_byte():
    fed = Federation(4, suite="ckks-collective", key_agreement=HYBRID)
    attempt = fed.start()
    uploads, handed = [], fed.handed(attempt)
    for name, site in attempt.sites.items():
        integers = fed.random_integers()
        uploads.append(site.upload(attempt.cohort, integers, handed[name]))
        assert site.upload(attempt.cohort, integers) == uploads[-1]
    assert len({upload.size_bytes for upload in uploads}) == 1


def test_a_hybrid_upload_needs_its_neighbours_exchanges():
    fed = Federation(4, suite="ckks-collective", key_agreement=HYBRID)
    attempt = fed.start()
    needed = [
        n for i, n in enumerate(fed.names) if 0 in attempt.sites["site-0"]._cohort.initiates(i)
    ]
    site, integers = attempt.sites["site-0"], fed.random_integers()
    assert needed
    with pytest.raises(AggregationError, match="missing"):
        site.upload(attempt.cohort, integers, ())
    site.upload(attempt.cohort, integers, fed.handed(attempt)["site-0"])
    assert site.exchange(attempt.cohort) == attempt.exchanges[0]


def test_an_exchange_of_another_length_or_cohort_is_refused():
    fed = Federation(4, suite="ckks-collective", key_agreement=HYBRID)
    attempt = fed.start()
    cohort, said = fed.fixed(attempt), attempt.exchanges[1]
    keyed = cohort.initiates(1)[0]
    for message in (
        signed_anew(fed.identities["site-1"], said, {keyed: {"ciphertext": b""}}),
        signed_anew(fed.identities["site-1"], said, {1: {"ciphertext": bytes(1088)}}),
        signed_anew(fed.identities["site-1"], said, {keyed: {"ciphertext": bytes(1089)}}),
        signed_anew(fed.identities["site-1"], said, transcript=bytes(32)),
    ):
        with pytest.raises(CohortError, match="site-1"):
            read_exchange(cohort, message)


def test_the_list_must_be_confirmed_and_only_one_is():
    fed = Federation(3, suite="ckks-collective")
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    listed, sealed = aggregator.opening_list(), aggregator.sealed_secrets()
    confirmed = fed.decryptor.confirm(attempt.cohort, listed, sealed)
    assert fed.decryptor.confirm(attempt.cohort, listed, ()) == confirmed
    body = messages.unseal(listed, messages.OpeningList, fed.public["aggregator"], 1 << 20)
    other = messages.OpeningList(body.transcript, (bytes(32),) * 3, body.first)
    with pytest.raises(StateError, match="another list"):
        fed.decryptor.confirm(
            attempt.cohort, messages.seal(fed.identities["aggregator"], other), sealed
        )
    with pytest.raises(AggregationError):
        attempt.sites["site-0"].open(listed)
    attempt.sites["site-0"].open(confirmed)


def test_the_public_key_suite_confirms_by_passing_on():
    fed = Federation(3)
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    listed = aggregator.opening_list()
    assert aggregator.sealed_secrets() == ()
    assert fed.decryptor.confirm(attempt.cohort, listed) == listed
    with pytest.raises(StateError):
        fed.new_decryptor().confirm(attempt.cohort, listed)


def test_a_list_without_the_first_manifest_is_refused():
    fed = Federation(3)
    attempt = fed.start()
    listed = fed.upload(attempt).opening_list()
    body = messages.unseal(listed, messages.OpeningList, fed.public["aggregator"], 1 << 20)
    for first in (b"", attempt.sites["site-1"]._upload.manifest):
        other = messages.OpeningList(body.transcript, body.manifests, first)
        message = messages.seal(fed.identities["aggregator"], other)
        with pytest.raises(OpeningError, match="first site's manifest"):
            attempt.sites["site-1"].open(message)
    attempt.sites["site-1"].open(listed)


def test_an_upload_without_its_sealed_secret_is_incomplete():
    fed = Federation(3, suite="ckks-collective")
    attempt = fed.start()
    upload = attempt.sites["site-0"].upload(attempt.cohort, fed.random_integers())
    aggregator = fed.new_aggregator(attempt)
    with pytest.raises(UploadError, match="missing"):
        aggregator.add(upload.manifest, upload.chunks[:-1])
    assert "site-0" in aggregator.missing
    with pytest.raises(StateError):
        aggregator.sealed_secrets()
    aggregator.add(upload.manifest, upload.chunks)
    assert "site-0" not in aggregator.missing
