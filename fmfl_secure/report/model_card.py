"""The README of an exported adapter: what it is, what it cost in privacy, how to open it.

`fmfl-secure export` writes the card beside what it exported (`report.export`), and
`report.results` beside a run's adapter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fmfl_secure.errors import RunError, os_failure
from fmfl_secure.outside import parse_json, read_settings
from fmfl_secure.report import answers, line, rounding, wording
from fmfl_secure.report.names import count, listing
from fmfl_secure.report.opening import Exported, how_to_open
from fmfl_secure.report.opening_own_class import PIPELINES
from fmfl_secure.run.answer_record import ONE_SITE
from fmfl_secure.run.record import RunRecord, SiteRecord
from fmfl_secure.run.statement import GrantRecord

CARD = "README.md"
TASK_FILE = "task.json"
_UNKNOWN_LICENCE = "its folder does not say; ask whoever published it before handing this on"


def model_card(
    record: RunRecord,
    *,
    merged: bool,
    files: Sequence[str],
    made: Mapping[str, Any] = MappingProxyType({}),
    own_class: bool = False,
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        record: The run's record.
        merged: Whole weights were written in place of the adapter.
        files: Names of the files beside the card.
        made: What `task.json` beside the adapter says of it.
        own_class: The weights are those of the architecture's own class, with the head.
    """
    settings = record.settings
    task, adapter = record.task, settings["adapter"]["kind"]
    library = "transformers" if merged or "adapter_config.json" not in files else "peft"
    what = "The base model with the adapter merged" if merged else f"A {adapter} adapter"
    sites = count(len(record.sites), "site")
    name = made.get("base_model_id") or record.base_model
    lines = [
        "---",
        *_published(made),
        f"library_name: {library}",
        *([f"pipeline_tag: {PIPELINES.get(task, task)}"] if own_class else []),
        "tags:",
        *(f"- {tag}" for tag in (task, adapter, *_privacy_tags(record), "federated-learning")),
        "---",
        "",
        f"# {record.federation}: {task}",
        "",
        f"{what}, trained by {sites} together with FMFL Secure on `{name}`.",
        "",
        "## Privacy",
        "",
        *_privacy(record),
        "",
        "## Training",
        "",
        f"- Run `{record.run}`, {record.status}: {wording.status(record)[1]}",
        f"- Settings `{record.settings_digest}`",
        f"- Base model `{name}`, `{record.base_model_digest}`",
        f"- Licence of the base model: {made.get('base_model_license') or _UNKNOWN_LICENCE}",
        (
            f"- Aggregation: {record.encryption.parameter_set}, sums only, at least "
            f"{record.encryption.security_bits} bits of security"
        ),
        *_own_parts(record, made),
        *_metrics(record),
        "",
        "## Files",
        "",
        *(f"- `{name}`" for name in files),
        "",
        *how_to_open(
            Exported(
                task=task,
                adapter=adapter,
                made=made,
                settings=settings["task"],
                files=files,
                merged=merged,
                own_class=own_class,
            )
        ),
        "",
    ]
    return "\n".join(lines)


def write_card(
    record: RunRecord,
    folder: Path,
    *,
    merged: bool = False,
    own_class: bool = False,
    two_towers: bool = False,
) -> None:
    """Write the card of a finished adapter or model beside its files.

    Args:
        record: The run's record.
        folder: The files' folder.
        merged: See `model_card`.
        own_class: See `model_card`.
        two_towers: Of the base model, where `task.json` is of a version that did not write it.

    Raises:
        RunError: It cannot be written, or `task.json` there is damaged.
    """
    try:
        made = parse_json(read_settings(folder / TASK_FILE))
        made.setdefault("two_towers", two_towers)
        files = sorted(path.name for path in folder.iterdir() if path.name != CARD)
        card = model_card(record, merged=merged, files=files, made=made, own_class=own_class)
        (folder / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        raise os_failure(RunError, f"cannot write the card in {folder}", error) from error
    except ValueError as error:
        raise RunError(f"cannot write the card in {folder}: {error}") from error


def _published(made: Mapping[str, Any]) -> list[str]:
    """Names the base model as hubs look it up, if it is published: other names fail their check."""
    name, licence = made.get("base_model_id"), made.get("base_model_license")
    lines = [f"base_model: {json.dumps(name)}"] if name else []
    return [*lines, f"license: {json.dumps(licence)}"] if licence else lines


def _own_parts(record: RunRecord, made: Mapping[str, Any]) -> list[str]:
    """Whose parts are in the files, where every site kept some for itself."""
    kept = listing(wording.kept_at_sites(record))
    if not kept:
        return []
    if made.get("personal"):
        said = f"**Not whole**: every site kept its own {kept}: here is what it was before training"
    else:
        said = (
            f"One site's own {kept}, trained on its data alone; the rest all sites trained together"
        )
    return [f"- {said}"]


def _privacy_tags(record: RunRecord) -> tuple[str, ...]:
    return () if not record.mechanism.noise_mechanism.private else ("differential-privacy",)


def _privacy(record: RunRecord) -> list[str]:
    mechanism = record.mechanism
    continued = [text for each in line.sentences(record) for text in (each, "")]
    if not mechanism.noise_mechanism.private:
        return [*continued, wording.promised(record)]
    unit = f"One protected unit is {wording.unit(record)}"
    noise = f"noise multiplier {mechanism.noise_multiplier:.4f}"
    return [
        *continued,
        wording.promised(record),
        "",
        wording.spent(record),
        "",
        f"{unit}; neighbouring data sets: {mechanism.relation}.",
        (
            f"DP-SGD at every site: {noise}, clipping at {mechanism.max_grad_norm:g}, sample rate "
            f"{mechanism.sample_rate:g}."
        ),
        "",
        "| site | granted | spent of it, over the ledger's life | this run by PLD |",
        "| --- | --- | --- | --- |",
        *(row for site in record.sites for row in _budget_rows(site)),
        "",
        *wording.meaning_in_short(record),
        "",
        "The run's `report.html` says what that covers and what it does not.",
    ]


def _budget_rows(site: SiteRecord) -> list[str]:
    statement = site.statement
    if statement is None or not statement.grants:
        return [f"| {site.name} | no statement | | |"]
    return [
        f"| {site.name} | epsilon {rounding.typed(grant.epsilon)} at delta {grant.delta:g}"
        f"{_note(grant)} | {rounding.spent(grant.epsilon_spent)} "
        f"| {rounding.spent(statement.pld_epsilon_run)} |"
        for grant in statement.grants
    ]


def _note(grant: GrantRecord) -> str:
    if grant.objection:
        return ", which affords nothing any more"
    return ", for a reason that the report gives" if grant.delta_reason else ""


def _metrics(record: RunRecord) -> list[str]:
    answered = answers.summary(record)
    if answered:
        return [f"- {answered[0].upper()}{answered[1:]}. {ONE_SITE}"]
    if not record.rounds or not record.rounds[-1].metrics:
        return []
    figures = ", ".join(
        f"{name} {wording.metric(value)}" for name, value in record.rounds[-1].metrics.items()
    )
    return [f"- On data declared public (`{record.evaluation}`), after the last round: {figures}"]
