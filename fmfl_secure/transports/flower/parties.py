"""The parties of a folder, each opened when its first order comes.

The folder is a party's kit, with one party in it, or a federation's folder, with all of them:
then sites share the base model's memory and train one after the other, as in the embedded engine.

`transports.flower.host` hands every order to `Parties.answer`, which opens the party it is for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aggregation import Identity, MemoryJournal
from fmfl_secure.errors import ConfigError, FrameRefused
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.workspace import DECRYPTOR, Workspace
from fmfl_secure.provisioning.ceremony import require_comparison
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.agents.custodian import CustodianAgent
from fmfl_secure.runtime.agents.decryptor import DecryptorAgent
from fmfl_secure.runtime.agents.simulated import SimulatedSite
from fmfl_secure.runtime.agents.site import Participant, SiteAgent
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.transports.flower.order_transport import OrderTransport
from fmfl_secure.transports.flower.party import FlowerParty
from fmfl_secure.transports.https.membership import follow_removals

if TYPE_CHECKING:
    from torch import nn

    from fmfl_secure.tasks import Task


def narrowed(config: FederationConfig, sites: int) -> FederationConfig:
    """A federation's settings with its first sites only; 0 takes all.

    Raises:
        ConfigError: It has fewer.
    """
    if sites > len(config.sites):
        raise ConfigError(
            f"{config.federation.name} has {len(config.sites)} sites, not {sites}",
            hint="Add [[sites]] to federation.toml, then init and data for each.",
        )
    if sites in {0, len(config.sites)}:
        return config
    return msgspec.structs.replace(config, sites=config.sites[:sites])


def party_names(config: FederationConfig) -> list[str]:
    """All parties but coordinator and aggregator: a simulation's nodes, by partition."""
    return [*(s.name for s in config.sites), DECRYPTOR, *config.aggregation.custodians]


class Parties:
    """Opens parties and hands orders to them. Calls come from one thread at a time.

    Args:
        folder: A kit or a federation's folder.
        sites: Take only so many sites of the federation's; 0 takes all.
        simulate: Sites that read no data and train nothing, for load.

    Raises:
        ConfigError: The folder has no settings, or they are wrong.
    """

    def __init__(self, folder: Path, *, sites: int = 0, simulate: bool = False) -> None:
        self._folder = folder
        self.is_kit = (folder / "identity.pem").exists()
        self.config = narrowed(load_federation(folder / "federation.toml"), sites)
        self._simulate = simulate
        self._models = None if simulate else _Models(self.config, folder)
        self._stopping = threading.Event()
        self._open: dict[str, FlowerParty] = {}

    @property
    def names(self) -> list[str]:
        """Whose orders may come here."""
        if self.is_kit:
            return [Identity.load(self._folder / "identity.pem").public.name]
        return party_names(self.config)

    def answer(self, name: str, frame: bytes) -> bytes:
        """Hand an order to a party; see `FlowerParty.answer`.

        Args:
            name: The party; empty for the only one of a kit.
            frame: The order.

        Raises:
            FrameRefused: There is no such party here, or it does not take the order.
            FmflError, AggregationError: The party's folder is wrong.
        """
        if self.is_kit:
            name = name or self.names[0]
        if name not in self._open:
            if name not in self.names:
                raise FrameRefused("there is no such party here")
            self._open[name] = self._party(name)
        return self._open[name].answer(frame)

    def _folder_of(self, name: str) -> Path:
        if self.is_kit:
            return self._folder
        workspace = Workspace(self._folder)
        if name == DECRYPTOR:
            return workspace.role(DECRYPTOR)
        if name in self.config.aggregation.custodians:
            return workspace.custodian(name)
        return workspace.site(name)

    def _party(self, name: str) -> FlowerParty:
        folder, transport = self._folder_of(name), OrderTransport()
        if self.is_kit:
            require_comparison(folder)
        identity = Identity.load(folder / "identity.pem", name)
        held = MembershipFolder(folder if self._has_members(folder) else self._folder)
        agent: Agent
        if name == DECRYPTOR:
            agent = self._decryptor(folder, held, transport)
        elif name in self.config.aggregation.custodians:
            custodian = Custodian(folder, name, self.config)
            agent = CustodianAgent(
                custodian,
                transport,
                stopping=self._stopping,
                once=False,
                decisions=Decisions(folder),
            )
        else:
            agent = SiteAgent(
                self._participants(name, folder, identity, held),
                members=held.members,
                transport=transport,
                open_transport=lambda: transport,
                stopping=self._stopping,
                once=False,
                approve=lambda number: follow_removals(held, number, transport.membership),
                decisions=None if self._simulate else Decisions(folder),
            )
        return FlowerParty(identity, held.members().coordinator, agent, transport)

    @staticmethod
    def _has_members(folder: Path) -> bool:
        return (folder / "members.json").exists()  # the decryptor of a federation's folder has none

    def _decryptor(
        self, folder: Path, held: MembershipFolder, transport: OrderTransport
    ) -> DecryptorAgent:
        decryptor = open_decryptor(folder, config=self.config, members=held.members())
        return DecryptorAgent(
            decryptor,
            transport,
            stopping=self._stopping,
            once=False,
            decisions=Decisions(folder, held.members()),
        )

    def _participants(
        self, name: str, folder: Path, identity: Identity, held: MembershipFolder
    ) -> Callable[[str], Participant]:
        models = self._models
        if models is None:
            site = SimulatedSite(
                identity,
                members=held.members(),
                journal=MemoryJournal(),
                membership=held.last(),
                config=self.config,
            )
            return lambda _: site
        return lambda run: models.site(name, folder, run)


class _Models:
    """One model for all sites of a folder: each uses it while one of its methods runs.

    PyTorch comes with the first site: decryptor and custodians do without.
    """

    def __init__(self, config: FederationConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._learning: tuple[Task, nn.Module, bytes] | None = None

    def site(self, name: str, folder: Path, run: str) -> Participant:
        """A site in one run."""
        from fmfl_secure.models.adapters import (  # noqa: PLC0415
            adapter_bytes,
            load_adapter_bytes,
            set_adapter_tensors,
        )
        from fmfl_secure.parties.site import Site  # noqa: PLC0415
        from fmfl_secure.planning.task import allow_extensions, build_task  # noqa: PLC0415
        from fmfl_secure.settings.federation import load_site  # noqa: PLC0415
        from fmfl_secure.transports.https.processes.site import require_data  # noqa: PLC0415

        entry = next((e for e in self._config.sites if e.name == name), None)
        if entry is None:
            raise ConfigError(f"{name} is not among the sites of federation.toml")
        require_data(folder)
        allow_extensions(self._config, load_site(folder / "site.toml"))
        if self._learning is None:
            task = build_task(self._config, relative_to=self._folder)
            model = task.build_model(seed=self._config.federation.seed)
            self._learning = task, model, adapter_bytes(model)
        task, model, initial = self._learning
        # Each run starts from the adapter that the settings' seed gives; a site looks at it once.
        set_adapter_tensors(model, load_adapter_bytes(initial))
        return Site(
            folder,
            run=run,
            entry=entry,
            config=self._config,
            task=task,
            model=model,
        )
