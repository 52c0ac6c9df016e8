"""Attacks by a site on what everybody gets: an update too large, and a sum that does not open."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from aggregation import DEVIATIONS, NormError, SiteAttempt
from aggregation.ckks import residues
from aggregation.crypto import sealed_box
from aggregation.protocol import FixedCohort, NormGroup, read_cohort, read_plan
from aggregation.protocol.norms import NormCheck
from aggregation.testing import Attempt, Federation
from fmfl_secure.demonstration import protected
from fmfl_secure.demonstration.findings import Attack, Outcome
from fmfl_secure.demonstration.naive import Floats, run_naive

_TIMES = 20.0  # the hostile update over an honest one
_SIZE = 4096  # values of the updates here
_SPOILED = 10.0  # moved by so many times its largest value, a result is of no use


def run_hostile(plain: Mapping[str, Floats], hostile: str) -> list[Attack]:
    """Both, on both.

    Args:
        plain: Every site's update, by name.
        hostile: The site that attacks.
    """
    return [_too_large(plain, hostile), _spoiled(plain, hostile)]


def _too_large(plain: Mapping[str, Floats], hostile: str) -> Attack:
    honest = run_naive(plain).published
    scaled = run_naive({**plain, hostile: -_TIMES * plain[hostile]}).published
    agree = float(np.dot(honest, scaled) / (np.linalg.norm(honest) * np.linalg.norm(scaled)))
    named = _named_by_norms(len(plain), hostile)
    return Attack(
        id="scaled-update",
        title="A site sends an update twenty times as large, the other way round",
        attacker=f"{hostile} alone.",
        naive=Outcome(
            agree < 0.0,
            True,
            f"the result points away from what was right, cosine {agree:.2f}; nobody can tell why",
            "the model, as it wants it" if agree < 0.0 else "nothing",
        ),
        here=Outcome(
            hostile not in named,
            False,
            f"named: {', '.join(named) or 'nobody'}",
            "a round that nobody applies, and the next ones go on without it",
        ),
        because="With federation.norm_check, which is off unless said, each site shows 64 numbers "
        "of its update, on signs that are drawn once all updates are fixed. An update larger than "
        "an honest one can be names its site. One below that bound does not: docs/robustness.md.",
    )


def _named_by_norms(sites: int, hostile: str) -> list[str]:
    """Whom an honest party finds in a round in which one update is too large."""
    limit = (1 << (protected.BITS - 1)) - 1
    largest = math.ceil(limit / _TIMES * math.sqrt(_SIZE))
    fed = _federation(sites, norms=(NormGroup(_SIZE, largest),))
    attempt = fed.start()
    aggregator, handed = fed.new_aggregator(attempt), fed.handed(attempt)
    honest = np.arange(_SIZE, dtype=np.int32) % 3 - 1
    for name, site in attempt.sites.items():
        update = np.full(_SIZE, -limit, dtype=np.int32) if name == hostile else honest
        upload = site.upload(attempt.cohort, update, handed[name])
        aggregator.add(upload.manifest, upload.chunks)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for site in attempt.sites.values():
        aggregator.add_opening(site.open(listed))
    total = aggregator.total()
    release = fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
    check = NormCheck(_cohort(fed, attempt), fed.coordinator.read_release(
        attempt.cohort, release
    ).mark)  # fmt: skip
    named = []
    for name, site in attempt.sites.items():
        try:
            check.read(site.project(release))
        except NormError:
            named.append(name)
    return named


def _spoiled(plain: Mapping[str, Floats], hostile: str) -> Attack:
    honest = run_naive(plain).published
    noise = np.random.default_rng(1).normal(size=len(plain[hostile])) * 1e3
    moved = np.abs(run_naive({**plain, hostile: noise}).published - honest).max()
    times = float(moved / np.abs(honest).max())
    fed = _federation(len(plain))
    attempt = fed.start(fed.rehearsal())
    _seal_falsely(attempt.sites[hostile], hostile)
    found = fed.judge(fed.rehearse(attempt)).named
    told = ", ".join(f"{name}: {DEVIATIONS[word]}" for name, word in found.items())
    return Attack(
        id="spoiled-sum",
        title="A site spoils what everybody gets, and leaves no trace",
        attacker=f"{hostile} alone: on the naive pattern by noise, here by a wrong secret.",
        naive=Outcome(
            times > _SPOILED,
            True,
            f"the result is off by {times:.3g} times its largest value, in every round; nobody is "
            "named",
            "rounds that are of no use" if times > _SPOILED else "nothing",
        ),
        here=Outcome(
            set(found) != {hostile},
            False,
            f"named in a rehearsal: {told or 'nobody'}",
            "one round; the next ones go on without it",
        ),
        because="After a failure that nobody can explain (federation.rehearsals) the sites go "
        "through a round on public numbers and reveal its keys, so that everybody can compute what "
        "each should have sent. A saboteur who behaves in rehearsals is not named.",
    )


def _federation(sites: int, norms: tuple[NormGroup, ...] | None = None) -> Federation:
    return Federation(
        sites,
        size=_SIZE,
        bits=protected.BITS,
        suite=protected.SUITE,
        key_agreement=protected.KEY_AGREEMENT,
        norms=norms,
    )


def _cohort(fed: Federation, attempt: Attempt) -> FixedCohort:
    return read_cohort(read_plan(attempt.plan_message, fed.public["coordinator"]), attempt.cohort)


def _seal_falsely(site: SiteAttempt, name: str) -> None:
    """It seals residues at random: they open, and are no secret."""

    def seal(cohort: FixedCohort, _: object) -> bytes:
        modulus, degree = cohort.round.parameters.modulus, cohort.round.packing.degree
        drawn = np.random.default_rng(1).integers(0, modulus, degree, dtype=np.uint64)
        content = residues.pack(drawn, modulus)
        return sealed_box.seal_box(cohort.material, content, cohort.transcript + name.encode())

    site._secrets._seal = seal  # type: ignore[assignment,method-assign]
