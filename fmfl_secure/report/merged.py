"""Writing a model with its adapter merged, as transformers alone opens it.

Where the architecture's own class holds the head, the folder opens as that class, labels and all. A
language model opens as one, and answers a chat's message by the run's template. A head that no
class holds stays beside the bare model, and the model's card has the lines that put both together.

`report.export` calls `write_merged`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapter_files import HEAD_FILE
from fmfl_secure.models.adapters.files import save_tensors
from fmfl_secure.models.base_files import behaviour_files
from fmfl_secure.models.computation import Computation
from fmfl_secure.models.heads import head_parameters
from fmfl_secure.models.invented_heads import invented_heads
from fmfl_secure.models.merge import merged_model
from fmfl_secure.models.own_heads import LinearHead, OwnHead
from fmfl_secure.models.own_heads.model import own_class_model
from fmfl_secure.report.conversation import write_conversation
from fmfl_secure.settings.own_classes import OWN_CLASSES
from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.training.finished_run import FinishedRun

CONFIG = "config.json"
# What sentence-transformers opens a folder by: a classifier's states are no sentence's embedding.
_OF_SENTENCES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
# What a base model's configuration may still say of a task that it was trained for before.
_OF_EARLIER_TASKS = ("problem_type", "task_specific_params", "finetuning_task")
# As earlier versions of transformers wrote it: the labels beside it would not be read.
_COUNTED_LABELS = ("num_labels", "_num_labels")


def write_merged(
    run: FinishedRun, task: AdapterTask[Any], output: Path, personal: Path | None
) -> None:
    """Write whole weights.

    Args:
        run: The run.
        task: Its task.
        output: The folder; made if missing.
        personal: A site's own parts, where the run left each site some.

    Raises:
        ModelError: The adapter cannot be merged, or the class is built otherwise than expected.
    """
    # Without a cache no layer is replaced, and every weight has the name that transformers gives.
    # In float32, of the values that were trained on: most of an update is smaller than what
    # bfloat16 rounds off a weight.
    computation = Computation(rounded=task.computation.dtype == "bfloat16")
    task = dataclasses.replace(task, cache_bytes=0, computation=computation)
    opened = task.open_adapter(run.adapter, personal=personal)
    bare, own = merged_model(opened.encoder, task.adapter), task.own_head
    output.mkdir(parents=True, exist_ok=True)
    config = json.loads((task.base.path / CONFIG).read_text(encoding="utf-8"))
    config = _in_float32(config) | {"dtype": "float32"}
    if task.answers:
        config = {k: v for k, v in config.items() if k not in _COUNTED_LABELS}
    if own is None:
        weights = bare.state_dict() | invented_heads(bare, task.kind)
        bare.save_pretrained(output, state_dict=weights, safe_serialization=True)
        config |= _labels(task)
        if task.answers:
            # pipeline would fall back on this class, and fail at the first answer, not before.
            config.pop("architectures", None)
    else:
        config = {k: v for k, v in config.items() if k not in _OF_EARLIER_TASKS}
        config |= _write_own_class(task, own, opened, bare, output)
    _copy_files(task, output, leave_out=() if own is None else _OF_SENTENCES)
    _write(output / CONFIG, config)
    task.whole.save_description(opened, output)
    head = head_parameters(opened)
    if own is None and head:
        save_tensors(dict(head), output / HEAD_FILE)
    if "text" in task.needs.modalities:
        _say_length(output / "tokenizer_config.json", task.max_length if own else None)
    write_conversation(task, output)


def _write_own_class(
    task: AdapterTask[Any], own: OwnHead, opened: AdaptedModel, bare: Any, output: Path
) -> dict[str, Any]:
    """Write the model of the architecture's own class; what its configuration says of it."""
    if opened.features is None:
        raise ModelError(f"{task.kind} has no head on hidden states")
    trained = {name: value.detach() for name, value in head_parameters(opened).items()}
    head = LinearHead(trained["weight"], trained.get("bias"), opened.features)
    said = _labels(task) | own.configured(bare.config, task.padding)
    if task.problem_type:
        said["problem_type"] = task.problem_type
    model, weights = own_class_model(
        bare, own, head, auto_class=OWN_CLASSES[task.kind], changes=said
    )
    model.save_pretrained(output, state_dict=weights, safe_serialization=True)
    return said | {"architectures": [type(model).__name__]}


def _in_float32(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, and those of its towers, that says what plain loading has to give."""
    said: dict[str, Any] = {}
    for key, value in config.items():
        if key == "dtype":
            said[key] = "float32"
        elif key != "torch_dtype":  # as earlier versions of transformers wrote it
            said[key] = _in_float32(value) if isinstance(value, dict) else value
    return said


def _labels(task: AdapterTask[Any]) -> dict[str, Any]:
    labels = task.answers
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _copy_files(task: AdapterTask[Any], output: Path, *, leave_out: tuple[str, ...]) -> None:
    """The base model's other files, its configuration too: dropout was turned off when loaded."""
    for path in behaviour_files(task.base.path):
        below = path.relative_to(task.base.path)
        if ".safetensors" in path.name or path.name in leave_out:
            continue
        if leave_out and below.parts[0].endswith("_Pooling"):
            continue
        (output / below).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, output / below)


def _say_length(path: Path, max_length: int | None) -> None:
    """Say in a tokenizer's configuration how much of a text the model was trained to read.

    Its beginning, whatever the base model's own tokenizer would cut.
    """
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    said["truncation_side"] = "right"
    if max_length is not None:
        said |= {"model_max_length": max_length, "padding_side": "right"}
    _write(path, said)


def _write(path: Path, said: dict[str, Any]) -> None:
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
