"""Measures what vanishing sites cost: a round in which they do, beside one in which all open.

Real roles, one process, one small update: what is added does not hang on how long it is. Time is
CPU time of this process; pairs are interleaved, and differences are medians of the pairs'.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from aggregation.protocol import Vanishing, openings_for
from aggregation.testing import Attempt, Federation

_PARAMETERS: Final = 1000
_BITS: Final = 16


def measure(sites: int, vanished: int, repeats: int) -> dict[str, float]:
    """Rounds of a cohort of which so many sites vanish after their upload.

    Args:
        sites: Cohort, all sites that there are.
        vanished: How many may vanish, and do.
        repeats: Pairs.

    Returns:
        What is added: milliseconds of one site and of the aggregator, bytes that one site sends and
        reads; and how many sites may collude.
    """
    openings = openings_for(sites, sites - 2 * vanished - 1)
    allowed = Vanishing(vanished, openings)
    with_, without = [], []
    for _ in range(repeats):
        without.append(_round(sites, None, 0))
        with_.append(_round(sites, allowed, vanished))

    def added(name: str) -> float:
        pairs = zip(with_, without, strict=True)
        return statistics.median(one[name] - other[name] for one, other in pairs)

    return {
        "sites": sites,
        "vanished": vanished,
        "colluding_sites": sites - 2 * vanished - 1,
        "site_added_ms": added("site_ms"),
        "aggregator_added_ms": added("aggregator_ms"),
        "site_added_sent_bytes": added("sent"),
        "site_added_read_bytes": added("read"),
        "site_sent_bytes": statistics.median(one["sent"] for one in with_),
    }


def _round(sites: int, allowed: Vanishing | None, vanished: int) -> dict[str, float]:
    fed = Federation(
        sites, size=_PARAMETERS, bits=_BITS, suite="ckks-collective",
        key_agreement="x25519-mlkem768", vanishing=allowed,
    )  # fmt: skip
    spent = {"site": 0.0, "aggregator": 0.0}

    def timed(party: str, does: Callable[..., Any], *given: Any) -> Any:
        start = time.process_time()
        made = does(*given)
        spent[party] += time.process_time() - start
        return made

    attempt = Attempt(fed.coordinator.plan(fed.plan()), {})
    for name in fed.names:
        attempt.sites[name] = fed.site(name, attempt.plan_message)
    attempt.announcement = fed.decryptor.announce(attempt.plan_message)
    attending = attempt.sites.values()
    readies = [timed("site", site.ready) for site in attending]
    attempt.cohort = fed.coordinator.cohort(attempt.plan_message, attempt.announcement, readies)
    aggregator = fed.new_aggregator(attempt)
    exchanges = [timed("site", site.exchange, attempt.cohort) for site in attending]
    if allowed is not None:
        for message in exchanges:
            timed("aggregator", aggregator.add_exchange, message)
    sent = sum(map(len, readies)) + sum(map(len, exchanges))
    attempt.exchanges = tuple(exchanges)
    handed = fed.handed(attempt)
    # Of all sites: of each pair, chance decides which one is sent a key's ciphertext.
    read = sum(len(message) for given in handed.values() for message in given)
    for name, site in attempt.sites.items():
        integers = fed.random_integers()
        upload = timed("site", site.upload, attempt.cohort, integers, handed[name])
        aggregator.add(upload.manifest, upload.chunks)
        sent += upload.size_bytes
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    openers = list(attending)[: sites - vanished]
    openings = [timed("site", site.open, listed) for site in openers]
    for message in openings:
        timed("aggregator", aggregator.add_opening, message)
    timed("aggregator", aggregator.total)
    return {
        "site_ms": 1e3 * spent["site"] / sites,
        "aggregator_ms": 1e3 * spent["aggregator"],
        "sent": sent / sites + len(openings[0]),
        "read": len(attempt.cohort) + read / sites + len(listed),
    }
