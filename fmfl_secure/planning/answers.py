"""Plans the answers of a run: their noise, and the grid of what a site uploads.

One plan for all sites: what they upload is summed, so its steps are the same everywhere, wide
enough for the largest site.

`asking` and every site make the plan from settings alone by `answer_plan`; from a released sum
`cells_of` and `figures_of` make figures, `ahead_of` a ranking. `planning.precision` says
beforehand how wide they would be.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aggregation import Quantization, Segment
from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.noise import noise_of
from fmfl_secure.questions.choice import Choice, distance_of_winner
from fmfl_secure.questions.registry import questions_of
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot
from privacy import epsilon_spent, exact_epsilon, filter_orders, rdp_cost
from privacy.queries import Figure, QueryPlan


def asked_of(config: FederationConfig) -> QuestionSection:
    """Returns the question that a run by these settings asks.

    Raises:
        ConfigError: Nothing.
    """
    if config.asked is None:
        raise ConfigError("these settings ask nothing of the sites")
    return config.asked


def answer_plan(config: FederationConfig) -> QueryPlan:
    """Makes the plan of each site's part in an answer; the same at every site.

    Raises:
        ConfigError: The settings ask nothing, or what the task has not.
        PlanError: The settings cannot be met.
    """
    return noise_of(config).answers(config, asked_of(config))


def answer_layout(config: FederationConfig) -> FlatLayout:
    """The vector that an answer is, a tensor for each question, in the order they are asked.

    Raises:
        ConfigError: The settings ask nothing, or what the task has not.
    """
    queries = answer_plan(config).release.queries
    # No parameter of a model is called so: a sum of answers is never taken for one of updates.
    return FlatLayout(tuple(TensorSlot(f"answer:{q.name}", (q.dimension,)) for q in queries))


def answer_grid(config: FederationConfig) -> Quantization:
    """The public grid of an answer: steps as large as the plan's, so that nothing is rounded.

    Raises:
        ConfigError: The settings ask nothing, or what the task has not.
        PlanError: They cannot be met.
    """
    plan = answer_plan(config)
    most = plan.granularity * ((1 << (plan.bits - 1)) - 1)
    return Quantization(
        bits=plan.bits,
        segments=tuple(
            Segment(name=slot.name, size=slot.size, range=most)
            for slot in answer_layout(config).slots
        ),
    )


@functools.lru_cache(maxsize=64)
def answer_epsilon(config: FederationConfig) -> float:
    """Returns the epsilon of one answer by itself, at `privacy.delta`, as the run is accounted.

    Several cost less together than they add up to.

    Raises:
        ConfigError: The settings ask nothing, or what the task has not.
        PlanError: They cannot be met.
    """
    event, delta = answer_plan(config).event(), config.privacy.delta
    if config.privacy.accounting == "exact":
        return exact_epsilon(event, 1, delta)
    orders = filter_orders(asked_of(config).epsilon, delta)
    cost = rdp_cost(event, orders)
    return epsilon_spent(cost, noise_of(config).accounted_delta(delta))


def cells_of(config: FederationConfig, total: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Splits an answer's sum by question: float64, shape (cells,), with its noise.

    Args:
        config: The settings that it was asked by.
        total: The released sum, as a round's record keeps it.

    Raises:
        ConfigError: It is not an answer to these settings.
    """
    plan = answer_plan(config)
    if len(total) != plan.release.dimension:
        raise ConfigError(
            f"an answer has {len(total)} values, these settings ask for {plan.release.dimension}"
        )
    return plan.release.split(np.asarray(total, dtype=np.float64) * plan.granularity)


def figures_of(
    config: FederationConfig, total: Sequence[int], cohort: int
) -> dict[str, dict[str, Figure]]:
    """Computes an answer's figures, by question and name, with intervals. Costs nothing.

    Args:
        config: The settings that it was asked by.
        total: The released sum, as a round's record keeps it.
        cohort: How many sites are in it.

    Raises:
        ConfigError: It is not an answer to these settings.
    """
    plan, asked, values = answer_plan(config), asked_of(config), cells_of(config, total)
    found = {}
    for question, query in zip(questions_of(asked), plan.release.queries, strict=True):
        stddev = plan.answer_stddev(query, cohort)
        found[query.name] = question.figures(config, asked, values[query.name], stddev)
    return found


def ahead_of(
    config: FederationConfig, total: Sequence[int], cohort: int
) -> dict[str, tuple[float, float]]:
    """How far the candidate ahead is ahead of each, in units; empty of answers to no choice.

    Args:
        config: The settings that it was asked by.
        total: The released sum, as a round's record keeps it.
        cohort: How many sites are in it.

    Returns:
        95 % intervals that hold for all at once; around 0 for the one ahead.

    Raises:
        ConfigError: It is not an answer to these settings.
    """
    plan, asked = answer_plan(config), asked_of(config)
    for query in plan.release.queries:
        if query.name == Choice.name:
            cells = cells_of(config, total)[query.name]
            _, ahead, _ = distance_of_winner(cells, plan.answer_stddev(query, cohort))
            return dict(zip(asked.candidates, ahead, strict=True))
    return {}
