import numpy as np
import pytest
import torch

from fmfl_secure.errors import RunError
from fmfl_secure.training.server_optimizers import ServerOptimizer

DIRECTIONS = np.random.default_rng(3).normal(size=(6, 5))


def walk(optimizer, rate=0.1):
    position, moments = np.zeros(5), optimizer.start(5)
    for direction in DIRECTIONS:
        step, moments = optimizer.step(direction, moments, rate)
        position = position + step
    return position


def torch_walk(make):
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = make([parameter])
    for direction in DIRECTIONS:
        parameter.grad = torch.from_numpy(-direction)
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ServerOptimizer(), lambda p: torch.optim.SGD(p, lr=0.1)),
        (ServerOptimizer("momentum"), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (ServerOptimizer("adam"), lambda p: torch.optim.Adam(p, lr=0.1)),
        (
            ServerOptimizer("adam", 0.8, 0.95, 1e-3),
            lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3),
        ),
    ],
)
def test_same_as_torch(ours, theirs):
    np.testing.assert_allclose(walk(ours), torch_walk(theirs), rtol=1e-12)


def test_yogi_forgets_large_gradients_slower_than_adam():
    large, small = np.full(2, 10.0), np.full(2, 0.1)
    rates = {}
    for name in ("adam", "yogi"):
        optimizer = ServerOptimizer(name, 0.9, 0.9)
        _, moments = optimizer.step(large, optimizer.start(2), 1.0)
        for _ in range(10):
            _, moments = optimizer.step(small, moments, 1.0)
        rates[name] = moments["second_moment"][0]
    # Adam forgets geometrically, 10 = (1 - 0.9) 100 by 0.9 a step; Yogi takes off 0.001 a step.
    assert rates["adam"] == pytest.approx(10 * 0.9**10 + 0.01 * (1 - 0.9**10))
    assert rates["yogi"] == pytest.approx(10 - 10 * 0.1 * 0.01)


def test_a_rate_a_coordinate():
    rate = np.array([1.0, 0.0, 0.5, 0.0, 2.0])
    step, _ = ServerOptimizer().step(DIRECTIONS[0], {}, rate)
    np.testing.assert_array_equal(step, rate * DIRECTIONS[0])


def test_equal_inputs_give_equal_bits_and_leave_the_moments_alone():
    optimizer = ServerOptimizer("adam")
    moments = optimizer.start(5)
    one = optimizer.step(DIRECTIONS[0], moments, 0.1)
    two = optimizer.step(DIRECTIONS[0].copy(), moments, 0.1)
    assert one[0].tobytes() == two[0].tobytes()
    assert all(not vector.any() for vector in moments.values())


@pytest.mark.parametrize(
    "moments",
    [{}, {"first_moment": np.zeros(5)}, ServerOptimizer("adam").start(4)],
)
def test_another_optimizers_moments_are_refused(moments):
    with pytest.raises(RunError, match="state"):
        ServerOptimizer("adam").step(DIRECTIONS[0], moments, 0.1)
