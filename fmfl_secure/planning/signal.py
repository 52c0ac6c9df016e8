"""How large a gradient is to be expected, before any data are used: of a head, and of an adapter.

From public facts and records made up alone: the base model, the settings, and texts in which some
words, or images in which some patches, are their label's own (`synthetic_topics` of both tasks).
What is measured is the length of the *mean* clipped gradient of one record, which is what a step
sums up; what single records add beside it averages out, and is not signal.

Of two disjoint blocks of records the means a and b have E <a, b> = |E g|^2: what chance leaves in
each does not enter. Every block has each label as often: where a model's outputs are much alike,
as a decoder's are, one label more in a block would outweigh all that tells labels apart.

Of the head it is measured at the start, where it is longest. The adapter's is exactly zero there
if the head is zero, so it is measured once the head has moved a few public steps, on records that
it has not seen.

`training.outlook` calls `expected_signals`, which measures the head first and then, on the head
after its few steps, each adapter; `planning.advice` judges by the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.layout import Layout
from fmfl_secure.models.personal import personal_bytes, personal_names, set_personal
from fmfl_secure.planning.advice import CANDIDATES, with_kind
from fmfl_secure.planning.readings import Signal
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.types import HEAD_PART
from fmfl_secure.tasks.base import Task, TaskData
from fmfl_secure.tasks.image_classification import ImageClassification
from fmfl_secure.tasks.text_classification import TextClassification
from privacy.training import public_clipped_means

RECORDS = 256  # half of them moves the head, the other half is measured on
_BLOCKS = 8
_HEAD_STEPS = 3
_BATCH = 64  # records
_HEAD = "head."
_MADE_UP = (TextClassification, ImageClassification)


@dataclass(frozen=True, slots=True)
class HeadSignal:
    """Of the linear head, on the frozen model.

    Attributes:
        length: Of the mean clipped gradient at the start, over C.
        size: Trained numbers.
        moved: The head after a few public steps, as safetensors.
    """

    length: float
    size: int
    moved: bytes


def expected_signals(config: FederationConfig, *, relative_to: Path) -> dict[str, Signal] | None:
    """Estimates the gradients of each candidate adapter, and of the settings' own.

    Args:
        config: The settings.
        relative_to: Where a base model's relative path starts.

    Returns:
        By kind; None where no signal can be estimated: of tasks of which no records are made up.

    Raises:
        ModelError: The settings' own adapter does not go with the model.
    """
    of_head = with_kind(config, "head")
    task = build_task(of_head, relative_to=relative_to)
    data = topics(task)
    if data is None:
        return None
    seed = config.federation.seed
    model = task.build_model(seed=seed)
    _run_frozen(task, model, data, _turns(task, data))
    head = head_signal(of_head, task, model, data)
    found = {"head": adapter_signal(of_head, task, model, data, head)}
    # Outputs of frozen layers are kept with the records, for all kinds that freeze the same.
    records = {_frozen(model): data}
    for kind in (*CANDIDATES, config.adapter.kind):
        if kind in found:
            continue
        changed = with_kind(config, kind)
        try:
            task = build_task(changed, relative_to=relative_to)
            model = task.build_model(seed=seed)
            if _frozen(model) not in records:
                records[_frozen(model)] = fresh = topics(task) or data
                _run_frozen(task, model, fresh, _not_met(_turns(task, fresh)))
            found[kind] = adapter_signal(changed, task, model, records[_frozen(model)], head)
        except ModelError:
            if kind == config.adapter.kind:
                raise  # else: not for this base model
    return found


def _frozen(model: nn.Module) -> tuple[int, ...]:
    return model.frozen_layers if isinstance(model, AdaptedModel) else ()


def topics(task: Task) -> TaskData | None:
    """Records made up whose labels can be told; None of tasks of which there are none."""
    return task.synthetic_topics(RECORDS) if isinstance(task, _MADE_UP) else None


def head_signal(
    config: FederationConfig, task: Task, model: nn.Module, data: TaskData
) -> HeadSignal:
    """The signal of the head alone, and where a few public steps take it.

    Args:
        config: The settings, with the adapter `head`.
        task: The task that they describe.
        model: A fresh model of it; its head is left where the steps took it.
        data: Records made up, whose labels take turns.
    """
    layout = task.begin_round(model, 1)
    turns = _turns(task, data)
    length = length_of_mean(_means(config, task, model, layout, data, turns, _BLOCKS))
    named = dict(model.named_parameters())
    parameters = [named[slot.name] for slot in layout.slots]
    ends = np.cumsum([slot.size for slot in layout.slots])[:-1]
    optimizer = torch.optim.Adam(parameters, lr=config.training.head_learning_rate)
    for _ in range(_HEAD_STEPS):
        (gradient,) = _means(config, task, model, layout, data, turns[: len(turns) // 2], 1)
        for parameter, part in zip(parameters, np.split(gradient, ends), strict=True):
            parameter.grad = torch.from_numpy(part).to(parameter).view_as(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return HeadSignal(length, layout.size, personal_bytes(model, (HEAD_PART,)))


def adapter_signal(
    config: FederationConfig, task: Task, model: nn.Module, data: TaskData, head: HeadSignal
) -> Signal:
    """The signal of an adapter below a head that has begun to learn.

    Args:
        config: The settings.
        task: The task that they describe.
        model: A fresh model of it, which gets that head.
        data: The records that the head's was measured with.
        head: The head's.
    """
    layout = task.begin_round(model, task.distinct_rounds[0])
    if all(slot.name.startswith(_HEAD) for slot in layout.slots):
        return Signal(head.length, 0.0, head.size, 0)
    set_personal(model, personal_names(model, (HEAD_PART,)), head.moved)
    means = _means(config, task, model, layout, data, _not_met(_turns(task, data)), _BLOCKS)
    own = np.repeat(
        [not slot.name.startswith(_HEAD) for slot in layout.slots],
        [slot.size for slot in layout.slots],
    )
    return Signal(head.length, length_of_mean(means[:, own]), head.size, int(own.sum()))


def length_of_mean(blocks: NDArray[np.float64]) -> float:
    """The length of what blocks' means have in common; 0 where they have nothing.

    Args:
        blocks: Means of as many records each, shape (blocks, d), at least two.
    """
    count, together = len(blocks), blocks.sum(axis=0)
    squared = (together @ together - np.square(blocks).sum()) / (count * (count - 1))
    return math.sqrt(max(0.0, float(squared)))


def _turns(task: Task, data: TaskData) -> NDArray[np.int64]:
    """Records made up, a turn of all labels a row; in an order of no meaning, the rest left out.

    One record a row where there are too many labels for every block to have a turn.
    """
    labels = len(task.labels) if isinstance(task, _MADE_UP) else 1
    if data.records < 2 * _BLOCKS * labels:
        labels = 1
    turns = np.arange(data.records // labels * labels, dtype=np.int64).reshape(-1, labels)
    return np.random.default_rng(20260105).permutation(turns)


def _not_met(turns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those that moved no head."""
    return turns[len(turns) // 2 :]


def _run_frozen(task: Task, model: nn.Module, data: TaskData, turns: NDArray[np.int64]) -> None:
    """Let frozen layers' outputs be kept, from batches of alike length: blocks would pad more."""
    if any(_frozen(model)):
        records = turns.ravel()
        with torch.no_grad():
            for chosen in data.only(records).by_cost(_BATCH):
                task.per_record_loss(model, data.collate(records[chosen]))


def _means(
    config: FederationConfig,
    task: Task,
    model: nn.Module,
    layout: Layout,
    data: TaskData,
    turns: NDArray[np.int64],
    blocks: int,
) -> NDArray[np.float64]:
    """Mean clipped gradients over C, shape (blocks, d), of as good as equally many turns each."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    means = public_clipped_means(
        model,
        parameters=[named[slot.name] for slot in layout.slots],
        loss=task.per_record_loss,
        collate=data.collate,
        blocks=[part.ravel() for part in np.array_split(turns, blocks)],
        max_grad_norm=config.privacy.max_grad_norm,
        physical_batch_size=config.training.physical_batch_size,
    )
    return means / config.privacy.max_grad_norm
