"""Metrics of a run for monitoring: how far it is, how many sites take part, whom it waits for.

Numbers only. No label names a party: who it is stands on the live page, behind the kit's token.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Gauge

from fmfl_secure.parties.reviews import reviews_due
from fmfl_secure.parties.workspace import DECRYPTOR
from fmfl_secure.runtime.inbox import JOINED, REFUSED
from fmfl_secure.transports.https.server import Service


def follow(service: Service) -> None:
    """Add a run's gauges to its server's metrics; each is computed when it is asked for."""
    registry, store, board = service.metrics.registry, service.store, service.board

    def add(name: str, what: str, value: Callable[[], float]) -> None:
        Gauge(name, what, registry=registry).set_function(value)

    def refused() -> set[str]:
        return set(store.notes(service.run.run, REFUSED))

    def joined() -> set[str]:
        return set(store.notes(service.run.run, JOINED)) - refused()

    def silent() -> int:
        return sum(not service.run.waiting.is_present(name) for name in joined())

    def attempt(field: str) -> int:
        under_way = service.inbox.attempt
        return 0 if under_way is None else getattr(under_way.plan, field)

    def status() -> str | None:
        return service.coordinator.store.state.status

    def awaited() -> int:
        waits = service.run.waiting.awaited
        return 0 if waits is None else len(waits.missing())

    def wait_ends() -> float:
        waits = service.run.waiting.awaited
        return float("nan") if waits is None else waits.until

    add("fmfl_round", "Round under way; 0 between two.", lambda: attempt("round"))
    add("fmfl_attempt", "Attempt under way at this round.", lambda: attempt("attempt"))
    add("fmfl_rounds_released", "Rounds released.", lambda: len(service.coordinator.rounds))
    add("fmfl_rounds_planned", "Rounds of the whole run.", lambda: service.config.all_rounds)
    add("fmfl_run_stopped", "1 where the run ended before its last round.",
        lambda: status() == "stopped")  # fmt: skip
    add("fmfl_stop_kept", "1 where its coordinator or a custodian stopped it, and no round begins.",
        lambda: bool(service.stopped))  # fmt: skip
    add("fmfl_reviews_due", "Decisions in the settings whose day of review is past.",
        lambda: len(reviews_due(service.config)))  # fmt: skip
    add("fmfl_run_finished", "1 where it ended with its last round.",
        lambda: status() == "finished")  # fmt: skip
    sites = Gauge("fmfl_sites", "Sites by state.", ("state",), registry=registry)
    everyone = len(service.config.sites)
    sites.labels("joined").set_function(lambda: len(joined()))
    sites.labels("refused").set_function(lambda: len(refused()))
    sites.labels("not joined").set_function(lambda: everyone - len(joined()) - len(refused()))
    sites.labels("silent").set_function(silent)
    helpers = (DECRYPTOR, *service.config.aggregation.custodians)
    add("fmfl_helpers_silent", "Decryptor and custodians that nothing is heard of.",
        lambda: sum(not board.was_heard(name) or not service.run.waiting.is_present(name)
                    for name in helpers))  # fmt: skip
    add("fmfl_awaited", "Parties that the run waits for now.", awaited)
    add("fmfl_wait_ends_seconds", "When it goes on without them, in Unix time.", wait_ends)
