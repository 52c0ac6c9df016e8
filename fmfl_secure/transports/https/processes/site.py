"""`fmfl-secure join`: a site's process, from its kit."""

from __future__ import annotations

import threading
from pathlib import Path

from torch import nn

from aggregation import Identity
from fmfl_secure.errors import ConfigError
from fmfl_secure.outside import is_file
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.parties.site import Site
from fmfl_secure.planning.task import allow_extensions, build_task
from fmfl_secure.provisioning.ceremony import require_comparison
from fmfl_secure.provisioning.certificates import SITE
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.settings.federation import FederationConfig, load_federation, load_site
from fmfl_secure.settings.service import ClientSettings, load_settings
from fmfl_secure.storage.in_use import in_use
from fmfl_secure.tasks import Task
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.membership import follow_removals
from fmfl_secure.transports.https.metrics import ClientMetrics


def require_data(folder: Path) -> None:
    """Check that a site's data are where its `site.toml` says, or a file that they are a split of.

    A run that begins asks for more (`Site.check`); this is told at once, to whoever starts it.

    Raises:
        ConfigError: They are not.
    """
    data = folder / load_site(folder / "site.toml").data.path
    if not (data.exists() or is_file(data.parent)):
        raise ConfigError(
            f"{data} does not exist", hint="Put this site's data where its site.toml says."
        )


class SiteProcess:
    """A site, from its kit. The model is loaded once and serves run after run.

    Args:
        kit: The site's.
        once: End after one run.

    Raises:
        FmflError, AggregationError: The kit cannot be used.
    """

    def __init__(self, kit: Kit, *, once: bool = False) -> None:
        kit.require(SITE)
        require_comparison(kit.folder)
        self.stopping = threading.Event()
        self.kit = kit
        self.settings = load_settings(kit.service_file, ClientSettings)
        self.config: FederationConfig = load_federation(kit.federation_file)
        self.name = Identity.load(kit.folder / "identity.pem").public.name
        if all(entry.name != self.name for entry in self.config.sites):
            raise ConfigError(f"{self.name} is not among the sites of {kit.federation_file}")
        require_data(kit.folder)
        allow_extensions(self.config, load_site(kit.folder / "site.toml"))
        self._task: Task = build_task(self.config, relative_to=kit.folder)
        self._model: nn.Module | None = None
        self.metrics = ClientMetrics()
        self.agent = SiteAgent(
            self._open_run,
            members=kit.membership.members,
            transport=self._open_transport(),
            open_transport=self._open_transport,
            stopping=self.stopping,
            once=once,
            approve=self._approve,
            decisions=Decisions(kit.folder),
        )

    def run(self) -> None:
        """Work until told to stop.

        Raises:
            InUse: Another process has this kit.
            FmflError, PrivacyError, AggregationError: It cannot go on.
        """
        with in_use(self.kit.folder, SITE), self.agent.transport:
            self.agent.run()

    def stop(self) -> None:
        """Stop after what is under way. Safe from a signal's handler."""
        self.stopping.set()

    def _open_transport(self) -> HttpsTransport:
        return HttpsTransport(
            self.settings.server, self.kit.tls, metrics=self.metrics, stopping=self.stopping
        )

    def _open_run(self, run: str) -> Site:
        # Each run starts from the adapter that the settings' seed gives.
        self._model = self._task.build_model(seed=self.config.federation.seed)
        entry = next(e for e in self.config.sites if e.name == self.name)
        return Site(
            self.kit.folder,
            run=run,
            entry=entry,
            config=self.config,
            task=self._task,
            model=self._model,
        )

    def _approve(self, number: int) -> None:
        follow_removals(self.kit.membership, number, self.agent.transport.membership)
