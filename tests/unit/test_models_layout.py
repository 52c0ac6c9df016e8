"""The flat vector: one order, one digest, and a mismatch by name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models import Layout
from fmfl_secure.vectors.layout import TensorSlot


def model(shapes: dict[str, tuple[int, ...]], *, frozen: tuple[str, ...] = ()) -> nn.Module:
    """A module with parameters of these shapes, in this order, filled with distinct values."""
    module = nn.Module()
    start = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        values = torch.arange(start, start + size, dtype=torch.float32).reshape(shape)
        module.register_parameter(name, nn.Parameter(values, requires_grad=name not in frozen))
        start += size
    return module


def test_tensors_stand_in_order_of_their_names_whatever_order_the_model_has() -> None:
    one = model({"b": (2,), "a": (1, 2), "c": (1,)})
    other = model({"c": (1,), "a": (1, 2), "b": (2,)})
    assert [slot.name for slot in Layout.of(one).slots] == ["a", "b", "c"]
    assert Layout.of(one) == Layout.of(other)
    assert Layout.of(one).digest == Layout.of(other).digest
    assert Layout.of(one).flatten(one).tolist() == [2.0, 3.0, 0.0, 1.0, 4.0]


def test_only_what_is_trained_is_in_it() -> None:
    layout = Layout.of(model({"a": (2,), "b": (3,), "c": ()}, frozen=("b",)))
    assert [(s.name, s.size) for s in layout.slots] == [("a", 2), ("c", 1)]
    assert layout.size == 3
    with pytest.raises(ModelError, match="no trainable parameters"):
        Layout.of(model({"a": (2,)}, frozen=("a",)))


def test_the_digest_tells_names_shapes_and_borders_apart() -> None:
    layouts = [
        {"a": (2, 3), "b": (4,)},
        {"a": (3, 2), "b": (4,)},
        {"a": (6,), "b": (4,)},
        {"a": (4,), "b": (6,)},
        {"a": (2, 3), "c": (4,)},
        {"a": (2, 3)},
        {"a": (2, 3), "b": (4,), "c": (1,)},
    ]
    digests = {Layout.of(model(shapes)).digest for shapes in layouts}
    assert len(digests) == len(layouts)
    # The form that is hashed is fixed: other parties and later versions compute it too.
    form = b'[["a",2,3],["b",4]]'
    layout = Layout((TensorSlot("a", (2, 3)), TensorSlot("b", (4,))))
    assert layout.digest == "sha256:" + hashlib.sha256(form).hexdigest()


shapes = st.dictionaries(
    st.text("abc_", min_size=1, max_size=4),
    st.lists(st.integers(1, 4), max_size=3).map(tuple),
    min_size=1,
    max_size=5,
)


@given(shapes, st.randoms(use_true_random=False))
def test_flatten_and_unflatten_undo_each_other(shape_of, random) -> None:
    module = model(shape_of)
    layout = Layout.of(module)
    vector = np.array([random.randint(-(2**20), 2**20) / 64 for _ in range(layout.size)])
    layout.unflatten_into(module, vector)
    assert np.array_equal(layout.flatten(module), vector)
    names = list(shape_of)
    random.shuffle(names)
    other = model({name: shape_of[name] for name in names})
    layout.unflatten_into(other, vector)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, dict(other.named_parameters())[name])


def test_setting_touches_nothing_that_is_frozen() -> None:
    module = model({"a": (2,), "b": (2,)}, frozen=("a",))
    Layout.of(module).unflatten_into(module, np.array([7.0, 8.0]))
    assert module.a.tolist() == [0.0, 1.0]
    assert module.b.tolist() == [7.0, 8.0]


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ([("a", 2), ("x", 3), ("y", 9)], "tensor 2: here b with 3 elements, there x with 3"),
        ([("a", 3), ("x", 3)], "tensor 1: here a with 2 elements, there a with 3"),
        ([("a", 2)], "tensor 2: here b with 3 elements, there nothing"),
        ([("a", 2), ("b", 3), ("c", 1)], "tensor 3: here nothing, there c with 1"),
        ([("b", 3), ("a", 2)], "tensor 1: here a with 2 elements, there b with 3"),
    ],
)
def test_a_mismatch_names_the_first_tensor_that_differs(theirs, message: str) -> None:
    layout = Layout.of(model({"a": (2,), "b": (3,)}))
    layout.require([("a", 2), ("b", 3)])
    with pytest.raises(ModelError, match=message):
        layout.require(theirs)


def test_a_model_of_another_layout_is_refused() -> None:
    layout = Layout.of(model({"a": (2,), "b": (3,)}))
    other = model({"a": (2,), "b": (4,)})
    with pytest.raises(ModelError, match="tensor 2"):
        layout.flatten(other)
    with pytest.raises(ModelError, match="tensor 2"):
        layout.unflatten_into(other, np.zeros(5))


@pytest.mark.parametrize("vector", [np.zeros(4), np.zeros(6), np.zeros((5, 1)), np.zeros(0)])
def test_a_vector_of_another_length_is_refused(vector) -> None:
    module = model({"a": (2,), "b": (3,)})
    with pytest.raises(ModelError, match="cannot set 5 parameters"):
        Layout.of(module).unflatten_into(module, vector)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_change_nothing(bad: float) -> None:
    module = model({"a": (2,), "b": (3,)})
    layout = Layout.of(module)
    before = layout.flatten(module)
    with pytest.raises(ModelError, match="not finite"):
        layout.unflatten_into(module, np.array([1.0, 2.0, 3.0, 4.0, bad]))
    assert np.array_equal(layout.flatten(module), before)
