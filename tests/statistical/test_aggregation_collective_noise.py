"""The collective suite's noise against its derived bounds, over many keys; with failing arms."""

import math

import numpy as np
import pytest

from aggregation import ParameterError, choose, parameter_set
from aggregation.ckks import _ckks, collective, residues
from aggregation.ckks.collective import CollectiveEncryptor
from aggregation.ckks.parameters import LOG2_FAILURE_LIMIT, MAX_SIZE

SET = parameter_set("ckks-collective-4096-60-aes")
Q = SET.modulus


def noise_of_sums(sites, chunks, key):
    """Errors of `chunks` sums of `sites` encryptions of zero, each under a secret of its own."""
    transcript = key.to_bytes(32, "big")
    total = np.zeros((chunks, 1, 4096), dtype=np.uint64)
    secret = np.zeros(4096, dtype=np.int64)
    for _ in range(sites):
        encryptor = CollectiveEncryptor(_ckks, SET, transcript)
        residues.add(total, encryptor.encrypt(np.zeros((chunks, 4096), dtype=np.uint64)), Q)
        secret += encryptor._secret
    context, points = (
        _ckks.context(SET),
        collective.public_stream(transcript, SET).chunks(0, chunks),
    )
    opened = _ckks.Multiplier(context, secret).times(context.to_ntt(points))
    residues.add(opened, total[:, 0], Q)
    return residues.to_signed(opened, Q).ravel()


@pytest.mark.parametrize(("sites", "chunks", "keys"), [(1, 8, 6), (4, 6, 4), (16, 4, 2)])
def test_noise_over_many_keys(sites, chunks, keys):
    errors = np.concatenate([noise_of_sums(sites, chunks, key) for key in range(keys)])
    check(errors, sites)


@pytest.mark.slow
def test_noise_over_many_keys_and_millions_of_coefficients():
    errors = np.concatenate([noise_of_sums(8, 15, key) for key in range(40)])
    assert errors.size > 2_400_000
    check(errors, 8)


def check(errors, sites):
    assert np.abs(errors).max() <= SET.noise_bound(sites) == 21 * sites
    proxy = float(SET.variance_proxy(sites)) ** 0.5
    assert 0.97 * proxy < errors.std() < 1.03 * proxy
    # the failing arms: two thirds and three halves of the deviation are told apart
    for factor in (2 / 3, 3 / 2):
        assert not 0.97 * proxy < errors.std() * factor < 1.03 * proxy
    for sigmas in (2.0, 3.0, 4.0):
        bound = 2 * math.exp(-(sigmas**2) / 2)
        assert np.mean(np.abs(errors) > sigmas * proxy) <= bound
    laplace = np.random.default_rng(1).laplace(scale=proxy / np.sqrt(2), size=200_000)
    assert np.mean(np.abs(laplace) > 4 * proxy) > 2 * math.exp(-8)


def test_a_scale_below_the_bound_fails_as_often_as_the_bound_allows():
    """The failing arm of the failure probability: at half a step of 4 sigma, rounding errs."""
    errors = noise_of_sums(16, 12, 99)
    proxy = float(SET.variance_proxy(16)) ** 0.5
    scale_bits = 5  # half a step is 16, 1.2 sigma
    wrong = np.mean(np.abs(errors) >= 1 << (scale_bits - 1))
    assert wrong > 0.1
    assert wrong <= 2 * math.exp(-((1 << (scale_bits - 1)) ** 2) / (2 * proxy**2))
    assert SET.log2_failure(16, scale_bits, 1) > LOG2_FAILURE_LIMIT
    assert SET.log2_failure(16, 10, MAX_SIZE) == -math.inf


@pytest.mark.parametrize("sites", [3, 8, 64, 128, 1000])
@pytest.mark.parametrize("bits", [4, 8, 10, 16, 24, 32])
def test_every_encoding_never_fails_or_is_below_the_limit(sites, bits):
    for identifier in ("ckks-collective-4096-60-aes", "ckks-pk-4096-60-20"):
        encoding = parameter_set(identifier).encoding(sites, bits)
        assert encoding.log2_failure <= LOG2_FAILURE_LIMIT


def test_choose_picks_the_smallest_upload_and_names_the_nearest():
    for sites, bits in ((3, 8), (128, 8), (128, 16), (1000, 16)):
        chosen = choose(sites, bits)
        others = [parameter_set(i) for i in ("ckks-collective-4096-60-aes", "ckks-pk-4096-60-20")]
        assert chosen.bytes_per_value(sites, bits) == min(
            row.bytes_per_value(sites, bits) for row in others
        )
    assert float(choose(128, 8).bytes_per_value(128, 8)) == 2.5
    assert float(choose(128, 16).bytes_per_value(128, 16)) == 3.75
    with pytest.raises(ParameterError, match="nearest is 1024"):
        choose(2000, 16)
