"""The demonstration from beginning to end: data, both ways to sum, the attacks on both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from fmfl_secure._version import __version__
from fmfl_secure.demonstration import attacks, inversions, pictures, protected, views
from fmfl_secure.demonstration.findings import FORMAT, Demonstration, rows
from fmfl_secure.demonstration.hostile_sites import run_hostile
from fmfl_secure.demonstration.naive import run_naive
from fmfl_secure.errors import RunError

MIN_SITES, MAX_SITES = 3, len(pictures.LETTERS)
EPSILON, DELTA = 3.0, 1e-5
_CONSTANT = 1000  # steps of the grid
_REACH = 6.0  # standard deviations of the noise that the grid holds


def demonstrate(
    sites: int = 4,
    *,
    custodians: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Demonstration:
    """Run it.

    Args:
        sites: How many, 3 to 8.
        custodians: How many.
        say: Told, in a line, what happens next.

    Raises:
        RunError: A number is out of range.
    """
    if not MIN_SITES <= sites <= MAX_SITES:
        raise RunError(f"{sites} sites, expected {MIN_SITES} to {MAX_SITES}")
    if not 0 <= custodians <= 2:
        raise RunError(f"{custodians} custodians, expected 0 to 2")
    plan = pictures.private_plan(EPSILON, DELTA)
    # Every value of the grid is public: it follows from the plan.
    largest = plan.max_grad_norm + _REACH * plan.noise_stddev
    federation = protected.new_federation(sites, custodians, largest)
    names, victim = federation.names, federation.names[0]
    data = dict(zip(names, pictures.private_pictures(sites), strict=True))

    say(f"{sites} sites take one training step, each on one private picture.")
    plain = {name: pictures.unprotected_update(*one) for name, one in data.items()}
    private = {name: pictures.private_update(*one, plan) for name, one in data.items()}
    say("A round of the naive pattern: one CKKS key for all.")
    naive = run_naive(plain)
    say("A round of this protocol.")
    here = protected.run_round(federation, 1, private)
    say("Another, whose server hands one upload over as the sum.")
    passed = protected.run_round(federation, 2, private, protected.passing_one_upload(victim))
    say("Another, whose server changes the sum.")
    altered = protected.run_round(federation, 3, private, protected.adding(_CONSTANT))

    rounds = attacks.Rounds(
        victim=victim,
        naive=naive,
        naive_update=plain[victim],
        here=here,
        passed=passed,
        altered=altered,
        constant=_CONSTANT,
    )
    say("The attacks.")
    found = attacks.run_attacks(rounds) + run_hostile(plain, names[-1])
    truth = data[victim][0]
    inverted = inversions.run_inversions(rounds, truth, np.sum(list(plain.values()), axis=0))
    return Demonstration(
        format=FORMAT,
        version=__version__,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        sites=sites,
        values=sum(pictures.SIZES),
        suite=protected.SUITE,
        parameter_set=here.round.parameters.id,
        key_agreement=protected.KEY_AGREEMENT,
        custodians=federation.custodian_names,
        epsilon=EPSILON,
        delta=DELTA,
        noise_multiplier=plan.noise_multiplier,
        naive_bytes=naive.upload_bytes,
        upload_bytes=here.uploads[victim].size_bytes,
        picture=rows(truth),
        views=views.views_here(here, victim),
        naive_views=views.views_naive(naive, victim),
        attacks=(*found, inversions.as_attack(inverted)),
        inversions=tuple(inverted),
    )
