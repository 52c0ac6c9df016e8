"""Who was trained on: a threshold on losses, and a comparison with reference models.

The threshold is Yeom et al. 2018 (arXiv 1709.01604), the comparison LiRA's offline form
(`attacks.references`). A unit's score is the mean of its records'.

`attacks.attack` calls `tell_members`, which scores every record by each attack and tells units
apart from the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.attacks.references import (
    against_references,
    by_unit,
    fits,
    losses,
    train_reference,
)
from fmfl_secure.errors import ConfigError
from fmfl_secure.run.attack_record import ToldMembers
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task, TaskData
from privacy.auditing import told_apart, true_positives

FALSE_POSITIVES: Final = (0.01, 0.1)
LEAST_UNITS: Final = 8  # of members and of others: with fewer nothing can be told
SEED: Final = 20260101  # of divisions of public data; nobody's secret depends on it

OnPart = Callable[[str], None]
"""Told what is done next."""
_Units = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True, repr=False)
class Membership:
    """Results of attacks on membership, and the fits by which sites can be told.

    Attributes:
        membership: How well each tells members.
        members: How many there were.
        others: How many others.
        others_from: Where these are from.
        with_adapter: For each site, how well the adapter fits its members, shape (units, 1).
        without: The same of reference models.
    """

    membership: tuple[ToldMembers, ...]
    members: int
    others: int
    others_from: Literal["held-out", "public-like"]
    with_adapter: list[NDArray[np.float64]]
    without: list[NDArray[np.float64]]


@dataclass(frozen=True, slots=True, repr=False)
class _Scores:
    """Of every record of a data set: what each attack makes of it, and what sites are told by."""

    attacks: dict[str, NDArray[np.float64]]
    with_adapter: NDArray[np.float64]
    without: NDArray[np.float64]


def tell_members(
    config: FederationConfig,
    task: Task,
    model: nn.Module,
    sites: Sequence[TaskData],
    like: TaskData,
    *,
    references: int,
    confidence: float,
    on_part: OnPart = lambda _: None,
) -> Membership:
    """Attack a model.

    Where a site sets no units apart, half of the public-like ones stand for those who were not in.

    Args:
        config: The settings that it was trained with.
        task: The task.
        model: The finished model.
        sites: The data of each site, units that were set apart marked as such.
        like: Data like theirs, none of which was trained on.
        references: Reference models.
        confidence: Of intervals.
        on_part: Told about progress.

    Raises:
        ConfigError: Too few units of a sort.
    """
    order = np.random.default_rng(SEED).permutation(len(like.units)).tolist()
    held_out = all(int(each.held_out.sum()) >= LEAST_UNITS for each in sites)
    apart = [] if held_out else order[: len(order) // 2]
    pool = [like.units[unit] for unit in order[len(apart) :]]
    if len(pool) < LEAST_UNITS or not (held_out or len(apart) >= LEAST_UNITS):
        raise ConfigError(
            f"the public-like file has {len(like.units)} units, too few to compare anybody with",
            hint="Bring a few hundred; as many as a site has are better.",
        )
    inside: list[_Units] = [each.to_train().units for each in sites]
    if min(map(len, inside)) < LEAST_UNITS:
        raise ConfigError(f"a site trained on fewer than {LEAST_UNITS} units: nothing can be told")
    trained = []
    for number in range(references):
        on_part(f"reference model {number + 1} of {references}")
        half = np.random.default_rng(SEED + number).permutation(len(pool))[: -(-len(pool) // 2)]
        records = np.concatenate([pool[unit] for unit in half.tolist()])
        trained.append(train_reference(config, task, like.only(records), seed=SEED + number))

    on_part("scoring")
    models = [model, *trained]
    batch_size = config.training.physical_batch_size
    scores = [_scores(models, task, each, batch_size=batch_size) for each in sites]
    outside: list[tuple[_Scores, _Units]]
    if held_out:
        outside = [
            (of, [each.units[unit] for unit in np.flatnonzero(each.held_out).tolist()])
            for of, each in zip(scores, sites, strict=True)
        ]
    else:
        of_like = _scores(models, task, like, batch_size=batch_size)
        outside = [(of_like, [like.units[unit] for unit in apart])]
    membership = tuple(
        _told(
            name,
            _joined(name, list(zip(scores, inside, strict=True))),
            _joined(name, outside),
            confidence=confidence,
        )
        for name in scores[0].attacks
    )
    return Membership(
        membership,
        members=sum(map(len, inside)),
        others=sum(len(units) for _, units in outside),
        others_from="held-out" if held_out else "public-like",
        with_adapter=[
            by_unit(of.with_adapter, units)[:, None]
            for of, units in zip(scores, inside, strict=True)
        ],
        without=[
            by_unit(of.without, units)[:, None] for of, units in zip(scores, inside, strict=True)
        ],
    )


def _scores(models: Sequence[nn.Module], task: Task, data: TaskData, *, batch_size: int) -> _Scores:
    target, *others = [losses(each, task, data, batch_size=batch_size) for each in models]
    return _Scores(
        {"reference models": against_references(target, others), "loss threshold": -target},
        fits(target),
        np.mean([fits(each) for each in others], axis=0),
    )


def _joined(attack: str, parts: Sequence[tuple[_Scores, _Units]]) -> NDArray[np.float64]:
    return np.concatenate([by_unit(scores.attacks[attack], units) for scores, units in parts])


def _told(
    attack: str,
    members: NDArray[np.float64],
    others: NDArray[np.float64],
    *,
    confidence: float,
) -> ToldMembers:
    found = told_apart(members, others, confidence=confidence)
    return ToldMembers(
        attack=attack,
        auc=found.auc,
        low=found.low,
        high=found.high,
        true_positives=tuple(
            true_positives(members, others, false_positives=rate) for rate in FALSE_POSITIVES
        ),
    )
