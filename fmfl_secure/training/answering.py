"""A site's part in an answer: from its records to the integers that may go out.

    adapter -> a vector for every unit -> projected, scaled -> summed, with noise, on the grid

Nothing here decides whether anything may be asked, and nothing is charged: the site does both
before it calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.models.personal import personal_names, set_personal
from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.questions.registry import questions_of
from fmfl_secure.questions.respondent import Respondent
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.vectors.candidates import split_candidates
from privacy.queries.protected_sum import ProtectedSum


def answer_locally(
    model: nn.Module,
    adapter: bytes,
    data: TaskData,
    *,
    site: str,
    config: FederationConfig,
    task: Task,
    personal: bytes = b"",
) -> NDArray[np.int32]:
    """Answer what the settings ask, from one site's data, once.

    Args:
        model: A model of the task; left with the adapter, or the last of several.
        adapter: What is asked about, as safetensors: one, or several joined.
        data: The site's.
        site: Its name.
        config: The federation's settings.
        task: The task.
        personal: The site's own parts of the adapter; empty takes the adapter's.

    Returns:
        The site's integers, noise included; int32, shape (d,).

    Raises:
        ModelError: The adapter is not one of this model.
        PrivacyError: The vectors are not those that were planned.
    """
    plan, asked = answer_plan(config), asked_of(config)
    candidates: tuple[bytes, ...] = ()
    if asked.candidates:
        candidates = split_candidates(adapter, len(asked.candidates))
    else:
        set_adapter_tensors(model, load_adapter_bytes(adapter))
    if personal:
        set_personal(model, personal_names(model, config.adapter.personal_parts), personal)
    respondent = Respondent(site, config, task, data, model, candidates)
    vectors = {each.name: each.vectors(asked, respondent) for each in questions_of(asked)}
    return ProtectedSum(plan).integers(plan.release.joint(vectors)).astype(np.int32)
