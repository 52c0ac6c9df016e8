"""What a server starts a run from, as a file: made where the model is, read as data anywhere."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from support import settings
from task_cases import randomise, task_on
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.errors import ModelError, StartError
from fmfl_secure.models.adapters import ADAPTERS, adapter_bytes
from fmfl_secure.planning import adapter_template
from fmfl_secure.planning.adapter_template import adapter_files
from fmfl_secure.planning.task import build_task, make_start_file, start_of
from fmfl_secure.settings.federation import FederationConfig, convert_config, load_federation
from fmfl_secure.settings.questions import Turn
from fmfl_secure.vectors import start_file
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.adapter_files import AdapterFiles
from fmfl_secure.vectors.start import RunStart
from fmfl_secure.vectors.start_file import START_FILE, read_start, write_start

KEY = "fmfl-secure.start"


def config_of(model: Path, **more: Any) -> FederationConfig:
    return convert_config(tomllib.loads(settings(model, **more)), FederationConfig, source="test")


def start_for(config: FederationConfig) -> RunStart:
    task = build_task(config, relative_to=Path())
    return start_of(config, task, task.build_model(seed=config.federation.seed))


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> FederationConfig:
    return config_of(tiny_model)


@pytest.fixture(scope="module")
def start(config: FederationConfig) -> RunStart:
    return start_for(config)


@pytest.fixture
def path(start: RunStart, tmp_path: Path) -> Path:
    write_start(start, tmp_path / START_FILE)
    return tmp_path / START_FILE


# Honest files.


def test_what_is_read_is_what_was_written(
    config: FederationConfig, start: RunStart, path: Path
) -> None:
    assert read_start(path, config) == start


def test_rounds_that_differ_keep_a_layout_and_a_grid_each(tiny_model: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model, plain=True, adapter='kind = "rolora"\nrank = 2')
    start = start_for(config)
    write_start(start, tmp_path / START_FILE)
    again = read_start(tmp_path / START_FILE, config)
    assert again == start
    assert len({layout.digest for layout in again.layouts}) == 2
    for number in (1, 2, 3):
        assert again.grid(Turn(number)).size == again.layout(Turn(number)).size
    assert again.layout(Turn(3)) == again.layout(Turn(1)) != again.layout(Turn(2))


def test_the_command_s_file_is_that_of_the_model(
    tiny_model: Path, tmp_path: Path, config: FederationConfig, start: RunStart
) -> None:
    federation = tmp_path / "federation.toml"
    federation.write_text(settings(tiny_model), encoding="utf-8")
    made = make_start_file(federation, tmp_path / START_FILE)
    assert made == start == read_start(tmp_path / START_FILE, config)


def test_it_names_base_model_and_licence_for_people(
    config: FederationConfig, start: RunStart, path: Path
) -> None:
    write_start(replace(start, base_model_license="apache-2.0"), path)
    with safetensors.safe_open(path, framework="numpy") as opened:
        told = json.loads(opened.metadata()[KEY])
    assert told["base_model"] == "tiny-bert"
    assert told["base_model_license"] == "apache-2.0"
    assert read_start(path, config).base_model_license == "apache-2.0"


@pytest.mark.parametrize("adapter", ADAPTERS.names)
def test_a_server_writes_the_bytes_that_peft_writes(
    tiny_models, tmp_path: Path, adapter: str
) -> None:
    model_type = "gpt2" if adapter == "prefix" else "bert"
    task = task_on(tiny_models(model_type), "text-classification", adapter)
    model = task.build_model(seed=1)
    before = adapter_bytes(model)
    files = adapter_files(task, model)
    assert adapter_bytes(model) == before, "looking at it changes nothing"
    randomise(model)
    task.save_adapter(model, tmp_path)
    saved = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert files.render(Adapter.read(adapter_bytes(model))) == saved
    assert "task.json" in saved


def test_what_peft_says_of_an_adapter_does_not_depend_on_the_process(tiny_models) -> None:
    """Else two people's start files, and two exports of one run, would differ by chance."""
    for adapter in ("lora", "ia3"):
        task = task_on(tiny_models("bert"), "text-classification", adapter)
        text = adapter_files(task, task.build_model(seed=1)).texts["adapter_config.json"]
        assert json.loads(text)["target_modules"] == sorted(json.loads(text)["target_modules"])
        assert len(json.loads(text)["target_modules"]) > 3


def test_a_head_that_stays_at_its_site_is_in_no_file(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("bert"), "text-classification", personal=("head",))
    model = task.build_model(seed=1)
    files = adapter_files(task, model)
    assert "head.safetensors" not in files.names
    task.save_adapter(model, tmp_path)
    saved = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert files.render(Adapter.read(adapter_bytes(model))) == saved


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tensor: tensor * 2.0, id="other values"),
        pytest.param(lambda tensor: tensor.T.contiguous(), id="turned round"),
        pytest.param(lambda tensor: tensor.double(), id="another type"),
    ],
)
def test_files_that_are_not_the_adapter_s_tensors_are_refused(
    tiny_models, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    task = task_on(tiny_models("bert"), "text-classification")
    model = task.build_model(seed=1)
    before = adapter_bytes(model)
    save = type(task).save_adapter

    def otherwise(self, model, folder: Path) -> None:
        save(self, model, folder)
        path = folder / "adapter_model.safetensors"
        tensors = {n: change(t) for n, t in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})

    monkeypatch.setattr(type(task), "save_adapter", otherwise)
    with pytest.raises(ModelError, match="other values than its tensors"):
        adapter_template.adapter_files(task, model)
    assert adapter_bytes(model) == before


def test_files_of_another_adapter_are_not_written(start: RunStart) -> None:
    adapter = Adapter.read(start.adapter)
    name, *_ = adapter.tensors
    fewer = Adapter({n: t for n, t in adapter.tensors.items() if n != name}, {})
    with pytest.raises(ModelError, match="is not of this adapter"):
        start.files.render(fewer)


# Files that cannot be used.


def test_a_file_that_is_not_there_says_who_makes_it(
    config: FederationConfig, tmp_path: Path
) -> None:
    with pytest.raises(StartError, match="no base model of its own") as caught:
        read_start(tmp_path / START_FILE, config)
    assert "fmfl-secure start-file" in caught.value.hint


def test_a_file_for_other_settings_says_so(tiny_model: Path, path: Path) -> None:
    with pytest.raises(StartError, match="made for other settings") as caught:
        read_start(path, config_of(tiny_model, rounds=3))
    assert "fmfl-secure start-file" in caught.value.hint


@pytest.mark.parametrize("limit", ["_MAX_BYTES", "_MAX_HEADER_BYTES"])
def test_a_file_that_is_too_large_is_neither_read_nor_written(
    config: FederationConfig, start: RunStart, path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, limit: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(start_file, limit, 100)
    with pytest.raises(StartError, match="at most"):
        read_start(path, config)
    with pytest.raises(StartError, match="at most"):
        write_start(start, tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_a_header_of_any_length_is_refused_before_it_is_read(
    config: FederationConfig, path: Path
) -> None:
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(StartError, match="at most"):
        read_start(path, config)


@pytest.mark.parametrize(
    "data", [b"", b"short", b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}"]
)
def test_bytes_that_are_no_such_file_are_refused(
    config: FederationConfig, path: Path, data: bytes
) -> None:
    path.write_bytes(data)
    with pytest.raises(StartError, match=r"is not what a run starts from|at most"):
        read_start(path, config)


def test_a_folder_in_its_place_is_refused(config: FederationConfig, tmp_path: Path) -> None:
    (tmp_path / START_FILE).mkdir()
    with pytest.raises(StartError, match="cannot read"):
        read_start(tmp_path / START_FILE, config)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(
    config: FederationConfig, path: Path, share: float
) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StartError):
        read_start(path, config)


# Files that lie: everything that a server would do by them.

Facts = dict[str, Any]


def rewrite(
    path: Path,
    facts: Callable[[Facts], None] = lambda _: None,
    tensors: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    with safetensors.safe_open(path, framework="numpy") as opened:
        told = json.loads(opened.metadata()[KEY])
        values = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    facts(told)
    tensors(values)
    path.write_bytes(safetensors.numpy.save(values, metadata={KEY: json.dumps(told)}))


def renamed(name: str) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        facts["files"]["texts"][name] = "x"

    return change


def put(*keys: Any, value: Any) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        inner: Any = facts
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def first_source(facts: Facts) -> Facts:
    tensors = facts["files"]["tensors"]["adapter_model.safetensors"]["tensors"]
    return tensors[min(tensors)]


def both(facts: Facts) -> None:
    facts["files"]["texts"]["adapter_model.safetensors"] = "x"


LIES: dict[str, Callable[[Facts], None]] = {
    "a path that leaves the folder": renamed("../identity.json"),
    "a path into another folder": renamed("coordinator/identity.json"),
    "an absolute path": renamed("/tmp/a.json"),
    "a hidden file": renamed(".netrc.json"),
    "a pickle": renamed("adapter_model.bin"),
    "a script": renamed("run.py"),
    "a name with a line's end": renamed("task.json\n"),
    "two files of one name": both,
    "a field that is not known": put("approved", value=True),
    "a field of another type": put("base_model", value=16),
    "no layout": put("layouts", value=[]),
    "an empty layout": put("layouts", 0, value=[]),
    "a layout too many": lambda f: f["layouts"].append(f["layouts"][0]),
    "a layout out of order": lambda f: f["layouts"][0].reverse(),
    "a tensor twice": lambda f: f["layouts"][0].append(f["layouts"][0][-1]),
    "a tensor that is not there": put("layouts", 0, 0, "name", value="another"),
    "a tensor of another shape": put("layouts", 0, 0, "shape", value=[1]),
    "a grid of other tensors": put("grids", 0, "segments", 0, "name", value="another"),
    "a grid of other sizes": put("grids", 0, "segments", 0, "size", value=1),
    "a grid of no range": put("grids", 0, "segments", 0, "range", value=0.0),
    "a source that is not there": lambda f: first_source(f).update(name="another"),
    "a source of another size": lambda f: first_source(f).update(shape=[3]),
    "a source of a negative size": lambda f: first_source(f).update(shape=[-1, -32]),
    "a source of an endless size": lambda f: first_source(f).update(shape=[1 << 62, 1 << 62]),
    "a name that cannot be printed": put("base_model", value="a\x1b[2Jb"),
    "another adapter's digest": put("adapter_digest", value="sha256:" + "0" * 64),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_asks_for_what_no_server_does_is_refused(
    config: FederationConfig, path: Path, lie: str
) -> None:
    rewrite(path)
    read_start(path, config)  # as it was
    rewrite(path, LIES[lie])
    with pytest.raises(StartError, match="is not what a run starts from"):
        read_start(path, config)


def test_a_format_of_later_is_named(config: FederationConfig, path: Path) -> None:
    rewrite(path, put("format", value=2))
    with pytest.raises(StartError, match="format 2, this version reads 1"):
        read_start(path, config)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda t: t.astype(np.float64), id="float64"),
        pytest.param(lambda t: t.astype(np.float16), id="float16"),
        pytest.param(lambda t: t * np.float32(np.nan), id="nan"),
        pytest.param(lambda t: t + np.float32(np.inf), id="infinite"),
        pytest.param(lambda t: t + np.float32(1.0), id="other values"),
    ],
)
def test_an_adapter_that_is_not_the_one_it_was_made_with_is_refused(
    config: FederationConfig, path: Path, value: Callable[[Any], Any]
) -> None:
    def change(tensors: dict[str, Any]) -> None:
        name = min(tensors)
        tensors[name] = value(tensors[name])

    rewrite(path, tensors=change)
    with pytest.raises(StartError, match="is not what a run starts from"):
        read_start(path, config)


def test_an_adapter_of_no_tensor_is_no_folder(start: RunStart) -> None:
    assert AdapterFiles({}, {}).render(Adapter.read(start.adapter)) == {}


def test_provisioning_makes_it_where_the_base_model_is_and_says_so_where_not(
    tiny_model: Path, tmp_path: Path
) -> None:
    federation, kits = tmp_path / "federation.toml", tmp_path / "kits"
    made = kits / "server" / START_FILE

    def provision() -> str:
        done = CliRunner().invoke(app, ["provision", str(federation), "--output", str(kits)])
        assert done.exit_code == 0, done.output
        return done.output.replace("\n", "")

    federation.write_text(settings(tmp_path / "elsewhere"), encoding="utf-8")
    said = provision()
    assert f"no {made}:" in said
    assert f"fmfl-secure start-file {federation} --output {made}" in said
    assert not made.exists()
    federation.write_text(settings(tiny_model), encoding="utf-8")
    assert f"made {made}" in provision()
    read_start(made, load_federation(federation))
    before = made.read_bytes()
    assert "start" not in provision()
    assert made.read_bytes() == before, "one that is right is left alone"
    federation.write_text(settings(tiny_model, sites=4), encoding="utf-8")
    assert f"made {made}" in provision()
    assert made.read_bytes() != before
    read_start(made, load_federation(kits / "server/federation.toml"))
