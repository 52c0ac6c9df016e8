"""A custodian: somebody besides the sites without whose word no sum opens."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import aggregation
from aggregation import Identity, SqliteJournal
from aggregation.protocol import read_plan
from fmfl_secure.errors import RunError
from fmfl_secure.parties.agreed_plan import objection
from fmfl_secure.parties.stops import Stops
from fmfl_secure.parties.workspace import Members
from fmfl_secure.settings.federation import FederationConfig, load_custodian


class Custodian:
    """One custodian of a federation, in the folder that `init` made for it.

    Args:
        folder: Its folder.
        name: Its name.
        config: The federation's settings, as it has them.

    Raises:
        ConfigError: `custodian.toml` or its list of members is wrong.
        AggregationError: Its key or its journal cannot be read.
    """

    def __init__(self, folder: Path, name: str, config: FederationConfig) -> None:
        self.name = name
        self._policy = load_custodian(folder / "custodian.toml").policy
        members = Members.load(folder / "members.json")
        self._coordinator = members.coordinator
        self._stops = Stops(folder, members)
        self._run = ""  # of the last plan
        self._protocol = aggregation.Custodian(
            Identity.load(folder / "identity.pem", name),
            SqliteJournal(folder / "journal.sqlite"),
            coordinator=members.coordinator,
            pinned=members.pinned,
            min_cohort=max(self._policy.min_sites, config.federation.min_sites),
            floor=config.floor(len(members.sites), self._policy.min_share),
            objection=objection(config, members, self._policy.min_sites),
        )

    def __repr__(self) -> str:
        return f"Custodian({self.name!r})"

    def ready(self, plan_message: bytes) -> bytes:
        """Announce single-use keys for a plan (step 4).

        Raises:
            RunHalted: Somebody has stopped the run.
            RunError: The round is beyond what this custodian agrees to.
            ReplayError: It gave its word for this round already.
            AggregationError: The plan does not hold.
        """
        plan = read_plan(plan_message, self._coordinator).plan
        self._run = plan.run
        self._stops.require_none(plan.run)
        last = self._policy.last_round
        if last and plan.round > last:
            raise RunError(
                f"{self.name} lets no round after {last} open, this is round {plan.round}",
                hint="Raise last_round in its custodian.toml, if more rounds may open.",
            )
        return self._protocol.ready(plan_message)

    def approve(
        self,
        cohort: bytes,
        opening_list: bytes,
        exchanges: Iterable[bytes],
        *,
        plan_message: bytes | None = None,
    ) -> bytes:
        """Give this custodian's word for one list of uploads (step 6); recorded first.

        Args:
            cohort: The fixed cohort.
            opening_list: The decryptor's confirmation of the aggregator's list.
            exchanges: What it is handed of every site's exchange message.
            plan_message: The plan, to have a word that was recorded before a restart repeated.

        Raises:
            RunHalted: Somebody has stopped the run since its keys were announced.
            AggregationError: Something does not hold.
        """
        if plan_message is not None:
            self._run = read_plan(plan_message, self._coordinator).plan.run
        self._stops.require_none(self._run)
        return self._protocol.approve(cohort, opening_list, exchanges, plan_message=plan_message)

    def journal_head(self) -> str | None:
        """The head of its journal, signed, for others to keep."""
        return self._protocol.journal_head()

    def hold_journal(self, heads: Iterable[str]) -> None:
        """Hold its journal to heads that others kept of it.

        Raises:
            JournalError: It lacks one.
        """
        self._protocol.hold_journal(heads)

    def kept_open(self) -> AbstractContextManager[None]:
        """Its journal stays open inside: for the calls of one assignment."""
        return self._protocol.kept_open()

    def has_spoken(self, plan_message: bytes) -> bool:
        """Whether it gave its word in a plan's round: no other attempt at that round can open."""
        return self._protocol.has_spoken(plan_message)
