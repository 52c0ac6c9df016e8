"""`service_world` with the real parties of a federation's folder: sites that train and charge."""

from __future__ import annotations

import threading
from pathlib import Path

from service_world import DirectTransport, World
from support import make_federation, open_own_site

from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE
from fmfl_secure.run.observer import Silent
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.agents.custodian import CustodianAgent
from fmfl_secure.runtime.agents.decryptor import DecryptorAgent
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.runtime.waiting import PartyWaiter
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ServerSettings, Time
from fmfl_secure.storage.message_store import open_store


class RealWorld(World):
    """A server in a thread and the parties of a folder in others.

    Args:
        folder: Where the federation's folder is made, or is already.
        model: Its base model.
        sites: How many.
        output: The run's folder, in that folder.
    """

    def __init__(
        self, folder: Path, model: Path, *, sites: int = 4, output: str = "run", **settings
    ) -> None:
        self.folder = folder / "federation"
        if not self.folder.exists():
            make_federation(
                self.folder, model, sites=sites,
                **{"rounds": 1, "steps": 1, "evaluation": False, "grant": 50.0} | settings,
            )  # fmt: skip
        self.workspace = Workspace(self.folder)
        self.config = load_federation(self.folder / "federation.toml")
        self.names = tuple(entry.name for entry in self.config.sites)
        self.dead: set[str] = set()
        task = build_task(self.config, relative_to=self.folder)
        start = start_of(self.config, task, task.build_model(seed=self.config.federation.seed))
        self.server = RunServer(
            self.folder, self.folder / output, config=self.config, start=start,
            settings=ServerSettings(time=Time(gather_s=20.0, end_s=5.0)),
            messages=open_store(f"sqlite:{output}.sqlite", relative_to=self.folder),
            waiter=PartyWaiter,
            observer=Silent(),
        )  # fmt: skip
        self.members = self.server.members()
        self.heads = self.server.heads
        self.board, self.inbox, self.run = self.server.board, self.server.inbox, self.server.run
        self.board.silent_s = lambda party: 1e9 if party in self.dead else 0.0  # type: ignore[method-assign]
        self.coordinator = self.server.coordinator
        self.run._write = lambda: None  # type: ignore[method-assign] # reports: another test's
        self.transports: dict[str, DirectTransport] = {}
        self.agents: dict[str, Agent] = {}
        self.threads: list[threading.Thread] = []
        self.stopping = threading.Event()
        self.building = threading.Lock()  # seeds are the process's, not a thread's
        self.failed: Exception | None = None

    def start_site(self, name: str) -> DirectTransport:
        folder = self.workspace.site(name)
        transport = self._transport(name, SITE)
        agent = SiteAgent(
            lambda run: self.open_site(name, run),
            members=MembershipFolder(folder).members,
            transport=transport,  # type: ignore[arg-type]
            open_transport=None,
            stopping=self.stopping,
            once=True,
        )
        return self._begin(name, agent)

    def open_site(self, name: str, run: str) -> Site:
        """A site of its own model, as in a process of its own."""
        return open_own_site(self.folder, name, run, config=self.config, building=self.building)

    def start_decryptor(self) -> DirectTransport:
        decryptor = open_decryptor(
            self.workspace.role("decryptor"), config=self.config, members=self.members
        )
        transport = self._transport("decryptor", DECRYPTOR)
        agent = DecryptorAgent(decryptor, transport, stopping=self.stopping, once=True)  # type: ignore[arg-type]
        return self._begin("decryptor", agent)

    def start_custodian(self, name: str) -> DirectTransport:
        custodian = Custodian(self.workspace.custodian(name), name, self.config)
        transport = self._transport(name, CUSTODIAN)
        agent = CustodianAgent(custodian, transport, stopping=self.stopping, once=True)  # type: ignore[arg-type]
        return self._begin(name, agent)

    def start_all(self) -> None:
        self.start_decryptor()
        for name in self.members.custodians:
            self.start_custodian(name)
        for name in self.names:
            self.start_site(name)

    def _transport(self, name: str, role: str) -> DirectTransport:
        self.dead.discard(name)
        self.transports[name] = transport = DirectTransport(self, name, role)
        return transport

    def _begin(self, name: str, agent: Agent) -> DirectTransport:
        self.agents[name] = agent
        self._start(name, agent.run)
        return self.transports[name]
