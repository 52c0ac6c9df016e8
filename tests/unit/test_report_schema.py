"""`docs/report.schema.json` is the form of every report, and of nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from test_report_records import (
    audited,
    distributed_noise,
    finished,
    interrupted,
    multi_run,
    refused,
    without_privacy,
)
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.report.schema import dataset_schema, report_schema, schema_text
from fmfl_secure.run.record import encode_record

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("file", "schema", "option"),
    [
        ("report.schema.json", report_schema, []),
        ("dataset.schema.json", dataset_schema, ["--dataset"]),
    ],
)
def test_what_is_published_is_what_the_code_writes(file, schema, option) -> None:
    text = schema_text(schema())
    assert (DOCS / file).read_text(encoding="utf-8") == text
    assert CliRunner().invoke(app, ["report", "schema", *option]).output == text


@pytest.mark.parametrize(
    "make",
    [finished, interrupted, refused, multi_run, without_privacy, distributed_noise, audited],
    ids=lambda make: make.__name__,
)
def test_every_report_has_that_form(make) -> None:
    validator = jsonschema_rs.validator_for(report_schema())
    validator.validate(json.loads(encode_record(make())))


def test_an_epsilon_without_a_bound_is_null() -> None:
    record = finished()
    statement = record.sites[0].statement
    assert statement is not None
    endless = msgspec.structs.replace(
        statement,
        pld_epsilon_life=math.inf,
        epsilon_by_round=(math.inf,) * len(statement.epsilon_by_round),
    )
    sites = (msgspec.structs.replace(record.sites[0], statement=endless), *record.sites[1:])
    data = json.loads(encode_record(msgspec.structs.replace(record, sites=sites)))
    assert data["sites"][0]["statement"]["pld_epsilon_life"] is None
    jsonschema_rs.validator_for(report_schema()).validate(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("settings_digest"),
        lambda data: data.update(extra=1),
        lambda data: data["mechanism"].update(noise="some"),
        lambda data: data["sites"][0].update(rounds="1"),
        lambda data: data["rounds"][0].update(round=None),
    ],
)
def test_what_is_not_a_report_is_refused(damage) -> None:
    data = json.loads(encode_record(finished()))
    damage(data)
    assert not jsonschema_rs.validator_for(report_schema()).is_valid(data)


@pytest.mark.parametrize("schema", [report_schema, dataset_schema])
def test_every_field_says_what_it_means(schema) -> None:
    for name, definition in schema()["$defs"].items():
        for field, schema in definition["properties"].items():
            assert schema.get("description"), f"{name}.{field}"
