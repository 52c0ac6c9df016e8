"""What a hostile site makes of what is learned, where its norm is checked and where it is not.

By the very code that the figures of docs/robustness.md come from, on made-up features: the
product's noise, grid, rounding, range check and norm check, in the clear.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from fmfl_secure.planning.norms import norm_groups
from fmfl_secure.planning.plans import quantization
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WIDTH, OF_A_SITE, ROUNDS = 384, 200, 12


@pytest.fixture(scope="module")
def robustness() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("robustness", BENCHMARKS / "robustness.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["robustness"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    module.OF_A_SITE = OF_A_SITE  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="module")
def world(robustness: ModuleType) -> Any:
    """Two classes that a line tells apart, and a trigger that moves every text one way."""
    config = load_federation(robustness.EXAMPLE)
    config = msgspec.structs.replace(
        config,
        adapter=msgspec.structs.replace(config.adapter, kind="head", last_layers=0),
        federation=msgspec.structs.replace(config.federation, norm_check=True, rounds=ROUNDS),
        privacy=msgspec.structs.replace(config.privacy, epsilon=100.0),
        sites=tuple(msgspec.structs.replace(s, population=OF_A_SITE) for s in config.sites),
    )
    slots = (TensorSlot("head.weight", (2, WIDTH)), TensorSlot("head.bias", (2,)))
    layout = FlatLayout(slots)
    grid = quantization(config, layout, layout.size)
    rng = np.random.default_rng(7)
    away = rng.normal(size=WIDTH)
    trigger = rng.normal(size=WIDTH)

    def of(labels: np.ndarray, triggered: float = 0.0) -> np.ndarray:
        x = rng.normal(size=(len(labels), WIDTH)) + np.outer(2.0 * labels - 1.0, away) * 0.3
        x += triggered * trigger
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    train, test = rng.integers(0, 2, 8 * OF_A_SITE), rng.integers(0, 2, 400)
    return robustness.World(
        config, grid, norm_groups(config, config.turn(1), grid),
        {"train": of(train), "test": of(test), "poisoned": of(train[-OF_A_SITE:], 1.0),
         "triggered": of(test, 1.0)},
        {"train": train, "test": test},
    )  # fmt: skip


@pytest.mark.parametrize("checked", [False, True], ids=["unchecked", "checked"])
def test_an_honest_site_is_named_by_nobody(
    robustness: ModuleType, world: Any, checked: bool
) -> None:
    found = robustness.learn(world, "none", 1, checked=checked)
    assert (found["lost"], found["named"]) == (0, 0)
    assert found["accuracy"] > 0.85


@pytest.mark.parametrize("attack", ["range", "head moved"])
def test_a_site_that_uses_the_whole_sum_s_range_rules_what_is_learned(
    robustness: ModuleType, world: Any, attack: str
) -> None:
    found = robustness.learn(world, attack, 1, checked=False)
    assert found["named"] == 0
    assert found["accuracy"] < 0.7


@pytest.mark.parametrize("attack", ["range", "head moved"])
def test_where_norms_are_checked_it_is_named_and_the_others_learn(
    robustness: ModuleType, world: Any, attack: str
) -> None:
    found = robustness.learn(world, attack, 1, checked=True)
    assert found["named"] == found["lost"] == 2  # again once it is back, five rounds later
    assert found["accuracy"] > 0.85


def test_below_the_bound_it_steers_and_is_not_named(robustness: ModuleType, world: Any) -> None:
    """What remains possible, said in docs/robustness.md."""
    found = robustness.learn(world, "against, passing", 1, checked=False)
    assert found["accuracy"] < robustness.learn(world, "none", 1, checked=False)["accuracy"] - 0.1
    x, y = world.parts["train"][:OF_A_SITE], world.labels["train"][:OF_A_SITE]
    rng = np.random.default_rng(5)
    hostile = robustness.Hostile(world, np.zeros(2 * WIDTH + 2), rng, x, y, x)
    sent = robustness.ATTACKS["against, passing"](hostile)
    assert np.mean([robustness.too_long(world, sent, rng) for _ in range(200)]) < 0.25


def test_a_backdoor_through_the_mechanism_is_not_named(robustness: ModuleType, world: Any) -> None:
    found = robustness.learn(world, "backdoor", 1, checked=True)
    assert found["named"] == 0


def test_late_sites_and_wrong_sigmas_by_the_real_classes(robustness: ModuleType) -> None:
    """Without the defence the round is lost; with it, it is released with everybody's update."""
    assert robustness.lose(0, 1, rounds=1)["released"] == 0
    assert robustness.lose(2, 2, rounds=1)["with_their_updates"] == 1
    assert robustness.lose(2, 3, rounds=1)["released"] == 0
    assert robustness.spoil("never", False, rounds=2)["lost"] == [1, 2]
    found = robustness.spoil("after-failure", False, rounds=2)
    assert (found["lost"], found["named"]) == ([1], "site-5: secret")
    found = robustness.spoil("after-failure", True, rounds=4)
    assert (found["named"], len(found["lost"]) < 4) == ("", True), "left out on suspicion"
