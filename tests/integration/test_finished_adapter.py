"""From a run to what people use: RoLoRA with a rank for each site, answers, export, the card."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from support import Quiet, make_federation
from transformers import AutoModel
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.errors import KNOWN_ERRORS, ModelError
from fmfl_secure.models.adapters import load_adapter_bytes
from fmfl_secure.report import rounding
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine

ADAPTER = 'kind = "rolora"\nrank = 3\ntarget_modules = ["query", "value"]\nlast_layers = 1'


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rolora")
    base = shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "base")
    path = make_federation(folder, base, adapter=ADAPTER, plain=True)
    # The largest rank of a site is 2: the third of the layout stays as it began.
    ranks = iter((1, 2, 2))
    entry = re.compile("population = 40")
    path.write_text(entry.sub(lambda m: f"{m[0]}\nrank = {next(ranks)}", path.read_text()))
    record = LocalEngine(path, folder / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    assert [len(one.cohort) for one in record.rounds] == [3, 3]
    return folder / "run"


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_each_half_moves_in_its_round_and_only_within_the_ranks(run: Path) -> None:
    import sqlite3

    store = RunStore(run)
    start = load_adapter_bytes(store.public().initial_adapter)
    with sqlite3.connect(run / "state.sqlite") as connection:
        rows = connection.execute("SELECT adapter FROM rounds ORDER BY round").fetchall()
    first, second = (load_adapter_bytes(bytes(row[0])) for row in rows)
    for name in start:
        moved = not torch.equal(first[name], start[name])
        moved_next = not torch.equal(second[name], first[name])
        if "lora_" in name:
            assert moved == ("lora_B" in name), name
            assert moved_next == ("lora_A" in name), name
        else:
            assert moved, name
            assert moved_next, name
        if "lora_B" in name:
            assert not second[name][:, 2:].any(), "no site has this rank"
            # A single value may well be the integer 0; a column never is.
            assert second[name][:, :2].any(dim=0).all()
        elif "lora_A" in name:
            assert torch.equal(second[name][2:], start[name][2:])


def test_predict_answers_every_row_in_order(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "new.csv"
    texts = ["alpha beta", "xi pi rho xi pi rho nu", "gamma"]
    data.write_text("id,text\n" + "".join(f"{i},{t}\n" for i, t in enumerate(texts)))
    command("predict", run, "--data", data, "--output", tmp_path / "answers.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["row"] for answer in answers] == [1, 2, 3]
    for answer in answers:
        assert set(answer["probabilities"]) == {"no", "yes"}
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    command("predict", run, "--data", data, "--output", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [answer["label"] for answer in answers]
    assert json.loads(rows[0]["probabilities"]) == answers[0]["probabilities"]
    with pytest.raises(KNOWN_ERRORS, match=r"not \.txt"):
        command("predict", run, "--data", data, "--output", tmp_path / "answers.txt")


def test_predict_leaves_no_row_out(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "new.csv"
    data.write_text("id,text\n1,alpha\n2,\n3,beta\n")
    with pytest.raises(KNOWN_ERRORS, match="row 2"):
        command("predict", run, "--data", data, "--output", tmp_path / "answers.jsonl")
    assert not (tmp_path / "answers.jsonl").exists()


def test_export_states_what_was_spent(run: Path, tmp_path: Path) -> None:
    command("export", run, "--output", tmp_path / "out")
    report = json.loads((run / "report.json").read_text())
    card = (tmp_path / "out" / "README.md").read_text()
    for site in report["sites"]:
        grant = site["statement"]["grants"][0]
        assert grant["epsilon_spent"] > 0
        expected = (
            f"| {site['name']} | epsilon {grant['epsilon']:g} at delta {grant['delta']:g} "
            f"| {rounding.spent(grant['epsilon_spent'])} "
            f"| {rounding.spent(site['statement']['pld_epsilon_run'])} |"
        )
        assert expected in card
    assert report["run"] in card
    assert f"- Base model `{report['base_model']}`" in card
    assert "- differential-privacy" in card
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "README.md", "adapter_config.json", "adapter_line.json", "adapter_model.safetensors",
        "head.safetensors", "task.json",
    }  # fmt: skip
    assert all(f"- `{name}`" in card for name in names - {"README.md"})
    for path in (tmp_path / "out").iterdir():
        assert str(run.parent).encode() not in path.read_bytes(), "no path of this machine"
    with pytest.raises(KNOWN_ERRORS, match="not empty"):
        command("export", run, "--output", tmp_path / "out")


def test_whoever_moved_the_base_model_is_told_how_to_say_where_it_is(
    run: Path, tmp_path: Path
) -> None:
    place = Path(RunStore(run).state.config.model.base)
    base = place.rename(tmp_path / "elsewhere")
    try:
        for arguments in (("export", run), ("predict", run, "--data", tmp_path / "new.csv")):
            with pytest.raises(ModelError, match="is no longer at") as caught:
                command(*arguments, "--output", tmp_path / "out.jsonl")
            assert "--base" in caught.value.hint
        command("export", run, "--output", tmp_path / "out", "--base", base)
    finally:
        base.rename(place)


def test_merged_weights_open_without_peft_and_compute_the_same(
    run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from fmfl_secure.training.finished_run import open_run

    command("export", run, "--output", tmp_path / "out", "--merged")
    merged = AutoModel.from_pretrained(tmp_path / "out", use_safetensors=True).eval()
    finished = open_run(run)
    opened = finished.task.open_adapter(finished.adapter)
    batch = finished.task.synthetic().collate(np.arange(4))
    head = safetensors.torch.load_file(tmp_path / "out" / "head.safetensors")
    with torch.no_grad():
        expected = opened(batch)
        hidden = merged(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).last_hidden_state
        mask = batch.attention_mask.unsqueeze(-1)
        mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
        actual = mean @ head["weight"].T + head["bias"]
    assert torch.allclose(actual, expected, atol=1e-5)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    original = json.loads((tiny_model / "config.json").read_text())
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    del original["architectures"]
    labels = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    assert written == original | labels


def test_a_run_without_a_report_is_not_exported(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "report.json").unlink()
    with pytest.raises(KNOWN_ERRORS, match="no report of a run at"):
        command("export", copy, "--output", tmp_path / "out")
