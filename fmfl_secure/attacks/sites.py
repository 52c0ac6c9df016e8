"""Guessing the site that a member's record is at (Hu et al. 2021, arXiv 2109.05659).

Of the finished adapter there is one: no site's update is seen, so what is left is whether the
adapter fits one site's records otherwise than another's. Whoever guesses is given half of every
site's units with their sites, and guesses those of the other half; and does it again without the
adapter, since sites may be told apart by what their records are like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.run.attack_record import ToldSites
from privacy.auditing import most_right_site


def guess_sites(
    with_adapter: Sequence[NDArray[np.float64]],
    without: Sequence[NDArray[np.float64]],
    *,
    epsilon: float,
    delta: float,
    seed: int,
) -> ToldSites | None:
    """Guess, and count.

    Args:
        with_adapter: For each site, features of its units that the adapter gives, (units, any).
        without: The same of reference models alone.
        epsilon: Of one site; infinite without noise.
        delta: Beside it.
        seed: Of how units are divided, public.

    Returns:
        None where a site has fewer than four units.
    """
    if len(with_adapter) < 2 or min(len(each) for each in with_adapter) < 4:
        return None
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(each)) for each in with_adapter]
    everything = [
        np.concatenate([one, other], axis=1)
        for one, other in zip(with_adapter, without, strict=True)
    ]
    return ToldSites(
        sites=len(with_adapter),
        units=sum(len(order) - len(order) // 2 for order in orders),
        right=_right(everything, orders),
        without=_right(without, orders),
        allowed=most_right_site(len(with_adapter), epsilon=epsilon, delta=delta),
    )


def _right(features: Sequence[NDArray[np.float64]], orders: Sequence[NDArray[np.int64]]) -> float:
    """Share of right guesses by the nearest mean, every site weighing the same."""
    known = [each[order[: len(order) // 2]] for each, order in zip(features, orders, strict=True)]
    asked = [each[order[len(order) // 2 :]] for each, order in zip(features, orders, strict=True)]
    spread = np.maximum(np.concatenate(known).std(axis=0), 1e-9)
    means = np.stack([each.mean(axis=0) for each in known]) / spread
    shares = []
    for site, each in enumerate(asked):
        distances = ((each[:, None, :] / spread - means) ** 2).sum(axis=2)
        shares.append(float((distances.argmin(axis=1) == site).mean()))
    return float(np.mean(shares))
