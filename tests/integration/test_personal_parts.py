"""Parts of an adapter that every site keeps for itself, whichever they are; heads have a test file.

FedSA-LoRA is `personal = ["lora_B"]`, its mirror `["lora_A"]`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import peft
import pytest
import safetensors.torch
import torch
from league import League
from msgspec.structs import replace as replaced
from support import Quiet, make_federation
from task_cases import task_on
from transformers import AutoModel
from typer.testing import CliRunner

from aggregation import Quantization
from fmfl_secure.api import Run
from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError, ModelError, RunError
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes
from fmfl_secure.models.personal import belongs_to, personal_names
from fmfl_secure.parties.site import Site
from fmfl_secure.planning.task import build_task
from fmfl_secure.report.export import export_run
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.training.answering import answer_locally
from fmfl_secure.training.finished_run import evaluate_run, predict_run
from fmfl_secure.training.local_round import train_locally
from fmfl_secure.transports.local.engine import LocalEngine

SITES = ("site-1", "site-2", "site-3")
LORA = 'kind = "lora"\nrank = 2\ntarget_modules = ["query", "value"]\nlast_layers = 1\n'
PARTS = LORA + 'personal = ["lora_B"]'


@pytest.fixture(scope="module", autouse=True)
def no_gate():
    """Which parts stay changes nothing that the gate looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy.training.check_admission", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    """A finished run, the grids of its rounds, and the own parts each site went on from."""
    folder = tmp_path_factory.mktemp("parts") / "federation"
    federation = make_federation(
        folder, tiny_model, adapter=PARTS, evaluation=False, plain=True, grant=100.0
    )
    began: dict[str, list[bytes]] = {name: [] for name in SITES}
    grids, current = [], {}
    with pytest.MonkeyPatch.context() as patch:
        original, site_train = train_locally, Site.train

        def train(*arguments, **named):
            began[current["site"]].append(named["personal"])
            grids.append(named["quantization"])
            return original(*arguments, **named)

        def noting(self, *arguments):
            current["site"] = self.name
            return site_train(self, *arguments)

        patch.setattr("fmfl_secure.parties.site_training.train_locally", train)
        patch.setattr(Site, "train", noting)
        record = LocalEngine(federation, folder / "run-1", resume=False, observer=Quiet()).run()
    return folder, record, began, grids


def kept(folder: Path, site: str, run: str) -> Path:
    return folder / "sites" / site / "heads" / f"{run}.safetensors"


def test_what_stays_is_in_no_upload_and_nothing_of_it_reaches_the_server(finished) -> None:
    folder, record, began, grids = finished
    assert record.status == "finished"
    uploaded = {segment.name for grid in grids for segment in grid.segments}
    assert [name for name in uploaded if "lora_A" in name]
    assert [name for name in uploaded if name.startswith("head.")]
    assert not [name for name in uploaded if "lora_B" in name]
    held = load_adapter_bytes(RunStore(folder / "run-1").last_adapter() or b"")
    own = [tensor for name, tensor in held.items() if "lora_B" in name]
    assert own
    assert not any(tensor.any() for tensor in own)  # where LoRA begins
    for site in SITES:
        mine = safetensors.torch.load(kept(folder, site, record.run).read_bytes())
        assert mine.keys() == {name for name in held if "lora_B" in name}
        assert all(tensor.any() for tensor in mine.values())
        first, second = began[site]
        assert first == b""
        assert second != b""
        values = b"".join(tensor.numpy().tobytes() for tensor in mine.values())
        for path in (path for path in (folder / "run-1").rglob("*") if path.is_file()):
            assert values not in path.read_bytes(), path


@pytest.mark.parametrize("kind", ["segments", "digest"])
def test_a_coordinator_that_asks_for_a_part_that_stays_is_refused(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    """It signs a plan, properly, of a sum in which every site's own B would be."""
    make_federation(tmp_path, tiny_model, adapter=PARTS, evaluation=False, plain=True)
    league = League(tmp_path)
    config = league.config
    everything = replaced(config, adapter=replaced(config.adapter, personal=()))
    task = build_task(everything, relative_to=tmp_path)
    layout = task.begin_round(task.build_model(seed=1), 1)
    grid = league.honest.quantization
    asked = replaced(league.honest, layout_digest=layout.digest)
    if kind == "segments":
        segments = tuple(
            replaced(grid.segments[0], name=slot.name, size=slot.size) for slot in layout.slots
        )
        asked = replaced(asked, quantization=Quantization(grid.bits, segments))
    for site in league.sites.values():
        with pytest.raises((ModelError, RunError), match=r"layouts differ|not the one agreed here"):
            site.admit(league.sign(asked), league.adapter)
        site.admit(league.sign(league.honest), league.adapter)


def test_the_adapter_is_used_with_a_site_s_own_parts_and_not_without(
    finished, tiny_model: Path, tmp_path: Path
) -> None:
    folder, record, *_ = finished
    run, data = folder / "run-1", folder / "data" / "holdout.csv"
    mine = kept(folder, "site-2", record.run)
    with pytest.raises(ModelError, match="every site kept its own lora_B"):
        evaluate_run(run, data)
    with pytest.raises(ModelError, match="every site kept its own lora_B"):
        export_run(run, tmp_path / "without")
    losses = {
        evaluate_run(run, data, personal=kept(folder, site, record.run)).metrics["loss"]
        for site in SITES
    }
    assert len(losses) == 3
    assert predict_run(run, data, personal=mine) == Run(run).predict(data, personal=mine)
    with pytest.raises(ConfigError, match="both name"):
        Run(run).predict(data, personal=mine, head=mine)
    arguments = ["predict", str(run), "--data", str(data), "--output", str(tmp_path / "a.jsonl")]
    assert CliRunner().invoke(app, [*arguments, "--personal", str(mine)]).exit_code == 0
    said = json.loads((run / "adapter/task.json").read_text())["personal"]
    assert said
    assert all("lora_B" in name for name in said)
    assert "**Not whole**" in (run / "adapter/README.md").read_text()

    out = export_run(run, tmp_path / "with", personal=mine)
    assert "personal" not in json.loads((out / "task.json").read_text())
    assert "One site's own lora_B" in (out / "README.md").read_text()
    opened = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_model), out)
    values = dict(opened.named_parameters())
    for name, tensor in safetensors.torch.load(mine.read_bytes()).items():
        assert values[name.removeprefix("encoder.")].equal(tensor)
    with pytest.raises(ModelError, match="of no use"):
        build_task(load_federation(folder / "federation.toml"), relative_to=folder).open_adapter(
            out, personal=mine
        )
    merged = export_run(run, tmp_path / "merged", merged=True, personal=mine)
    assert (merged / "head.safetensors").exists()


def test_another_site_s_file_is_a_file_and_another_model_s_is_refused(
    finished, tmp_path: Path
) -> None:
    folder, record, *_ = finished
    run, data = folder / "run-1", folder / "data" / "holdout.csv"
    tensors = safetensors.torch.load(kept(folder, "site-1", record.run).read_bytes())
    name = min(tensors)
    for changed, words in (
        ({}, "do not fit"),
        (tensors | {"encoder.embeddings.weight": torch.zeros(2)}, "do not fit"),
        (tensors | {name: tensors[name][:-1]}, "do not fit"),
    ):
        safetensors.torch.save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(ModelError, match=words):
            evaluate_run(run, data, personal=tmp_path / "changed.safetensors")
    with pytest.raises(ModelError, match="cannot read"):
        evaluate_run(run, data, personal=tmp_path / "none.safetensors")


def test_a_run_goes_on_from_every_site_s_own_parts(finished, monkeypatch) -> None:
    folder, record, *_ = finished
    federation = folder / "federation.toml"
    before = federation.read_text()
    began: list[bytes] = []
    original = train_locally

    def train(*arguments, **named):
        began.append(named["personal"])
        return original(*arguments, **named)

    monkeypatch.setattr("fmfl_secure.parties.site_training.train_locally", train)
    lost = kept(folder, "site-3", record.run)
    lost.rename(folder / "aside")
    try:
        federation.write_text(
            before.replace('["lora_B"]', '["lora_B"]\ninitial = "run-1"').replace(
                "rounds = 2", "rounds = 1"
            )
        )
        second = LocalEngine(federation, folder / "run-2", resume=False, observer=Quiet()).run()
        assert second.status == "finished"
        first = [kept(folder, site, record.run).read_bytes() for site in SITES[:2]]
        assert began == [*first, b""]
        for change, words in (
            ('personal = ["lora_A"]', "is not whole"),
            ("personal = []", "is not whole"),
        ):
            federation.write_text(
                before.replace('personal = ["lora_B"]', f'{change}\ninitial = "run-1"')
            )
            task = build_task(load_federation(federation), relative_to=folder)
            with pytest.raises(ModelError, match=words):
                task.build_model(seed=1)
    finally:
        federation.write_text(before)
        (folder / "aside").rename(lost)


def test_sites_asked_after_the_run_do_not_answer_without_their_own_parts(finished) -> None:
    folder, *_ = finished
    arguments = ["evaluate", str(folder / "run-1"), "--sites", "--epsilon", "2"]
    refusal = CliRunner().invoke(app, arguments).exception
    assert isinstance(refusal, ConfigError)
    assert "would answer without them: set evaluation.data = 'sites'" in str(refusal)


def test_a_site_answers_with_its_own_parts(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    federation = make_federation(
        tmp_path,
        tiny_model,
        adapter=PARTS,
        plain=True,
        rounds=1,
        steps=1,
        grant=100.0,
        evaluation=False,
    )
    asks = """data = "sites"
epsilon = 2.0
measures = ["accuracy"]
"""
    text = federation.read_text()
    federation.write_text(text.replace('data = ""\nvisibility = "public"\n', asks))
    for site in SITES:
        (tmp_path / "sites" / site / "apart.csv").write_bytes(
            (tmp_path / "data/holdout.csv").read_bytes()
        )
        own = tmp_path / "sites" / site / "site.toml"
        own.write_text(own.read_text().replace("[budget]", 'holdout = "apart.csv"\n\n[budget]', 1))
    asked: list[bytes] = []
    original = answer_locally

    def answer(*arguments, **named):
        asked.append(named["personal"])
        integers = original(*arguments, **named)
        held = {n: p.detach().clone() for n, p in arguments[0].named_parameters() if "lora_B" in n}
        mine = safetensors.torch.load(named["personal"])
        assert all(held[name].equal(mine[name]) for name in held)
        return integers

    monkeypatch.setattr("fmfl_secure.parties.site_training.answer_locally", answer)
    record = LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    assert len(set(asked)) == 3
    assert b"" not in asked


@pytest.mark.parametrize(
    ("kind", "personal", "uploaded", "stays"),
    [
        ("lora", ("lora_A",), {"lora_B", "head"}, {"lora_A"}),
        ("lora", ("lora_B", "head"), {"lora_A"}, {"lora_B", "head"}),
        ("norms", ("encoder",), {"head"}, {"LayerNorm"}),
        ("norms", ("bias",), {"weight"}, {"bias"}),
        ("rolora", ("lora_B",), {"lora_A", "head"}, {"lora_B"}),
    ],
    ids=["mirror", "head-and-B", "norms", "biases", "in-turns"],
)
def test_any_named_part_can_stay(tiny_models, kind, personal, uploaded, stays) -> None:
    task = task_on(tiny_models("bert"), "text-classification", kind, personal=personal)
    model = task.build_model(seed=1)
    sent = {slot.name for n in task.distinct_rounds for slot in task.begin_round(model, n).slots}
    kept_back = set(personal_names(model, personal))
    assert not sent & kept_back
    assert sent | kept_back == load_adapter_bytes(adapter_bytes(model)).keys()
    assert all(any(belongs_to(name, (word,)) for word in uploaded) for name in sent)
    assert all(any(belongs_to(name, (word,)) for word in stays) for name in kept_back)


@pytest.mark.parametrize(
    ("kind", "personal", "words"),
    [
        ("lora", ("lora_C",), "trains no part 'lora_C'"),
        ("ffa-lora", ("lora_A",), "trains no part 'lora_A'"),
        ("lora", ("lora_A", "lora_B", "head"), "keeps all"),
        ("head", ("head",), "keeps all"),
    ],
    ids=["unknown", "frozen", "all", "the head of a probe"],
)
def test_parts_that_are_none_are_refused(tiny_models, kind, personal, words) -> None:
    task = task_on(tiny_models("bert"), "text-classification", kind, personal=personal)
    with pytest.raises(ModelError, match=words):
        task.build_model(seed=1)


def test_what_cannot_be_is_refused_with_the_settings(tmp_path: Path, tiny_model: Path) -> None:
    federation = make_federation(
        tmp_path, tiny_model, adapter=PARTS, evaluation=False, plain=True, rounds=1
    )
    config = load_federation(federation)
    for changes, words in (
        ({"training": replaced(config.training, steps_at="server")}, "needs training.steps_at"),
        ({"question": None, "evaluation": replaced(config.evaluation, data="x.csv")}, "own parts"),
    ):
        with pytest.raises(ValueError, match=words):
            replaced(config, **changes, privacy=replaced(config.privacy, steps_per_round=1))
    federation.write_text(federation.read_text().replace('["lora_B"]', '["lora B"]'))
    with pytest.raises(ConfigError, match=r"adapter\.personal"):
        load_federation(federation)


def test_a_question_about_such_a_run_is_refused(finished) -> None:
    folder, *_ = finished
    arguments = ["evaluate", str(folder / "run-1"), "--sites", "--epsilon", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 0
    assert "left every site parts of its own" in str(done.exception)


def test_the_plan_says_how_much_is_shared_and_how_much_stays(finished) -> None:
    folder, *_ = finished
    done = CliRunner().invoke(app, ["plan", str(folder / "federation.toml"), "--no-advice"])
    said = " ".join(done.output.replace("│", " ").split())
    task = build_task(load_federation(folder / "federation.toml"), relative_to=folder)
    model = task.build_model(seed=1)
    shared = task.begin_round(model, 1).size
    stays = sum(t.size for t in _values(model, "lora_B"))
    assert f"{shared:,} trained parameters shared, and {stays:,} that stay at each site" in said


def test_the_report_says_what_stayed(finished) -> None:
    folder, *_ = finished
    page = " ".join((folder / "run-1/report.html").read_text().split())
    assert "Every site kept its own lora_B" in page


def _values(model: torch.nn.Module, part: str) -> list[np.ndarray]:
    return [p.detach().numpy() for n, p in model.named_parameters() if belongs_to(n, (part,))]
