"""A site's share of a round: its optimizer, plain steps, and what comes out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support import make_federation
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.planning.plans import quantization
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.sections import TrainingSection
from fmfl_secure.tasks import TaskData
from fmfl_secure.training.local_round import build_optimizer, pull_back, train_locally
from fmfl_secure.training.non_private import poisson_steps, train_plain
from privacy import TrainingError


class WithHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(requires_grad=False)
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_the_head_has_its_own_learning_rate(name: str, kind: type) -> None:
    model = WithHead()
    training = TrainingSection(optimizer=name, learning_rate=0.5, head_learning_rate=0.25)
    optimizer = build_optimizer(model, training)
    assert type(optimizer) is kind
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates == {
        **{id(p): 0.5 for p in model.body.parameters()},
        **{id(p): 0.25 for p in model.head.parameters()},
    }


def plain(model: nn.Module, data: torch.Tensor, steps: list) -> list[int]:
    finished: list[int] = []
    train_plain(
        model,
        [[np.array(batch) for batch in step] for step in steps],
        loss=lambda model, batch: model(batch)[:, 0],
        collate=lambda records: data[torch.from_numpy(records)],
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        on_step=finished.append,
    )
    return finished


def zero_linear() -> nn.Linear:
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def test_a_plain_step_is_the_mean_over_its_records_whatever_the_physical_batches() -> None:
    data = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    expected = -(data[[0, 2, 3]].mean(dim=0) + data[[4]].mean(dim=0))
    for steps in ([[[0, 2, 3]], [[4]]], [[[0], [2, 3]], [], [[4]]]):
        model = zero_linear()
        assert plain(model, data, steps) == list(range(1, len(steps) + 1))
        torch.testing.assert_close(model.weight[0], expected)
        assert model.weight.grad is None


def test_plain_batches_are_poisson_in_the_order_of_cost() -> None:
    cost = np.random.default_rng(1).permutation(4000)
    data = TaskData(
        collate=lambda records: records,
        units=[np.array([record]) for record in range(4000)],
        record_cost=cost,
    )
    steps = list(poisson_steps(data, steps=3, sample_rate=0.25, physical_batch_size=64))
    assert len(steps) == 3
    chosen = [np.concatenate(step) for step in steps]
    for step, records in zip(steps, chosen, strict=True):
        assert all(len(batch) == 64 for batch in step[:-1])
        assert abs(len(records) - 1000) < 6 * np.sqrt(4000 * 0.25 * 0.75)
        assert np.all(np.diff(cost[records]) > 0)
    assert set(chosen[0]) != set(chosen[1])
    assert list(poisson_steps(data, steps=2, sample_rate=1e-12, physical_batch_size=64)) == [[], []]


@pytest.fixture
def local(tiny_model: Path, tmp_path: Path):
    path = make_federation(tmp_path, tiny_model)
    config = load_federation(path)
    task = build_task(config, relative_to=tmp_path)
    data = task.load(tmp_path / "data" / "site-1.csv", unit="record")
    return config, task, data


@pytest.mark.parametrize("private", [True, False])
def test_a_round_gives_integers_within_the_grid(local, private: bool) -> None:
    config, task, data = local
    model = task.build_model(seed=1)
    layout, start = Layout.of(model), adapter_bytes(model)
    grid = quantization(config, layout, layout.size)
    finished: list[int] = []
    integers = train_locally(
        model,
        start,
        data,
        config=config,
        task=task,
        plan=privacy_plan(config, config.sites[0]) if private else None,
        layout=layout,
        rank=config.adapter.rank,
        quantization=grid,
        on_step=finished.append,
    )
    assert integers.dtype == np.int32
    assert integers.shape == (layout.size,)
    assert np.abs(integers).max() <= 2 ** (grid.bits - 1) - 1
    # Noise reaches every value in a step; a plain update stays zero where gradients do.
    assert np.count_nonzero(integers) > (0.9 * layout.size if private else 0)
    assert finished == [1, 2]


def test_every_round_starts_from_the_adapter_that_came_in(local) -> None:
    """Without privacy and with everybody in every step, only rounding is random."""
    config, task, data = local
    everybody = msgspec.structs.replace(config.privacy, sample_rate=1.0)
    config = msgspec.structs.replace(config, privacy=everybody)
    model = task.build_model(seed=1)
    layout, start = Layout.of(model), adapter_bytes(model)
    grid = quantization(config, layout, layout.size)

    def round_from(adapter: bytes) -> np.ndarray:
        return train_locally(
            model,
            adapter,
            data,
            config=config,
            task=task,
            plan=None,
            layout=layout,
            rank=config.adapter.rank,
            quantization=grid,
        )

    first = round_from(start)
    moved = adapter_bytes(model)
    assert moved != start, "the model is left as it was trained"
    assert np.abs(round_from(start) - first).max() <= 1
    assert np.abs(round_from(moved) - first).max() > 100


def test_the_adapter_of_another_model_is_refused_before_data_are_used(local) -> None:
    config, task, _ = local
    model = task.build_model(seed=1)
    with pytest.raises(ModelError):
        train_locally(
            model,
            b"not an adapter",
            TaskData(collate=pytest.fail, units=[], record_cost=np.zeros(0), labels=np.zeros(0)),
            config=config,
            task=task,
            plan=None,
            layout=Layout.of(model),
            rank=config.adapter.rank,
            quantization=quantization(config, Layout.of(model), Layout.of(model).size),
        )


def test_a_step_that_fails_its_checks_gives_no_update(local) -> None:
    config, task, data = local
    model = task.build_model(seed=1)
    model.register_buffer("seen", torch.zeros(()))
    loss = task.per_record_loss

    class Leaking:
        def per_record_loss(self, model: nn.Module, batch: object) -> torch.Tensor:
            model.seen += 1
            return loss(model, batch)

    with pytest.raises(TrainingError, match="buffer seen changed"):
        train_locally(
            model,
            adapter_bytes(model),
            data,
            config=config,
            task=Leaking(),
            plan=privacy_plan(config, config.sites[0]),
            layout=Layout.of(model),
            rank=config.adapter.rank,
            quantization=quantization(config, Layout.of(model), Layout.of(model).size),
        )


def test_fedprox_pulls_a_site_s_steps_back_to_where_they_began() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    pull_back(optimizer, 0.4)
    for expected in (0.5, 0.5 - 0.5 * (1.0 + 0.4 * -0.5)):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        assert model.weight[0].tolist() == pytest.approx([expected, expected])


def test_fedprox_acts_on_gradients_that_have_their_noise(tmp_path: Path, tiny_model: Path) -> None:
    """A pull so strong that nothing else matters leaves the update at nearly zero."""
    federation = make_federation(tmp_path, tiny_model, epsilon=0.5, privacy="delta = 1e-4")
    config = load_federation(federation)
    task = build_task(config, relative_to=tmp_path)
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    start, data = adapter_bytes(model), task.load(tmp_path / "data/site-1.csv", unit="record")
    sizes = {}
    for strength in (0.0, 1.0):
        training = msgspec.structs.replace(
            config.training,
            optimizer="sgd",
            learning_rate=1.0,
            head_learning_rate=1.0,
            proximal=strength,
        )
        settings = msgspec.structs.replace(
            config,
            training=training,
            privacy=msgspec.structs.replace(config.privacy, steps_per_round=12),
        )
        update = train_locally(
            model,
            start,
            data,
            config=settings,
            task=task,
            plan=privacy_plan(settings, settings.sites[0]),
            layout=layout,
            rank=2,
            quantization=quantization(settings, layout, layout.size),
        )
        sizes[strength] = float(np.linalg.norm(update))
    # With mu = 1 and rate 1 every step starts over: one step's noise is left of twelve.
    assert 2.0 < sizes[0.0] / sizes[1.0] < 6.0
