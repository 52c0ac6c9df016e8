"""Layers that are trained in turns, by a schedule that everybody knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import Quiet, make_federation, settings
from task_cases import clipped_sum, randomise, task_on

from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.training.finished_run import predict_run
from fmfl_secure.transports.local.engine import LocalEngine


def layers(names: list[str]) -> set[str]:
    return {name.split(".layer.")[1][0] for name in names if ".layer." in name}


@pytest.mark.parametrize("kind", ["lora", "ffa-lora"])
def test_a_round_trains_every_other_layer_and_the_next_the_others(tiny_models, kind) -> None:
    task = task_on(tiny_models("bert"), "text-classification", kind, layer_groups=2)
    model = task.build_model(seed=1)
    assert task.distinct_rounds == (1, 2)
    slots = [[slot.name for slot in task.begin_round(model, n).slots] for n in (1, 2, 3)]
    assert (layers(slots[0]), layers(slots[1])) == ({"0"}, {"1"})
    assert slots[2] == slots[0]
    assert all(any(name.startswith("head.") for name in each) for each in slots)
    whole = task_on(tiny_models("bert"), "text-classification", kind)
    everything = [slot.name for slot in whole.begin_round(whole.build_model(seed=1), 1).slots]
    assert set(slots[0]) | set(slots[1]) == set(everything)


def test_rolora_s_matrices_and_layers_take_turns_together(tiny_models) -> None:
    task = task_on(tiny_models("bert"), "text-classification", "rolora", layer_groups=2)
    model = task.build_model(seed=1)
    found = []
    for number in task.distinct_rounds:
        names = [s.name for s in task.begin_round(model, number).slots if "lora_" in s.name]
        (matrix,) = {name.split("lora_")[1][0] for name in names}
        found.append((matrix, *layers(names)))
    assert found == [("B", "0"), ("A", "0"), ("B", "1"), ("A", "1")]


def test_the_adapter_is_all_layers_in_every_round_and_the_rest_has_no_gradient(tiny_models) -> None:
    task = task_on(tiny_models("bert"), "text-classification", "lora", layer_groups=2)
    model = task.build_model(seed=1)
    randomise(model)
    names = []
    for number in task.distinct_rounds:
        layout = task.begin_round(model, number)
        names.append(load_adapter_bytes(adapter_bytes(model)).keys())
        total = clipped_sum(task, model, together=3)
        assert total.numel() == layout.size
        assert torch.isfinite(total).all()
    assert names[0] == names[1]


def test_more_groups_than_layers_are_refused(tiny_models, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"layer_groups is 8, and the adapter is in 2 layers"):
        task_on(tiny_models("bert"), "text-classification", layer_groups=8).build_model(seed=1)
    path = tmp_path / "federation.toml"
    path.write_text(settings(Path("m"), plain=True, adapter='kind = "head"\nlayer_groups = 2'))
    with pytest.raises(ConfigError, match=r"adapter\.layer_groups is for"):
        load_federation(path)


def test_settings_without_groups_keep_their_digest(tmp_path: Path) -> None:
    digests = []
    for line in ("", "\nlayer_groups = 1", "\nlayer_groups = 2"):
        path = tmp_path / "federation.toml"
        path.write_text(settings(Path("m"), plain=True, adapter=f'kind = "lora"{line}'))
        digests.append(load_federation(path).digest)
    assert digests[0] == digests[1] != digests[2]


def test_three_sites_train_layers_in_turns(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under encryption and ledgers; the finished adapter has both layers' values."""
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    federation = make_federation(
        tmp_path, tiny_model, adapter='kind = "lora"\nrank = 2\nlayer_groups = 2', plain=True
    )
    record = LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    path = tmp_path / "run/adapter/adapter_model.safetensors"
    tensors = load_adapter_bytes(path.read_bytes())
    moved = [name for name, tensor in tensors.items() if "lora_B" in name and tensor.any()]
    assert layers(moved) == {"0", "1"}
    assert len(predict_run(tmp_path / "run", tmp_path / "data/holdout.csv")) == 30
