"""Zeroth-order tuning beside gradients, at the same epsilon: for the row of `docs/survey.md`.

python benchmarks/zeroth_order.py

A linear layer of 650 values on scikit-learn's digits, all units in one sum: the least noise that
there could be, and fewer values than an adapter has, which is to the good of directions. A step of
zeroth order draws K public directions, takes each record's derivatives along them (the limit of
differences of losses, so without their error), clips these K numbers together, adds noise to their
sum and moves along the directions: DP-ZO (arXiv 2401.04343) at K = 1, the sums of FedKSeed (arXiv
2312.06353) above. Every arm has its best learning rate.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from privacy import calibrate_noise_multiplier

Array = NDArray[np.float64]

TRAINED, HELD_OUT = 1280, 517
RATE, CLIP, DELTA = 0.125, 1.0, 1e-5
EPSILONS, SEEDS = (1.0, 3.0, 8.0), (1, 2, 3)
LEARNING_RATES = (0.3, 1.0, 3.0, 10.0, 30.0)
RATES_ALONG = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # a direction is some 25 long
# Directions a step (None: the gradient itself), and steps.
ARMS = ((None, 60), (None, 250), (1, 250), (1, 2000), (16, 250), (16, 1000))


def features() -> tuple[Array, NDArray[np.int64]]:
    """Pictures at unit norm, with a column of ones; and what they show."""
    found = load_digits()
    chosen = np.random.default_rng(5).permutation(len(found.target))[: TRAINED + HELD_OUT]
    values = found.data[chosen].astype(np.float64) - found.data.mean()
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return np.concatenate([values, np.ones((len(values), 1))], axis=1), found.target[chosen]


def trained(
    inputs: Array, targets: Array, directions: int | None, steps: int, sigma: float, rate: float,
    seed: int,
) -> Array:  # fmt: skip
    """A probe, shape (inputs, labels)."""
    generator = np.random.default_rng(seed)
    weight = np.zeros((inputs.shape[1], targets.shape[1]))
    batch = RATE * len(inputs)
    for _ in range(steps):
        taken = generator.random(len(inputs)) < RATE
        x = inputs[taken]
        logits = np.exp(x @ weight)
        error = logits / logits.sum(axis=1, keepdims=True) - targets[taken]  # of each record
        if directions is None:
            norms = np.linalg.norm(x, axis=1) * np.linalg.norm(error, axis=1)
            scale = np.minimum(1.0, CLIP / np.maximum(norms, 1e-12))
            total = x.T @ (error * scale[:, None])
            weight -= (
                rate * (total + sigma * CLIP * generator.standard_normal(weight.shape)) / batch
            )
            continue
        z = generator.standard_normal((directions, *weight.shape))
        slopes = np.stack([((x @ each) * error).sum(axis=1) for each in z], axis=1)
        norms = np.linalg.norm(slopes, axis=1, keepdims=True)
        summed = (slopes * np.minimum(1.0, CLIP / np.maximum(norms, 1e-12))).sum(axis=0)
        noised = summed + sigma * CLIP * generator.standard_normal(directions)
        weight -= rate * np.tensordot(noised, z, axes=1) / (batch * directions)
    return weight


def main() -> None:
    """Print a line for each arm and epsilon: the best learning rate's mean accuracy, and spread."""
    inputs, labels = features()
    targets = np.eye(labels.max() + 1)[labels]
    for epsilon, (directions, steps) in itertools.product(EPSILONS, ARMS):
        sigma = calibrate_noise_multiplier(
            epsilon=epsilon, delta=DELTA, sample_rate=RATE, steps=steps
        )
        best = (0.0, 0.0, 0.0)
        for rate in LEARNING_RATES if directions is None else RATES_ALONG:
            found = []
            for seed in SEEDS:
                weight = trained(
                    inputs[:TRAINED], targets[:TRAINED], directions, steps, sigma, rate, seed
                )
                said = (inputs[TRAINED:] @ weight).argmax(axis=1)
                found.append(float((said == labels[TRAINED:]).mean()))
            best = max(best, (float(np.mean(found)), float(np.std(found, ddof=1)), rate))
        arm = "gradient" if directions is None else f"{directions} directions"
        sys.stdout.write(
            f"epsilon {epsilon:g}, {steps} steps, {arm}: {best[0]:.3f} +- {best[1]:.3f} "
            f"(rate {best[2]:g})\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
