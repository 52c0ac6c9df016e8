"""A site's live page: its own ledger and process, and nothing of the others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from fmfl_secure.errors import KNOWN_ERRORS
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.reviews import reviews_due
from fmfl_secure.report.deltas import note
from fmfl_secure.report.rounding import left_fine, spent_fine, typed
from fmfl_secure.run.ledger_statement import grant_record
from fmfl_secure.settings.federation import load_site
from fmfl_secure.transports.https.processes.operations import REFRESH_S, notices
from fmfl_secure.transports.https.processes.site import SiteProcess
from privacy import GrantStatus, Ledger


def site_page(process: SiteProcess) -> Mapping[str, object]:
    """A site's page, from its own files and process."""
    agent, kit = process.agent, process.kit
    grants, runs, due, trouble = [], [], reviews_due(process.config), agent.refusal
    try:
        settings = load_site(kit.folder / "site.toml")
        budget = Ledger(settings.budget.ledger_from(kit.folder)).budget()
        due = reviews_due(process.config, budget.status())
        grants = [
            {
                "number": status.grant.number,
                "epsilon": typed(status.grant.epsilon),
                "delta": f"{status.grant.delta:g}",
                "spent": spent_fine(status.epsilon_committed),
                "held": spent_fine(status.epsilon_charged - status.epsilon_committed),
                "left": left_fine(status.epsilon_left),
                "note": note(grant_record(status), on=dt.datetime.now(dt.UTC).date()),
                "bar": budget_bar(status),
            }
            for status in budget.status()
        ]
        runs = [
            {
                "run": held.run,
                "rounds": ", ".join(str(number) for number, _ in held.commits) or "none yet",
                "reserved": held.rounds,
                "state": "open" if held.open else "closed",
            }
            for held in budget.reservations.values()
        ]
    except KNOWN_ERRORS as error:
        trouble = str(error)
    phase = agent.work.step.value if agent.work else "connecting"
    if agent.training is not None:
        number, step = agent.training
        phase = f"training: round {number}, step {step} of {process.config.privacy.steps_per_round}"
    held_lists = MembershipFolder(kit.folder)
    return {
        "site": process.name,
        "federation": process.config.federation.name,
        "connected": agent.transport.connected,
        "url": process.settings.server.url,
        "run": agent.work.run if agent.work else "",
        "phase": phase,
        "refusal": trouble,
        "notices": notices(agent.stopped, due),
        "membership": len(held_lists.lists()),
        "members": len(held_lists.members().sites),
        "grants": grants,
        "runs": runs,
        "refresh_s": REFRESH_S,
    }


def budget_bar(status: GrantStatus) -> list[tuple[str, str, float]]:
    """A grant as parts of a bar: spent, held for runs that are open, left."""
    held = max(0.0, status.epsilon_charged - status.epsilon_committed)
    name = f"grant {status.grant.number}"
    return [
        ("done", f"{name}: {spent_fine(status.epsilon_committed)} spent", status.epsilon_committed),
        ("held", f"{spent_fine(held)} held", held),
        ("left", f"{left_fine(status.epsilon_left)} left", max(0.0, status.epsilon_left)),
    ]
