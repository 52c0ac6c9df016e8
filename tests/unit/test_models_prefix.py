"""Frozen layers replayed from memory: the same numbers, within a limit, and off afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_models_adapters import make_task, randomise

from fmfl_secure.models.prefix import FrozenPrefix, RecordCache


def count_runs(model) -> list[int]:
    """Counts how often the first layer computes."""
    runs = [0]
    layers = [m for n, m in model.named_modules() if n.endswith("layer.0.inner.attention")]
    assert len(layers) == 1
    layers[0].register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    return runs


def per_record_gradients(task, model, batch) -> list[torch.Tensor]:
    losses = task.per_record_loss(model, batch)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        for loss in losses
    ]


@pytest.mark.parametrize("kind", ["ffa-lora", "lora", "head"])
def test_the_cache_changes_neither_logits_nor_gradients(tiny_model: Path, kind: str) -> None:
    with_cache = make_task(tiny_model, kind, last_layers=1)
    without = make_task(tiny_model, kind, last_layers=1, cache_bytes=0)
    cached, plain = with_cache.build_model(seed=1), without.build_model(seed=1)
    randomise(cached)
    randomise(plain)
    runs = count_runs(cached)
    data, same = with_cache.synthetic(), without.synthetic()
    # The second and third batch mix known with new records, and pad them to other lengths.
    for records in ([0, 1, 4], [1, 5, 0, 7], [7, 0, 2], [7, 0, 2], [3, 6]):
        chosen = np.array(records, dtype=np.int64)
        batch, expected = data.collate(chosen), same.collate(chosen)
        with torch.no_grad():
            assert torch.allclose(cached(batch), plain(expected), atol=1e-5)
        for left, right in zip(
            per_record_gradients(with_cache, cached, batch),
            per_record_gradients(without, plain, expected),
            strict=True,
        ):
            assert torch.allclose(left, right, atol=1e-5)
            assert left.abs().max() > 1e-3
    assert runs[0] == 4, "only a batch with a record that is new runs the frozen layers"


def test_replay_is_off_after_a_forward_even_one_that_fails(tiny_model: Path) -> None:
    task = make_task(tiny_model, last_layers=1)
    model = task.build_model(seed=1)
    randomise(model)
    ids, mask = torch.tensor([[2, 5, 9, 3]]), torch.ones(1, 4, dtype=torch.int64)
    expected = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    data = task.synthetic()
    batch = data.collate(np.array([0, 6]))
    model(batch)
    assert torch.equal(
        model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, expected
    )

    def fail(*_):
        raise ArithmeticError

    hook = model.head.register_forward_hook(fail)
    with pytest.raises(ArithmeticError):
        model(batch)
    hook.remove()
    assert torch.equal(
        model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, expected
    )


def test_two_data_sets_do_not_share_a_cache(tiny_model: Path) -> None:
    task = make_task(tiny_model, last_layers=1)
    model = task.build_model(seed=1)
    randomise(model)
    one = task._prepare(["alpha beta"], np.zeros(1, dtype=np.int64), [np.array([0])])
    two = task._prepare(["gamma delta rho"], np.zeros(1, dtype=np.int64), [np.array([0])])
    first = np.array([0], dtype=np.int64)
    with torch.no_grad():
        before = model(one.collate(first))
        assert not torch.allclose(model(two.collate(first)), before)
        assert torch.allclose(model(one.collate(first)), before)


def test_the_cache_keeps_to_its_limit() -> None:
    cache = RecordCache(3 * 4 * 5)  # bytes: room for three rows of five float32
    rows = torch.ones(2, 5)
    cache.put(0, rows)
    cache.put(1, rows)
    assert 0 in cache
    assert 1 not in cache, "two more rows would be over the limit"
    cache.put(2, rows[:1])
    assert 2 in cache
    cache.put(3, rows[:1])
    assert 3 not in cache
    assert 9 not in cache


def test_what_is_kept_is_a_copy_of_the_records_own_tokens() -> None:
    cache = RecordCache(1 << 20)
    padded = torch.arange(20.0).reshape(1, 4, 5).requires_grad_()
    cache.put(0, padded[0, :2])
    with torch.no_grad():
        padded += 1
    assert torch.equal(cache[0], torch.arange(10.0).reshape(2, 5))
    assert not cache[0].requires_grad
    assert cache[0].untyped_storage().nbytes() == 10 * 4, "a view would keep the whole batch"
    assert repr(cache) == "RecordCache()"


@pytest.mark.parametrize("cache_bytes", [1, 2000])
def test_a_full_cache_computes_and_gives_the_same(tiny_model: Path, cache_bytes: int) -> None:
    small = make_task(tiny_model, last_layers=1, cache_bytes=cache_bytes)
    large = make_task(tiny_model, last_layers=1)
    some, all_ = small.build_model(seed=1), large.build_model(seed=1)
    randomise(some)
    randomise(all_)
    data, same = small.synthetic(), large.synthetic()
    everyone = np.arange(data.records)
    with torch.no_grad():
        for _ in range(2):
            assert torch.allclose(
                some(data.collate(everyone)), all_(same.collate(everyone)), atol=1e-5
            )
    kept = [r for r in everyone if ("text", r) in data.collate(everyone).cache]
    sizes = [int(data.record_cost[r]) * 16 * 4 for r in kept]
    assert sum(sizes) <= cache_bytes
    assert bool(kept) == (cache_bytes > 1)


def test_taking_what_was_not_computed_is_an_error() -> None:
    prefix = FrozenPrefix(torch.nn.ModuleList([torch.nn.Identity()]), 1)
    with pytest.raises(RuntimeError, match="has not run"):
        prefix.take_recorded()
