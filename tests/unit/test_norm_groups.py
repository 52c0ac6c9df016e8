"""Which values are bounded together, how long an honest update is, and which settings take it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregation import Quantization, Segment
from aggregation.protocol import LEAST_GROUP, MOST_GROUP, NormGroup, limit_of
from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.noise import PLANNED_NOISE, privacy_plan
from fmfl_secure.planning.norms import bounded_tensors, group_sizes, norm_groups
from fmfl_secure.settings.federation import FederationConfig, convert_config, encode_config
from privacy import PlanError


def settings(**more: Any) -> FederationConfig:
    made: dict[str, Any] = {
        "federation": {"name": "tiny", "rounds": 4},
        "task": {
            "kind": "text-classification",
            "text_columns": ["text"],
            "label_column": "label",
            "labels": ["no", "yes"],
        },
        "sites": [{"name": f"site-{n}", "population": 500 * n} for n in (1, 2, 3)],
    }
    for section, values in more.items():
        made.setdefault(section, {}).update(values)
    return convert_config(made, FederationConfig, source="test")


@pytest.mark.parametrize(
    ("tensors", "groups"),
    [
        ([3072] * 3 + [770], [3072] * 3 + [770]),
        ([3072, 768, 2], [3072, 770]),  # what is left joins the one before
        ([2, 768, 3072], [770, 3072]),  # or after
        ([256] * 5, [512, 768]),
        ([384, 384, 384, 100_000], [768, *[14286] * 6, 14668]),
        ([16_384], [16_384]),
        ([16_385], [8192, 8193]),
        ([512], [512]),
        ([300, 212], [512]),
    ],
    ids=str,
)
def test_tensors_are_cut_into_groups(tensors: list[int], groups: list[int]) -> None:
    found = group_sizes(tensors)
    assert sum(found) == sum(tensors)
    assert all(LEAST_GROUP <= size <= MOST_GROUP for size in found)
    if len(groups) < 7:
        assert found == groups


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_tensors_every_value_is_in_one_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensors = [int(2 ** rng.uniform(0, 17)) for _ in range(int(rng.integers(1, 40)))]
    if sum(tensors) >= LEAST_GROUP:
        found = group_sizes(tensors)
        assert sum(found) == sum(tensors)
        assert all(LEAST_GROUP <= size <= MOST_GROUP for size in found)


def grid(bits: int = 16, most: float = 1e-3) -> Quantization:
    return Quantization(
        bits=bits,
        segments=(
            Segment(name="lora", size=3072, range=most),
            Segment(name="head.weight", size=768, range=most),
            Segment(name="head.bias", size=2, range=most),
        ),
    )


def test_it_is_off_unless_said_and_settings_keep_their_digest() -> None:
    without = settings()
    off = settings(federation={"norm_check": False})
    assert without.digest == off.digest != settings(federation={"norm_check": True}).digest
    assert b"norm_check" not in encode_config(off)
    assert norm_groups(without, without.turn(1), grid()) is msgspec.UNSET


def test_an_update_of_steps_at_the_sites_goes_as_far_as_its_grid() -> None:
    config = settings(federation={"norm_check": True})
    groups = norm_groups(config, config.turn(1), grid())
    assert groups == tuple(NormGroup(n, math.ceil(32_767 * math.sqrt(n))) for n in (3072, 770))
    tensors = [(segment.name, segment.size) for segment in grid().segments]
    shown = bounded_tensors(config, tensors, 3842)
    assert [(each.first, each.last, each.size, each.projections) for each in shown] == [
        ("lora", "lora", 3072, 64),
        ("head.weight", "head.bias", 770, 32),
    ]
    assert [each.honest for each in shown] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert [each.limit for each in shown] == pytest.approx([1.7, 2.0], abs=1e-3)
    # Of three sites one goes a third as far in the mean, and so much further as is seldom missed.
    assert [each.mean for each in shown] == pytest.approx([1.7 * 1.6 / 3, 2.0 * 2 / 3], abs=1e-3)
    assert bounded_tensors(settings(), tensors, 3842) == []


def test_a_gradient_goes_as_far_as_its_units_and_its_noise() -> None:
    config = settings(
        federation={"norm_check": True},
        training={"steps_at": "server"},
        privacy={"steps_per_round": 1},
    )
    most = PLANNED_NOISE.get("local").gradient_range(config, 3842)
    wide = grid(most=most)
    groups = norm_groups(config, config.turn(1), wide)
    assert not isinstance(groups, msgspec.UnsetType)
    step, sigma = most / 32_767, privacy_plan(config, config.sites[0]).noise_stddev
    rng = np.random.default_rng(1)
    for group in groups:
        # Every unit of the largest site's largest batch in one direction, and the noise.
        units = 150 + 6 * math.sqrt(150)
        direction = rng.normal(size=group.size)
        signal = units * config.privacy.max_grad_norm * direction / np.linalg.norm(direction)
        found = [
            np.linalg.norm(signal + rng.normal(scale=sigma, size=group.size)) for _ in range(200)
        ]
        assert max(found) / step <= group.norm
        assert group.norm < 32_767 * math.sqrt(group.size)  # which the clamp alone would allow
        assert limit_of(group, 1.0) > group.norm


def test_what_is_asked_is_not_checked() -> None:
    config = settings(
        federation={"norm_check": True},
        evaluation={"data": "sites", "epsilon": 1.0, "every": 1, "holdout": 0.2},
        task={"unit": "person"},
        privacy={"max_records_per_unit": 4},
    )
    turns = [config.turn(number) for number in range(1, config.all_rounds + 1)]
    found = {turn.asked is None: norm_groups(config, turn, grid()) for turn in turns}
    assert found[False] is msgspec.UNSET
    assert found[True] is not msgspec.UNSET


def test_an_update_that_is_too_small_is_refused_with_what_to_do() -> None:
    config = settings(federation={"norm_check": True})
    small = Quantization(bits=16, segments=(Segment(name="lora", size=511, range=1.0),))
    with pytest.raises(PlanError, match="511 values") as refused:
        norm_groups(config, config.turn(1), small)
    assert "norm_check = false" in str(refused.value.hint)


@pytest.mark.parametrize("noise", ["distributed", "none"])
def test_it_is_for_updates_that_are_private_by_themselves(noise: str) -> None:
    with pytest.raises(ConfigError, match=r"norm_check is for privacy\.noise = 'local'"):
        settings(federation={"norm_check": True}, privacy={"noise": noise, "steps_per_round": 1})
    with pytest.raises(PlanError):
        PLANNED_NOISE.get(noise).largest_norm(settings(), 1024, 1.0, 127)


def test_a_site_s_weight_is_in_its_limit() -> None:
    group = NormGroup(1024, 10_000)
    assert limit_of(group, 1.0) == pytest.approx(1.7 * (10_000 + 32))
    assert limit_of(group, 0.125) == pytest.approx(1.7 * (1250 + 32))
