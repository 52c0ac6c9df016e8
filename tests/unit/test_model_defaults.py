"""`init --model`: what follows from a base model is written, and runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_models import CHATML, write_tiny_chat
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.models import find_base_model
from fmfl_secure.parties.proposals import is_template
from fmfl_secure.planning.model_defaults import model_defaults
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.settings.federation import load_federation


def init(folder: Path, *more: str) -> Path:
    result = CliRunner().invoke(
        cli.app, ["init", str(folder), "--sites", "3", *more], catch_exceptions=False
    )
    assert result.exit_code == 0
    return folder / "federation.toml"


@pytest.mark.parametrize(
    ("model_type", "task", "modules"),
    [
        ("bert", "text-classification", "query"),
        ("llama", "causal-lm", "q_proj"),
        ("gpt2", "causal-lm", "c_attn"),
        ("vit", "image-classification", "fc1"),
        ("siglip", "image-text", "fc1"),
        ("mpnet", "text-classification", "dense"),
    ],
)
def test_a_models_settings_build_on_it(
    tiny_models, tmp_path: Path, model_type: str, task: str, modules: str
) -> None:
    base = tiny_models(model_type)
    file = init(tmp_path / "pilot", "--model", str(base))
    config = load_federation(file)
    assert config.task.kind == task
    assert config.model.digest == find_base_model(str(base)).digest
    assert modules in config.adapter.target_modules
    assert not Path(config.model.base).is_absolute()
    assert config.model.max_length == (128 if model_type == "vit" else 64)
    built = build_task(config, relative_to=file.parent)
    assert largest_layout(built, built.build_model(seed=1)).size > 0
    # Nobody has said yet how many people there are and what it may cost.
    assert is_template(file)
    file.write_text(file.read_text().replace("population = 500", "population = 400", 1))
    assert not is_template(file)


def test_a_decoder_with_a_chat_template_is_asked_by_it(tiny_models, tmp_path: Path) -> None:
    base = write_tiny_chat(tmp_path / "base", CHATML)
    config = json.loads((base / "config.json").read_text())
    config |= {"num_hidden_layers": 30, "dtype": "bfloat16"}
    (base / "config.json").write_text(json.dumps(config))
    found = model_defaults(str(base), task=None, folder=tmp_path)
    assert found.values["task.chat"] is True
    assert found.values["adapter.last_layers"] == 4
    assert found.values["model.dtype"] == "bfloat16"
    assert "task.chat" not in model_defaults(
        str(tiny_models("llama")), task=None, folder=tmp_path
    ).values  # fmt: skip


def test_what_does_not_go_with_a_model_is_refused_before_anything_is_made(
    tiny_models, tmp_path: Path
) -> None:
    base = tiny_models("bert")
    with pytest.raises(ModelError, match="sees the words that follow"):
        init(tmp_path / "pilot", "--model", str(base), "--task", "causal-lm")
    assert not (tmp_path / "pilot").exists()
    init(tmp_path / "pilot", "--model", str(base))
    with pytest.raises(ConfigError, match="says itself what --model says"):
        init(tmp_path / "pilot", "--model", str(base))
    shutil.rmtree(tmp_path / "pilot")
    with pytest.raises(ModelError, match="not a Hugging Face model folder"):
        init(tmp_path / "pilot", "--model", str(tmp_path))
