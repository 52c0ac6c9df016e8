"""A base model is all that its files hold; what a setting of its makes of it is told or undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmfl_secure.errors import ModelError
from fmfl_secure.models import find_base_model
from fmfl_secure.models.adapters import AdapterSpec, Place, attach_adapter
from fmfl_secure.models.architectures import architecture_of
from privacy import AdmissionError
from privacy.mechanism.admission import _check_every_parameter_learns, check_admission


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def store(folder: Path, **changes: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **changes}, file, metadata={"format": "pt"})


def test_layers_that_the_configuration_leaves_out_are_not_passed_over(copy: Path) -> None:
    edit(copy / "config.json", num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"leaves out: encoder\.layer\.1\."):
        find_base_model(str(copy)).load_encoder()


def test_a_head_in_the_files_is_passed_over(copy: Path) -> None:
    store(copy, **{"classifier.weight": torch.zeros(2, 2), "decoder.0.bias": torch.zeros(2)})
    find_base_model(str(copy)).load_encoder()


def test_integers_in_place_of_weights_are_refused(copy: Path) -> None:
    name = "encoder.layer.1.output.dense.weight"
    store(copy, **{name: load_file(copy / "model.safetensors")[name].to(torch.int8)})
    with pytest.raises(ModelError, match="as I8, which is no floating point"):
        find_base_model(str(copy)).load_encoder()


def test_a_configuration_that_asks_for_tuples_is_not_asked(copy: Path) -> None:
    edit(copy / "config.json", return_dict=False)
    encoder = find_base_model(str(copy)).load_encoder()
    assert encoder(torch.zeros(1, 2, dtype=torch.int64)).last_hidden_state.shape[:2] == (1, 2)


@pytest.mark.parametrize("text", ["[]", "null", "5"])
def test_a_configuration_that_is_no_object_is_called_that(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match="holds no JSON object"):
        find_base_model(str(copy))


def test_a_tokenizers_setting_of_a_wrong_type_is_one_refusal(copy: Path) -> None:
    edit(copy / "tokenizer_config.json", model_max_length="many")
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        find_base_model(str(copy)).load_tokenizer()


def test_every_tokenizer_cuts_a_texts_end(copy: Path) -> None:
    edit(copy / "tokenizer_config.json", truncation_side="left")
    tokenizer = find_base_model(str(copy)).load_tokenizer()
    kept = tokenizer("alpha beta gamma", truncation=True, max_length=3)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(kept)[1] == "alpha"


def test_more_layers_than_there_are_are_refused(tiny_model: Path) -> None:
    base = find_base_model(str(tiny_model))
    architecture = architecture_of(base.model_type)
    place = Place(base.load_encoder(), base, architecture, list(architecture.towers.values()))
    spec = AdapterSpec(kind="lora", rank=2, alpha=2, last_layers=3, target_modules=("query",))
    with pytest.raises(ModelError, match="last_layers is 3, the base model has 2 layers"):
        attach_adapter(place, spec)


def test_what_a_model_cannot_read_is_no_fault_of_its_gradients() -> None:
    model = torch.nn.Linear(2, 1)
    with pytest.raises(AdmissionError, match="makes no loss of a synthetic record: RuntimeError"):
        check_admission(
            model,
            loss=lambda model, batch: model(batch)[:, 0],
            collate=lambda records: torch.zeros(len(records), 3),
            records=4,
            physical_batch_size=2,
        )


def test_a_gradient_that_is_no_number_is_called_that() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(AdmissionError, match="not a finite number"):
        _check_every_parameter_learns({"w": parameter}, [torch.tensor([1.0, float("nan")])])
