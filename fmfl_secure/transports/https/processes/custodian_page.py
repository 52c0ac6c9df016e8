"""A custodian's live page: that it is there, its task, and the openings it refused."""

from __future__ import annotations

from collections.abc import Mapping

from fmfl_secure.parties.reviews import reviews_due
from fmfl_secure.transports.https.processes.custodian import CustodianProcess
from fmfl_secure.transports.https.processes.operations import REFRESH_S, notices


def custodian_page(process: CustodianProcess) -> Mapping[str, object]:
    """Collects the values of a custodian's page."""
    agent = process.agent
    return {
        "name": process.name,
        "federation": process.config.federation.name,
        "connected": agent.transport.connected,
        "url": process.settings.server.url,
        "run": agent.work.run if agent.work else "",
        "round": agent.work.round if agent.work else 0,
        "phase": agent.work.step.value if agent.work else "connecting",
        "refusal": agent.refusal,
        "notices": notices(agent.stopped, reviews_due(process.config)),
        "refresh_s": REFRESH_S,
    }
