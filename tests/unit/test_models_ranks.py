"""Ranks that differ by site: one layout, public zeros, means over the sites that train a value."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from task_cases import randomise, task_on

from aggregation import dequantize, quantize
from fmfl_secure.errors import ConfigError
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes, set_adapter_tensors
from fmfl_secure.models.ranks import truncate
from fmfl_secure.planning.plans import quantization
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.training.server_step import ServerStep
from fmfl_secure.vectors.ranks import rank_mask


def test_a_mask_has_the_first_rows_of_a_and_columns_of_b(tiny_model: Path) -> None:
    task = task_on(tiny_model, "text-classification", "lora", rank=4)
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    layout.unflatten_into(model, rank_mask(layout, 3))
    seen = {"lora_A": 0, "lora_B": 0, "head": 0}
    for name, value in model.named_parameters():
        if "lora_A" in name:
            assert value[:3].eq(1).all()
            assert value[3:].eq(0).all()
            seen["lora_A"] += 1
        elif "lora_B" in name:
            assert value[:, :3].eq(1).all()
            assert value[:, 3:].eq(0).all()
            seen["lora_B"] += 1
        elif value.requires_grad:
            assert value.eq(1).all()
            seen["head"] += 1
    assert all(seen.values())


@pytest.mark.parametrize("kind", ["lora", "ffa-lora"])
def test_what_is_beyond_a_sites_rank_gets_no_gradient(tiny_model: Path, kind: str) -> None:
    task = task_on(tiny_model, "text-classification", kind, rank=4)
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    randomise(model)
    truncate(model, 3)
    data = task.synthetic()
    task.per_record_loss(model, data.collate(np.arange(data.records))).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    flat = torch.cat([gradients[slot.name].reshape(-1) for slot in layout.slots]).numpy()
    mask = rank_mask(layout, 3).astype(bool)
    assert not flat[~mask].any()
    assert flat[mask].any()


def test_a_mean_is_over_the_sites_that_train_a_value(tiny_model: Path, tmp_path: Path) -> None:
    from support import make_federation

    path = make_federation(tmp_path, tiny_model, adapter='kind = "lora"\nrank = 4', plain=True)
    ranks = [4, 2, 1]
    config = load_federation(path)
    sites = tuple(
        msgspec.structs.replace(site, rank=rank)
        for site, rank in zip(config.sites, ranks, strict=True)
    )
    config = msgspec.structs.replace(config, sites=sites)
    task = task_on(tiny_model, "text-classification", "lora", rank=4)
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    grid = quantization(config, layout, layout.size)
    generator = np.random.default_rng(1)
    updates = [generator.normal(0, 1e-4, layout.size) * rank_mask(layout, r) for r in ranks]
    total = np.sum([quantize(update, grid).astype(np.int64) for update in updates], axis=0)
    before = layout.flatten(model)
    start = adapter_bytes(model)
    cohort = [site.name for site in sites]
    following = ServerStep(config).apply(layout, grid, start, total, cohort)
    set_adapter_tensors(model, load_adapter_bytes(following))
    moved = layout.flatten(model) - before
    counts = np.sum([rank_mask(layout, rank) for rank in ranks], axis=0)
    assert set(counts) == {1.0, 2.0, 3.0}
    expected = np.sum(updates, axis=0) / counts
    step = max(segment.range / grid.limit for segment in grid.segments)
    assert np.abs(moved - expected).max() < 3 * step + 1e-7
    naive = np.sum(updates, axis=0) / 3
    assert np.abs(moved - naive).max() > 1e-4, "a mean over all sites would shrink what few train"


@pytest.mark.parametrize(
    ("adapter", "entry", "reason"),
    [
        ('kind = "lora"\nrank = 4', "rank = 5", "above adapter.rank = 4"),
        ('kind = "head"', "rank = 1", "adapter 'head' none"),
    ],
)
def test_a_rank_without_a_common_layout_is_refused(
    tiny_model: Path, tmp_path: Path, adapter: str, entry: str, reason: str
) -> None:
    from support import settings

    text = settings(tiny_model, adapter=adapter, plain=True)
    assert text.count("population = 40\n") == 3
    path = tmp_path / "federation.toml"
    path.write_text(text.replace("population = 40\n", f"population = 40\n{entry}\n", 1))
    with pytest.raises(ConfigError, match=reason):
        load_federation(path)


@pytest.mark.parametrize("ranks", [(4,) * 6, (4, 4, 2, 2, 1, 1)], ids=["one", "several"])
def test_a_direction_is_bit_for_bit_that_of_a_mask_for_each_site(
    tiny_model: Path, tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    """What is added up once for all of one rank: parties of earlier versions add each alone."""
    from support import make_federation

    populations = (80, 80, 80, 40, 40, 15)
    path = make_federation(
        tmp_path, tiny_model, sites=6, adapter='kind = "lora"\nrank = 4', plain=True,
        federation='weights = "population"',
    )  # fmt: skip
    config = load_federation(path)
    sites = tuple(
        msgspec.structs.replace(site, rank=rank, population=population)
        for site, rank, population in zip(config.sites, ranks, populations, strict=True)
    )
    config = msgspec.structs.replace(config, sites=sites)
    task = task_on(tiny_model, "text-classification", "lora", rank=4)
    layout = task.begin_round(task.build_model(seed=1), 1)
    grid = quantization(config, layout, layout.size)
    total = np.random.default_rng(1).integers(-500, 500, layout.size)
    found = ServerStep(config)._direction(layout, grid, total, [site.name for site in sites])
    weights = np.zeros(layout.size)
    for site in sites:
        weights += config.weights()[site.name] * rank_mask(layout, config.ranks()[site.name])
    assert len(set(weights)) == len(set(ranks))
    expected = dequantize(total, grid, 1.0) / np.where(weights > 0, weights, 1.0)
    expected[weights == 0] = 0.0
    assert found.tobytes() == expected.tobytes()
