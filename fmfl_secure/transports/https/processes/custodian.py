"""`fmfl-secure custodian`: its process, from its kit. Loads no machine-learning library."""

from __future__ import annotations

from aggregation import Identity
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.provisioning.certificates import CUSTODIAN
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.runtime.agents.custodian import CustodianAgent
from fmfl_secure.transports.https.processes.agent_process import AgentProcess


class CustodianProcess(AgentProcess[CustodianAgent]):
    """A custodian, from its kit.

    Args:
        kit: The custodian's.
        once: End after one run.

    Raises:
        FmflError, AggregationError: The kit cannot be used.
    """

    def __init__(self, kit: Kit, *, once: bool = False) -> None:
        super().__init__(kit, CUSTODIAN)
        self.name = Identity.load(kit.folder / "identity.pem").public.name
        if self.name not in self.config.aggregation.custodians:
            raise ConfigError(f"{self.name} is not among the custodians of {kit.federation_file}")
        custodian = Custodian(kit.folder, self.name, self.config)
        self.agent = CustodianAgent(
            custodian,
            self._transport,
            stopping=self.stopping,
            once=once,
            decisions=Decisions(kit.folder),
        )
