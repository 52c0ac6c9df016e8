"""Gradient inversion of everything that somebody has: what the private picture looks like there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fmfl_secure.demonstration import attacks
from fmfl_secure.demonstration.findings import Attack, Inversion, Outcome, rows
from fmfl_secure.demonstration.gradient_inversion import READABLE, best, invert
from fmfl_secure.demonstration.pictures import Picture
from fmfl_secure.demonstration.protected import values_of

NAIVE, RELEASED = "naive-upload", "released-sum"


def run_inversions(
    rounds: attacks.Rounds, truth: Picture, unprotected: npt.NDArray[np.float64]
) -> list[Inversion]:
    """Invert what each attacker has.

    Args:
        rounds: What was attacked.
        truth: The victim's picture.
        unprotected: The sum of all sites' updates without noise: what encryption alone releases.
    """
    here, victim = rounds.here, rounds.victim
    released = np.zeros_like(unprotected)
    if here.released is not None:
        released = values_of(here.released, here.federation.quantization)
    views = [
        (NAIVE, "an upload of the naive pattern, opened", True, rounds.naive.as_key_holder(victim)),
        (
            "masked-upload",
            "the same site's upload here, as the server has it",
            False,
            attacks.in_the_clear(here, victim),
        ),
        (
            "collusion",
            "the upload, by key holder, server and all other sites but one",
            False,
            attacks.opened_by(here, victim, rounds.others[:-1]),
        ),
        (
            "sum-without-noise",
            "the exact sum, had the sites added no noise",
            True,
            unprotected,
        ),
        (RELEASED, "the released sum, as everyone has it", False, released),
        (
            "all-other-sites",
            "the site's own update, by all other sites from the sum",
            False,
            attacks.left_of_the_sum(here, victim),
        ),
    ]
    return [_invert(*view, truth) for view in views]


def as_attack(inversions: list[Inversion]) -> Attack:
    """The entry of gradient inversion among the attacks: the naive upload, the released sum."""
    by_id = {one.id: one for one in inversions}
    return Attack(
        id="gradient-inversion",
        title="A private picture is read off an update",
        attacker="Whoever has the update or sum: one division, no key.",
        naive=by_id[NAIVE].outcome,
        here=by_id[RELEASED].outcome,
        because="An upload cannot be opened, and what is released carries the noise that each site "
        "added. Encryption alone would not be enough: see the exact sum without noise below.",
    )


def _invert(
    name: str, source: str, expected: bool, update: npt.NDArray[np.float64], truth: Picture
) -> Inversion:
    picture, alike = best(invert(update), truth)
    readable = alike >= READABLE
    outcome = Outcome(
        readable,
        expected,
        f"likeness {alike:.3f}",
        "the private picture" if readable else "noise",
    )
    return Inversion(name, source, outcome, alike, rows(_grey(picture)))


def _grey(picture: Picture) -> Picture:
    """Stretched to what a screen shows; the darkest and lightest hundredth may saturate."""
    low, high = np.percentile(picture, (1, 99))
    span = float(high - low) or 1.0
    stretched: Picture = np.clip((picture - low) / span, 0.0, 1.0)
    return stretched
