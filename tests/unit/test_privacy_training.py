"""The private step against sums done by hand, its refusals, and what it leaves behind."""

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from privacy import PrivacyPlan, TrainingError
from privacy.mechanism import sampling
from privacy.mechanism.plan import CLIP_TOLERANCE
from privacy.mechanism.training import ClippedSum, PrivateTrainer

torch.set_num_threads(1)


def rows(records, size=3, seed=0):
    return torch.randn(records, size, generator=torch.Generator().manual_seed(seed))


def output(model, batch):
    """The gradient of a record's loss in a linear model without bias is the record itself."""
    return model(batch)[:, 0]


def linear(size=3):
    model = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def path(model, data, *, loss=output, max_grad_norm=1.0, physical_batch_size=4, **settings):
    trainable = [p for p in model.parameters() if p.requires_grad]
    defaults = {
        "optimizer": torch.optim.SGD(trainable, lr=1.0),
        "noise_stddev": 1e-30,
        "expected_batch_size": 1.0,
    }
    return ClippedSum(
        model,
        loss=loss,
        collate=lambda records: data[torch.from_numpy(records)],
        max_grad_norm=max_grad_norm,
        physical_batch_size=physical_batch_size,
        **defaults | settings,
    )


def sum_of(model, data, units, **settings):
    with path(model, data, **settings) as clipped_sum:
        clipped_sum.accumulate([np.asarray(unit, dtype=np.int64) for unit in units])
        return clipped_sum.take_sum()


def clip(vector, max_grad_norm=1.0):
    vector = vector.double()
    return vector * min(1.0, max_grad_norm / max(float(vector.norm()), 1e-300))


def singles(count):
    return [[i] for i in range(count)]


def test_the_table_of_contributions():
    data = torch.tensor([[0.3, 0.4, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    total = sum_of(linear(), data, singles(4))
    torch.testing.assert_close(total, torch.tensor([0.9, 1.2, 0.5]).double())
    assert total.dtype is torch.float64


def test_a_layered_model_matches_autograd_record_by_record():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(8, 4), nn.Tanh())
    model.append(nn.LayerNorm(4)).append(nn.Linear(4, 2))
    data = torch.randint(0, 11, (9, 2), generator=torch.Generator().manual_seed(2))

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch), batch[:, 0] % 2, reduction="none")

    def gradient(index):
        grads = torch.autograd.grad(
            loss(model, data[index : index + 1]).sum(), list(model.parameters())
        )
        return torch.cat([g.reshape(-1) for g in grads])

    bound = float(torch.stack([gradient(i).norm() for i in range(9)]).median())
    expected = torch.stack([clip(gradient(i), bound) for i in range(9)]).sum(dim=0)
    total = sum_of(model, data, singles(9), loss=loss, max_grad_norm=bound)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)


def test_a_unit_of_many_records_is_clipped_once():
    """500 records in 72 physical batches; clipped a batch at a time it would count 72 C."""
    data = rows(503) + 1.0
    units = [[0], range(1, 501), [501, 502]]
    expected = clip(data[0]) + clip(data[1:501].double().sum(0)) + clip(data[501:].sum(0))
    total = sum_of(linear(), data, units, physical_batch_size=7)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)
    alone = sum_of(linear(), data, [range(1, 501)], physical_batch_size=7)
    assert float(alone.norm()) == pytest.approx(1.0, abs=1e-6)


def test_a_unit_s_records_may_cancel():
    """Summed first, clipped after: the other way round would leave a rest."""
    data = torch.tensor([[100.0, 0, 0], [-100.0, 0.25, 0], [0, 0, 1.0]])
    total = sum_of(linear(), data, [[0, 1], [2]], physical_batch_size=1)
    torch.testing.assert_close(total, torch.tensor([0, 0.25, 1.0]).double())


def test_an_empty_batch_adds_nothing_and_still_steps():
    model, data = linear(), rows(2)
    with path(model, data, noise_stddev=2.0) as clipped_sum:
        clipped_sum.accumulate([])
        assert not clipped_sum.take_sum().any()
        clipped_sum.step()
        assert model.weight.detach().all()
        clipped_sum.step()
        clipped_sum.accumulate([np.array([0])])
        torch.testing.assert_close(clipped_sum.take_sum(), clip(data[0]))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("physical_batch_size", [1, 2, 16])
def test_a_unit_that_is_not_finite_contributes_zero_and_disturbs_no_other(bad, physical_batch_size):
    data = rows(7)
    data[2, 1] = bad  # a unit of its own
    data[5, 0] = bad  # one of three records of a unit
    units = [[0], [1], [2], [3], [4, 5, 6]]
    total = sum_of(linear(), data, units, physical_batch_size=physical_batch_size)
    torch.testing.assert_close(total, clip(data[0]) + clip(data[1]) + clip(data[3]))


def test_finite_records_whose_sum_is_not_count_as_not_finite():
    data = torch.tensor([[3e38, 0, 0], [3e38, 0, 0], [0.5, 0, 0]])
    torch.testing.assert_close(
        sum_of(linear(), data, [[0, 1], [2]]), torch.tensor([0.5, 0, 0]).double()
    )
    # while one that is only very large is clipped like any other
    torch.testing.assert_close(sum_of(linear(), data, [[0]]), torch.tensor([1.0, 0, 0]).double())


def test_a_non_finite_unit_leaves_the_step_usable():
    model, data = linear(), rows(3)
    data[1] = np.nan
    with path(model, data) as clipped_sum:
        clipped_sum.accumulate([np.array([i]) for i in range(3)])
        clipped_sum.step()
    torch.testing.assert_close(-model.weight.detach()[0].double(), clip(data[0]) + clip(data[2]))


def test_norms_hold_for_large_tensors():
    """In float32 the norm of millions of like values comes out up to a percent too small."""
    data = torch.full((1, 4_000_000), 0.37)
    data = torch.cat([data, data])
    model = linear(4_000_000)
    for physical_batch_size in (1, 2):
        total = sum_of(model, data, singles(2), physical_batch_size=physical_batch_size)
        assert float(total.norm()) <= 2 * (1 + CLIP_TOLERANCE)
        assert float(total.norm()) >= 2 * (1 - CLIP_TOLERANCE)


def test_aligned_units_move_a_long_sum_by_no_more_than_the_bound():
    data = torch.full((4000, 50), 0.3)
    everyone = sum_of(linear(50), data, singles(4000), physical_batch_size=64)
    without = sum_of(linear(50), data, singles(3999), physical_batch_size=64)
    assert float((everyone - without).norm()) == pytest.approx(1.0, abs=1e-9)


def test_physical_batch_sizes_do_not_change_the_sum():
    data, units = rows(10), [[0, 1, 2, 3], [4], [5, 6], [7, 8, 9]]
    sums = [sum_of(linear(), data, units, physical_batch_size=b) for b in (1, 2, 3, 7, 100)]
    for other in sums[1:]:
        torch.testing.assert_close(other, sums[0], rtol=1e-6, atol=1e-6)


def test_accumulating_in_parts_is_accumulating():
    data = rows(6)
    with path(linear(), data) as clipped_sum:
        clipped_sum.accumulate([np.array([0, 1]), np.array([2])])
        clipped_sum.accumulate([])
        clipped_sum.accumulate([np.array([3, 4, 5])])
        parts = clipped_sum.take_sum()
    torch.testing.assert_close(parts, sum_of(linear(), data, [[0, 1], [2], [3, 4, 5]]))


def test_the_sum_is_divided_by_the_expected_batch_and_forgotten_after_the_step():
    model, data = linear(), rows(3)
    with path(model, data, expected_batch_size=4.0, physical_batch_size=2) as clipped_sum:
        clipped_sum.accumulate([np.array([i]) for i in range(3)])
        clipped_sum.step()
        first = -model.weight.detach()[0].double()
        clipped_sum.step()  # nothing accumulated: the earlier batch must not step again
    expected = torch.stack([clip(row) for row in data]).sum(dim=0) / 4.0
    torch.testing.assert_close(first, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(-model.weight.detach()[0].double(), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_trainable_parameters_of_another_dtype_are_refused(dtype):
    with pytest.raises(TrainingError, match="float32"):
        path(linear().to(dtype), rows(2))


def test_gradients_of_another_dtype_are_refused():
    def half(model, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return output(model, batch).float()

    with pytest.raises((TrainingError, RuntimeError), match=r"dtype|Float"):
        sum_of(linear(), rows(4), singles(4), loss=half)


def test_the_optimizer_must_hold_exactly_the_trainable_parameters():
    model = nn.Sequential(linear(), nn.Linear(1, 1))
    with pytest.raises(TrainingError, match="exactly the trainable"):
        path(model, rows(2), optimizer=torch.optim.SGD(model[0].parameters(), lr=1.0))
    model[1].requires_grad_(False)
    path(model, rows(2), optimizer=torch.optim.SGD(model[0].parameters(), lr=1.0))


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, batch: output(model, batch).mean(),
        lambda model, batch: output(model, batch).sum().reshape(1),
        lambda model, batch: model(batch),
        lambda model, batch: output(model, batch)[:-1],
    ],
    ids=["mean", "sum", "column", "short"],
)
def test_losses_that_are_not_one_value_a_record_are_refused(loss):
    with pytest.raises(TrainingError, match="one value") as refusal:
        sum_of(linear(), rows(4), singles(4), loss=loss)
    assert "4" not in str(refusal.value)  # a count of records is nobody's business


def test_parameters_that_the_loss_does_not_use_are_refused():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = linear(), linear()

        def forward(self, batch):
            return self.used(batch)

    with pytest.raises(TrainingError, match="no gradient for every record"):
        sum_of(Unused(), rows(2), singles(2))


def test_units_without_records_are_refused():
    with pytest.raises(TrainingError, match="clipped once") as refusal:
        sum_of(linear(), rows(2), [[0], [], [1]])
    assert not any(character.isdigit() for character in str(refusal.value))


def traces(model):
    found = [
        name
        for module in model.modules()
        for name in ("activations", "max_batch_len", "ft_compute_sample_grad")
        if hasattr(module, name)
    ]
    found += ["hook" for m in model.modules() if m._forward_hooks or m._backward_hooks]
    names = ("grad_sample", "_forward_counter", "_current_grad_sample", "summed_grad", "grad")
    return found + [
        name for p in model.parameters() for name in names if getattr(p, name, None) is not None
    ]


def test_nothing_stays_on_the_model_afterwards():
    model, data = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), rows(5)
    with path(model, data) as clipped_sum:
        clipped_sum.accumulate([np.array([0, 1]), np.array([2])])
        assert "hook" in traces(model)
        assert "summed_grad" in traces(model)
    assert traces(model) == []
    with path(model, data) as clipped_sum:  # a sum that was never stepped is gone
        assert not clipped_sum.take_sum().any()


def test_nothing_stays_after_a_failure_and_the_model_is_usable_again():
    model, data = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), rows(5)
    calls = []

    def fails_on_the_second_batch(model, batch):
        losses = output(model, batch)
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return losses

    clipped_sum = path(model, data, loss=fails_on_the_second_batch, physical_batch_size=3)
    with pytest.raises(MemoryError), clipped_sum:
        clipped_sum.accumulate([np.array([i]) for i in range(5)])
    assert traces(model) == []
    with clipped_sum:
        clipped_sum.accumulate([np.array([i]) for i in range(2)])
        again = clipped_sum.take_sum()
    torch.testing.assert_close(again, sum_of(model, data, singles(2)))


def by_autograd(model, data, loss, max_grad_norm=1.0):
    """The clipped sum from gradients taken a record at a time, without any hook."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = 0.0
    for index in range(len(data)):
        grads = torch.autograd.grad(loss(model, data[index : index + 1]).sum(), parameters)
        total = total + clip(torch.cat([g.reshape(-1) for g in grads]), max_grad_norm)
    return total


def test_a_layer_that_runs_twice_counts_both_times():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.Linear(3, 3), linear()

        def forward(self, batch):
            return self.last(torch.tanh(self.inner(torch.tanh(self.inner(batch)))))

    torch.manual_seed(4)
    model, data = Twice(), rows(6)
    nn.init.ones_(model.last.weight)
    expected = by_autograd(model, data, output)
    torch.testing.assert_close(sum_of(model, data, singles(6)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trained", [(0,), (2,), (4,), (0, 4), (2, 4)])
def test_layers_in_the_middle_of_frozen_ones_get_their_gradients(trained):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    for index, layer in enumerate(model):
        layer.requires_grad_(index in trained)
    data = rows(5)
    expected = by_autograd(model, data, output, 0.1)
    total = sum_of(model, data, singles(5), max_grad_norm=0.1)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-7)
    assert total.abs().max() > 1e-3


def test_reentrant_checkpointing_changes_nothing():
    class Checkpointed(nn.Module):
        def __init__(self, checkpointing):
            super().__init__()
            self.gradient_checkpointing = checkpointing
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
            self.last = nn.Linear(3, 1)

        def forward(self, batch):
            batch = batch.clone().requires_grad_()
            for layer in self.layers:
                if self.gradient_checkpointing:
                    batch = torch.utils.checkpoint.checkpoint(layer, batch, use_reentrant=True)
                else:
                    batch = layer(batch)
                batch = torch.tanh(batch)
            return self.last(batch)

    torch.manual_seed(6)
    model, data = Checkpointed(checkpointing=True), rows(5)
    plain = Checkpointed(checkpointing=False)
    plain.load_state_dict(model.state_dict())
    expected = by_autograd(plain, data, output)
    torch.testing.assert_close(sum_of(plain, data, singles(5)), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sum_of(model, data, singles(5)), expected, rtol=1e-5, atol=1e-6)
    assert traces(model) == []


def test_a_layer_that_returns_no_tensor_is_refused():
    class Pair(nn.Linear):
        def forward(self, batch):
            return super().forward(batch), None

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair(3, 1)

        def forward(self, batch):
            return self.pair(batch)[0]

    with pytest.raises(TrainingError, match="Pair returns no tensor"):
        sum_of(Model(), rows(2), singles(2))


def test_nothing_is_accumulated_outside_the_context():
    with pytest.raises(TrainingError, match="inside the context"):
        path(linear(), rows(2)).accumulate([np.array([0])])


# Rounds.


def plan(**changes):
    return PrivacyPlan(
        **{
            "unit": "record",
            "population": 20,
            "sample_rate": 0.5,
            "max_grad_norm": 1.0,
            "noise_multiplier": 1.0,
            "steps_per_round": 3,
            "rounds": 1,
            "repeats": 0,
            "delta": 1e-5,
        }
        | changes
    )


def trainer(model, data, **changes):
    trainable = [p for p in model.parameters() if p.requires_grad]
    settings = {
        "plan": plan(),
        "units": [np.array([i]) for i in range(len(data))],
        "optimizer": torch.optim.SGD(trainable, lr=0.1),
        "physical_batch_size": 4,
        "loss": output,
    } | changes
    return PrivateTrainer(
        model, collate=lambda records: data[torch.from_numpy(records)], **settings
    )


def test_a_round_trains_what_the_plan_charges(monkeypatch):
    model, data = linear(), rows(20)
    samples, steps, finished = [], [], []
    real_sample = sampling.poisson_sample

    def sample(units, rate):
        samples.append((units, rate))
        return real_sample(units, rate)

    monkeypatch.setattr("privacy.mechanism.sampling.poisson_sample", sample)
    real_step = ClippedSum.step
    monkeypatch.setattr(ClippedSum, "step", lambda self: (steps.append(1), real_step(self)))
    charged = plan(steps_per_round=5, sample_rate=0.3)
    trainer(model, data, plan=charged).train_round(on_step=finished.append)
    event = charged.round_event()
    assert samples == [(20, event.sample_rate)] * event.steps
    assert len(steps) == event.steps
    assert finished == [1, 2, 3, 4, 5]
    assert traces(model) == []


def test_frozen_parameters_stay_as_they_are():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), linear(4))
    model[0].requires_grad_(False)
    frozen = [p.clone() for p in model[0].parameters()]
    moving = model[2].weight.detach().clone()
    trainer(model, rows(20)).train_round()
    assert all(torch.equal(a, b) for a, b in zip(frozen, model[0].parameters(), strict=True))
    assert not torch.equal(moving, model[2].weight)


def test_a_buffer_that_changes_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, batch):
            self.seen += len(batch)
            return batch

    model = nn.Sequential(Counting(), linear())
    with pytest.raises(TrainingError, match=r"buffer 0\.seen changed"):
        trainer(model, rows(20), plan=plan(sample_rate=1.0)).train_round()


def test_a_parameter_that_does_not_move_is_refused():
    model = linear()
    with pytest.raises(TrainingError, match="weight did not move"):
        trainer(
            model, rows(20), optimizer=torch.optim.SGD(model.parameters(), lr=0.0)
        ).train_round()


@pytest.mark.parametrize("size", [0, -1])
def test_physical_batch_size_is_checked(size):
    with pytest.raises(TrainingError, match="physical_batch_size"):
        trainer(linear(), rows(2), physical_batch_size=size)


def test_processing_order_follows_cost_and_leaves_the_sample_alone(monkeypatch):
    monkeypatch.setattr("privacy.mechanism.sampling.poisson_sample", lambda *_: np.array([0, 1, 2]))
    seen = []
    monkeypatch.setattr(ClippedSum, "accumulate", lambda _, units: seen.append(units))
    units = [np.array([0, 1]), np.array([2]), np.array([3])]
    trainer(
        linear(), rows(4), units=units, record_cost=np.array([9, 1, 3, 5]), plan=plan()
    ).train_round()
    assert [[u.tolist() for u in step] for step in seen] == [[[2], [3], [0, 1]]] * 3


@pytest.mark.parametrize("asked", ["medium", "high"])
def test_float32_keeps_all_its_bits_whatever_the_process_asked_for(asked):
    """In fewer, what a product rounds to depends on who else is in the batch."""
    data, seen = rows(40, 64), []
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 1))

    def loss(model, batch):
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        # Which raise where older switches and newer contradict, as products on CUDA devices do.
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        return model(batch)[:, 0].square()

    expected = sum_of(model, data, singles(40), loss=loss, physical_batch_size=40)
    before, convolving = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision(asked)
        found = sum_of(model, data, singles(40), loss=loss, physical_batch_size=40)
        assert torch.get_float32_matmul_precision() == asked
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32 == convolving
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {"ieee"}
    assert torch.equal(found, expected)
