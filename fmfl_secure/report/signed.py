"""Holds a report's record against itself and what the sites signed in it."""

from __future__ import annotations

from pathlib import Path

from aggregation import AggregationError, PublicIdentity
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MOST_DOCUMENT, read_regular
from fmfl_secure.report.agreement import require_agreement
from fmfl_secure.report.write import JSON_NAME
from fmfl_secure.run.ledger_statement import verify_statement
from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.storage.run_store import RunStore, holds_run


def check_statements(record: RunRecord) -> dict[str, str]:
    """Check every statement of a ledger in a record: who signed it, and that the record agrees.

    Returns:
        By site, the fingerprint of the key that it is signed with.

    Raises:
        RunError: One is another site's, of another run, or contradicts the record.
        AggregationError: One was altered since it was signed.
    """
    checked: dict[str, str] = {}
    names = [site.name for site in record.sites]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(f"{twice[0]} stands twice in the report")
    if strangers := sorted({name for each in record.rounds for name in each.cohort} - {*names}):
        raise RunError(f"{strangers[0]} was in a round, and is not among the report's sites")
    for site in record.sites:
        if site.statement is None:
            continue
        identity = PublicIdentity.parse(site.name, site.public_key)
        if identity.fingerprint != site.identity or site.statement.site != site.name:
            raise RunError(f"{site.name}'s statement is another site's")
        verify_statement(identity, site.statement, site.statement_signature)
        checked[site.name] = identity.fingerprint
    require_agreement(record)
    return checked


def read_report(run: Path) -> RunRecord:
    """The record in a run's folder, or in a `report.json` by itself, as its sites signed it.

    Raises:
        RunError: There is none, it is of another run than the folder's, or what a site signed in
            it does not hold.
    """
    path = run / JSON_NAME if run.is_dir() else run
    try:
        record = decode_record(read_regular(path, most_bytes=MOST_DOCUMENT))
    except OSError as error:
        raise RunError(
            f"no report of a run at {path}: {error.strerror or type(error).__name__}",
            hint=f"Make it with: fmfl-secure report {run if run.is_dir() else 'RUN'}",
        ) from error
    anew = f"Make it anew where the run is: fmfl-secure report {path.parent}"
    if holds_run(path.parent) and (own := RunStore(path.parent).state.run) != record.run:
        raise RunError(f"{path} is of run {record.run}, and its folder of run {own}", hint=anew)
    try:
        check_statements(record)
    except (AggregationError, ValueError, RunError) as error:
        raise RunError(f"{path} is not what its sites signed: {error}", hint=anew) from error
    return record
