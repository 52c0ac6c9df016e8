"""`fmfl-secure ask`: what is charged, what is kept, and what is written into settings."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
from answered import read_answer
from asked import PRIVACY, ledger, silence
from support import Quiet, make_federation
from typer.testing import CliRunner

from fmfl_secure import asking
from fmfl_secure.asking import write_settings
from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.precision import precisions
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.written import with_populations, with_question, with_value
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter import Adapter, adapter_digest
from fmfl_secure.vectors.start_file import read_start


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_federation(
        folder, tiny_model, grant=20.0, privacy=PRIVACY["local"], evaluation=False, steps=1
    )
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "160")
    return Path(shutil.copytree(template, tmp_path / "federation"))


def ask(folder: Path, *options: str):
    result = CliRunner().invoke(
        app,
        ["ask", str(folder / "federation.toml"), "--epsilon", "3", *options],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def spent(folder: Path) -> float:
    return ledger(folder, "site-1").budget().status()[0].epsilon_committed


def test_a_question_is_answered_once_and_found_again_for_nothing(folder: Path) -> None:
    first = ask(folder, "--what", "labels")
    assert "share of yes" in first
    assert "95 %, with sampling" in first
    assert "epsilon 3 at delta 0.0001, at most" in first
    assert "One dishonest site can move" in first
    once = spent(folder)
    again = ask(folder, "--what", "labels", "--json")
    assert set(read_answer("ask", again)["labels"]) == {"no", "yes", "share of no", "share of yes"}
    kept = ask(folder, "--what", "labels")
    assert "nothing: asked before, and kept in" in kept.replace("\n", "")
    assert spent(folder) == once
    ask(folder, "--what", "labels", "--again")
    assert spent(folder) > once
    assert len(list((folder / "answers").iterdir())) == 2
    ask(folder, "--what", "units")
    assert len(list((folder / "answers").iterdir())) == 3


def test_answered_units_are_declared_and_the_question_is_not_asked_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence(monkeypatch)
    file = folder / "federation.toml"
    before = file.read_text()
    file.write_text(before.replace("population = 40", "population = 90  # a guess", 1))
    said = ask(folder, "--what", "units,lengths", "--write", "--round-to", "5")
    assert "population of site-1 = 40  (before: 90); answered 40, by the noise" in said
    assert [site.population for site in load_federation(file).sites] == [40, 40, 40]
    written = file.read_text()
    assert without_notes(written) == before.replace(
        "population = 40", "population = 40  # a guess", 1
    )
    (answer,) = (folder / "answers").iterdir()
    notes = set(re.findall("# as the sites answered, (.*)", written))
    assert notes == {f"{asking.read_answer(answer, was_kept=True).at}, answers/{answer.name}"}
    ask(folder, "--what", "units,lengths", "--write", "--round-to", "5")
    assert file.read_text() == written, "said once, however often it is written"
    once = spent(folder)
    assert "asked before" in ask(folder, "--what", "units,lengths")
    assert spent(folder) == once


def without_notes(text: str) -> str:
    return re.sub("# as the sites answered.*\n", "", text)


def test_lengths_and_weights_of_labels_are_declared_and_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rare labels weigh more, texts are read as far as they go; the question stays the same one."""
    silence(monkeypatch)
    for number in (1, 2, 3):
        rows = [("a " * 90, "yes")] * 2 + [("good film", "yes")] * 8 + [("bad film", "no")] * 30
        with (folder / f"data/site-{number}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    file = folder / "federation.toml"
    before = file.read_text()
    both = ["--what", "labels,lengths", "--write-lengths", "--write-weights", "--epsilon", "18"]
    said = ask(folder, *both)
    config = load_federation(file)
    assert config.model.max_length == 64, "it was 16, and the tiny model has no more positions"
    assert config.task.label_weights == (0.67, 2.0)
    assert "of more than 128 tokens; the base model reads no more than 64" in said
    assert "task.label_weights = [0.67, 2.0]  (before: []); no: answered 90" in said
    assert said.count("from the answer of 20") == 1
    once, written = spent(folder), file.read_text()
    assert before == without_notes(written).replace("label_weights = [0.67, 2.0]\n", "").replace(
        "64", "16"
    )
    assert "asked before" in ask(folder, *both), "what is declared changes no answer"
    assert (spent(folder), file.read_text()) == (once, written)


def test_lengths_are_not_declared_where_the_noise_hides_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No text is long. What is known of the noise forbids to say so, whatever was drawn."""
    silence(monkeypatch)
    before = (folder / "federation.toml").read_text()
    with pytest.raises(ConfigError, match="as far as the noise lets anybody see"):
        ask(folder, "--what", "lengths", "--write-lengths", "--epsilon", "0.3")
    with pytest.raises(ConfigError, match="labels are not asked"):
        ask(folder, "--what", "lengths", "--write-weights", "--epsilon", "0.3")
    with pytest.raises(ConfigError, match="nothing to write"):
        ask(folder, "--what", "lengths", "--write-lengths", "--settings", str(folder / "x.toml"))
    assert (folder / "federation.toml").read_text() == before


def test_values_are_written_where_they_stand_or_into_their_table() -> None:
    text = '[task]\nkind = "x"\nlabel_weights = [\n  1.0,\n  2.0,\n]  # mine\n\n'
    text += "[model]\nmax_length = 64 # m\n"
    once = with_value(text, "task", "label_weights", [0.5, 3.0], answer="A")
    note = "# as the sites answered, A\n"
    assert once == text.replace("[\n  1.0,\n  2.0,\n]", "[0.5, 3.0]").replace(
        "label_w", f"{note}label_w"
    )
    assert with_value(once, "task", "label_weights", [1.0, 3.0], answer="B").count("answered") == 1
    assert with_value(text, "model", "max_length", 32, answer="A").endswith(
        f"[model]\n{note}max_length = 32 # m\n"
    )
    assert with_value("[task]\n", "model", "max_length", 32, answer="A") == (
        f"[task]\n\n[model]\n{note}max_length = 32\n"
    )
    with pytest.raises(ConfigError, match="left alone"):
        with_value('[model]\nmax_length = "64"\n', "model", "max_length", 32, answer="A")


def test_settings_for_other_transports_are_written_and_nothing_is_asked(folder: Path) -> None:
    target = folder / "question.toml"
    said = ask(folder, "--what", "units,lengths", "--lengths", "4,8", "--settings", str(target))
    assert "wrote" in said
    config = load_federation(target)
    assert config.question == QuestionSection(
        what=("units", "lengths"), epsilon=3.0, lengths=(4, 8)
    )
    assert spent(folder) == 0.0
    assert not (folder / "answers").exists()


def planned(folder: Path, every: int, epsilon: float = 3.0) -> str:
    file = folder / "federation.toml"
    asked = QuestionSection(what=("units", "labels"), epsilon=epsilon, every=every)
    (folder / "asks.toml").write_text(with_question(file.read_text(), asked))
    result = CliRunner().invoke(
        app, ["plan", str(folder / "asks.toml"), "--no-advice"], catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.stdout


def afforded(folder: Path, *options: str) -> str:
    place = str(folder / "sites/site-1/ledger.sqlite")
    settings = ["--federation", str(folder / "asks.toml"), "--site", "site-1"]
    result = CliRunner().invoke(
        app, ["ledger", "afford", place, *settings, *options], catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.stdout


def test_plan_and_afford_say_beforehand_what_comes(folder: Path) -> None:
    """What `plan` says of precision and of ledgers is what the answer has, and what they show."""
    said = planned(folder, every=0)
    assert "predicted epsilon" not in said, "nothing is trained"
    assert "One dishonest site can move" in said
    row = next(line for line in said.splitlines() if "labels" in line).split("│")
    half = float(row[3])
    config = load_federation(folder / "asks.toml")
    (labels,) = [each for each in precisions(config) if each.question == "labels"]
    assert half == pytest.approx(labels.count, abs=0.05)
    after = next(line for line in said.splitlines() if "site-2" in line).split("│")[3]
    assert "they fit\n" in afforded(folder)
    figures = read_answer("ask", ask(folder, "--what", "units,labels", "--json"))
    low, high = figures["labels"]["no"]["noise"]
    assert (high - low) / 2 == pytest.approx(labels.count, rel=1e-6)
    assert spent(folder) == pytest.approx(float(after), abs=1e-4)


def test_plan_counts_training_and_answers_together(folder: Path) -> None:
    said = planned(folder, every=1, epsilon=19.0)  # training alone fits, so do the answers
    assert said.count("will refuse") == 3
    assert "they do not fit beside the planned run" in afforded(folder)
    found = read_answer("ledger afford", afforded(folder, "--json"))
    assert found["planned"]["fits"]
    assert not found["asked"]["fits"]
    assert "they fit beside the planned run" in (planned(folder, every=1), afforded(folder))[1]


def test_servers_elsewhere_are_given_a_run_s_adapter_to_ask_about(folder: Path) -> None:
    """Also where the run's adapter holds what a server's optimizer remembers."""
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace("[training]", '[training]\nsteps_at = "server"'))
    LocalEngine(file, folder / "run", resume=False, observer=Quiet()).run()
    target, start = folder / "asks.toml", folder / "start.safetensors"
    about = ["--about", str(folder / "run")]
    with pytest.raises(ConfigError, match="--about goes with --settings"):
        ask(folder, "--what", "labels", *about)
    said = ask(folder, "--what", "labels", *about, "--settings", str(target))
    assert f"start-file {target} --about" in said.replace("\n", "")
    made = ["start-file", str(target), "--output", str(start)]
    with pytest.raises(ConfigError, match=r"not the one that question\.adapter names") as refused:
        CliRunner().invoke(app, made, catch_exceptions=False)
    assert "--about RUN" in refused.value.hint
    assert CliRunner().invoke(app, [*made, *about]).exit_code == 0
    config = load_federation(target)
    found = read_start(start, config)
    last = Adapter.read(RunStore(folder / "run").last_adapter())
    assert last.moments
    assert found.adapter == Adapter(last.tensors, {}).encode()
    assert config.question.adapter == adapter_digest(found.adapter)
    with pytest.raises(ConfigError, match="already"):
        write_settings(target, config.question, folder / "twice.toml")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--what", "income"], "income"),
        (["--what", ""], "what"),
        (["--what", "lengths", "--lengths", "8,4"], "ascending"),
        (["--what", "lengths", "--lengths", "short"], "lengths"),
    ],
    ids=["unknown", "nothing", "order", "no-number"],
)
def test_what_cannot_be_asked_is_refused_before_anything_else(
    folder: Path, options: list[str], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        ask(folder, *options)
    assert not (folder / "answers").exists()


def test_populations_are_written_where_they_stand_or_not_at_all() -> None:
    text = (
        '[[sites]]\nname = "a"\npopulation = 1_000\n\n[[sites]]\npopulation = 7 # b\nname = "b"\n'
    )
    assert without_notes(with_populations(text, {"a": 20, "b": 30}, answer="A")) == (
        '[[sites]]\nname = "a"\npopulation = 20\n\n[[sites]]\npopulation = 30 # b\nname = "b"\n'
    )
    inline = 'sites = [{name = "a", population = 4}]\n'
    with pytest.raises(ConfigError, match="entry of a"):
        with_populations(inline, {"a": 20}, answer="A")
    with pytest.raises(ConfigError, match="entry of c"):
        with_populations(text, {"c": 20}, answer="A")


def test_settings_that_ask_already_get_no_second_question() -> None:
    once = with_question("x = 1\n", QuestionSection(what=("units",), epsilon=1.0))
    with pytest.raises(ConfigError, match="already"):
        with_question(once, QuestionSection(what=("units",), epsilon=1.0))
