"""From a ledger, or an export of one, to the record of a dataset report.

`fmfl-secure report dataset` (`cli.report`) calls `open_source`, `read_reports` for the runs that
are named, and `record_of`; `report.dataset` makes the page from the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from aggregation import PublicIdentity
from fmfl_secure._version import __version__
from fmfl_secure.errors import RunError
from fmfl_secure.parties.run_budget import require_population
from fmfl_secure.report.dataset.record import (
    FORMAT,
    DatasetBudget,
    DatasetRecord,
    DatasetRun,
    Loss,
    Outcome,
    Training,
    WithoutPrivacy,
)
from fmfl_secure.report.signed import read_report
from fmfl_secure.run.ledger_statement import grant_record
from fmfl_secure.run.record import RunRecord, SiteRecord
from fmfl_secure.settings.federation import load_site
from privacy import (
    RELATION,
    Anchor,
    Budget,
    Dataset,
    Event,
    Ledger,
    NonPrivate,
    PoissonSampledSkellam,
    Record,
    Reservation,
    SitePolicy,
    add_costs,
    epsilon_spent,
    pld_epsilon,
    read_export,
    zero_cost,
)
from privacy.storage import is_url


@dataclass(frozen=True, slots=True)
class Source:
    """The records, site and policy that a dataset report is made of.

    Attributes:
        records: The ledger's, verified.
        site: The site's name, if known.
        policy: The site's, if its settings were at hand.
    """

    records: Sequence[Record]
    site: str = ""
    policy: SitePolicy | None = None


def open_source(place: str) -> Source:
    """Read a ledger and verify it.

    Args:
        place: A site's folder, a ledger's file or PostgreSQL URL, or an export of one (.json).

    Raises:
        LedgerError: There is none, or it does not verify.
        ConfigError: The site's settings are malformed, or the ledger is of other people.
    """
    path = Path(place)
    if not is_url(place) and path.is_dir():
        config = load_site(path / "site.toml")
        name, records = path.resolve().name, Ledger(config.budget.ledger_from(path)).records()
        require_population(Budget.replay(records), site=name, settings=config)
        return Source(records, name, config.policy)
    if not is_url(place) and path.suffix == ".json":
        try:
            return Source(read_export(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"cannot read {place}: {error}") from error
    return Source(Ledger(place).records())


def read_reports(places: Iterable[Path]) -> list[RunRecord]:
    """Reports of runs: their folders, or their `report.json`.

    Raises:
        RunError: One cannot be read, or is not what its sites signed.
    """
    return [read_report(place) for place in places]


def record_of(
    source: Source,
    *,
    reports: Sequence[RunRecord] = (),
    anchors: Iterable[Anchor] = (),
) -> DatasetRecord:
    """Put together what a ledger says, and what reports add to it.

    A head that a report or an anchor holds of this ledger is looked for in it; what is missing is
    stated, not raised: the officer needs the report most when something is wrong.

    Args:
        source: Its records.
        reports: Of runs; those of other sites' are passed over.
        anchors: That others kept; those of other ledgers are passed over.
    """
    records, budget = source.records, Budget.replay(source.records)
    key = PublicIdentity("site", budget.public_key)
    ours = {report.run: (report, site) for report in reports for site in _own(report, key)}
    heads = [*budget.own_heads(anchors), *_stated_heads(ours.values())]
    epsilon, delta = budget.guarantee()
    names = {site.name for _, site in ours.values()}
    return DatasetRecord(
        format=FORMAT,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        site=source.site or (names.pop() if len(names) == 1 else ""),
        population=budget.population,
        unit=budget.unit,
        relation=RELATION,
        identity=key.fingerprint,
        opened=records[0].at,
        head_sequence=records[-1].sequence,
        head_digest=records[-1].digest,
        heads_checked=len(heads),
        heads_missing=tuple(head for head in heads if not budget.holds(head)),
        guarantee_epsilon=epsilon,
        guarantee_delta=delta,
        pld_epsilon=pld_epsilon(budget.events(), delta),
        grants=tuple(grant_record(status) for status in budget.status()),
        runs=(
            *(_run(budget, held, ours) for held in budget.reservations.values()),
            *(_refused(*ours[run]) for run in ours if run not in budget.reservations),
        ),
        trainings=tuple(
            Training(spend.at, spend.run, spend.round, spend.grant, spend.epsilon)
            for spend in budget.history
        ),
        losses=tuple(
            Loss(
                at=each.at,
                reason=each.reason,
                heads=each.heads,
                trainings=sum(charge.rounds for charge in each.charges),
                unbounded=any(isinstance(charge.event, NonPrivate) for charge in each.charges),
            )
            for each in budget.recoveries
        ),
        without_privacy=tuple(
            WithoutPrivacy(record.at, str(record.body["run"]), str(record.body["reason"]))
            for record in records
            if record.kind == "non-private"
        ),
        datasets=_datasets(budget),
        policy=None if source.policy is None else _policy(source.policy),
        version=__version__,
        population_size=budget.population_size,
    )


def _run(
    budget: Budget, held: Reservation, ours: dict[str, tuple[RunRecord, SiteRecord]]
) -> DatasetRun:
    grant = budget.grants[held.grant - 1]
    counted = held.charge.cost.counted
    cost = add_costs(zero_cost(grant.orders), counted, held.charged_rounds)
    rate, noise, steps, mechanism = _mechanism(held.event)
    report = ours.get(held.run)
    return DatasetRun(
        run=held.run,
        at=held.at,
        purpose=held.purpose,
        dataset=held.dataset.name if held.dataset else "",
        grant=held.grant,
        mechanism=mechanism,
        sample_rate=rate,
        noise_multiplier=noise,
        steps=steps,
        rounds_reserved=held.rounds,
        rounds_charged=held.charged_rounds,
        trained=tuple(number for number, _ in held.commits),
        epsilon_alone=epsilon_spent(cost, grant.filter_delta),
        pld_epsilon=pld_epsilon(budget.events(held.run), grant.delta),
        open=held.open,
        closed_by=held.evidence,
        outcome=None if report is None else _outcome(*report),
        released=held.released,
    )


def _refused(report: RunRecord, site: SiteRecord) -> DatasetRun:
    """A run of which the ledger knows nothing: it was refused, and cost nothing."""
    return DatasetRun(
        run=report.run,
        at=report.updated,
        purpose=report.federation,
        dataset="",
        grant=0,
        mechanism="",
        sample_rate=0.0,
        noise_multiplier=0.0,
        steps=0,
        rounds_reserved=0,
        rounds_charged=0,
        trained=(),
        epsilon_alone=0.0,
        pld_epsilon=0.0,
        open=False,
        closed_by="",
        outcome=_outcome(report, site),
    )


def _outcome(report: RunRecord, site: SiteRecord) -> Outcome:
    sums = [one for one in report.rounds if site.name in one.cohort and one.status == "released"]
    others = dict.fromkeys(name for one in sums for name in one.cohort if name != site.name)
    return Outcome(
        federation=report.federation,
        status=report.status,
        stop_reason=report.stop_reason,
        updated=report.updated,
        rounds=tuple(one.round for one in sums),
        sites=tuple(others),
        roles=report.identities,
        refusal=site.refusal,
    )


def _own(report: RunRecord, key: PublicIdentity) -> list[SiteRecord]:
    return [site for site in report.sites if site.identity == key.fingerprint]


def _stated_heads(ours: Iterable[tuple[RunRecord, SiteRecord]]) -> list[str]:
    return [
        f"{site.statement.head_sequence}:{site.statement.head_digest}"
        for _, site in ours
        if site.statement is not None
    ]


def _mechanism(event: Event) -> tuple[float, float, int, str]:
    if isinstance(event, NonPrivate):
        return 0.0, 0.0, 0, "none"
    kind = "Skellam, in shares" if isinstance(event, PoissonSampledSkellam) else "Gaussian"
    return event.sample_rate, event.noise_multiplier, event.steps, f"Poisson-sampled {kind}"


def _datasets(budget: Budget) -> tuple[DatasetBudget, ...]:
    last: dict[str, Dataset] = {}
    runs: dict[str, list[str]] = {}
    for held in budget.reservations.values():
        if held.dataset is not None:
            last[held.dataset.name] = held.dataset
            runs.setdefault(held.dataset.name, []).append(held.run)
    found = []
    for name, dataset in last.items():
        cap = dataset.cap
        own = budget.headroom(dataset).dataset
        charged = None if own is None else own.epsilon_spent
        found.append(
            DatasetBudget(
                name=name,
                runs=tuple(runs[name]),
                epsilon=cap.epsilon if cap else None,
                delta=cap.delta if cap else None,
                epsilon_charged=charged,
            )
        )
    return tuple(found)


def _policy(policy: SitePolicy) -> dict[str, Any]:
    """Every rule that is set, and the two that always are."""
    defaults = SitePolicy()
    always = {"min_sites", "non_private"}
    values = {name: getattr(policy, name) for name in policy.__struct_fields__}
    kept = {n: v for n, v in values.items() if n in always or v != getattr(defaults, n)}
    encoded: dict[str, Any] = msgspec.to_builtins(kept)
    return encoded
