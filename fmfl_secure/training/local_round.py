"""A site's share of a round: from the adapter that came in to the integers that may go out.

    adapter -> optimizer, fresh each round -> private (or plain) steps -> difference -> quantised
    adapter -> one step's gradient sum, with its noise -> quantised      (steps at the server)

Nothing here decides whether training may happen, and nothing is charged: the site does both
before it calls.

`parties.site_training` calls `train_locally` for a run, `comparison.simulate` for a baseline. A
fresh optimizer is built at every call, so that nothing is carried from round to round but the
adapter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aggregation import Quantization, quantize
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.models.personal import personal_names, set_personal
from fmfl_secure.models.ranks import truncate
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import TrainingSection
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.training.non_private import poisson_steps, sum_gradients, train_plain
from fmfl_secure.training.server_optimizers import STEP_OPTIMIZERS
from fmfl_secure.vectors.ranks import rank_mask
from privacy import ConstantWork, DistributedPlan, PlanError, PrivacyPlan, cap_contributions
from privacy.training import GradientTrainer, PrivateTrainer


def build_optimizer(model: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    """A fresh optimizer over what is trainable, with the head's own learning rate."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith("head.")].append(parameter)
    rates = {True: training.head_learning_rate, False: training.learning_rate}
    settings = [{"params": p, "lr": rates[head]} for head, p in groups.items() if p]
    return step_optimizer(training)(settings, lr=training.learning_rate)


def step_optimizer(training: TrainingSection) -> type[torch.optim.Adam | torch.optim.SGD]:
    """The class that settings name.

    Raises:
        UnknownKind: There is no such optimizer.
    """
    found: type[torch.optim.Adam | torch.optim.SGD] = getattr(
        torch.optim, STEP_OPTIMIZERS.get(training.optimizer).torch_name
    )
    return found


def pull_back(optimizer: torch.optim.Optimizer, strength: float) -> None:
    """Add FedProx's proximal gradient, mu (w - w0), at every step from here on.

    w0 is what the optimizer's parameters are now. The hook runs on gradients that already have
    their noise, and adds nothing that depends on data but through w (Li et al. 2020, section 3).

    Args:
        optimizer: Whose step applies the gradients.
        strength: mu, > 0.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    start = [parameter.detach().clone() for parameter in parameters]

    def pull(*_: object) -> None:
        for parameter, origin in zip(parameters, start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - origin, alpha=strength)

    optimizer.register_step_pre_hook(pull)


def train_locally(
    model: nn.Module,
    adapter: bytes,
    data: TaskData,
    *,
    config: FederationConfig,
    task: Task,
    plan: PrivacyPlan | DistributedPlan | None,
    layout: Layout,
    rank: int,
    quantization: Quantization,
    weight: float = 1.0,
    personal: bytes = b"",
    work: ConstantWork | None = None,
    on_step: Callable[[int], None] | None = None,
) -> NDArray[np.int32]:
    """Train one round on one site's data.

    Args:
        model: A model of the task; left with the trained adapter, which must not leave the site.
        adapter: The round's starting point, as safetensors.
        data: The site's.
        config: The federation's settings.
        task: The task.
        plan: What was charged for. None trains without privacy: for data declared public only.
        layout: Of what the round trains.
        rank: The site's own, of a low-rank adapter; what lies beyond stays zero.
        quantization: The round's grid; with distributed noise the plan's own.
        weight: The site's weight in the sum of updates.
        personal: The site's own parts to go on from; empty takes the adapter's.
        work: What every step computes, whoever is sampled; None computes what was sampled.
        on_step: Called with the number of finished steps; local progress only.

    Returns:
        The quantised update, or gradient sum where steps are the server's; int32, shape (d,).

    Raises:
        ModelError: The adapter is not one of this model.
        PrivacyError: A private step failed its checks; nothing of the round may be used.
    """
    set_adapter_tensors(model, load_adapter_bytes(adapter))
    if personal:
        set_personal(model, personal_names(model, config.adapter.personal_parts), personal)
    truncate(model, rank)
    before = layout.flatten(model)
    training = config.training
    if config.privacy.max_records_per_unit:
        # Drawn anew each round, so that over the rounds a unit's other records have their turn.
        units = cap_contributions(data.units, config.privacy.max_records_per_unit)
        data = dataclasses.replace(data, units=units)
    if config.steps_at_server:
        gradient = _gradient(
            model, data, config=config, task=task, plan=plan, layout=layout, work=work
        )
        if on_step is not None:
            on_step(1)
        if gradient.dtype == np.int32:  # a share, which is on the grid already
            return gradient
        # What this site's rank does not train would add noise and nothing else to the sum.
        return quantize(gradient * rank_mask(layout, rank), quantization)
    if isinstance(plan, DistributedPlan):
        raise PlanError("noise in shares is of gradients, and these settings step at the sites")
    optimizer = build_optimizer(model, training)
    if training.proximal:
        pull_back(optimizer, training.proximal)
    # Noise falls on every value of the layout; those beyond this site's rank stay zero.
    optimizer.register_step_post_hook(lambda *_: truncate(model, rank))
    if plan is None:
        steps = poisson_steps(
            data,
            steps=config.privacy.steps_per_round,
            sample_rate=config.privacy.sample_rate,
            physical_batch_size=training.physical_batch_size,
        )
        train_plain(
            model,
            steps,
            loss=task.per_record_loss,
            collate=data.collate,
            optimizer=optimizer,
            on_step=on_step,
        )
    else:
        PrivateTrainer(
            model,
            plan=plan,
            loss=task.per_record_loss,
            collate=data.collate,
            units=data.units,
            optimizer=optimizer,
            physical_batch_size=training.physical_batch_size,
            record_cost=data.record_cost,
            work=work,
        ).train_round(on_step)
    return quantize(layout.flatten(model) - before, quantization, weight)


def _gradient(
    model: nn.Module,
    data: TaskData,
    *,
    config: FederationConfig,
    task: Task,
    plan: PrivacyPlan | DistributedPlan | None,
    layout: Layout,
    work: ConstantWork | None,
) -> NDArray[Any]:
    """The sum of one step's gradients, with the plan's noise; shape (d,)."""
    named = dict(model.named_parameters())
    parameters = [named[slot.name] for slot in layout.slots]
    size = config.training.physical_batch_size
    if plan is None:
        rate = config.privacy.sample_rate
        (batches,) = poisson_steps(data, steps=1, sample_rate=rate, physical_batch_size=size)
        return sum_gradients(
            model, batches, parameters, loss=task.per_record_loss, collate=data.collate
        )
    return GradientTrainer(
        model,
        plan=plan,
        parameters=parameters,
        loss=task.per_record_loss,
        collate=data.collate,
        units=data.units,
        physical_batch_size=size,
        record_cost=data.record_cost,
        work=work,
    ).step()
