"""Coordinator, aggregator and decryptor in one hand, against the real sites of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from aggregation import Aggregator, Decryptor, Identity, MemoryJournal, RoundPlan, SiteAttempt
from aggregation.protocol import read_cohort, read_plan, verify_and_hand_out
from aggregation.protocol.messages import Cohort, digest, seal
from fmfl_secure.parties.coordinator import Coordinator, start_run
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import Members, Workspace
from fmfl_secure.planning.task import build_task, largest_layout, start_of
from fmfl_secure.settings.federation import load_federation


class League:
    """Coordinator, aggregator and decryptor in one hand, and the real sites of a folder.

    What they need not keep to, they do not: the plan says what they like, and the decryptor has
    no smallest cohort of its own, no journal worth the name and no settings.
    """

    def __init__(self, folder: Path, run: str = "") -> None:
        """Begin a run, or come again to one that the sites have begun."""
        workspace = Workspace(folder)
        self.config = load_federation(folder / "federation.toml")
        self.members = Members.load(folder / "members.json")
        self.identities = {
            role: Identity.load(workspace.role(role) / "identity.pem", role)
            for role in ("coordinator", "aggregator", "decryptor")
        }
        task = build_task(self.config, relative_to=folder)
        model = task.build_model(seed=self.config.federation.seed)
        start = start_of(self.config, task, model)
        coordinator = Coordinator(
            self.identities["coordinator"],
            members=self.members, config=self.config, start=start,
            store=start_run(
                folder / f"run{run}", config=self.config, members=self.members, start=start,
                origin=folder,
            ),
        )  # fmt: skip
        self.size = largest_layout(task, model).size
        self.adapter = coordinator.adapter
        plan, _ = coordinator.plan_attempt(1, list(self.members.sites))
        self.run = run or coordinator.run
        self.honest = replace(plan, run=self.run)
        self.decryptor = Decryptor(
            self.identities["decryptor"],
            MemoryJournal(),
            coordinator=self.members.coordinator,
            pinned=self.members.pinned,
        )
        self.sites = {
            entry.name: Site(
                workspace.site(entry.name),
                run=self.run, entry=entry, config=self.config, task=task, model=model,
            )
            for entry in self.config.sites
        }  # fmt: skip
        for site in self.sites.values() if not run else ():
            site.begin(coordinator.call())

    def sign(self, plan: RoundPlan) -> bytes:
        return seal(self.identities["coordinator"], plan)

    def plan(self, names: Sequence[str], *, min_cohort: int = 3, attempt: int = 1) -> bytes:
        invited = tuple(m for m in self.honest.members if m.identity.name in names)
        return self.sign(
            replace(self.honest, members=invited, min_cohort=min_cohort, attempt=attempt)
        )

    def cohort(self, plan: bytes, attempts: dict[str, SiteAttempt]) -> bytes:
        """A cohort of whomever they like, whatever the plan says of its size."""
        body = Cohort(
            digest(plan),
            self.decryptor.announce(plan),
            tuple(attempt.ready() for attempt in attempts.values()),
        )
        return seal(self.identities["coordinator"], body)

    def open(
        self,
        plan: bytes,
        attempts: dict[str, SiteAttempt],
        updates: dict[str, np.ndarray],
    ) -> np.ndarray:
        cohort = self.cohort(plan, attempts)
        aggregator = Aggregator(
            self.identities["aggregator"],
            plan,
            cohort,
            coordinator=self.members.coordinator,
            pinned=self.members.pinned,
        )
        exchanges = [attempt.exchange(cohort) for attempt in attempts.values()]
        fixed = read_cohort(read_plan(plan, self.members.coordinator), cohort)
        handed = verify_and_hand_out(fixed, exchanges)
        for name, attempt in attempts.items():
            upload = attempt.upload(cohort, updates[name], handed[name])
            aggregator.add(upload.manifest, upload.chunks)
        listed = self.decryptor.confirm(
            cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        for attempt in attempts.values():
            aggregator.add_opening(attempt.open(listed))
        total = aggregator.total()
        release = self.decryptor.release(cohort, listed, total.manifest, total.chunks)
        return next(iter(attempts.values())).verify(release)
