"""What the settings come to: noise, predicted epsilon, and bytes, before any data are used."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import dp_accounting
import msgspec
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from support import settings

from aggregation import ParameterError
from aggregation.testing import Federation
from fmfl_secure.errors import ModelError
from fmfl_secure.models import Layout
from fmfl_secure.models.computation import Computation, find_device
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.planning.plans import (
    encryption_parameters,
    predict,
    quantization,
    upload_bytes,
)
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig, convert_config
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.vectors.layout import TensorSlot
from privacy import PlanError

# What is left out: signatures, names, transcript and tags of the manifest, and in the collective
# suite the envelope around the sealed secret.
ENVELOPES = (150, 700)  # bytes


def config(model: Path | str = "none", **more) -> FederationConfig:
    populations = more.pop("populations", None)
    data = tomllib.loads(settings(Path(model), **more))
    for entry, population in zip(data["sites"], populations or (), strict=bool(populations)):
        entry["population"] = population
    return convert_config(data, FederationConfig, source="test")


def spent(prediction, rounds: int, steps: int, delta: float) -> float:
    accountant = RdpAccountant(list(range(2, 257)))
    accountant.compose(
        dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(
                prediction.sample_rate, dp_accounting.GaussianDpEvent(prediction.noise_multiplier)
            ),
            rounds * steps,
        )
    )
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("repeats", [0, 1, 3])
def test_the_worst_case_stays_within_the_target_and_comes_close(
    epsilon: float, repeats: int
) -> None:
    prediction = predict(config(rounds=3, epsilon=epsilon, privacy=f"repeats = {repeats}"), 1000)
    assert prediction.epsilon_worst_case <= epsilon
    assert prediction.epsilon_worst_case > 0.97 * epsilon
    final = prediction.epsilon_by_round[-1]
    assert final <= prediction.epsilon_worst_case
    assert (final == prediction.epsilon_worst_case) == (repeats == 0)
    assert prediction.pld_epsilon <= final
    # Computed apart, over all orders: what is predicted is never below it.
    assert spent(prediction, 3, 2, 1e-5) <= final + 1e-6
    assert spent(prediction, 3 + repeats, 2, 1e-5) <= prediction.epsilon_worst_case + 1e-6


def test_repeats_are_paid_for_with_noise() -> None:
    noise = [
        predict(config(rounds=2, privacy=f"repeats = {repeats}"), 1000).noise_multiplier
        for repeats in (0, 1, 2)
    ]
    assert noise[0] < noise[1] < noise[2]
    more = predict(config(rounds=4, privacy="repeats = 0"), 1000)
    assert more.noise_multiplier == pytest.approx(noise[2]), "2 rounds and 2 repeats are 4"


def test_the_prediction_rises_by_round() -> None:
    prediction = predict(config(rounds=5), 1000)
    assert len(prediction.epsilon_by_round) == 5
    assert list(prediction.epsilon_by_round) == sorted(set(prediction.epsilon_by_round))
    assert prediction.steps == 10
    assert prediction.sample_rate == 0.25


def test_the_noise_multiplier_is_the_same_at_every_site() -> None:
    settings_ = config(populations=[40, 400, 4000])
    plans = [privacy_plan(settings_, site) for site in settings_.sites]
    assert len({plan.noise_multiplier for plan in plans}) == 1
    assert len({plan.round_event() for plan in plans}) == 1
    prediction = predict(settings_, 1000)
    assert [site.expected_batch_size for site in prediction.sites] == [10.0, 100.0, 1000.0]
    noise = [site.noise_stddev_of_mean for site in prediction.sites]
    assert noise[0] == pytest.approx(10 * noise[1]) == pytest.approx(100 * noise[2])
    assert noise[0] == pytest.approx(prediction.noise_multiplier / 10, rel=1e-3)


def test_a_target_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(PlanError):
        predict(config(epsilon=1e-9), 1000)
    settings_ = config()
    with pytest.raises(PlanError, match="delta"):
        privacy_plan(settings_, SiteEntry(name="big", population=10**6))


def layout(size: int) -> Layout:
    return Layout((TensorSlot("encoder.b", (size - 2,)), TensorSlot("head.bias", (2,))))


def test_ranges_are_what_the_optimizer_can_move_a_tensor_in_a_round() -> None:
    grid = quantization(config(), layout(10), 10)
    assert grid.bits == 16
    assert [(s.name, s.size) for s in grid.segments] == [("encoder.b", 8), ("head.bias", 2)]
    assert [s.range for s in grid.segments] == pytest.approx([2 * 1e-3, 2 * 0.1])


@pytest.mark.parametrize("suite", ["ckks-collective", "ckks-pk"])
@pytest.mark.parametrize("size", [3, 100, 8192, 8193, 20_000])
@pytest.mark.parametrize("sites", [3, 5])
def test_the_predicted_bytes_are_those_of_an_upload(size: int, sites: int, suite: str) -> None:
    federation = Federation(sites, size=size, suite=suite)
    attempt = federation.start()
    zeros = np.zeros(size, dtype=np.int32)
    upload = attempt.sites["site-0"].upload(attempt.cohort, zeros)
    predicted = upload_bytes(with_aggregation(config(sites=sites), suite=suite), size)
    assert ENVELOPES[0] < upload.size_bytes - predicted < ENVELOPES[1]
    digests = 32 * len(upload.chunks)
    if suite == "ckks-pk":
        assert predicted == sum(map(len, upload.chunks)) + digests


def test_bytes_grow_with_bits_and_by_whole_chunks() -> None:
    settings_ = config()
    few = with_aggregation(settings_, bits=8)
    assert upload_bytes(few, 50_000) < upload_bytes(settings_, 50_000)
    one = upload_bytes(settings_, 1)
    assert one == upload_bytes(settings_, 2)
    sizes = {upload_bytes(settings_, size) - one for size in range(1, 100_000, 997)}
    chunk = min(sizes - {0})
    assert len(sizes) > 5
    assert all(size % chunk == 0 for size in sizes)


def test_the_collective_suite_uploads_about_half() -> None:
    public_key = with_aggregation(config(), suite="ckks-pk")
    assert upload_bytes(config(), 500_000) < 0.52 * upload_bytes(public_key, 500_000)


def with_aggregation(settings_: FederationConfig, **changes) -> FederationConfig:
    aggregation = msgspec.structs.replace(settings_.aggregation, **changes)
    return msgspec.structs.replace(settings_, aggregation=aggregation)


def test_more_sites_than_any_parameter_set_serves_are_refused() -> None:
    assert encryption_parameters(config(), 1000).suite == "ckks-collective"
    with pytest.raises(ParameterError):
        encryption_parameters(config(sites=1025), 1000)


def test_the_task_is_that_of_the_settings(tiny_model: Path) -> None:
    task = build_task(config(tiny_model), relative_to=Path())
    assert task.kind == "text-classification"
    assert task.labels == ("no", "yes")
    assert task.max_length == 16
    assert task.cache_bytes == 2048 << 20
    assert (task.adapter.kind, task.adapter.rank, task.adapter.last_layers) == ("ffa-lora", 2, 1)
    assert task.adapter.target_modules == ("query", "value")
    assert task.computation == Computation(device=find_device("auto"))
    relative = build_task(config("tiny-bert"), relative_to=tiny_model.parent)
    assert replace(relative, base=task.base) == task
    assert relative.base.digest == task.base.digest


def test_how_the_model_is_computed_is_that_of_the_settings(tiny_model: Path) -> None:
    text = settings(tiny_model).replace("max_length", 'dtype = "bfloat16"\nmax_length', 1)
    data = tomllib.loads(text)
    data["training"] = {**data.get("training", {}), "checkpointing": True, "device": "cpu"}
    task = build_task(convert_config(data, FederationConfig, source="test"), relative_to=Path())
    assert task.computation == Computation(dtype="bfloat16", checkpointing=True)


def test_a_base_model_of_another_digest_is_refused(tiny_model: Path) -> None:
    text = settings(tiny_model).replace(
        "max_length", f'digest = "sha256:{"0" * 64}"\nmax_length', 1
    )
    pinned = convert_config(tomllib.loads(text), FederationConfig, source="test")
    with pytest.raises(ModelError, match="expected sha256:0000"):
        build_task(pinned, relative_to=Path())
