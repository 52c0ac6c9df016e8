"""Steps at the server for local noise: what a site releases, what it costs, what is made of it."""

from __future__ import annotations

from pathlib import Path

import dp_accounting
import msgspec
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from support import make_federation, settings

from aggregation import dequantize
from fmfl_secure.errors import ConfigError
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.planning.plans import encryption_parameters, predict, quantization, value_bits
from fmfl_secure.planning.steps import both_places, stepping_at
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import (
    FederationConfig,
    convert_config,
    encode_config,
    load_federation,
)
from fmfl_secure.training.local_round import train_locally
from fmfl_secure.training.server_step import ServerStep
from fmfl_secure.vectors.adapter import Adapter
from privacy import PlanError, PrivacyPlan, TrainingError
from privacy.mechanism.gradient_training import GaussianRelease
from privacy.mechanism.noise import GaussianSource
from privacy.mechanism.plan import CLIP_TOLERANCE

replace = msgspec.structs.replace


@pytest.fixture
def local(tmp_path: Path, tiny_model: Path):
    path = make_federation(tmp_path, tiny_model, steps=1, rounds=4, privacy="delta = 1e-4")
    config = load_federation(path)
    config = replace(config, training=replace(config.training, steps_at="server"))
    return config, build_task(config, relative_to=tmp_path), tmp_path


def released(local, *, site: int = 1, units: slice = slice(None), **changes):
    """One site's integers as numbers, on all of its data or some of it."""
    config, task, folder = local
    config = replace(config, privacy=replace(config.privacy, **changes))
    data = task.load(folder / f"data/site-{site}.csv", unit="record")
    object.__setattr__(data, "units", data.units[units])
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    grid = quantization(config, layout, layout.size)
    plan = privacy_plan(config, config.sites[0]) if config.privacy.epsilon else None
    integers = train_locally(
        model,
        adapter_bytes(model),
        data,
        config=config,
        task=task,
        plan=None if config.privacy.noise == "none" else plan,
        layout=layout,
        rank=2,
        quantization=grid,
    )
    return dequantize(integers.astype(np.int64), grid, 1.0), grid


def silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GaussianSource, "normal", lambda _, count: np.zeros(count))


def test_settings_without_the_key_mean_what_they_did(tiny_model: Path) -> None:
    import tomllib

    data = tomllib.loads(settings(tiny_model))
    config = convert_config(data, FederationConfig, source="test")
    assert config.training.steps_at == "site"
    assert b"steps_at" not in encode_config(config)
    data["training"]["steps_at"] = "site"
    assert convert_config(data, FederationConfig, source="test").digest == config.digest
    data["privacy"]["steps_per_round"] = 1
    data["training"]["steps_at"] = "server"
    assert b'"steps_at":"server"' in encode_config(
        convert_config(data, FederationConfig, source="test")
    )


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("privacy", {"steps_per_round": 2}, "expected 1: with training.steps_at = 'server'"),
        ("training", {"server_optimizer": "adam"}, "server_optimizer is for steps at the sites"),
        ("training", {"proximal": 0.1}, "proximal is for steps at the sites"),
        ("federation", {"weights": "population"}, "weights is for steps at the sites"),
        ("adapter", {"personal_head": True}, "personal needs training.steps_at = 'site'"),
    ],
)
def test_what_needs_steps_at_the_sites_is_refused(
    tiny_model: Path, section: str, changes: dict[str, object], said: str
) -> None:
    import tomllib

    data = tomllib.loads(settings(tiny_model, steps=1, evaluation=False))
    data["training"]["steps_at"] = "server"
    convert_config(data, FederationConfig, source="test")
    data[section] |= changes
    with pytest.raises(ConfigError, match=said):
        convert_config(data, FederationConfig, source="test")


def test_a_round_is_one_poisson_sampled_gaussian_by_dp_accounting(local) -> None:
    config, _, _ = local
    plan = privacy_plan(config, config.sites[0])
    event = dp_accounting.PoissonSampledDpEvent(
        plan.sample_rate, dp_accounting.GaussianDpEvent(plan.noise_multiplier)
    )
    predicted = predict(config, 100)
    assert predicted.steps == config.federation.rounds == 4
    for number, epsilon in enumerate(predicted.epsilon_by_round, start=1):
        renyi, pld = RdpAccountant(), PLDAccountant()
        for accountant in (renyi, pld):
            accountant.compose(event, number)
        # The filter's two orders ask for more than all orders do, and those for more than PLD.
        assert pld.get_epsilon(plan.delta) < renyi.get_epsilon(plan.delta) <= epsilon < 8.0
    assert predicted.pld_epsilon == pytest.approx(pld.get_epsilon(plan.delta), rel=1e-3)
    worst = RdpAccountant()
    worst.compose(event, 4 + config.privacy.repeats)
    assert worst.get_epsilon(plan.delta) <= predicted.epsilon_worst_case <= 8.0


def test_without_noise_one_unit_moves_a_release_by_at_most_its_bound(
    local, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence(monkeypatch)
    both = {"sample_rate": 1.0, "max_grad_norm": 1e-2}
    whole, grid = released(local, **both)
    resolution = grid.segments[0].range / grid.limit
    rounding = 2.0 * resolution * np.sqrt(grid.size)
    moved = []
    for left_out in range(1, 5):
        rest, _ = released(local, units=slice(left_out, None), **both)
        moved.append(float(np.linalg.norm(whole - rest)))
        assert moved[-1] <= left_out * 1e-2 * (1.0 + CLIP_TOLERANCE) + rounding
    assert moved[0] > 0.5e-2, "and the unit was there to be seen"


def test_the_grid_cuts_nothing_off_and_hides_in_the_noise(
    local, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task, _ = local
    size = task.begin_round(task.build_model(seed=1), 1).size
    for epsilon, population in ((0.5, 40), (8.0, 40), (8.0, 90_000)):
        sites = tuple(replace(site, population=population) for site in config.sites)
        changed = replace(
            config, sites=sites, privacy=replace(config.privacy, epsilon=epsilon, delta=1e-7)
        )
        plan = privacy_plan(changed, changed.sites[0])
        layout = task.begin_round(task.build_model(seed=1), 1)
        grid = quantization(changed, layout, size)
        step = grid.segments[0].range / grid.limit
        assert step**2 / 12 <= 0.01 * plan.noise_stddev**2
        # Every sampled unit's whole norm in one coordinate, and noise beside it.
        assert grid.segments[0].range > plan.expected_batch_size + 6 * plan.noise_stddev
        assert encryption_parameters(changed, size).id
    assert value_bits(changed, size) >= config.aggregation.bits


def test_a_gradient_is_released_after_every_step_or_not_at_all() -> None:
    plan = PrivacyPlan("record", 1000, 0.1, 1.0, 1.0, 2, 3, 0, 1e-5)
    with pytest.raises(PlanError, match="a gradient is released after every step"):
        GaussianRelease(plan)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2)), np.zeros(3, dtype=np.float32), np.array([0.0, np.nan])], ids=repr
)
def test_a_sum_of_another_form_is_not_released(wrong: np.ndarray) -> None:
    release = GaussianRelease(PrivacyPlan("record", 1000, 0.1, 1.0, 1.0, 1, 3, 0, 1e-5))
    with pytest.raises(TrainingError):
        release.protect(wrong)


def test_the_server_averages_before_its_optimizer_looks(local) -> None:
    """Noise of sites that differ in sign cancels first; a site's own Adam would normalise it."""
    config, task, _ = local
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    grid = quantization(config, layout, layout.size)
    start = adapter_bytes(model)
    names = [site.name for site in config.sites]
    loud = np.full(layout.size, grid.limit // 4, dtype=np.int64)
    before = Adapter.read(start).flatten(layout)
    step = ServerStep(config)
    still = Adapter.read(step.apply(layout, grid, start, loud - loud, names)).flatten(layout)
    assert np.array_equal(still, before)
    once = step.apply(layout, grid, start, loud, names)
    moved = before - Adapter.read(once).flatten(layout)
    head = np.concatenate([np.full(s.size, s.name.startswith("head.")) for s in layout.slots])
    rates = np.where(head, config.training.head_learning_rate, config.training.learning_rate)
    assert moved == pytest.approx(rates, rel=1e-4)  # Adam's first step
    # One memory for the run, which travels with the adapter and is in its digest.
    assert set(Adapter.read(once).moments) > set(Adapter.read(start).moments)
    twice = Adapter.read(step.apply(layout, grid, once, -loud, names)).flatten(layout)
    fresh = Adapter.read(step.apply(layout, grid, start, -loud, names)).flatten(layout)
    assert np.abs((before - moved - twice) + rates).max() > 0.5 * rates.min()
    assert before - fresh == pytest.approx(-rates, rel=1e-4)


def test_the_mean_is_over_declared_populations_of_the_cohort(local) -> None:
    config, task, _ = local
    training = replace(config.training, optimizer="sgd", learning_rate=1.0, head_learning_rate=1.0)
    populations = (40, 80, 400)
    sites = tuple(replace(s, population=p) for s, p in zip(config.sites, populations, strict=True))
    privacy = replace(config.privacy, delta=1e-5)
    config = replace(config, training=training, sites=sites, privacy=privacy)
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    grid = quantization(config, layout, layout.size)
    total = np.full(layout.size, 1000, dtype=np.int64)
    before = Adapter.read(adapter_bytes(model)).flatten(layout)
    for cohort in (["site-1", "site-3"], ["site-1", "site-2", "site-3"]):
        after = ServerStep(config).apply(layout, grid, adapter_bytes(model), total, cohort)
        moved = before - Adapter.read(after).flatten(layout)
        units = 0.25 * sum(s.population for s in sites if s.name in cohort)
        assert moved == pytest.approx(dequantize(total, grid, 1.0) / units, rel=1e-4, abs=1e-6)


def test_without_noise_a_gradient_is_neither_clipped_nor_noised(local) -> None:
    first, grid = released(local, sample_rate=1.0, noise="none")
    again, _ = released(local, sample_rate=1.0, noise="none")
    resolution = grid.segments[0].range / grid.limit
    assert np.abs(first - again).max() <= 2 * resolution
    assert np.linalg.norm(first) > 1e3 * resolution


def test_a_smaller_rank_adds_no_noise_where_it_trains_nothing(local) -> None:
    config, task, folder = local
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    data = task.load(folder / "data/site-1.csv", unit="record")
    integers = train_locally(
        model,
        adapter_bytes(model),
        data,
        config=config,
        task=task,
        plan=privacy_plan(config, config.sites[0]),
        layout=layout,
        rank=1,
        quantization=quantization(config, layout, layout.size),
    )
    low_rank = [
        part for name, part in layout.split(integers.astype(float)).items() if "lora_B" in name
    ]
    assert low_rank
    for part in low_rank:
        assert not part[:, 1:].any()
        assert part[:, :1].any()


def test_both_places_are_planned_with_as_many_steps(local) -> None:
    config, _, _ = local
    server, site = both_places(config, 100)
    assert (server.place, server.chosen, server.rounds, server.steps_per_round) == (
        "server", True, 4, 1
    )  # fmt: skip
    assert (site.place, site.chosen, site.rounds, site.steps_per_round) == ("site", False, 1, 4)
    # A repeat is a whole round: one step here, four there.
    assert server.noise_multiplier < site.noise_multiplier
    back = stepping_at(stepping_at(config, "site"), "server")
    assert back == config
    shares = replace(config, privacy=replace(config.privacy, noise="distributed", delta=1e-5))
    assert stepping_at(shares, "server") is shares
