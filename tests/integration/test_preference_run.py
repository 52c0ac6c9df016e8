"""Preferences from site files to an answer: a run under encryption, its figures, and an export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from support import Quiet, make_federation
from tiny_models import CHATML, write_tiny_chat
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.report.export import export_run
from fmfl_secure.run.record import decode_record
from fmfl_secure.training.finished_run import OnFile, evaluate_run, open_run, predict_run
from fmfl_secure.transports.local.engine import LocalEngine

TASK = """kind = "preference"
chat = true
max_new_tokens = 6"""


def rows(count: int, seed: int) -> str:
    """Texts and lists of messages: a short answer is chosen before a long one."""
    generator, lines = np.random.default_rng(seed), []
    for number in range(count):
        prompt, long = f"q{generator.integers(100)}", "no" * int(generator.integers(2, 6))
        pair = {"chosen": "yes", "rejected": long}
        if number % 2:
            pair = {
                key: [{"role": "assistant", "content": text}] for key, text in pair.items()
            }  # as the other common form has them
        lines.append(json.dumps({"prompt": prompt, **pair}) + "\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three sites, and one that goes on from it."""
    folder = tmp_path_factory.mktemp("preference")
    base = write_tiny_chat(folder / "base", CHATML)
    path = make_federation(folder / "fed", base, rounds=1, steps=2, epsilon=50.0, grant=200.0)
    before, after = path.read_text().split("[task]")
    rest = after.split("[adapter]")[1].replace('target_modules = ["query", "value"]\n', "")
    before = before.replace("max_length = 16", "max_length = 64")
    rest = rest.replace("holdout.csv", "holdout.jsonl")
    path.write_text(f"{before}[task]\n{TASK}\n[adapter]{rest}")
    (folder / "fed/data/holdout.jsonl").write_text(rows(12, seed=99))
    for number in range(1, 4):
        (folder / f"fed/data/site-{number}.jsonl").write_text(rows(40, seed=number))
        site = folder / f"fed/sites/site-{number}/site.toml"
        site.write_text(site.read_text().replace(".csv", ".jsonl"))
    run(path, "run-1")
    path.write_text(path.read_text().replace("[adapter]", '[adapter]\ninitial = "run-1"'))
    run(path, "run-2")
    return folder / "fed"


def run(federation: Path, name: str) -> None:
    output = federation.parent / name
    record = LocalEngine(federation, output, resume=False, observer=Quiet()).run()
    assert record.status == "finished"


def test_three_sites_learn_what_was_chosen_and_others_open_it(folder: Path) -> None:
    """Through the gate, under encryption, charged to each ledger; an export is the run's model."""
    record = decode_record((folder / "run-1/report.json").read_bytes())
    assert len(record.rounds[0].cohort) == 3
    assert record.encryption.parameters > 0
    assert all(site.statement.grants[0].epsilon_spent > 0 for site in record.sites)
    assert record.initial_metrics["pair_accuracy"] == 0.5
    assert record.initial_metrics["margin"] == pytest.approx(0.0, abs=1e-5)
    ended = record.rounds[-1].metrics
    assert ended["margin"] != record.initial_metrics["margin"]
    again = evaluate_run(folder / "run-1", folder / "data/holdout.jsonl")
    assert again.metrics == pytest.approx(ended, abs=1e-4)
    assert again.records == 12
    out = export_run(folder / "run-1", folder / "out")
    bare = transformers.AutoModelForCausalLM.from_pretrained(folder.parent / "base")
    theirs = peft.PeftModel.from_pretrained(bare, out).eval()
    ours = open_run(folder / "run-1")
    own = ours.task.open_adapter(ours.adapter).encoder
    ids = torch.tensor([[2, 5, 6, 7]])
    with torch.no_grad():
        logits = [model(input_ids=ids).logits for model in (theirs, own)]
        with theirs.disable_adapter():
            before = theirs(input_ids=ids).logits
    torch.testing.assert_close(*logits)
    assert not torch.allclose(logits[0], before, atol=1e-5)


def test_a_run_that_goes_on_is_measured_against_where_it_began(folder: Path) -> None:
    """Also by those who have the run alone, where the earlier one is gone."""
    record = decode_record((folder / "run-2/report.json").read_bytes())
    assert record.initial_metrics["pair_accuracy"] == 0.5
    (folder / "run-1").rename(folder / "elsewhere")
    try:
        on_file = OnFile(folder / "run-2", folder / "data/holdout.jsonl")
        found = [on_file.metrics(on_file.model(after=after)) for after in (0, 1, None)]
    finally:
        (folder / "elsewhere").rename(folder / "run-1")
    assert found[0] == pytest.approx(record.initial_metrics, abs=1e-4)
    assert found[1] == pytest.approx(record.rounds[-1].metrics, abs=1e-4)
    assert found[2] == pytest.approx(found[1], abs=1e-4)


def test_a_run_is_asked_for_answers(folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    new.write_text('{"prompt": "q7"}\n')
    (answer,) = predict_run(folder / "run-1", new)
    result = CliRunner().invoke(
        cli.app, ["chat", str(folder / "run-1")], input="q7\n", catch_exceptions=False
    )
    assert answer["response"] in result.output
    command = ["check", str(folder), "site-1"]
    result = CliRunner().invoke(cli.app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
