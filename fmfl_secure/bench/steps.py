"""A private training step beside the same step without privacy.

Both steps train one model on the same records in one physical batch, with an Adam of their own:
forward, backward, step. The private one takes a gradient of each record, clips, adds noise and
checks itself; it is `ClippedSum`, which `PrivateTrainer` runs on. The order within a pair
alternates. A batch as small as here is the harsher case: noise is drawn once a step, and real
steps have several physical batches.

Peak memory is measured apart, each arm in a process that does nothing else:

    python -m fmfl_secure.bench.steps private minilm lora
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from fmfl_secure.bench._memory import forget_peak, peak_mib, resident_mib
from fmfl_secure.bench._models import MODELS, Workload
from fmfl_secure.bench._paired import cpu_seconds, one_thread, spread
from fmfl_secure.training.non_private import train_plain
from privacy.mechanism.training import ClippedSum

_WARM_UP = 2


def measure_steps(model: str, adapter: str, steps: int) -> dict[str, Any]:
    """Measure pairs of steps.

    Args:
        model: A name in `MODELS`.
        adapter: `lora`, or `ffa-lora` with A frozen.
        steps: Pairs, after two that are not counted.

    Returns:
        Medians of CPU seconds, the private step's ratio to the plain one, and peak memory.
    """
    with one_thread():
        workload = MODELS[model](freeze_a=adapter == "ffa-lora")
        arms = {"plain": _plain(workload), "private": _private(workload)}
        pairs = []
        for number in range(_WARM_UP + steps):
            names = ("plain", "private") if number % 2 else ("private", "plain")
            pairs.append({name: arms[name]() for name in names})
        pairs = pairs[_WARM_UP:]
    return {
        "model": model,
        "adapter": adapter,
        "trainable_parameters": sum(p.numel() for p in _trainable(workload)),
        "records": workload.records,
        "tokens": workload.tokens,
        "pairs": steps,
        "cpu_s": {name: statistics.median(pair[name] for pair in pairs) for name in arms},
        "private_over_plain": spread([pair["private"] / pair["plain"] for pair in pairs]),
        "memory_mib": {name: _memory_apart(name, model, adapter) for name in arms},
    }


def _trainable(workload: Workload) -> list[torch.nn.Parameter]:
    return [p for p in workload.model.parameters() if p.requires_grad]


def _plain(workload: Workload) -> Callable[[], float]:
    """Runs a step without privacy; returns its CPU time."""
    step = [[np.arange(workload.records)]]
    optimizer = torch.optim.Adam(_trainable(workload))
    return partial(
        cpu_seconds,
        partial(
            train_plain,
            workload.model,
            step,
            loss=workload.loss,
            collate=workload.collate,
            optimizer=optimizer,
        ),
    )


def _private(workload: Workload) -> Callable[[], float]:
    """Runs a private step; returns its CPU time, without putting on hooks, once a round."""
    units = [np.array([record]) for record in range(workload.records)]
    clipped_sum = ClippedSum(
        workload.model,
        loss=workload.loss,
        collate=workload.collate,
        optimizer=torch.optim.Adam(_trainable(workload)),
        max_grad_norm=1.0,
        noise_stddev=1.0,
        expected_batch_size=float(workload.records),
        physical_batch_size=workload.records,
    )

    def step() -> None:
        clipped_sum.accumulate(units)
        clipped_sum.step()

    def timed() -> float:
        with clipped_sum:
            return cpu_seconds(step)

    return timed


# Peak memory, in a process that does nothing else.


def _memory_apart(arm: str, model: str, adapter: str) -> dict[str, float]:
    command = [sys.executable, "-m", __name__, arm, model, adapter]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure_memory(arm: str, model: str, adapter: str) -> dict[str, float]:
    """Resident memory of this process before its first step, and the peak of three steps, in MiB.

    Interpreter, libraries and weights are in both.
    """
    with one_thread():
        workload = MODELS[model](freeze_a=adapter == "ffa-lora")
        step = {"plain": _plain, "private": _private}[arm](workload)
        forget_peak()
        before = resident_mib()
        for _ in range(3):
            step()
    return {"before": before, "peak": peak_mib()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_memory(*sys.argv[1:4])) + "\n")
