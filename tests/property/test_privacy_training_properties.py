"""Properties of the clipped sum over random units, batch sizes and gradients."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from privacy.mechanism.plan import CLIP_TOLERANCE
from privacy.mechanism.training import ClippedSum

torch.set_num_threads(1)
FAST = settings(max_examples=60, deadline=None, derandomize=True)
SIZE = 3


def clipped_sum(data, units, physical_batch_size, max_grad_norm=1.0):
    """The private path on a linear model, whose gradient for a record is the record."""
    model = nn.Linear(SIZE, 1, bias=False)
    path = ClippedSum(
        model,
        loss=lambda model, batch: model(batch)[:, 0],
        collate=lambda records: data[torch.from_numpy(records)],
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        max_grad_norm=max_grad_norm,
        noise_stddev=max_grad_norm,
        expected_batch_size=1.0,
        physical_batch_size=physical_batch_size,
    )
    with path:
        path.accumulate(units)
        return path.take_sum()


def by_hand(data, units, max_grad_norm=1.0):
    total = torch.zeros(SIZE, dtype=torch.float64)
    for unit in units:
        gradient = data[torch.from_numpy(unit)].sum(dim=0).double()
        if gradient.isfinite().all():
            norm = float(gradient.norm())
            total += gradient * (max_grad_norm / norm if norm > max_grad_norm else 1.0)
    return total


@st.composite
def sites(draw, least_units=0):
    """Data, units of one to seven records each, and a clipping norm."""
    sizes = draw(st.lists(st.integers(1, 7), min_size=least_units, max_size=7))
    scale = draw(st.sampled_from([1e-3, 0.3, 1.0, 100.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    data = torch.randn(max(1, sum(sizes)), SIZE, generator=generator) * scale
    for record in draw(st.lists(st.integers(0, len(data) - 1), max_size=2)):
        data[record, 0] = draw(st.sampled_from([np.inf, -np.inf, np.nan, 0.0, 3e38]))
    order = draw(st.permutations(range(sum(sizes))))
    starts = np.cumsum([0, *sizes])
    units = [
        np.array(order[start : start + size], dtype=np.int64)
        for start, size in zip(starts, sizes, strict=False)
    ]
    return data, units


@FAST
@given(
    site=sites(), physical_batch_size=st.integers(1, 60), bound=st.sampled_from([0.1, 1.0, 50.0])
)
def test_the_sum_is_the_one_done_by_hand_whatever_the_batches(site, physical_batch_size, bound):
    data, units = site
    total = clipped_sum(data, units, physical_batch_size, bound)
    tolerance = 1e-5 * bound * max(1, len(units))
    assert float((total - by_hand(data, units, bound)).norm()) <= tolerance


@FAST
@given(
    site=sites(least_units=1), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), data=st.data()
)
def test_removing_a_unit_moves_the_sum_by_at_most_the_bound(site, sizes, data):
    records, units = site
    left_out = data.draw(st.integers(0, len(units) - 1))
    rest = units[:left_out] + units[left_out + 1 :]
    moved = clipped_sum(records, units, sizes[0]) - clipped_sum(records, rest, sizes[1])
    assert float(moved.norm()) <= 1.0 + CLIP_TOLERANCE


@FAST
@given(site=sites(), physical_batch_size=st.integers(1, 60), data=st.data())
def test_the_order_of_units_does_not_matter(site, physical_batch_size, data):
    records, units = site
    shuffled = data.draw(st.permutations(units))
    difference = clipped_sum(records, units, physical_batch_size) - clipped_sum(
        records, shuffled, physical_batch_size
    )
    assert float(difference.norm()) <= 1e-5 * max(1, len(units))
