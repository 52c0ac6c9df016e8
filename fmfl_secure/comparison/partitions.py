"""Who has which of all units: as the sites' files have them, or shared out anew by label.

All data of a comparison are public, so they may be counted and moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.data import share_by_label
from fmfl_secure.errors import ConfigError
from fmfl_secure.tasks import TaskData

Shares = Mapping[str, NDArray[np.int64]]
"""By site, the numbers of its units among all."""

_DIRICHLET = "dirichlet:"


def check_partition(name: str, own: str) -> None:
    """Return if there is a partition of this name.

    Raises:
        ConfigError: There is none.
    """
    if name != own:
        _alpha(name)


def as_pooled(data: TaskData, sites: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """As the files have them.

    Args:
        data: All sites' data, pooled in this order.
        sites: Their names.
    """
    ends = np.cumsum(data.pooled)
    parts = np.split(np.arange(len(data.units), dtype=np.int64), ends[:-1])
    return dict(zip(sites, parts, strict=True))


def by_labels(
    data: TaskData, sites: Sequence[str], name: str, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Each label's units shared out in proportions drawn from a symmetric Dirichlet.

    Args:
        data: All sites' data.
        sites: Their names.
        name: `dirichlet:ALPHA`.
        seed: Of the draw.

    Raises:
        ConfigError: It is no such name, or records have no label.
        PartitionError: No draw gave every site a unit.
    """
    alpha = _alpha(name)
    if not data.labels.size:
        raise ConfigError(f"partition {name!r} shares records out by label, and these have none")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(data.units))
    # What is shared out is a unit's number, with the label that most of its records have.
    labels = [str(np.bincount(data.labels[unit]).argmax()) for unit in data.units]
    shares = share_by_label(
        [np.array([number], dtype=np.int64) for number in order],
        len(sites),
        labels,
        alpha,
        generator,
    )
    return {site: np.sort(np.concatenate(share)) for site, share in zip(sites, shares, strict=True)}


def label_mix(data: TaskData, units: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each label is among the records of these units; sums to 1, shape (labels,)."""
    labels = data.labels[np.concatenate([data.units[unit] for unit in units])]
    counts = np.bincount(labels, minlength=int(data.labels.max()) + 1)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def accuracy_on_mix(
    right: NDArray[np.bool_], labels: NDArray[np.int64], mix: NDArray[np.float64]
) -> float:
    """Accuracy on held-out records, weighted so that their labels are as often as in a mix.

    Args:
        right: Whether each was told right, shape (records,).
        labels: Of each, shape (records,).
        mix: Of the labels; what no held-out record has is left out of it.
    """
    present = [label for label in np.flatnonzero(mix) if (labels == label).any()]
    weights = mix[present] / mix[present].sum()
    return float(sum(w * right[labels == k].mean() for w, k in zip(weights, present, strict=True)))


def _alpha(name: str) -> float:
    try:
        alpha = float(name.removeprefix(_DIRICHLET)) if name.startswith(_DIRICHLET) else math.nan
    except ValueError:
        alpha = math.nan
    if not 0.0 < alpha < math.inf:
        raise ConfigError(f"no partition is called {name!r}: 'own' or 'dirichlet:ALPHA', ALPHA > 0")
    return alpha
