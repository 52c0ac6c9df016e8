"""The adapter as arrays: the same bytes and the same values that a model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from task_cases import randomise, task_on

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot


@pytest.mark.parametrize("kind", ["lora", "ffa-lora", "rolora", "ia3", "prompt", "bitfit", "full"])
def test_arrays_and_a_model_give_the_same_bytes(tiny_model: Path, kind: str) -> None:
    task = task_on(tiny_model, "text-classification", kind)
    model = task.build_model(seed=1)
    randomise(model)
    generator = np.random.default_rng(7)
    for number in task.distinct_rounds:
        layout = task.begin_round(model, number)
        before = Adapter.read(adapter_bytes(model))
        assert before.encode() == adapter_bytes(model)
        assert np.array_equal(before.flatten(layout), layout.flatten(model))
        moved = layout.flatten(model) + generator.normal(0, 1e-3, layout.size)
        layout.unflatten_into(model, moved)
        assert before.replaced(layout, moved, {}).encode() == adapter_bytes(model)


def test_moments_are_beside_the_adapter_and_not_in_it() -> None:
    layout = FlatLayout((TensorSlot("a", (2, 3)), TensorSlot("b", (1,))))
    start = safetensors.torch.save({"a": torch.zeros(2, 3), "b": torch.ones(1)})
    moments = {"x.steps": np.array([3.0]), "x.first_moment": np.arange(7.0)}
    data = Adapter.read(start).replaced(layout, np.arange(7.0), moments).encode()
    assert set(load_adapter_bytes(data)) == {"a", "b"}
    again = Adapter.read(data)
    assert again.flatten(layout).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert {n: v.tolist() for n, v in again.moments.items()} == {
        "x.steps": [3.0],
        "x.first_moment": [0, 1, 2, 3, 4, 5, 6],
    }
    assert again.encode() == data


@pytest.mark.parametrize("slot", [TensorSlot("c", (2,)), TensorSlot("a", (3,))])
def test_an_adapter_of_another_layout_is_refused(slot: TensorSlot) -> None:
    adapter = Adapter.read(safetensors.torch.save({"a": torch.zeros(2)}))
    with pytest.raises(ModelError, match=f"adapter tensor {slot.name} does not match"):
        adapter.flatten(FlatLayout((slot,)))


@pytest.mark.parametrize("vector", [np.zeros(3), np.array([0.0, np.nan]), np.array([np.inf, 0.0])])
def test_no_adapter_is_made_of_another_length_or_of_what_is_not_finite(vector) -> None:
    adapter = Adapter.read(safetensors.torch.save({"a": torch.zeros(2)}))
    with pytest.raises(ModelError, match="cannot set 2 parameters"):
        adapter.replaced(FlatLayout((TensorSlot("a", (2,)),)), vector, {})


@pytest.mark.parametrize(
    "data", [b"", b"no tensors", safetensors.torch.save({"a": torch.zeros(2).bfloat16()})]
)
def test_bytes_that_are_no_adapter_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="not an adapter"):
        Adapter.read(bytes(data))
