"""The decryptor's live page: that it is there, and what it does."""

from __future__ import annotations

from collections.abc import Mapping

from fmfl_secure.parties.reviews import reviews_due
from fmfl_secure.transports.https.processes.decryptor import DecryptorProcess
from fmfl_secure.transports.https.processes.operations import REFRESH_S, notices


def decryptor_page(process: DecryptorProcess) -> Mapping[str, object]:
    """Collects the values of the decryptor's page."""
    agent = process.agent
    return {
        "federation": process.config.federation.name,
        "connected": agent.transport.connected,
        "url": process.settings.server.url,
        "run": agent.work.run if agent.work else "",
        "phase": agent.work.step.value if agent.work else "connecting",
        "notices": notices(agent.stopped, reviews_due(process.config)),
        "refresh_s": REFRESH_S,
    }
