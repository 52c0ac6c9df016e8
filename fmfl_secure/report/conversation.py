"""How an exported language model is asked: a chat template, and how the run answers.

Trained by the tokenizer's own template, the model keeps it, with the run's system message in front.
Trained by `task.template`, that becomes the chat template, whose last message is the prompt: so
`pipeline("text-generation")` reads the tokens that the run trained on, whatever special tokens a
tokenizer adds by itself to a plain text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.tasks.chat_template import ChatTemplate
from fmfl_secure.tasks.prompts import beginning

_TEMPLATE, _GENERATION = "chat_template.jinja", "generation_config.json"
# Of drawing answers at random, or of a length: the run takes the likeliest token, up to its own.
_OTHERWISE = ("temperature", "top_p", "top_k", "typical_p", "min_p", "max_length", "num_beams")


def write_conversation(task: AdapterTask[Any], folder: Path) -> None:
    """Write the template, and how the run answers; nothing for what is no language model."""
    if not isinstance(task, CausalLM):
        return
    (folder / _TEMPLATE).write_text(_template(task), encoding="utf-8")
    path = folder / _GENERATION
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    said = {key: value for key, value in said.items() if key not in _OTHERWISE}
    said |= {
        "do_sample": False,
        "max_new_tokens": task.settings.max_new_tokens,
        "eos_token_id": task.end,
        "pad_token_id": int(task.base.load_tokenizer().pad_token_id or 0),
    }
    path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _template(task: CausalLM) -> str:
    settings, tokenizer = task.settings, task.base.load_tokenizer()
    if settings.chat:
        return led_by(settings.system) + ChatTemplate(tokenizer).text
    before, after = settings.read_template.split("{prompt}")
    before = beginning(tokenizer, settings.read_template) + before
    return f"{_literal(before)}{{{{ messages[-1]['content'] }}}}{_literal(after)}"


def led_by(system: str) -> str:
    """Returns the lines before a template whose conversations begin with a system message."""
    if not system:
        return ""
    message = f"[{{'role': 'system', 'content': {json.dumps(system.strip(), ensure_ascii=False)}}}]"
    return (
        "{% if messages[0]['role'] != 'system' %}"
        f"{{% set messages = {message} + messages %}}{{% endif %}}"
    )


def _literal(text: str) -> str:
    """A text as Jinja prints it, whatever is in it."""
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""
