"""What the coordinator's live page shows: everyone's part, by generic codes and statements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from fmfl_secure.parties.workspace import DECRYPTOR
from fmfl_secure.run.record import SiteStatement
from fmfl_secure.runtime.inbox import JOINED, OVER, REFUSED, STATED, SignedStatement
from fmfl_secure.transports.https.processes.operations import REFRESH_S
from fmfl_secure.transports.https.server import Service

_NONE: Final = "-"


def server_page(service: Service) -> Mapping[str, object]:
    """The coordinator's page."""
    run, board = service.run.run, service.board
    kept = service.coordinator.store.state
    joined = service.store.notes(run, JOINED)
    refused = service.store.notes(run, REFUSED)
    stated = service.store.notes(run, STATED)
    finished = service.coordinator.rounds
    attempt = service.inbox.attempt
    sites = []
    for entry in service.config.sites:
        name = entry.name
        statement = None
        if name in stated:
            statement = msgspec.msgpack.decode(stated[name], type=SignedStatement).statement
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
                **_epsilon(statement),
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
        "round": attempt.plan.round if attempt else len(finished),
        "rounds": service.config.federation.rounds,
        "attempt": attempt.plan.attempt if attempt else 0,
        "phase": service.run.rounds.attempts.phase,
        "helpers": helpers,
        "upload_bytes": f"{kept.upload_bytes:,}",
        "sites": sites,
        "finished": [
            {
                "round": record.round,
                "status": record.status,
                "attempts": record.attempts,
                "cohort": ", ".join(record.cohort),
                "metrics": ", ".join(f"{k} {v:.4f}" for k, v in record.metrics.items()),
                "at": record.at,
            }
            for record in reversed(finished)
        ],
        "over": [
            f"round {place.replace('/', ', attempt ')}: {reason.decode()}"
            for place, reason in service.store.notes(run, OVER).items()
        ],
        "refresh_s": REFRESH_S,
    }


def _epsilon(statement: SiteStatement | None) -> dict[str, str]:
    if statement is None or not statement.grants:
        return dict.fromkeys(("spent", "held", "left"), _NONE)
    grant = statement.grants[-1]
    held = grant.epsilon_charged - grant.epsilon_spent  # for the rounds of this run to come
    return {
        "spent": f"{grant.epsilon_spent:.4f}",
        "held": f"{held:.4f}",
        "left": f"{grant.epsilon_left:.4f}",
    }
