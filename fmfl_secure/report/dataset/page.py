"""The dataset report as a page, and writing it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from markupsafe import Markup

from fmfl_secure.report import deltas, plots
from fmfl_secure.report.dataset import wording
from fmfl_secure.report.dataset.plots import life_plot
from fmfl_secure.report.dataset.record import DatasetRecord, encode_dataset
from fmfl_secure.report.environment import environment
from fmfl_secure.report.overview import Account
from fmfl_secure.report.protection import privacy_limits
from fmfl_secure.report.verdict import Verdict, verdict
from fmfl_secure.storage.files import write_outputs

JSON_NAME, HTML_NAME = "dataset.json", "dataset.html"


def render_dataset(record: DatasetRecord) -> str:
    """The report as one HTML page that needs nothing else; it follows from the record alone."""
    accounts = [
        Account(record.site or "the ledger", grant, False, len(record.grants) == 1, True)
        for grant in record.grants
    ]
    return (
        environment(state=wording.state, note=deltas.note)
        .get_template("dataset.html.j2")
        .render(
            record=record,
            warnings=wording.warnings(record),
            answers=(
                ("What was promised", wording.promised(record), wording.meaning(record)),
                ("What was spent", wording.spent(record), ""),
                ("What is left", wording.left(record), ""),
                ("Who could see what", wording.visibility(record), ""),
                ("Is the history whole", wording.intact(record), ""),
            ),
            life=Markup(life_plot(record)),  # noqa: S704 - labels are escaped
            budget=Markup(plots.budget_plot(accounts)),  # noqa: S704 - labels are escaped
            promises=_promises(record),
            refused=wording.refusals(record.runs),
            unit=wording.unit(record),
            declared=deltas.declared(record.population_size),
            policy=_policy(record),
            limits=privacy_limits(record.unit),
        )
    )


def write_dataset(record: DatasetRecord, folder: Path) -> Path:
    """Write page and JSON into a folder, replacing those of an earlier state.

    Returns:
        Path of the page.

    Raises:
        RunError: They cannot be written.
    """
    contents = {JSON_NAME: encode_dataset(record), HTML_NAME: render_dataset(record).encode()}
    write_outputs(
        folder,
        contents,
        what="the report",
        hint="Check that the folder is writable and that there is space, or name another.",
    )
    return folder / HTML_NAME


def _promises(record: DatasetRecord) -> list[tuple[str, float, float, Verdict]]:
    """Each grant, and all together where there are several."""
    rows = [
        (f"Grant {grant.number}", grant.epsilon, grant.delta, verdict(grant.epsilon, grant.delta))
        for grant in record.grants
        if grant.counts
    ]
    if len(rows) > 1 and math.isfinite(record.guarantee_epsilon):
        together = verdict(record.guarantee_epsilon, min(record.guarantee_delta, 1.0))
        rows.append(
            ("All grants together", record.guarantee_epsilon, record.guarantee_delta, together)
        )
    return rows


def _policy(record: DatasetRecord) -> list[tuple[str, str]]:
    values = record.policy or {}
    return [(name, json.dumps(value, ensure_ascii=False)) for name, value in values.items()]
