"""Plans the work of a step at a site where round times must not tell who was sampled."""

from __future__ import annotations

from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import SiteEntry
from privacy import StepWork, declare_work


def step_work(config: FederationConfig, site: SiteEntry) -> StepWork:
    """The declared work of every step of a run at a site, from public settings alone.

    Args:
        config: Settings with `constant_work`.
        site: Which site.

    Raises:
        PlanError: A figure is out of range.
    """
    privacy = config.privacy
    return declare_work(
        records=declared_records(config, site),
        at_most=privacy.max_records_per_unit,
        sample_rate=privacy.sample_rate,
        steps=privacy.steps_per_round * (config.federation.rounds + privacy.repeats),
        rows=config.training.physical_batch_size,
        length=config.model.max_length,
        shares=privacy.length_shares,
    )


def declared_records(config: FederationConfig, site: SiteEntry) -> int:
    """Records of a site's units together, as declared: by the site, or the most there can be."""
    return site.records or site.population * config.privacy.max_records_per_unit


def describe_work(config: FederationConfig, site: SiteEntry) -> str:
    """Describes the cost of constant work to a site, for people to read."""
    work = step_work(config, site)
    expected = config.privacy.sample_rate * declared_records(config, site)
    return (
        f"{sum(work.passes)} passes, {work.total_rows:,} rows, {work.total_tokens:,} tokens a "
        f"step; {expected:,.0f} rows on average have a record"
    )
