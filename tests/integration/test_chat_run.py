"""Conversations from site files to an answer: a run, its answers, a talk, and an export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from support import Quiet, make_federation
from test_models_out import alone, printed
from tiny_models import CHATML, write_tiny_chat
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.api import Run
from fmfl_secure.models.language import Sampling
from fmfl_secure.report.export import export_run
from fmfl_secure.training.finished_run import predict_run
from fmfl_secure.transports.local.engine import LocalEngine

TASK = """kind = "causal-lm"
chat = true
messages_column = "messages"
system = "be brief"
max_new_tokens = 6"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    base = write_tiny_chat(folder / "base", CHATML)
    path = make_federation(folder / "fed", base, rounds=1, steps=1, evaluation=False)
    before, after = path.read_text().split("[task]")
    rest = after.split("[adapter]")[1].replace('target_modules = ["query", "value"]\n', "")
    before = before.replace("max_length = 16", "max_length = 96")
    path.write_text(f"{before}[task]\n{TASK}\n[adapter]{rest}")
    for number in range(1, 4):
        rows = [
            {"messages": [{"role": "user", "content": f"q{n}"},
                          {"role": "assistant", "content": f"a{n}"}]}
            for n in range(40)
        ]  # fmt: skip
        data = folder / f"fed/data/site-{number}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        site = folder / f"fed/sites/site-{number}/site.toml"
        site.write_text(site.read_text().replace(".csv", ".jsonl"))
    record = LocalEngine(path, folder / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    assert len(record.rounds[0].cohort) == 3
    return folder / "run"


def test_answers_are_written_as_they_come_and_drawn_by_their_seed(
    run: Path, tmp_path: Path
) -> None:
    rows = [{"messages": [{"role": "user", "content": "q" * n}]} for n in range(1, 70)]
    data = tmp_path / "new.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for name in ("one", "two"):
        output = tmp_path / f"{name}.jsonl"
        command = ["predict", str(run), "--data", str(data), "--output", str(output)]
        drawn = ["--temperature", "2", "--top-p", "0.9", "--seed", "5"]
        result = CliRunner().invoke(cli.app, [*command, *drawn], catch_exceptions=False)
        assert "69 answers" in result.output
        found.append(output.read_bytes())
    assert found[0] == found[1]
    answers = [json.loads(line) for line in found[0].splitlines()]
    assert [answer["row"] for answer in answers] == list(range(1, 70))
    assert len({answer["response"] for answer in answers}) > 5


def test_a_run_is_asked_and_scored_from_python(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "new.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "q7"}]}\n')
    (whole,) = Run(run).predict(data)
    first = whole["response"][:1]
    (cut,) = Run(run).predict(data, sampling=Sampling(stop=(first,)))
    assert cut["response"] == ""
    (tmp_path / "x.json").write_text(json.dumps([{"q": "q7", "a": "a7"}]))
    (tmp_path / "suite.toml").write_text(
        '[[benchmarks]]\nname = "x"\nkind = "answers"\ndata = "x.json"\nquestion = "{q}"\n'
        'answer_column = "a"\n'
    )
    rows = Run(run).evaluate_suite(tmp_path / "suite.toml")
    assert [row.arm for row in rows] == ["base model", "adapter"]


def test_one_talks_with_a_run(run: Path) -> None:
    result = CliRunner().invoke(
        cli.app, ["chat", str(run)], input="q1\nagain\n\nq1\n", catch_exceptions=False
    )
    assert result.exit_code == 0
    said = result.output.splitlines()
    assert said[0].startswith("Earlier messages are read")
    assert "(a new conversation)" in said


@pytest.mark.slow
def test_an_export_answers_as_the_run_does_by_transformers_alone(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "new.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": " q7 "}]}\n')
    (expected,) = predict_run(run, data)
    folder = export_run(run, tmp_path / "adapter")
    code = printed((folder / "README.md").read_text().splitlines())
    base = str(run.parent / "base")
    (answer,) = alone(({"text": " q7 ", "base": base, "folder": str(folder)}, code))
    assert answer == expected["response"]
    merged = export_run(run, tmp_path / "merged", merged=True)
    generate = transformers.pipeline("text-generation", model=str(merged))
    said = generate([{"role": "user", "content": "q7"}])[0]["generated_text"][-1]["content"]
    assert said.strip() == expected["response"]
