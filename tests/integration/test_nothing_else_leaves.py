"""What leaves a site has the same form whatever its data: two runs that differ in one unit."""

from __future__ import annotations

import json
from pathlib import Path

from support import Quiet, make_federation

from fmfl_secure.engines.local import LocalEngine
from fmfl_secure.record import RunRecord


def forms(folder: Path) -> list[tuple]:
    """Everything about a run's messages but their content."""
    text = (folder / "run/transcript.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    content = {"at", "sha256", "message"}
    return [tuple(sorted((k, v) for k, v in line.items() if k not in content)) for line in lines]


def stated(record: RunRecord) -> list[tuple]:
    """What sites state of their ledgers, less what is random or a time."""
    return [
        (
            site.name,
            site.rounds,
            site.refusal,
            site.statement.epsilon_by_round,
            site.statement.pld_epsilon_run,
            [g.epsilon_left for g in site.statement.grants],
            site.statement.head_sequence,
        )
        for site in record.sites
        if site.statement
    ]


def run(folder: Path, model: Path, drop: int | None) -> tuple[list[tuple], list[tuple], RunRecord]:
    federation = make_federation(folder, model, rounds=2, evaluation=False)
    data = folder / "data/site-2.csv"
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    if drop is not None:
        del lines[drop]
    data.write_text("".join(lines), encoding="utf-8")
    record = LocalEngine(federation, folder / "run", resume=False, observer=Quiet()).run()
    return forms(folder), stated(record), record


def test_removing_a_unit_changes_no_form_no_size_and_no_code(
    tmp_path: Path, tiny_model: Path
) -> None:
    with_unit = run(tmp_path / "with", tiny_model, None)
    without = run(tmp_path / "without", tiny_model, 17)
    assert with_unit[0] == without[0]
    assert with_unit[1] == without[1]
    assert with_unit[2].encryption == without[2].encryption
    assert with_unit[2].mechanism == without[2].mechanism


def test_a_unit_that_cannot_be_read_changes_none_either(tmp_path: Path, tiny_model: Path) -> None:
    """An unusable row is skipped, by default, and nobody outside hears of it."""
    whole = run(tmp_path / "whole", tiny_model, None)
    folder = tmp_path / "holed"
    federation = make_federation(folder, tiny_model, rounds=2, evaluation=False)
    data = folder / "data/site-2.csv"
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[17] = ",yes\n"
    data.write_text("".join(lines), encoding="utf-8")
    record = LocalEngine(federation, folder / "run", resume=False, observer=Quiet()).run()
    assert forms(folder) == whole[0]
    assert stated(record) == whole[1]
