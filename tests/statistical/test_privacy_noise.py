"""The noise carries the declared sigma, alone and on its way to the parameters.

Kolmogorov-Smirnov tests at a fixed significance of 1e-6; each accepts the declared sigma and
rejects two thirds and three halves of it.
"""

import os
import random
import types

import numpy as np
import pytest
import torch
from scipy import stats

from privacy import PrivacyPlan
from privacy.mechanism.noise import _CHUNK, _TERMS, GaussianSource
from privacy.mechanism.sampling import poisson_sample
from privacy.mechanism.training import ClippedSum, PrivateTrainer

SIGNIFICANCE = 1e-6


def is_normal(values, stddev):
    return stats.kstest(values, stats.norm(scale=stddev).cdf).pvalue > SIGNIFICANCE


def assert_sigma(values, stddev):
    assert is_normal(values, stddev)
    assert not is_normal(values, stddev * 2 / 3)
    assert not is_normal(values, stddev * 3 / 2)
    # Finer, by the second moment: two percent off would be ten standard deviations off.
    assert abs(np.mean(values**2) / stddev**2 - 1) < 5 * np.sqrt(2 / len(values))


def test_a_source_is_standard_normal():
    values = GaussianSource().normal(400_000)
    assert values.dtype == np.float64
    assert_sigma(values, 1.0)


def test_tails_have_the_mass_that_they_should():
    values = np.abs(GaussianSource().normal(3_000_000))
    truncated = values[values < 3.9]
    for sigmas in (3.0, 4.0):
        expected = 2 * stats.norm.sf(sigmas) * len(values)
        assert abs(np.count_nonzero(values > sigmas) - expected) < 5 * np.sqrt(expected)
    expected = 2 * stats.norm.sf(4.0) * len(values)  # the reject arm: cut at 3.9
    assert abs(np.count_nonzero(truncated > 4.0) - expected) > 5 * np.sqrt(expected)


class Scripted:
    """A stream of chosen 64-bit words in place of the cipher."""

    def __init__(self, *calls):
        self.calls = list(calls)

    def update(self, data):
        words = np.array(self.calls.pop(0), dtype=np.uint64)
        assert len(data) == words.nbytes
        return words.tobytes()


def scripted(*pairs):
    """One normal made of the given (radius, angle) words, one pair a term."""
    source = GaussianSource()
    source._words._stream = Scripted(*pairs)
    return source.normal(1)[0]


TOP = 2**64 - 1  # the uniform 1: radius 0


def test_tails_reach_beyond_float32_normals():
    """CPU float32 normals of torch end at 5.77."""
    assert _TERMS == 4
    nothing = (TOP, 0)
    assert scripted(nothing, nothing, nothing, nothing) == 0.0
    one_term = scripted((0, 0), nothing, nothing, nothing) * np.sqrt(_TERMS)
    assert 8.5 < one_term < 8.6  # sqrt(2 x 53 ln 2)
    half_turn = (0, 2**63)
    assert -8.6 < scripted(half_turn, nothing, nothing, nothing) * np.sqrt(_TERMS) < -8.5
    assert scripted((0, 0), (0, 0), (0, 0), (0, 0)) > 17.0
    assert np.all(np.isfinite(scripted((0, 0), (TOP, TOP), (0, TOP), (TOP, 0))))


def test_lengths_and_chunks():
    source = GaussianSource()
    assert source.normal(0).shape == (0,)
    values = source.normal(2 * _CHUNK + 3)
    assert len(np.unique(values)) == len(values)  # no chunk repeats another
    lag = _CHUNK
    z = np.corrcoef(values[:lag], values[lag : 2 * lag])[0, 1] * np.sqrt(lag)
    assert abs(z) < 5
    z = np.corrcoef(values[:-1], values[1:])[0, 1] * np.sqrt(len(values))
    assert abs(z) < 5


def test_two_sources_differ():
    first, second = GaussianSource().normal(1000), GaussianSource().normal(1000)
    assert not np.isin(first, second).any()


def seed_everything():
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)


def test_seeds_do_not_drive_noise():
    seed_everything()
    first = GaussianSource().normal(8)
    seed_everything()
    assert not np.isin(first, GaussianSource().normal(8)).any()


def in_fork(source, *, spoil=False):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        if spoil:
            source._words._pid = os.getpid()
        os.write(writing, source.normal(16).tobytes())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        return np.frombuffer(stream.read())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_processes_make_different_noise():
    source = GaussianSource()
    source.normal(3)
    children = [in_fork(source), in_fork(source), in_fork(source, spoil=True)]
    own = source.normal(16)
    assert all(len(child) == 16 for child in children)
    assert not np.isin(children[0], children[1]).any()
    assert not np.isin(children[0], own).any()
    # the reject arm: with the fork hidden from it, the child repeats its parent
    np.testing.assert_array_equal(children[2], own)


def test_noise_and_sampling_share_no_source(monkeypatch):
    """Each is made to repeat itself in turn; the other goes on as before."""
    fixed = types.SimpleNamespace(urandom=lambda size: b"\x5a" * size, getpid=os.getpid)
    with monkeypatch.context() as patch:
        patch.setattr("privacy.mechanism.keystream.os", fixed)
        np.testing.assert_array_equal(GaussianSource().normal(8), GaussianSource().normal(8))
        assert not np.array_equal(poisson_sample(512, 0.5), poisson_sample(512, 0.5))
    with monkeypatch.context() as patch:
        patch.setattr("privacy.mechanism.sampling.os", fixed)
        np.testing.assert_array_equal(poisson_sample(512, 0.5), poisson_sample(512, 0.5))
        assert not np.isin(GaussianSource().normal(8), GaussianSource().normal(8)).any()
    # Drawing a sample does not move the noise's stream, nor the other way round.
    with monkeypatch.context() as patch:
        patch.setattr("privacy.mechanism.keystream.os", fixed)
        first, second = GaussianSource(), GaussianSource()
        poisson_sample(512, 0.5)
        np.testing.assert_array_equal(first.normal(8), second.normal(8))


# The whole path: clipped sum, noise, division, optimizer, parameter.

SIZE = 120_000


def linear_model():
    torch.set_num_threads(1)
    model = torch.nn.Linear(SIZE, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return model


def first_output(model, batch):
    return model(batch)[:, 0]  # its gradient for a record is the record


def inputs(records):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(records, SIZE, generator=generator)


def clip(rows, max_grad_norm):
    rows = rows.double()
    return rows * (max_grad_norm / rows.norm(dim=1, keepdim=True)).clamp(max=1.0)


def test_a_step_carries_the_declared_noise():
    model, data = linear_model(), inputs(5)
    stddev, expected_batch_size = 0.37, 8.0
    path = ClippedSum(
        model,
        loss=first_output,
        collate=lambda records: data[torch.from_numpy(records)],
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        max_grad_norm=1.5,
        noise_stddev=stddev,
        expected_batch_size=expected_batch_size,
        physical_batch_size=2,
    )
    clipped = clip(data, 1.5).sum(dim=0)
    with path:
        path.accumulate([np.array([i]) for i in range(5)])
        path.step()
    update = -model.weight.detach().double()[0]
    noise = (update * expected_batch_size - clipped).numpy()
    assert_sigma(noise, stddev)
    # and the sum is in it: without taking it out, what is left is not centred noise of that sigma
    assert torch.dot(update * expected_batch_size, clipped) / clipped.norm() ** 2 > 0.3


@pytest.mark.parametrize("units", [4, 0])
def test_a_trained_round_carries_the_plan_s_noise(units):
    """With no units at the site every Poisson batch is empty, and a step is noise alone."""
    plan = PrivacyPlan(
        unit="record",
        population=10,
        sample_rate=1.0,
        max_grad_norm=0.5,
        noise_multiplier=1.3,
        steps_per_round=1,
        rounds=1,
        repeats=0,
        delta=1e-5,
    )
    model, data = linear_model(), inputs(max(units, 1))
    PrivateTrainer(
        model,
        plan=plan,
        loss=first_output,
        collate=lambda records: data[torch.from_numpy(records)],
        units=[np.array([i]) for i in range(units)],
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        physical_batch_size=3,
    ).train_round()
    clipped = clip(data, 0.5).sum(dim=0) if units else 0.0
    # Divided by the declared population times the rate, not by how many units there are.
    noise = -model.weight.detach().double()[0] * 10 - clipped
    assert plan.noise_stddev == pytest.approx(0.65, rel=1e-3)
    assert_sigma(noise.numpy(), plan.noise_stddev)


def test_steps_and_trainers_do_not_repeat_noise():
    def updates():
        model = linear_model()
        path = ClippedSum(
            model,
            loss=first_output,
            collate=lambda _: None,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            max_grad_norm=1.0,
            noise_stddev=1.0,
            expected_batch_size=1.0,
            physical_batch_size=1,
        )
        seen = []
        with path:
            for _ in range(2):
                before = model.weight.detach().clone()
                path.step()
                seen.append((model.weight.detach() - before).double().numpy()[0])
        return seen

    seed_everything()
    drawn = updates()
    seed_everything()
    drawn += updates()
    for i, first in enumerate(drawn):
        for second in drawn[:i]:
            assert abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(SIZE) < 5
