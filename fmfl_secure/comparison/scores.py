"""How good a trained federation is on held-out data: as a whole, and as its sites would see it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.comparison.partitions import accuracy_on_mix
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.tasks.classification import logits_of

SITE_ACCURACY = "site_accuracy"

Mixes = Mapping[str, NDArray[np.float64]]
"""By site, how often each label is among its records; empty where records have no one label."""


def score(
    task: Task,
    model: nn.Module,
    held_out: TaskData,
    mixes: Mixes,
    *,
    batch_size: int,
) -> dict[str, float]:
    """The task's metrics of one model, and its accuracy on the sites' own mixes of labels.

    Args:
        task: The task.
        model: The model.
        held_out: What it is evaluated on.
        mixes: Of the sites that use this model.
        batch_size: Records in memory at once.
    """
    metrics = task.evaluate(model, held_out, batch_size=batch_size)
    if mixes:
        if isinstance(task, CausalLM):
            predicted = task.likeliest(model, held_out, batch_size=batch_size)
        else:
            predicted = logits_of(model, held_out, batch_size=batch_size).argmax(dim=1).numpy()
        metrics[SITE_ACCURACY] = mean_on_mixes(predicted, held_out.labels, mixes)
    return metrics


def mean_on_mixes(predicted: NDArray[np.int64], labels: NDArray[np.int64], mixes: Mixes) -> float:
    """Mean over the sites of the accuracy on each one's mix."""
    right = predicted == labels
    return float(np.mean([accuracy_on_mix(right, labels, mix) for mix in mixes.values()]))


def mean_of(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of several models' metrics."""
    first = next(iter(found.values()))
    return {metric: float(np.mean([each[metric] for each in found.values()])) for metric in first}
