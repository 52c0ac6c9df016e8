"""What pays at the server, on cached features: schedules, averaging, decay, a start from labels.

A replica in NumPy of steps at the server with local noise (`privacy.PrivacyPlan` calibrates it):
softmax regression on the frozen encoder's features, per-record clipping, each site's own Gaussian
noise, Adam on the sum. Rows are appended to a file of JSON lines, and a rerun skips those there:

    python benchmarks/server_choices.py examples/medical_abstracts/federation.toml \
        --features build/medical.npz --output docs/results/server_choices.jsonl --seeds 8

With `--without-noise` it is the training without privacy that is looked at: rates, steps and
clipping, with the accuracy on the training records beside that on those held out.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from fmfl_secure.models.label_start import SCALE
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.tasks.classification import macro_f1
from privacy import PrivacyPlan

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """One way to step: the learning rate, what becomes of it, what is reported, where it begins."""

    rate: float = 0.1
    schedule: str = "constant"
    warm_up: float = 0.0  # share of the steps
    decay: float = 0.0
    average: float = 0.0  # of an exponential average, or below 0 the share of last iterates
    start: float = 0.0  # scale of the labels' embeddings; 0 starts at zero
    longer: float = 1.0
    shared_noise: bool = False
    clipped: bool = True


CHOICES = {
    "as it is": Choice(),
    "cosine": Choice(schedule="cosine"),
    "cosine, rate 0.2": Choice(schedule="cosine", rate=0.2),
    "linear": Choice(schedule="linear"),
    "warm-up over 20 %": Choice(warm_up=0.2),
    "mean of the last half": Choice(average=-0.5),
    "mean of the last half, rate 0.2": Choice(average=-0.5, rate=0.2),
    "exponential mean 0.9": Choice(average=0.9),
    "weight decay 0.1": Choice(decay=0.1),
    "weight decay 0.5": Choice(decay=0.5),
    "rate 0.05": Choice(rate=0.05),
    "twice the steps, mean of the last half": Choice(longer=2, average=-0.5),
    "twice the steps, cosine": Choice(longer=2, schedule="cosine"),
    "start from labels x 2": Choice(start=2.0),
    "start from labels x 5": Choice(start=5.0),
    "start from labels x 10": Choice(start=SCALE),
    "start from labels x 5, mean of the last half": Choice(start=5.0, average=-0.5),
    "start from labels x 5, cosine": Choice(start=5.0, schedule="cosine"),
    "noise in shares, one colluder": Choice(shared_noise=True),
}

WITHOUT_NOISE = {
    f"rate {rate:g}{', clipped' * clipped}": Choice(rate=rate, start=SCALE, clipped=clipped)
    for rate in (0.01, 0.033, 0.1, 0.3)
    for clipped in (False, True)
} | {
    f"rate 0.1, {words} the steps": Choice(start=SCALE, longer=longer, clipped=False)
    for words, longer in (("a quarter of", 0.25), ("twice", 2.0))
}


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("federation", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epsilon", type=float, nargs="*", default=[1.0, 3.0])
    parser.add_argument("--without-noise", action="store_true")
    parser.add_argument("--labels", nargs="*", default=[], help="What each label means, in order.")
    given = parser.parse_args()
    config = load_federation(given.federation)
    sites, held_out, labels = features(config, given.federation.parent, given)
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    done = {key(json.loads(line)) for line in lines}
    choices = WITHOUT_NOISE if given.without_noise else CHOICES
    for name, choice in choices.items():
        if choice.start and labels is None:
            continue
        for epsilon in [None] if given.without_noise else given.epsilon:
            for seed in range(1, given.seeds + 1):
                row = {
                    "data": config.federation.name,
                    "choice": name,
                    "epsilon": epsilon,
                    "seed": seed,
                }
                if key(row) in done:
                    continue
                found = train(config, sites, held_out, labels, choice, epsilon, seed)
                with given.output.open("a") as file:
                    file.write(json.dumps(row | found) + "\n")


def key(row: dict[str, object]) -> tuple[object, ...]:
    """What makes it one row."""
    return tuple(row[name] for name in ("data", "choice", "epsilon", "seed"))


def features(
    config: FederationConfig, folder: Path, given: argparse.Namespace
) -> tuple[list[tuple[Array, NDArray[np.int64]]], tuple[Array, NDArray[np.int64]], Array | None]:
    """Features and labels of each site, of what is held out, and of the labels' texts."""
    if not given.features.exists():
        adapter = msgspec.structs.replace(config.adapter, kind="head", last_layers=0)
        config = msgspec.structs.replace(config, adapter=adapter)
        task, found = build_task(config, relative_to=folder), {}
        paths = sorted((folder / "data").glob("site-*"))
        for number, path in enumerate([*paths, folder / config.evaluation.data]):
            data = task.load(path, unit="record")
            found |= {f"X{number}": read(task, data), f"y{number}": data.labels}
        np.savez(given.features, **found)
    kept = np.load(given.features)
    parts = [
        (kept[f"X{n}"].astype(np.float64), kept[f"y{n}"])
        for n in range(sum(name.startswith("X") for name in kept.files))
    ]
    if not given.labels:
        return parts[:-1], parts[-1], None
    texts = msgspec.structs.replace(config.task, label_texts=tuple(given.labels))
    task = build_task(msgspec.structs.replace(config, task=texts), relative_to=folder)
    head = task.build_model(seed=1).head.weight.detach().numpy().astype(np.float64)
    return parts[:-1], parts[-1], head / SCALE


def read(task: Task, data: TaskData) -> NDArray[np.float32]:
    """What the head reads of every record, shape (records, width)."""
    model = task.build_model(seed=1).eval()
    batches = data.by_cost(64)
    with torch.no_grad():
        parts = [model.read_features(data.collate(batch)).cpu().numpy() for batch in batches]
    order = np.argsort(np.concatenate(batches))
    return np.concatenate(parts)[order]


def train(
    config: FederationConfig,
    sites: list[tuple[Array, NDArray[np.int64]]],
    held_out: tuple[Array, NDArray[np.int64]],
    labels: Array | None,
    choice: Choice,
    epsilon: float | None,
    seed: int,
) -> dict[str, float]:
    """Accuracy and macro F1 after all steps; without noise also on the training records."""
    privacy, steps = config.privacy, round(config.federation.rounds * choice.longer)
    rate, population = privacy.sample_rate, config.sites[0].population
    bound = privacy.max_grad_norm if choice.clipped else math.inf
    of_one = 0.0
    if epsilon is not None:
        of_one = PrivacyPlan.calibrated(
            unit="record", population=population, sample_rate=rate, max_grad_norm=bound,
            steps_per_round=1, rounds=steps, repeats=0, epsilon=epsilon, delta=privacy.delta,
        ).noise_stddev  # fmt: skip
    generator = np.random.default_rng(seed)
    classes, width = len(config.task.labels), sites[0][0].shape[1]
    start = np.zeros((classes, width)) if labels is None else choice.start * labels
    w = np.concatenate([start.ravel(), np.zeros(classes)])
    first, second, reported, averaged = np.zeros_like(w), np.zeros_like(w), w, 0
    deviation = of_one * math.sqrt(len(sites))
    if choice.shared_noise:
        deviation = of_one * math.sqrt(len(sites) / (len(sites) - 1))
    for step in range(1, steps + 1):
        total = generator.normal(0.0, deviation, len(w))
        for x, y in sites:
            sampled = generator.random(len(y)) < rate
            total += gradient(w, x[sampled], y[sampled], classes, bound)
        mean = total / (rate * population * len(sites))
        first = 0.9 * first + 0.1 * mean
        second = 0.999 * second + 0.001 * mean * mean
        moved = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        w = w - factor(choice, step, steps) * choice.rate * moved - choice.rate * choice.decay * w
        if choice.average > 0.0:
            kept = min(choice.average, (1 + step) / (10 + step))
            reported = kept * reported + (1 - kept) * w
        elif choice.average < 0.0 and step > steps * (1 + choice.average):
            averaged += 1
            reported = w if averaged == 1 else reported + (w - reported) / averaged
        else:
            reported = w
    found = measured(reported, *held_out, classes)
    if epsilon is None:
        x, y = (np.concatenate(parts) for parts in zip(*sites, strict=True))
        found |= {
            f"fitted_{name}": value for name, value in measured(reported, x, y, classes).items()
        }
    return found


def measured(w: Array, x: Array, y: NDArray[np.int64], classes: int) -> dict[str, float]:
    """Accuracy and macro F1 of a head on records."""
    predicted = (x @ w[:-classes].reshape(classes, -1).T + w[-classes:]).argmax(1)
    return {
        "accuracy": round(float((predicted == y).mean()), 4),
        "macro_f1": round(macro_f1(predicted, y), 4),
    }


def gradient(w: Array, x: Array, y: NDArray[np.int64], classes: int, bound: float) -> Array:
    """The sum of clipped gradients of softmax regression on features at unit norm."""
    logits = x @ w[:-classes].reshape(classes, -1).T + w[-classes:]
    away = np.exp(logits - logits.max(axis=1, keepdims=True))
    away /= away.sum(axis=1, keepdims=True)
    away[np.arange(len(y)), y] -= 1.0
    norms = np.linalg.norm(away, axis=1) * np.sqrt((x * x).sum(axis=1) + 1.0)
    away *= np.minimum(1.0, bound / np.maximum(norms, 1e-12))[:, None]
    return np.concatenate([(away.T @ x).ravel(), away.sum(axis=0)])


def factor(choice: Choice, step: int, steps: int) -> float:
    """On the learning rate."""
    warm = round(choice.warm_up * steps)
    if step <= warm:
        return step / warm
    gone = (step - 1 - warm) / max(1, steps - warm)
    shapes = {"constant": 1.0, "linear": 1.0 - gone, "cosine": 0.5 * (1 + math.cos(math.pi * gone))}
    return shapes[choice.schedule]


if __name__ == "__main__":
    main()
