"""The README of an exported adapter: what it is, what it cost in privacy, how to open it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fmfl_secure.report import wording
from fmfl_secure.report.names import count
from fmfl_secure.run.record import GrantRecord, RunRecord, SiteRecord
from fmfl_secure.tasks import TASKS


def model_card(record: RunRecord, *, merged: bool, files: Sequence[str]) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        record: The run's record.
        merged: Whole weights were written in place of the adapter.
        files: Names of the files beside the card.
    """
    settings = record.settings
    task, adapter = settings["task"]["kind"], settings["adapter"]["kind"]
    library = "transformers" if merged or "adapter_config.json" not in files else "peft"
    what = "The base model with the adapter merged" if merged else f"A {adapter} adapter"
    sites = count(len(record.sites), "site")
    lines = [
        "---",
        f"base_model: {json.dumps(record.base_model)}",
        f"library_name: {library}",
        "tags:",
        *(f"- {tag}" for tag in (task, adapter, *_privacy_tags(record), "federated-learning")),
        "---",
        "",
        f"# {record.federation}: {task}",
        "",
        f"{what}, trained by {sites} together with FMFL Secure on `{record.base_model}`.",
        "",
        "## Privacy",
        "",
        *_privacy(record),
        "",
        "## Training",
        "",
        f"- Run `{record.run}`, {record.status}: {wording.status(record)[1]}",
        f"- Settings `{record.settings_digest}`",
        f"- Base model `{record.base_model_digest}`",
        (
            f"- Aggregation: {record.encryption.parameter_set}, sums only, at least "
            f"{record.encryption.security_bits} bits of security"
        ),
        *_metrics(record),
        "",
        "## Files",
        "",
        *(f"- `{name}`" for name in files),
        "",
        *_how_to_open(task, merged=merged, files=files),
        "",
    ]
    return "\n".join(lines)


def _privacy_tags(record: RunRecord) -> tuple[str, ...]:
    return () if not record.mechanism.noise_mechanism.private else ("differential-privacy",)


def _privacy(record: RunRecord) -> list[str]:
    mechanism = record.mechanism
    if not mechanism.noise_mechanism.private:
        return [wording.promised(record)]
    unit = f"One protected unit is {wording.unit(record)}"
    noise = f"noise multiplier {mechanism.noise_multiplier:.4f}"
    return [
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
        f"| {site.name} | epsilon {grant.epsilon:g} at delta {grant.delta:g}{_note(grant)} "
        f"| {grant.epsilon_spent:.4f} | {statement.pld_epsilon_run:.4f} |"
        for grant in statement.grants
    ]


def _note(grant: GrantRecord) -> str:
    if grant.objection:
        return ", which affords nothing any more"
    return ", for a reason that the report gives" if grant.delta_reason else ""


def _metrics(record: RunRecord) -> list[str]:
    if not record.rounds or not record.rounds[-1].metrics:
        return []
    figures = ", ".join(
        f"{name} {wording.metric(value)}" for name, value in record.rounds[-1].metrics.items()
    )
    return [f"- On data declared public (`{record.evaluation}`), after the last round: {figures}"]


def _how_to_open(task: str, *, merged: bool, files: Sequence[str]) -> list[str]:
    auto = "AutoModelForCausalLM" if TASKS.get(task).needs.causal else "AutoModel"
    if merged:
        code = [
            f"from transformers import {auto}",
            "",
            f"model = {auto}.from_pretrained(folder)",
        ]
    elif "adapter_config.json" in files:
        code = [
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f"model = PeftModel.from_pretrained({auto}.from_pretrained(base), folder)",
        ]
    else:
        return ["Open it with `fmfl-secure predict` and the run it is from."]
    head = "head.safetensors" in files
    return [
        "## How to open it",
        "",
        "```python",
        *code,
        "```",
        *(
            ["", "`head.safetensors` is the linear head on top; `task.json` says what it reads."]
            * head
        ),
    ]
