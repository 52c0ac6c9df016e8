"""The lines of a model card that open a model and answer with it, by transformers and PEFT alone.

They are what a run's own `predict` does for one record. A test runs them as they are printed, in a
process in which this package cannot be imported.

`report.model_card` calls `how_to_open` for a section of the card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fmfl_secure.errors import UnknownKind
from fmfl_secure.extensions import is_extension, package_of
from fmfl_secure.report.opening_own_class import DEEP_PICTURES, READ_PICTURE, own_class_lines
from fmfl_secure.settings.own_classes import OWN_CLASSES

_REFUSES = (
    "`pipeline` does not open it: the head reads features at unit norm, which the architecture's "
    "own class cannot do, and transformers would draw a head at random. The file holds an empty "
    "tensor in that head's place, so that it refuses instead. A run with `task.head = "
    '"architecture"` trains a head that the class can hold.'
)
_EXPORT_FIRST = (
    "`fmfl-secure export RUN` writes PEFT's files of it: here are the trained cores and the "
    "factors that they stand between, which PEFT has no form for."
)
_OF_BLOCKS = (
    "The base model's weights are whole numbers in blocks, which transformers does not read. "
    "`fmfl-secure export RUN --merged` writes the whole model as it does read it."
)
_OPENS_AS: Mapping[str, str] = {"preference": "causal-lm"}  # it answers as one
_READS_TEXT = {
    "text-classification",
    "multi-label-classification",
    "token-classification",
    "causal-lm",
    "image-text",
    "image-text-classification",
}
_READS_IMAGES = {"image-classification", "image-text", "image-text-classification"}


@dataclass(frozen=True, slots=True)
class Exported:
    """The parts of an exported folder that its opening depends on.

    Attributes:
        task: Name of the task.
        adapter: Kind of adapter.
        made: What `task.json` says of the adapter.
        settings: The task's section of the settings.
        files: Names of the files in the folder.
        merged: It has whole weights.
        own_class: They are those of the architecture's own class, with the head.
    """

    task: str
    adapter: str
    made: Mapping[str, Any]
    settings: Mapping[str, Any]
    files: Sequence[str]
    merged: bool = False
    own_class: bool = False

    @property
    def place(self) -> str:
        """Where the base model's files are: the variable of the code."""
        return "folder" if self.merged else "base"

    @property
    def peft(self) -> bool:
        """Whether PEFT opens its adapter."""
        return not self.merged and "adapter_config.json" in self.files

    @property
    def plain(self) -> bool:
        """Weights of the base model are beside it."""
        return not self.merged and "weights.safetensors" in self.files

    @property
    def embeds(self) -> bool:
        """An image is read by the embedding that a two-tower model gives it."""
        return bool(self.made.get("two_towers"))

    @property
    def answers(self) -> bool:
        """The lines go on to an answer, and do not end with the opened model."""
        if "head.safetensors" in self.files:
            return self.task != "image-text"  # of a probe, whose heads are two
        return self.task in {"causal-lm", "image-text"}


def how_to_open(exported: Exported) -> list[str]:
    """A section of Markdown with the code.

    Args:
        exported: What is to be opened.
    """
    exported = replace(exported, task=_OPENS_AS.get(exported.task, exported.task))
    if "cores.safetensors" in exported.files and not exported.peft:
        return ["## How to open it", "", _EXPORT_FIRST]
    if exported.made.get("weights") == "blocks" and not exported.merged:
        return ["## How to open it", "", _OF_BLOCKS]
    others = [name for name in (exported.task, exported.adapter) if is_extension(name)]
    if others:
        return ["## How to open it", "", _with_packages(others)]
    given = ["`folder` is this one"]
    given += ["`base` the base model's"] * (not exported.merged)
    given += ["`text` a text"] * (exported.task in _READS_TEXT)
    given += ["`picture` an image's file"] * (exported.task in _READS_IMAGES)
    if exported.own_class or (exported.merged and exported.task == "causal-lm"):
        lines, note = own_class_lines(exported.task)
    else:
        lines, note = _lines(exported), ""
        if exported.merged and exported.task in OWN_CLASSES:
            note = _REFUSES
        if exported.task in _READS_IMAGES and exported.answers:
            note = f"{note} {DEEP_PICTURES}".strip()
    code = [*_imports(lines), "", *lines]
    return [
        "## How to open it",
        "",
        f"{', '.join(given)}.",
        "",
        "```python",
        *code,
        "```",
        *(["", note] if note else []),
    ]


def _with_packages(names: Sequence[str]) -> str:
    packages = dict.fromkeys(package_of(name) for name in names)
    return (
        f"What is trained here is the code of another package: {', '.join(names)}. With "
        f"{' and '.join(packages)} installed beside FMFL Secure, `fmfl-secure predict` on the run "
        "opens it; no lines of ours can."
    )


_IMPORTS = {
    "json.": "import json",
    "Path(": "from pathlib import Path",
    "torch.": "import torch",
    "PeftModel.": "from peft import PeftModel",
    "Image.": "from PIL import Image, ImageOps",
    "load_file(": "from safetensors.torch import load_file",
}
_OF_TRANSFORMERS = (
    "AutoImageProcessor", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "pipeline",
)  # fmt: skip


def _imports(lines: Sequence[str]) -> list[str]:
    """Returns the imports that the lines use, in the order that people write them in."""
    text = "\n".join(lines)
    found = [line for use, line in _IMPORTS.items() if use in text]
    standard = [line for line in found if line.split()[1] in {"json", "pathlib"}]
    names = [name for name in _OF_TRANSFORMERS if f"{name}." in text or f"{name}(" in text]
    rest = [line for line in found if line not in standard]
    rest.append(f"from transformers import {', '.join(names)}")
    return [*standard, *([""] if standard else []), *rest]


def _lines(exported: Exported) -> list[str]:
    task = exported.task
    auto = "AutoModelForCausalLM" if task == "causal-lm" else "AutoModel"
    load = f"model = {auto}.from_pretrained({exported.place}, dtype=torch."
    lines = [f"{load}float32)"]
    if exported.made.get("weights") == "bfloat16" and not exported.merged:
        lines = [f"{load}bfloat16).float()"]  # of the values that were trained on
    if exported.peft:
        lines.append("model = PeftModel.from_pretrained(model, folder)")
    elif exported.plain:
        trained = 'load_file(f"{folder}/weights.safetensors")'
        lines.append(f"model.load_state_dict({trained}, strict=False)")
    lines.append("model.eval()")
    if exported.answers:
        lines += [_TASK_FILE, *_inputs(exported), *_answers(exported)]
    return lines


_TASK_FILE = 'task = json.loads(Path(folder, "task.json").read_text(encoding="utf-8"))'


def _inputs(exported: Exported) -> list[str]:
    task, place = exported.task, exported.place
    lines = []
    if task in _READS_TEXT:
        cut = "" if task == "causal-lm" else ', truncation_side="right"'
        lines.append(f"tokenizer = AutoTokenizer.from_pretrained({place}{cut})")
    if task in _READS_TEXT and task != "causal-lm":
        lines.append(
            'kept = {"truncation": True, "max_length": task["max_length"], "return_tensors": "pt"}'
        )
        if task.startswith("image-"):
            lines.append('kept["padding"] = task.get("padding", False)')
        lines.append('ids = tokenizer(text, **kept)["input_ids"]')
    if task in _READS_IMAGES:
        lines += [
            f'processor = AutoImageProcessor.from_pretrained({place}, backend="pil")',
            *READ_PICTURE,
            'pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]',
        ]
    return lines


_HEAD = 'head = load_file(f"{folder}/head.safetensors")'
_LOGITS = '    logits = unit @ head["weight"].T + head.get("bias", 0)'
_TEXT_UNIT = (
    "model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids)).pooler_output"
)
_IMAGE_UNIT = "model.get_image_features(pixel_values=pixels).pooler_output"
_NORMALIZE = "torch.nn.functional.normalize"
_LAST = "(ids[0] != (-1 if tokenizer.pad_token_id is None else tokenizer.pad_token_id))"
# What `task.json` says of features: the lines that compute them of `states`, or of `pixels`.
_UNIT: Mapping[str, tuple[str, ...]] = {
    "mean over own tokens, unit L2 norm": (f"    unit = {_NORMALIZE}(states.mean(1), dim=-1)",),
    "own token, unit L2 norm": (f"    unit = {_NORMALIZE}(states, dim=-1)",),
    "mean over own tokens, centred, unit L2 norm": (
        "    mean = states.mean(1)",
        f"    unit = {_NORMALIZE}(mean - mean.mean(-1, keepdim=True), dim=-1)",
    ),
    "own token, centred, unit L2 norm": (
        f"    unit = {_NORMALIZE}(states - states.mean(-1, keepdim=True), dim=-1)",
    ),
    "last token over feature_scale": (
        f'    unit = states[:, {_LAST}.nonzero().max()] / task["feature_scale"]',
    ),
    "own token over feature_scale": ('    unit = states / task["feature_scale"]',),
    "first token or the tower's embedding, unit L2 norm": (
        f"    unit = {_NORMALIZE}(model(pixel_values=pixels).last_hidden_state[:, 0], dim=-1)",
    ),
    "first token over feature_scale": (
        '    unit = model(pixel_values=pixels).last_hidden_state[:, 0] / task["feature_scale"]',
    ),
    "embeddings of image and text, unit L2 norm each": (
        f"    one = {_NORMALIZE}({_IMAGE_UNIT}, dim=-1)",
        f"    two = {_NORMALIZE}({_TEXT_UNIT}, dim=-1)",
        "    unit = torch.cat([one, two], dim=1)",
    ),
}
_EACH = 'answer = dict(zip(task["labels"], logits.sigmoid()[0].tolist()))'
_LABELS = 'answer = dict(zip(task["labels"], logits.softmax(-1)[0].tolist()))'
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "text-classification": (_LABELS,),
    "multi-label-classification": (_EACH,),
    "image-classification": (_LABELS,),
    "image-text-classification": (_LABELS,),
    "token-classification": (
        'tags = [task["tags"][i] for i in logits[0].argmax(-1)]',
        "answer = list(zip(tokenizer.convert_ids_to_tokens(ids[0]), tags))",
    ),
}


def _asking(made: Mapping[str, Any]) -> list[str]:
    """The lines that write a prompt as the run did, and say what ends an answer."""
    if "chat_template" not in made:
        return [
            'prompt = task["beginning"] + task["template"].replace("{prompt}", text)',
            "end = tokenizer.eos_token_id",
        ]
    return [
        'asked = [{"role": "user", "content": text.strip()}]',
        *(
            ['asked = [{"role": "system", "content": task["system"]}, *asked]']
            if made["system"]
            else []
        ),
        "prompt = tokenizer.apply_chat_template(",
        '    asked, chat_template=task["chat_template"], tokenize=False,',
        "    add_generation_prompt=True,",
        ")",
        f"end = {made['end']}",
    ]


def _answers(exported: Exported) -> list[str]:
    task = exported.task
    if task == "image-text":
        return [
            "with torch.no_grad():",
            f"    one = {_NORMALIZE}({_IMAGE_UNIT}, dim=-1)",
            f"    two = {_NORMALIZE}({_TEXT_UNIT}, dim=-1)",
            "answer = float((one * two).sum())",
        ]
    if task == "causal-lm":
        return [
            *_asking(exported.made),
            'ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]',
            "ids = torch.tensor([ids])",
            "new = model.generate(",
            "    input_ids=ids, attention_mask=torch.ones_like(ids),",
            "    do_sample=False, num_beams=1,",
            f"    max_new_tokens={exported.settings['max_new_tokens']},",
            "    eos_token_id=end, pad_token_id=end,",
            ")[0, ids.shape[1] :]",
            "answer = tokenizer.decode(new, skip_special_tokens=True).strip()",
        ]
    if task not in _ENDINGS:
        raise UnknownKind(
            f"{task!r} is no known kind of task", hint="Write the code yourself: its card has none."
        )
    if exported.embeds and task == "image-classification":
        unit = [f"    unit = {_NORMALIZE}({_IMAGE_UNIT}, dim=-1)"]
    else:
        unit = list(_UNIT[exported.made["features"]])
    states = "    states = model(input_ids=ids, attention_mask=torch.ones_like(ids))"
    # Virtual tokens come before a text's own.
    own = [f"{states}.last_hidden_state[:, -ids.shape[1] :]"] if not _READS_IMAGES & {task} else []
    return [_HEAD, "with torch.no_grad():", *own, *unit, _LOGITS, *_ENDINGS[task]]
