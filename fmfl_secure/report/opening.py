"""The lines of a model card that open a model and answer with it, by transformers and PEFT alone.

They are what a run's own `predict` does for one record: features at unit norm, then a linear
head. A test runs them as they are printed, in a process without this package.
"""

from __future__ import annotations

from collections.abc import Sequence

from fmfl_secure.errors import UnknownKind
from fmfl_secure.extensions import is_extension, package_of
from fmfl_secure.settings.own_classes import OWN_CLASSES

_REFUSES = (
    "`pipeline` does not open it: the head reads features at unit norm, which the architecture's "
    "own class cannot do, and transformers would draw a head at random. The file holds an empty "
    "tensor in that head's place, so that it refuses instead."
)
_AUTO = {"causal-lm": "AutoModelForCausalLM"}
_READS_TEXT = {
    "text-classification",
    "token-classification",
    "causal-lm",
    "image-text",
    "image-text-classification",
}
_READS_IMAGES = {"image-classification", "image-text", "image-text-classification"}


def how_to_open(
    task: str, adapter: str, *, merged: bool, files: Sequence[str], embeds: bool
) -> list[str]:
    """A section of Markdown with the code.

    Args:
        task: Name of the task.
        adapter: Kind of adapter.
        merged: The folder has whole weights.
        files: Names of the files in the folder.
        embeds: Images are read by a two-tower model's embedding, and not by a first token.
    """
    others = [name for name in (task, adapter) if is_extension(name)]
    if others:
        return ["## How to open it", "", _with_packages(others)]
    answers = _answers(task, embeds=embeds) if _has_answer(task, files) else []
    given = ["`folder` is this one" if merged else "`folder` is this one, `base` the base model's"]
    given += ["`text` a text"] * (task in _READS_TEXT)
    given += ["`picture` an image's file"] * (task in _READS_IMAGES)
    lines = [*_imports(task, merged=merged, files=files, head=bool(answers)), ""]
    lines += _model(task, merged=merged, files=files)
    if answers:
        lines += [*_inputs(task, "folder" if merged else "base"), *answers]
    return [
        "## How to open it",
        "",
        f"{', '.join(given)}.",
        "",
        "```python",
        *lines,
        "```",
        *_note(task, merged=merged),
    ]


def _with_packages(names: Sequence[str]) -> str:
    packages = dict.fromkeys(package_of(name) for name in names)
    return (
        f"What is trained here is the code of another package: {', '.join(names)}. With "
        f"{' and '.join(packages)} installed beside FMFL Secure, `fmfl-secure predict` on the run "
        "opens it; no lines of ours can."
    )


def _has_answer(task: str, files: Sequence[str]) -> bool:
    if "head.safetensors" in files:
        return task != "image-text"  # of a probe, whose heads are two
    return task in {"causal-lm", "image-text"}


def _imports(task: str, *, merged: bool, files: Sequence[str], head: bool) -> list[str]:
    auto = [_AUTO.get(task, "AutoModel")]
    auto += ["AutoTokenizer"] * (head and task in _READS_TEXT)
    auto += ["AutoImageProcessor"] * (head and task in _READS_IMAGES)
    peft = not merged and "adapter_config.json" in files
    plain = not merged and "weights.safetensors" in files
    return [
        *["import json", "from pathlib import Path", ""],
        *["import torch"],
        *["from peft import PeftModel"] * peft,
        *["from PIL import Image"] * (head and task in _READS_IMAGES),
        *["from safetensors.torch import load_file"] * (plain or "head.safetensors" in files),
        f"from transformers import {', '.join(sorted(auto))}",
    ]


def _model(task: str, *, merged: bool, files: Sequence[str]) -> list[str]:
    auto, place = _AUTO.get(task, "AutoModel"), "folder" if merged else "base"
    lines = [f"model = {auto}.from_pretrained({place}, dtype=torch.float32)"]
    if not merged and "adapter_config.json" in files:
        lines.append("model = PeftModel.from_pretrained(model, folder)")
    elif not merged and "weights.safetensors" in files:
        trained = 'load_file(f"{folder}/weights.safetensors")'
        lines.append(f"model.load_state_dict({trained}, strict=False)")
    lines.append("model.eval()")
    return [*lines, 'task = json.loads(Path(folder, "task.json").read_text(encoding="utf-8"))']


def _inputs(task: str, place: str) -> list[str]:
    lines = []
    if task in _READS_TEXT:
        lines.append(f"tokenizer = AutoTokenizer.from_pretrained({place})")
    if task in _READS_TEXT and task != "causal-lm":
        padding = ', padding="max_length"' if task.startswith("image-") else ""
        lines.append(
            'kept = {"truncation": True, "max_length": task["max_length"], "return_tensors": "pt"}'
        )
        if padding:
            lines.append('kept["padding"] = task.get("padding", False)')
        lines.append('ids = tokenizer(text, **kept)["input_ids"]')
    if task in _READS_IMAGES:
        lines += [
            f'processor = AutoImageProcessor.from_pretrained({place}, backend="pil")',
            'image = Image.open(picture).convert("RGB")',
            'pixels = processor(images=[image], return_tensors="pt")["pixel_values"]',
        ]
    return lines


_HEAD = 'head = load_file(f"{folder}/head.safetensors")'
_LOGITS = '    logits = unit @ head["weight"].T + head["bias"]'
_TEXT_UNIT = (
    "model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids)).pooler_output"
)
_IMAGE_UNIT = "model.get_image_features(pixel_values=pixels).pooler_output"
_NORMALIZE = "torch.nn.functional.normalize"


def _answers(task: str, *, embeds: bool) -> list[str]:
    states = "    states = model(input_ids=ids, attention_mask=torch.ones_like(ids))"
    own = f"{states}.last_hidden_state[:, -ids.shape[1] :]"
    labels = 'answer = dict(zip(task["labels"], logits.softmax(-1)[0].tolist()))'
    match task:
        case "text-classification":
            unit = f"    unit = {_NORMALIZE}(states.mean(1), dim=-1)"
            return [_HEAD, "with torch.no_grad():", own, unit, _LOGITS, labels]
        case "token-classification":
            unit = f"    unit = {_NORMALIZE}(states, dim=-1)"
            tags = 'tags = [task["tags"][i] for i in logits[0].argmax(-1)]'
            answer = "answer = list(zip(tokenizer.convert_ids_to_tokens(ids[0]), tags))"
            return [_HEAD, "with torch.no_grad():", own, unit, _LOGITS, tags, answer]
        case "image-classification":
            first = "model(pixel_values=pixels).last_hidden_state[:, 0]"
            unit = f"    unit = {_NORMALIZE}({_IMAGE_UNIT if embeds else first}, dim=-1)"
            return [_HEAD, "with torch.no_grad():", unit, _LOGITS, labels]
        case "image-text-classification":
            both = [
                f"    one = {_NORMALIZE}({_IMAGE_UNIT}, dim=-1)",
                f"    two = {_NORMALIZE}({_TEXT_UNIT}, dim=-1)",
                "    unit = torch.cat([one, two], dim=1)",
            ]
            return [_HEAD, "with torch.no_grad():", *both, _LOGITS, labels]
        case "image-text":
            return [
                "with torch.no_grad():",
                f"    one = {_NORMALIZE}({_IMAGE_UNIT}, dim=-1)",
                f"    two = {_NORMALIZE}({_TEXT_UNIT}, dim=-1)",
                "answer = float((one * two).sum())",
            ]
        case "causal-lm":
            return [
                'prompt = task["beginning"] + task["template"].replace("{prompt}", text)',
                'ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]',
                "ids = torch.tensor([ids])",
                "end = tokenizer.eos_token_id",
                "new = model.generate(",
                "    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,",
                "    max_new_tokens=128, eos_token_id=end, pad_token_id=end,",
                ")[0, ids.shape[1] :]",
                "answer = tokenizer.decode(new, skip_special_tokens=True).strip()",
            ]
        case _:
            raise UnknownKind(f"{task!r} is no known kind of task", hint="Its card has no code.")


def _note(task: str, *, merged: bool) -> list[str]:
    if not merged or task not in OWN_CLASSES:
        return []
    return ["", _REFUSES]
