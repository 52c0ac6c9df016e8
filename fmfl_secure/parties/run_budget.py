"""One run's hold on a site's ledger: asked, reserved, charged, and given back.

Training and answers are two reservations (`planning.terms`), made before any data are read.

`parties.site` reserves by it when a run begins and refunds at the end; `parties.site_training`
charges each training, and marks it as used once data have been looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aggregation import Identity
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.answers_given import answers_given
from fmfl_secure.planning.terms import Terms, reservations_of
from fmfl_secure.run.end import evidence as evidence_of
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.site import SiteConfig
from privacy import Budget, Ledger, check_answers_per_year, plain, read_anchors, with_reserved


def open_site_ledger(
    folder: Path, *, site: str, settings: SiteConfig, unit: str, identity: Identity
) -> Ledger:
    """A site's ledger, held to its officer's anchors where it names some.

    Args:
        folder: The site's.
        site: Its name.
        settings: Its own.
        unit: Of the federation.
        identity: The site's.

    Raises:
        ConfigError: It is another's, of other people or of another unit, or lacks an anchor.
        LedgerError: There is none, or it does not verify.
    """
    own = settings.budget
    ledger = Ledger(own.ledger_from(folder), signer=identity)
    budget = ledger.budget()
    if budget.signers.name_of(identity.public.key) is None:
        raise ConfigError(
            f"{site}: the ledger was opened by another identity than this site's, and "
            "does not admit this one",
            hint="If it is lost, restore the site's own: one that was made anew has forgotten "
            "what was spent. If the same people are in another federation, let the ledger's "
            "custodian admit this site too: fmfl-secure ledger admit.",
        )
    require_population(budget, site=site, settings=settings)
    if budget.unit != unit:
        raise ConfigError(
            f"{site}: the ledger's unit is {budget.unit!r}, the federation's "
            f"{unit!r}; a ledger's unit never changes"
        )
    if own.anchors:
        place = folder / own.anchors
        if not ledger.hold_to(read_anchors(place)):
            raise ConfigError(
                f"{site}: {place} holds no anchor of this ledger",
                hint="fmfl-secure ledger anchor makes one, for the data-protection officer.",
            )
    return ledger


def require_population(budget: Budget, *, site: str, settings: SiteConfig) -> None:
    """Refuse a ledger of other people than a site's own, whoever wants to speak of it.

    Args:
        budget: The ledger's state.
        site: Whose folder it was found by.
        settings: The site's own.

    Raises:
        ConfigError: It is of another population than `site.toml` says.
    """
    if plain(budget.population) != plain(settings.budget.population):
        raise ConfigError(
            f"{site}: the ledger is of population {budget.population!r}, site.toml says "
            f"{settings.budget.population!r}",
            hint="Put the site's own ledger back, or say in site.toml where it is.",
        )


@dataclass(slots=True)
class RunBudget:
    """One run's hold on a ledger.

    Attributes:
        ledger: The site's.
        run: Run id.
        terms: What it holds; nothing where it trains without noise.
        config: The federation's settings.
        settings: The site's own.
        charged: The round that was charged, and whose data were not used yet.
    """

    ledger: Ledger
    run: str
    terms: tuple[Terms, ...]
    config: FederationConfig
    settings: SiteConfig
    charged: int = 0

    @property
    def has_begun(self) -> bool:
        """Whether the ledger knows the run."""
        budget = self.ledger.budget()
        wanted = {terms.reservation(self.run) for terms in self.terms} or {self.run}
        return wanted <= {*budget.reservations, *budget.non_private}

    def require_affordable(self) -> None:
        """Refuse what the ledger would refuse, before a file of data is so much as opened."""
        budget = self.ledger.budget().without_expired(datetime.now(UTC))
        for terms in self.terms:  # each beside those before it
            if terms.reservation(self.run) not in budget.reservations:
                budget = with_reserved(
                    budget,
                    terms.event,
                    terms.trainings,
                    dataset=self.settings.dataset,
                    population_size=terms.population,
                    plan=self.config.digest,
                )

    def require_few_answers(self) -> None:
        """Refuse more answers in a year than the policy allows, whichever runs give them."""
        for terms in self.terms:
            if terms.asked:
                given = answers_given(
                    self.ledger.budget(),
                    besides=terms.reservation(self.run),
                    now=datetime.now(UTC),
                )
                check_answers_per_year(self.settings.policy, given=given, planned=terms.trainings)

    def reserve(self, call: bytes | None) -> None:
        """Hold all of it. What is held already stays."""
        for terms in self.terms:
            self.ledger.reserve(
                run=terms.reservation(self.run),
                event=terms.event,
                rounds=terms.trainings,
                plan=self.config.digest,
                purpose=terms.purpose(self.config.federation.name),
                dataset=self.settings.dataset,
                population_size=terms.population,
                call="" if call is None else evidence_of(call),
                lasts=timedelta(days=self.settings.budget.reservation_days),
            )
        # Again with what other runs reserved meanwhile: nothing has been read yet.
        self.require_few_answers()

    def charge(self, round_number: int) -> None:
        """Durable when it returns; only then are data read."""
        asks = self.config.turn(round_number).asked is not None
        terms = next((each for each in self.terms if bool(each.asked) == asks), None)
        if terms is not None:
            if self.charged != round_number:
                self.ledger.commit(run=terms.reservation(self.run), round=round_number)
                self.charged = round_number
        elif self.run not in self.ledger.budget().non_private:
            self.ledger.record_non_private(run=self.run, reason="trained without noise")

    def used(self) -> None:
        """Data are used from here on: doing it again is another charge."""
        self.charged = 0

    def refund(self, evidence: str) -> None:
        """Give back what never started, on the coordinator's signed end of the run."""
        for name in reservations_of(self.run):
            held = self.ledger.budget().reservations.get(name)
            if held is not None and held.open:
                self.ledger.refund(run=name, evidence=evidence)
