"""Measured noise of encrypted sums against the derived bounds; each test has a reject arm."""

import numpy as np
import pytest

from aggregation import parameter_set
from aggregation.ckks import _ckks, residues
from aggregation.crypto import masking

SET = parameter_set("ckks-pk-4096-60-20")


def noise_of_sums(sites, chunks):
    """Errors of `chunks` sums of `sites` encryptions of zero, shape (chunks * N,)."""
    context = _ckks.context(SET)
    holder = _ckks.KeyHolder(context)
    encryptor = _ckks.Encryptor(context, holder.material)
    zeros = np.zeros((chunks, SET.poly_modulus_degree), dtype=np.uint64)
    total = encryptor.encrypt(zeros)
    for _ in range(sites - 1):
        residues.add(total, encryptor.encrypt(zeros), SET.modulus)
    return residues.to_signed(holder.decrypt(total), SET.modulus).ravel()


@pytest.mark.parametrize(("sites", "chunks"), [(1, 12), (4, 6), (16, 3)])
def test_noise_is_within_the_bound_and_not_far_below_it(sites, chunks):
    errors = noise_of_sums(sites, chunks)
    assert np.abs(errors).max() <= SET.noise_bound(sites)
    # Derived: (N + 1) / 12 a site for the densest key; a ternary one has two thirds of that.
    proxy = np.sqrt(sites * (SET.poly_modulus_degree + 1) / 12)
    expected = np.sqrt(sites * (1 + SET.poly_modulus_degree * 2 / 3) / 12)
    measured = errors.std()
    assert measured < proxy
    # accepts the expected deviation and rejects two thirds and three halves of it
    assert 0.9 * expected < measured < 1.1 * expected
    assert not 0.9 * expected * 2 / 3 < measured < 1.1 * expected * 2 / 3
    assert not 0.9 * expected * 3 / 2 < measured < 1.1 * expected * 3 / 2


def test_tails_are_no_heavier_than_the_gaussian_bound():
    errors = noise_of_sums(4, 12)
    proxy = np.sqrt(4 * (SET.poly_modulus_degree + 1) / 12)
    for sigmas in (2.0, 3.0, 4.0):
        bound = 2 * np.exp(-(sigmas**2) / 2)
        assert np.mean(np.abs(errors) > sigmas * proxy) <= bound
    # the reject arm: a Laplace of the same deviation breaks the bound at four
    laplace = np.random.default_rng(1).laplace(scale=proxy / np.sqrt(2), size=200_000)
    assert np.mean(np.abs(laplace) > 4.0 * proxy) > 2 * np.exp(-8)


def ks_distance(values, modulus):
    uniform = np.sort(values / modulus)
    return np.abs(uniform - (np.arange(len(uniform)) + 0.5) / len(uniform)).max()


@pytest.mark.parametrize("modulus", [SET.modulus, 40961])
def test_masks_are_uniform(modulus):
    stream = masking.Stream(b"\x05" * 32, modulus, 4096)
    values = np.concatenate([stream.chunk(k) for k in range(16)]).astype(np.float64)
    assert ks_distance(values, modulus) < 1.95 / 256  # p = 0.001 at 65536 draws
    # the reject arm: reducing 16-bit words modulo 40961 instead of rejecting them
    words = np.random.default_rng(3).integers(0, 2**16, 65536) % 40961
    assert ks_distance(words.astype(np.float64), 40961) > 1.95 / 256


def test_masks_have_no_bias_in_any_bit():
    values = masking.Stream(b"\x06" * 32, SET.modulus, 1 << 16).chunk(0)
    for bit in range(60):
        ones = np.mean(values >> np.uint64(bit) & np.uint64(1))
        assert abs(ones - 0.5) < 5 * 0.5 / 256  # five standard errors
