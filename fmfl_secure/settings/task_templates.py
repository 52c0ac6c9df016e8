"""Templates of `[model]` and `[task]` that `init` writes, by kind of task.

`settings.templates` puts the sections into a new `federation.toml`; `cli.first_questions` goes
through `TASK_TEMPLATES` for the kinds that it offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fmfl_secure.errors import UnknownKind

_MINILM = """\
base = "minilm"          # built in, or the path of a Hugging Face folder with safetensors"""
_FOLDER = """\
base = "../models/{}"  # the path of a Hugging Face folder with safetensors"""
_HEAD = """\
head = "architecture"    # an export opens as transformers' own class, by pipeline too;
                         # "unit-norm": by lines on its card. As accurate: docs/models.md"""
_TEXTS = 'text_columns = ["text"]  # the first one that a file has'
_LABELS = """\
label_column = "label"
labels = ["negative", "positive"]  # all of them, in order; never read off private data"""
_ALIASES = 'label_aliases = []       # [["Positive", "positive"], ...]: other spellings in files'
_LABEL_TEXTS = """\
label_texts = []         # what each label means, in public words: a "unit-norm" head starts so"""
_LABEL_WEIGHTS = """\
label_weights = []       # what a record's loss is multiplied by, for each label; empty for 1"""
_TEMPLATE = 'template = "{prompt}\\n"  # what is read before a response'
_SPACE = 'last_space = "response"  # who begins with a space at a template\'s end; or "template"'
_CHAT = "chat = false              # true: the tokenizer's own chat template instead"
_SYSTEM = 'system = ""               # with chat: of conversations without a system message'
_LONGEST = "max_new_tokens = 64      # longest response that predict writes"
_IMAGE = """\
image_column = "image"   # paths, from the table's folder; not used where data are a folder by label
# image_window = [0, 4095]  # black and white in pictures of deep grey: 12 bits in 16, floats"""
_EVERY = """\
unit = "record"          # or the column that identifies a person, such as "patient_id"
unit_normalisation = []  # what makes no other person of an id in such a column: "case",
                         # "punctuation", "zeros", "compatibility"; "exact": all else does
on_bad_row = "skip"      # or "error": the site drops out, and others learn that a row was bad
readers = []             # other packages' forms of data that a site may have, by name"""


@dataclass(frozen=True, slots=True)
class TaskTemplate:
    """The parts of a template that depend on the kind of task.

    Attributes:
        model: The line that names a base model.
        task: The settings of the task's own.
        target_modules: Of the adapter; empty takes the architecture's.
    """

    model: str
    task: tuple[str, ...]
    target_modules: str = "[]  # names of linear layers; empty takes the architecture's"

    def section(self, kind: str) -> str:
        """Writes the `[task]` section as TOML."""
        return "\n".join(["[task]", f'kind = "{kind}"', *self.task, _EVERY])


_QUERY_VALUE = '["query", "value"]'
TASK_TEMPLATES: Final[Mapping[str, TaskTemplate]] = MappingProxyType(
    {
        "text-classification": TaskTemplate(
            _MINILM, (_TEXTS, _LABELS, _HEAD, _ALIASES, _LABEL_TEXTS, _LABEL_WEIGHTS), _QUERY_VALUE
        ),
        "multi-label-classification": TaskTemplate(
            _MINILM,
            (
                _TEXTS,
                _LABELS.replace('"label"', '"labels"  # a list a row'),
                'label_separator = ""     # ";" where a file holds texts such as "a;b" for lists',
                '# no_label = "none"      # stands for no label; else an empty list alone does',
                _HEAD,
                _ALIASES,
            ),
            _QUERY_VALUE,
        ),
        "token-classification": TaskTemplate(
            _MINILM,
            (
                'tokens_column = "tokens"  # lists of words; so CoNLL files call theirs',
                'tags_column = "tags"     # lists of as many tags',
                'entities = ["NAME", "DATE"]  # all types, in order; never read off private data',
                'tag_scheme = "bio"       # or "bioes" (BILOU too), "iob1": what files have',
                'tag_names = []           # what integers stand for: ["O", "B-NAME", "I-NAME"]',
                _HEAD,
            ),
            _QUERY_VALUE,
        ),
        "causal-lm": TaskTemplate(
            _FOLDER.format("decoder"),
            (
                'prompt_column = "prompt"',
                'response_column = "response"  # what is learned',
                'input_column = ""         # what a prompt is about, as "input" of Alpaca\'s files',
                _TEMPLATE,
                _SPACE,
                _CHAT,
                'messages_column = ""      # with chat: whole conversations, such as "messages"',
                _SYSTEM,
                _LONGEST,
                'responses = []            # all there are, where one is a label: ["yes", "no"]',
            ),
        ),
        "preference": TaskTemplate(
            _FOLDER.format("decoder"),
            (
                'prompt_column = "prompt"  # "" where answers are whole conversations (with chat)',
                'chosen_column = "chosen"  # texts; with chat, lists of messages too',
                'rejected_column = "rejected"',
                "beta = 0.1               # smaller: further from the model before training",
                _TEMPLATE,
                _SPACE,
                _CHAT,
                _SYSTEM,
                _LONGEST,
            ),
        ),
        "image-classification": TaskTemplate(
            _FOLDER.format("vit"),
            (_IMAGE, _LABELS, _HEAD.replace("pipeline too;", "pipeline too (not clip, siglip);"),
             _ALIASES, _LABEL_WEIGHTS),
        ),
        "image-text": TaskTemplate(
            _FOLDER.format("clip"),
            (
                _IMAGE,
                'text_column = "text"',
                'loss = "sigmoid"         # or "cosine": the pair alone, without anchors',
                'anchors = ["a photograph", "a drawing"]  # public; never of private data',
                "logit_scale = 10.0",
                "logit_bias = -10.0",
            ),
        ),
        "image-text-classification": TaskTemplate(
            _FOLDER.format("clip"),
            (_IMAGE, 'text_column = "text"', _LABELS, _ALIASES, _LABEL_WEIGHTS),
        ),
    }
)  # fmt: skip


def task_template(kind: str) -> TaskTemplate:
    """The template of a kind of task.

    Raises:
        UnknownKind: There is none; lists those that there are.
    """
    try:
        return TASK_TEMPLATES[kind]
    except KeyError:
        raise UnknownKind(
            f"no template is for the task {kind!r}", hint=f"Known: {', '.join(TASK_TEMPLATES)}."
        ) from None
