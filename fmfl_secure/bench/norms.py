"""Measures the norm check: whole rounds with it beside rounds without.

Real roles, one process, the tensors of `bench aggregation`. Time is CPU time of this process;
rounds are interleaved, and shares are medians of the pairs'. The site's round is everything that it
does but training; the server's is the aggregator's and the coordinator's.

`fmfl-secure bench aggregation --norms` (`cli.bench`) calls `measure`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from aggregation.ckks.quantization import Quantization, Segment, quantize
from aggregation.protocol import NormCheck, NormGroup, read_cohort, read_plan
from aggregation.testing import Attempt, Federation
from fmfl_secure.planning.norms import group_sizes

_RANGE: Final = 0.02
_TRAINED: Final = 0.003  # deviation of an update's values


def measure(sizes: Sequence[int], sites: int, bits: int, repeats: int) -> dict[str, float]:
    """Rounds with and without the check.

    Args:
        sizes: Values of each tensor.
        sites: Cohort.
        bits: Of a value.
        repeats: Pairs.

    Returns:
        Milliseconds of one site and of the server with it and added by it, the shares of the round
        without it that these are, and bytes that one site sends and reads for it.
    """
    limit = (1 << (bits - 1)) - 1
    norms = [NormGroup(size, math.ceil(limit * math.sqrt(size))) for size in group_sizes(sizes)]
    with_, without = [], []
    for _ in range(repeats):
        without.append(_round(sizes, sites, bits, None))
        with_.append(_round(sizes, sites, bits, norms))

    def median(of: Callable[[dict[str, float], dict[str, float]], float]) -> float:
        return statistics.median(map(of, with_, without))

    def added(party: str) -> Callable[[dict[str, float], dict[str, float]], float]:
        steps = {"site": ("verify", "project"), "server": ("check",)}[party]
        return lambda one, other: sum(one[step] - other.get(step, 0.0) for step in steps)

    return {
        "parameters": sum(sizes),
        "sites": sites,
        "bits": bits,
        "groups": len(norms),
        **{
            f"{party}_{name}": found
            for party in ("site", "server")
            for name, found in (
                ("round_ms", median(lambda _, other, p=party: other[p])),  # type: ignore[misc]
                ("added_ms", median(added(party))),
                (
                    "share",
                    median(lambda one, other, p=party: added(p)(one, other) / other[p]),  # type: ignore[misc]
                ),
            )
        },
        "site_sent_bytes": with_[0]["sent"],
        "site_read_bytes": sites * with_[0]["sent"],
    }


def _round(
    sizes: Sequence[int], sites: int, bits: int, norms: Sequence[NormGroup] | None
) -> dict[str, float]:
    fed = Federation(
        sites,
        size=sum(sizes),
        bits=bits,
        suite="ckks-collective",
        key_agreement="x25519-mlkem768",
        norms=norms,
    )
    segments = (Segment(name=f"{i}", size=size, range=_RANGE) for i, size in enumerate(sizes))
    fed.quantization = Quantization(bits=bits, segments=tuple(segments))
    spent: dict[str, float] = {}

    def timed(party: str, step: str, does: Callable[..., Any], *given: Any) -> Any:
        start = time.process_time()
        made = does(*given)
        took = 1e3 * (time.process_time() - start) / (sites if party == "site" else 1)
        for name in (party, step):
            spent[name] = spent.get(name, 0.0) + took
        return made

    rng = np.random.default_rng()
    attempt = Attempt(timed("server", "plan", fed.coordinator.plan, fed.plan()), {})
    for name in fed.names:
        attempt.sites[name] = timed("site", "admit", fed.site, name, attempt.plan_message)
    attempt.announcement = fed.decryptor.announce(attempt.plan_message)
    attending = attempt.sites.values()
    readies = [timed("site", "ready", site.ready) for site in attending]
    attempt.cohort = timed(
        "server",
        "cohort",
        fed.coordinator.cohort,
        attempt.plan_message,
        attempt.announcement,
        readies,
    )
    aggregator = timed("server", "admit", fed.new_aggregator, attempt)
    attempt.exchanges = tuple(
        timed("site", "exchange", site.exchange, attempt.cohort) for site in attending
    )
    handed = timed("server", "hand out", fed.handed, attempt)
    for name, site in attempt.sites.items():
        update = rng.normal(scale=_TRAINED, size=fed.size).astype(np.float32)
        integers = timed("site", "quantise", quantize, update, fed.quantization)
        upload = timed("site", "upload", site.upload, attempt.cohort, integers, handed[name])
        timed("server", "add", aggregator.add, upload.manifest, upload.chunks)
        del update, integers, upload
    listed = fed.decryptor.confirm(
        attempt.cohort,
        timed("server", "list", aggregator.opening_list),
        aggregator.sealed_secrets(),
    )
    for site in attending:
        timed("server", "open", aggregator.add_opening, timed("site", "open", site.open, listed))
    total = timed("server", "sum", aggregator.total)
    release = fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
    summed = timed("server", "release", fed.coordinator.read_release, attempt.cohort, release)
    sent = []
    if norms is not None:
        for site in attending:
            sent.append(timed("site", "project", site.project, release))
            site._released = None  # each has its process: one does not hold eight sums there
        round_ = read_plan(attempt.plan_message, fed.public["coordinator"])
        checks = NormCheck(read_cohort(round_, attempt.cohort), summed.mark)

        def check() -> None:
            checks.check_sum(summed.integers, dict(map(checks.read, sent)))

        timed("server", "check", check)
    for site in attending:
        if sent:
            site.project(release)  # which it did before, and holds
        timed("site", "verify", site.verify, release, sent)
    return {**spent, "sent": float(len(sent[0]) if sent else 0)}
