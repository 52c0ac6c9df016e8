"""The coordinator's live page: everyone's part, by generic codes and statements.

`fmfl-secure serve` (`cli.service`) gives it to the port that the server's own people look at
(`operations`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from fmfl_secure.parties.reviews import reviews_due
from fmfl_secure.parties.workspace import DECRYPTOR
from fmfl_secure.report.rounding import left_fine, spent_fine
from fmfl_secure.run.answers import answer_of
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.run.rehearsal_words import rehearsal_in_words
from fmfl_secure.runtime.inbox import JOINED, OVER, REFUSED, Stated, statements
from fmfl_secure.runtime.waiting import Awaited
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.transports.https.processes.operations import REFRESH_S, notices
from fmfl_secure.transports.https.server import Service

_NONE: Final = "-"


def server_page(service: Service) -> Mapping[str, object]:
    """Collects the values of the coordinator's page."""
    run, board = service.run.run, service.board
    kept = service.coordinator.store.state
    joined = service.store.notes(run, JOINED)
    refused = service.store.notes(run, REFUSED)
    stated = statements(service.store, run)
    finished = service.coordinator.rounds
    attempt = service.inbox.attempt
    sites = []
    for entry in service.config.sites:
        name = entry.name
        state = "refused" if name in refused else "joined" if name in joined else "not joined"
        if name not in service.members().sites:
            state = "removed"
        sites.append(
            {
                "name": name,
                "state": state,
                "step": board.task(name)[1].step.value,
                "silent_s": f"{board.silent_s(name):.0f}" if board.was_heard(name) else "never",
                "rounds": sum(name in record.cohort for record in finished),
                **_epsilon(stated.get(name, Stated())),
                "refusal": refused.get(name, b"").decode(),
            }
        )
    helpers = {
        name: f"heard of {board.silent_s(name):.0f} s ago" if board.was_heard(name) else "not there"
        for name in (DECRYPTOR, *service.config.aggregation.custodians)
    }
    return {
        "federation": service.config.federation.name,
        "run": run,
        "status": kept.status or "running",
        "reason": kept.reason or "",
        "round": (attempt.place[0] if attempt else 0) or len(finished),
        "rounds": service.config.all_rounds,
        "attempt": attempt.plan.attempt if attempt and attempt.place[0] else 0,
        "phase": service.run.rounds.attempts.phase,
        "notices": notices(service.stopped, reviews_due(service.config)),
        "awaited": awaited_in_words(service.run.waiting.awaited),
        "helpers": helpers,
        "progress": _progress(finished, service.config.all_rounds, now=attempt is not None),
        "came": _came(sites, awaited.missing() if (awaited := service.run.waiting.awaited) else []),
        "upload_bytes": f"{kept.upload_bytes:,}",
        "sites": sites,
        "finished": [
            {
                "round": record.round,
                "status": record.status,
                "attempts": record.attempts,
                "cohort": ", ".join(record.cohort),
                "metrics": _figures(service.config, record),
                "at": record.at,
            }
            for record in reversed(finished)
        ],
        "over": [
            f"round {place.replace('/', ', attempt ')}: {reason.decode()}"
            for place, reason in service.store.notes(run, OVER).items()
        ],
        "rehearsals": [
            f"{record.at}. {rehearsal_in_words(record)}"
            for record in service.run.rounds.rehearsals.of_run()
        ],
        "refresh_s": REFRESH_S,
    }


def _progress(
    finished: Sequence[RoundRecord], rounds: int, *, now: bool
) -> list[tuple[str, str, float]]:
    """Rounds as parts of a bar: released, lost, the one that is tried, left."""
    released = sum(record.status == "released" for record in finished)
    lost = len(finished) - released
    tried = int(now and len(finished) < rounds)
    left = rounds - len(finished) - tried
    return [
        ("done", f"{released} of {rounds} rounds released", released),
        ("out", f"{lost} lost", lost),
        ("awaited", "one at work", tried),
        ("left", f"{left} of {rounds} left", left),
    ]


def _came(
    sites: Sequence[Mapping[str, str | int]], missing: Collection[str]
) -> list[tuple[str, str, float]]:
    """Sites as parts of a bar: with the run, awaited now, not there yet, out of it."""
    out = [site for site in sites if site["state"] in {"refused", "removed"}]
    awaited = [site for site in sites if site["name"] in missing and site not in out]
    absent = [s for s in sites if s["state"] == "not joined" and s not in awaited]
    there = len(sites) - len(out) - len(awaited) - len(absent)
    return [
        ("done", f"{there} of {len(sites)} sites with it", there),
        ("awaited", f"{len(awaited)} awaited", len(awaited)),
        ("left", f"{len(absent)} not joined", len(absent)),
        ("out", f"{len(out)} refused or removed", len(out)),
    ]


def _figures(config: FederationConfig, record: RoundRecord) -> str:
    """Metrics on public data; of a round that asked, the figure to watch with its intervals."""
    answer = answer_of(config, record)
    if answer is not None:
        return answer.line
    return ", ".join(f"{name} {value:.4f}" for name, value in record.metrics.items())


def awaited_in_words(awaited: Awaited | None) -> str:
    """Who has not come, and when the run goes on without them; empty where nobody is awaited."""
    missing = awaited.missing() if awaited is not None else []
    if awaited is None or not missing:
        return ""
    until = datetime.fromtimestamp(awaited.until, UTC)
    return f"{', '.join(missing)}, until {until:%Y-%m-%d %H:%M:%S} UTC"


def _epsilon(stated: Stated) -> dict[str, str]:
    if stated.not_shown:
        return dict.fromkeys(("spent", "held", "left"), "not shown")
    statement = stated.statement
    if statement is None or not statement.grants:
        return dict.fromkeys(("spent", "held", "left"), _NONE)
    grants = statement.grants  # they add up
    spent = sum(grant.epsilon_spent for grant in grants)
    held = sum(grant.epsilon_charged for grant in grants) - spent  # for rounds of runs to come
    return {
        "spent": spent_fine(spent),
        "held": spent_fine(held),
        "left": left_fine(sum(grant.epsilon_left for grant in grants)),
    }
