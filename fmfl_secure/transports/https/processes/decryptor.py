"""`fmfl-secure decryptor`: its process, from its kit. Loads no machine-learning library."""

from __future__ import annotations

from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.provisioning.certificates import DECRYPTOR
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.runtime.agents.decryptor import DecryptorAgent
from fmfl_secure.transports.https.processes.agent_process import AgentProcess


class DecryptorProcess(AgentProcess[DecryptorAgent]):
    """The decryptor, from its kit.

    Args:
        kit: The decryptor's.
        once: End after one run.

    Raises:
        FmflError, AggregationError: The kit cannot be used.
    """

    def __init__(self, kit: Kit, *, once: bool = False) -> None:
        super().__init__(kit, DECRYPTOR)
        members = kit.membership.members()
        decryptor = open_decryptor(kit.folder, config=self.config, members=members)
        self.agent = DecryptorAgent(
            decryptor,
            self._transport,
            stopping=self.stopping,
            once=once,
            decisions=Decisions(kit.folder),
        )
