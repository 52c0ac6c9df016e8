"""The admission gate of a run, for every layout that its rounds will train and all it asks.

`parties.site` and the local engine call `check_admission` before a run, and a site `check_start`
before each round of training, of the adapter that it starts from.
"""

from __future__ import annotations

import hashlib
from typing import Final
from weakref import WeakKeyDictionary

from torch import nn

import privacy.training
from fmfl_secure.models.adapters import (
    adapter_bytes,
    load_adapter_bytes,
    perturb_adapter,
    set_adapter_tensors,
)
from fmfl_secure.models.personal import personal_names, set_personal
from fmfl_secure.questions.gate import check_questions
from fmfl_secure.questions.respondent import Respondent
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task

# Settings that each model was measured with: the sites of one process may share a model.
_PASSED: Final[WeakKeyDictionary[nn.Module, str]] = WeakKeyDictionary()
# What each model was last measured with before a round: all that decides about it.
_STARTED: Final[WeakKeyDictionary[nn.Module, tuple[str, ...]]] = WeakKeyDictionary()


def check_admission(config: FederationConfig, task: Task, model: nn.Module) -> None:
    """Measure that the sensitivity of all steps and answers is what the plans promise.

    Without noise nothing is promised, and the model still has to make a loss of a record: a ledger
    may end by a run that could never train. Leaves the adapter as it was.

    A model is measured once for the same settings.

    Args:
        config: The federation's settings.
        task: What is learned.
        model: A model of it.

    Raises:
        PrivacyError: Model, loss or batching has another sensitivity.
        ConfigError: A question breaks what it promises, or the task has not what is asked.
    """
    if _PASSED.get(model) == config.digest:
        return
    private = config.privacy.noise_mechanism.private
    synthetic = task.synthetic()
    start = adapter_bytes(model)
    perturb_adapter(model)  # what a round leaves frozen as well
    if config.asked is not None:
        site = config.sites[0].name
        check_questions(config.asked, Respondent(site, config, task, synthetic, model))
    for round_number in task.distinct_rounds if config.trains else ():
        task.begin_round(model, round_number)
        if not private:
            privacy.training.require_loss(
                model,
                loss=task.per_record_loss,
                collate=synthetic.collate,
                records=synthetic.records,
            )
            continue
        privacy.training.check_admission(
            model,
            loss=task.per_record_loss,
            collate=synthetic.collate,
            records=synthetic.records,
            physical_batch_size=config.training.physical_batch_size,
        )
    set_adapter_tensors(model, load_adapter_bytes(start))
    task.begin_round(model, 1)
    _PASSED[model] = config.digest


def check_start(
    config: FederationConfig, task: Task, model: nn.Module, adapter: bytes, personal: bytes = b""
) -> None:
    """Measure of the adapter that a round starts from what `check_admission` does of small ones.

    Reads no data. A model is measured once for the same adapter, which it is left with.

    Args:
        config: The federation's settings.
        task: What is learned.
        model: A model of it, ready for the round.
        adapter: The round's starting point, as safetensors.
        personal: The site's own parts of it; empty takes the adapter's.

    Raises:
        AdmissionError: Records change each other's gradients there.
        ModelError: The adapter is not one of this model.
    """
    if not config.privacy.noise_mechanism.private:
        return
    trained = sorted(name for name, each in model.named_parameters() if each.requires_grad)
    digests = (hashlib.sha256(each).hexdigest() for each in (adapter, personal))
    measured = (config.digest, *digests, *trained)
    if _STARTED.get(model) == measured:
        return
    set_adapter_tensors(model, load_adapter_bytes(adapter))
    if personal:
        set_personal(model, personal_names(model, config.adapter.personal_parts), personal)
    synthetic = task.synthetic()
    privacy.training.check_apart(
        model,
        loss=task.per_record_loss,
        collate=synthetic.collate,
        records=synthetic.records,
        physical_batch_size=config.training.physical_batch_size,
        max_grad_norm=config.privacy.max_grad_norm,
    )
    _STARTED[model] = measured
