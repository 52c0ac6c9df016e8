"""The README's commands, one after the other, from one table to a rebuilt report."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from answered import read_answer
from support import write_rows

from fmfl_secure import cli
from fmfl_secure.run.record import decode_record
from privacy import Ledger

# What a person changes in the settings that `init` writes.
EDITS = {
    "rounds = 40": "rounds = 1",
    "max_length = 128": "max_length = 16",
    'text_columns = ["text"]': 'text_columns = ["note"]',
    'label_column = "label"': 'label_column = "category"',
    'labels = ["negative", "positive"]': 'labels = ["no", "yes"]',
    "rank = 8": "rank = 2",
    "sample_rate = 0.2": "sample_rate = 0.25",
    'data = ""': 'data = "data/holdout.csv"',
    'visibility = "private"   # must': 'visibility = "public"   # must',
    "population = 500": "population = 50",
}


@dataclass
class Shell:
    """Runs commands as a shell would."""

    capsys: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch
    code: int = 0
    out: str = ""
    err: str = ""
    said: list[str] = field(default_factory=list)

    def __call__(self, *arguments: object) -> Shell:
        self.patch.setattr(sys, "argv", ["fmfl-secure", *(str(a) for a in arguments)])
        self.code = 0
        try:
            cli.main()
        except SystemExit as end:
            self.code = int(end.code or 0)
        self.out, self.err = self.capsys.readouterr()
        return self

    def lines(self) -> dict[str, str]:
        """What was printed as `name value` lines."""
        pairs = (line.split(maxsplit=1) for line in self.out.splitlines())
        return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def test_from_one_table_to_a_rebuilt_report(
    shell: Shell, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "notes.csv", 200, seed=5, columns=("note", "category"))
    pilot = Path("pilot")
    federation, output = pilot / "federation.toml", pilot / "run"

    assert shell("init", pilot, "--sites", 3).code == 0
    assert "wrote pilot/federation.toml" in shell.out

    assert shell(
        "partition", "notes.csv", "--sites", 3, "--out", pilot / "data", "--holdout", 0.25
    ).code == 0  # fmt: skip
    assert shell.out.splitlines() == [
        *(f"pilot/data/site-{n}.csv: 50 rows" for n in (1, 2, 3)),
        "pilot/data/holdout.csv: 50 rows",
    ]

    text = federation.read_text().replace('base = "minilm"', f'base = "{tiny_model}"')
    for before, after in EDITS.items():
        assert before in text
        text = text.replace(before, after)
    federation.write_text(text)

    for name in ("site-1", "site-2", "site-3"):
        assert shell("ledger", "grant", pilot / "sites" / name, "--accept").code == 0
    assert shell("plan", federation).code == 0
    planned = shell.lines()
    assert planned["settings"].startswith("sha256:")
    assert len(shell.lines()["base"].split()[-1]) == len("sha256:") + 64
    assert "noise multiplier" in shell.out
    assert "1 (1 a round), at the server" in shell.out
    assert "where steps may be taken; set: server" in shell.out
    for name in ("site-1", "site-2", "site-3"):
        assert name in shell.out
    bytes_planned = int(
        next(line for line in shell.out.splitlines() if "upload" in line)
        .split("│")[2].split()[0].replace(",", "")
    )  # fmt: skip

    assert shell("plan", federation, "--json").code == 0
    document = read_answer("plan", shell.out)
    assert document["settings_digest"] == planned["settings"]
    assert document["upload_bytes"] == bytes_planned
    assert document["training"]["places"][0]["place"] == "server"

    assert shell("check", federation, "site-2", "--json").code == 0
    assert "site-2.csv is usable\n" in shell.err
    assert read_answer("check", shell.out)["records"] == 50
    before_run = Ledger(pilot / "sites/site-2/ledger.sqlite").head()
    assert before_run[0] == 2, "neither plan nor check charges anything"

    assert shell("run", federation, "--output", output, "--json").code == 0
    assert "round 1/1 released: 3 sites" in shell.err
    assert f"report   {output / 'report.html'}" in shell.err
    done = read_answer("run", shell.out)
    accuracy = f"{done['metrics']['accuracy']:.4f}"
    for name in ("report.html", "report.json", "metrics.json", "transcript.jsonl", "adapter"):
        assert (output / name).exists()
    record = decode_record((output / "report.json").read_bytes())
    assert record.status == "finished"
    assert record.settings_digest == planned["settings"]
    assert (done["run"], done["status"], done["rounds"]) == (record.run, "finished", 1)
    assert done["epsilon"] == max(
        site.statement.epsilon_by_round[-1] for site in record.sites if site.statement
    )

    lines = [json.loads(line) for line in (output / "transcript.jsonl").read_text().splitlines()]
    uploads = {line["upload_bytes"] for line in lines if line["saw"] == "upload"}
    manifests = {line["size_bytes"] for line in lines if line["saw"] == "upload"}
    assert len(uploads) == len(manifests) == 1, "sizes do not depend on the site"
    # What was planned, and the envelopes that the plan leaves out.
    (uploaded,) = uploads
    assert 150 < uploaded - bytes_planned < 700
    assert record.encryption.upload_bytes == uploaded

    assert shell("evaluate", output, "--data", pilot / "data/holdout.csv").code == 0
    assert shell.lines()["accuracy"] == accuracy
    assert list(shell.lines()) == ["accuracy", "macro_f1", "loss", "n"]
    arguments = ("evaluate", output, "--data", pilot / "data/holdout.csv", "--json")
    assert shell(*arguments).code == 0
    evaluated = read_answer("evaluate", shell.out)
    assert (evaluated["records"], evaluated["left_out"]) == (50, "")
    assert evaluated["metrics"] == pytest.approx(done["metrics"])

    stored = (output / "report.json").read_bytes()
    (output / "report.html").unlink()
    (output / "metrics.json").unlink()
    assert shell("report", output, "--json").code == 0
    assert read_answer("report show", shell.out)["files"] == [str(output / "report.html")]
    assert (output / "report.html").stat().st_size > 10_000
    assert json.loads((output / "metrics.json").read_text())["status"] == "finished"
    again = decode_record((output / "report.json").read_bytes())
    assert again.rounds == decode_record(stored).rounds
    assert again.sites == decode_record(stored).sites

    site, made = pilot / "sites/site-2", tmp_path / "dataset"
    assert shell("report", "dataset", site, "--run", output, "--output", made, "--json").code == 0
    assert read_answer("report dataset", shell.out)["heads_checked"] == 1
    of_dataset = json.loads((made / "dataset.json").read_text())
    assert [(run["run"], run["outcome"]["status"]) for run in of_dataset["runs"]] == [
        (record.run, "finished")
    ]
    assert (of_dataset["heads_checked"], of_dataset["heads_missing"]) == (1, [])
    assert record.run in (made / "dataset.html").read_text()

    ledger = pilot / "sites/site-2/ledger.sqlite"
    assert shell("ledger", "show", ledger).code == 0
    assert record.run in shell.out
    assert "closed" in shell.out
    assert shell("ledger", "verify", ledger).code == 0
    head = shell.out.split("head ")[1].strip()
    assert shell("ledger", "verify", ledger, "--head", head).code == 0
    statement = record.sites[1].statement
    assert statement is not None
    assert head == f"{statement.head_sequence}:{statement.head_digest}"

    assert shell("run", federation, "--output", output).code == 1
    assert "holds a run" in shell.err
    assert "--resume" in shell.err
    assert shell("run", federation, "--output", output, "--resume").code == 1
    assert "has ended; there is nothing to resume" in shell.err
    assert Ledger(ledger).head() == (statement.head_sequence, statement.head_digest)

    # The grant was for one such run; a second one is refused, and fits after another grant.
    assert shell("run", federation, "--output", pilot / "run-2").code == 4
    assert "nothing was charged" in shell.err
    assert "site-2: budget" in shell.err
    assert "what was spent is in pilot/run-2/report.html" in shell.out
    assert "go on with" not in shell.out, "a run that was stopped does not go on"
    assert "Traceback" not in shell.err
    assert shell(
        "ledger", "grant", ledger, "--epsilon", 8, "--delta", 1e-5, "--purpose", "a second run"
    ).code == 0  # fmt: skip
    assert shell("ledger", "show", ledger).code == 0
    assert "a second" in shell.out
    assert len(Ledger(ledger).budget().grants) == 2


def test_an_interrupted_run_says_how_to_go_on(
    shell: Shell, tmp_path: Path, tiny_model: Path
) -> None:
    from support import make_federation

    from fmfl_secure.parties.coordinator import Coordinator

    federation = make_federation(tmp_path, tiny_model, rounds=1, evaluation=False)
    output = tmp_path / "run"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Coordinator, "fix_cohort", interrupt)
        assert shell("run", federation, "--output", output).code == 130
    command = f"fmfl-secure run {federation} --output {output} --resume"
    assert f"go on with: {command}\n" in shell.out
    assert f"what was spent is in {output / 'report.html'}\n" in shell.out
    assert decode_record((output / "report.json").read_bytes()).status == "interrupted"

    federation.write_text(federation.read_text().replace("rounds = 1", "rounds = 2"))
    assert shell(*command.split()[1:]).code == 1
    assert "was started with other settings" in shell.err
    federation.write_text(federation.read_text().replace("rounds = 2", "rounds = 1"))
    assert shell(*command.split()[1:]).code == 0
    assert decode_record((output / "report.json").read_bytes()).status == "finished"
