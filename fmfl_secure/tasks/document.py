"""`docs/models.md`, made from the tables that the code itself decides by.

A test compares the page with them. Whoever changes one writes it again:

    python -m fmfl_secure.tasks.document > docs/models.md
"""

from __future__ import annotations

import sys

from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.models.architectures import ARCHITECTURES, REFUSED
from fmfl_secure.models.own_heads import ANSWERS_FOR, OWN_HEADS
from fmfl_secure.models.support import refusal
from fmfl_secure.settings.own_classes import OWN_CLASSES
from fmfl_secure.settings.techniques import INFO_NCE, INFO_NCE_INSTEAD
from fmfl_secure.tasks.make import TASKS, TaskKind

_INTRODUCTION = """\
# Models, adapters and tasks

Which architecture, adapter and task go together. The tables are made from the ones that the code
decides by (`python -m fmfl_secure.tasks.document`), and a test keeps this page equal to them.

**yes** is `tests/integration/test_models_matrix.py::test_works[MODEL-ADAPTER-TASK]`: on a small
model of that architecture the admission gate passes with random adapters (the batched sum of
clipped gradients is the one taken record by record, and no record moves it by more than C), the
adapter's files open again with the same losses, and predictions and metrics come out. Some run by
default, all of them with `-m slow`. A number is a refusal, before any data are read, with the
reason below (`test_refused`).

A base model is a local Hugging Face folder with safetensors weights. Nothing in it is executed:
`trust_remote_code` is never set, and pickled weights are not read.

`fmfl-secure model import SOURCE --output DIR` makes such a folder, with a README that says where
it came from: from `smollm2` (SmolLM2-135M-Instruct) or `dinov2-small`, which packages carry; from a
`.gguf` file, every block becoming the float32 values that it stands for; or from a folder with
`pytorch_model.bin`, by torch's loader that builds tensors alone. Nothing of a source is run, and
what a package carries is checked by its SHA-256. Versions of libraries may write a tokenizer
otherwise, and the folder's digest with it: import once, and give every party the same folder.
`--picture-size 56` has a DINO read images at 56 x 56 pixels: a sixteenth of the work of 224, and
enough for small ones. `fmfl-secure init DIR --model FOLDER` then writes the settings that follow.

A record's text is text: what spells a special token of the tokenizer is read as the letters that it
is, so that no row can close its own turn and write the answer. A text longer than
`model.max_length` is cut at its end; `check` and the site's own log count such records. A language
model's template is never cut: prompt and response are each sure of half of the room beside it.
Where `task.template` ends with a space and `task.last_space = "response"`, as `init` writes, the
space is the response's first: a model has read " payment" within texts, and hardly ever "payment"
behind a space. `plan` says where a template keeps it, as those of version 0.1.0 do.

With `task.chat = true` a language model learns conversations by its tokenizer's own chat template:
of `prompt_column`, `input_column` and `response_column` (`instruction`, `input` and `output` in
Alpaca's files), or of `messages_column`, lists of `{"role", "content"}` or ShareGPT's
`{"from", "value"}`, in JSON Lines, JSON arrays or Parquet. What the assistant says is learned, in
every turn, with the token that ends it; nothing else is. The template is rendered in transformers'
sandbox without any record's text, once for each sequence of roles; its text is part of the base
model's digest, stands in `task.json` and goes into exports, led by `task.system` where that is set.
A conversation that is too long loses its last exchanges when it is learned and its first when it is
to be answered; in a single exchange the question loses its end, then the answer its own, never its
beginning. Refused are templates that write the date, change texts or end answers with no special
token, conversations out of turn (a bad row), and packing, which gives several records one gradient.

A language model classifies where `task.responses` lists all answers there are, such as `["yes",
"no"]`. `evaluate`, the run's own figures and `compare` then begin with `accuracy` and `macro_f1`
of the likeliest answer, as `text-classification` has them: each whole answer with its end is put
behind the prompt, and its likelihood held against the others'. A record whose own response is none
of them counts as missed. `compare` adds the majority class, the model before any training, and
`--partition dirichlet:ALPHA` by answer; its `--adapter` names one, as there is no probe. So a
classifier and instruction answers on the same files and in the same columns are two settings
files:

    [task]                                  [task]
    kind = "text-classification"            kind = "causal-lm"
    text_columns = ["text"]                 prompt_column = "text"
    label_column = "label"                  response_column = "label"
    labels = ["heart", "lungs"]             responses = ["heart", "lungs"]
                                            template = "{prompt}\n\nWhich organ? "

An evaluation costs a forward pass for each answer; with `training.cache_mib`, frozen layers run
once a record and answer.

`kind = "preference"` learns which of two answers people chose (direct preference optimisation,
arXiv 2305.18290): a record is a prompt with a chosen and a rejected answer. A cell is a text or,
with `chat`, a list of messages; an answer is then the assistant's message alone or a whole
conversation, and with `prompt_column = ""` there is no prompt beside it. A record's loss is
-log s(beta (d - d_ref)), with d the log-likelihood of the chosen answer less that of the rejected
one, and d_ref the same by the model as it was before training: the base model, or the adapter of
`adapter.initial`, which may be of a `causal-lm` run on instructions. No pair meets another pair, so
a record's gradient is its own. Both answers stand behind the same tokens: what does not fit goes
from the conversation's beginning, then from the prompt's end, then from an answer's. There is no
second model in memory, and with room in `training.cache_mib` d_ref is computed once a record. A
step costs two causal-LM steps. `evaluate` gives `pair_accuracy`, the share of pairs whose chosen
answer has the higher implicit reward beta (log pi - log pi_ref), one that both see alike counting
for a half; `likelier`, the share in which the model itself finds it likelier; and the mean
`margin`. An untrained model has 0.5 and 0. `predict`, `chat` and an export answer as a `causal-lm`
does.
*(`tests/unit/test_tasks_preference.py`, `tests/integration/test_preference_run.py`.)*
"""

_ADAPTERS = """\
## Adapters

| `adapter.kind` | what is trained and uploaded |
| --- | --- |
"""

_OF_ADAPTERS = """
`full` leaves position embeddings, class tokens and the projections of two towers as they are, and
word embeddings that are the output layer as well.

Classification tasks train their head besides, whatever the adapter. `rank_stabilised = true`
scales a low-rank update by alpha / sqrt(rank) (rsLoRA). `target_modules` overrides the
architecture's own linear layers, and `last_layers` adapts the last ones only: those below run once
a record. With `layer_groups = N` a round of the LoRA family trains every Nth of the adapted layers,
and the next round the next ones: a round uploads so much less.

A site's `rank` in `[[sites]]` may be smaller than `adapter.rank`, which fixes the common layout:
what lies beyond is zero, in public, and a value's mean is taken over the sites that train it.

PEFT opens what the LoRA family, `dora`, `vera`, `lokr`, `ia3`, `prompt` and `prefix` write, and
what `export` adds for `lora-xs` and `p-tuning`. For `bottleneck` it has no form; on a `model` of
transformers

    from safetensors.torch import load_file
    from torch.nn.functional import gelu, linear

    tensors = load_file("adapter/bottleneck.safetensors")
    for name in {key.rsplit(".", 2)[0] for key in tensors}:
        def bend(_module, _inputs, given, name=name):
            down, up = (
                [tensors[f"{name}.{part}.{each}"] for each in ("weight", "bias")]
                for part in ("down", "up")
            )
            return given + linear(gelu(linear(given, *down)), *up)
        model.get_submodule(name).register_forward_hook(bend)

opens it (`tests/unit/test_models_around.py`). What it computes, and `dora`, `vera` and `lokr`, is
not linear in what is trained, so that the mean of the sites' parts is not quite the mean of their
changes; of `ffa-lora` and `lora-xs` it is.

## The classifier head, and what an export opens as

Text, token and image classifiers have a linear head. `task.head` says what it reads:

| `task.head` | reads | a merged export opens as |
| --- | --- | --- |
| `unit-norm` | OF_UNIT_NORM | `AutoModel`, by the lines on its card; refused as another class |
| `architecture` | what the table below says | CLASSES, and by `pipeline` |

The default is `unit-norm`, as it was; `init` writes `architecture`.

HELD
BERT and its kin have one layer more in the export. It holds no trained value: its
attention is equal over a text's own tokens, and its norm centres and scales. Open such an export
in float32. With a frozen MiniLM and the same noise (multiplier 1.2, 60 steps, best of five
learning rates, mean of four runs), the two heads measured 0.782 and 0.782 on SST-2 (3,000 texts)
and 0.576 and 0.576 on medical abstracts (2,300); a first token, which those classes read by
themselves, 0.627 and 0.534.

Whatever the task, an export answers as the run does, to 1e-5, in a process in which this package
cannot be imported: `tests/integration/test_models_out.py`.

## From updates to the next adapter

Sites weigh the same, or with `federation.weights = "population"` by 1, 1/2, 1/4 or 1/8 of the
largest, by their declared populations. `training.server_optimizer` applies the released mean:
`average` (FedAvg), `momentum` (FedAvgM), `adam` (FedAdam) or `yogi` (FedYogi). `training.proximal`
is FedProx's mu at the sites. All of them act on what is private already and cost no epsilon. They
are for `training.steps_at = "site"`. With `"server"`, and with distributed noise, a round is one
step and every unit weighs the same: `training.optimizer` runs at coordinator and sites alike, on
the released sum of gradients, with one memory for the run.

With `adapter.personal = ["head", "lora_B"]` every site keeps these parts of the adapter for itself:
`head` is what the task adds; any other part is named by words of the names that its parameters
have, with dots between. `["lora_B"]` with `lora` is FedSA-LoRA, `["lora_A"]` its mirror, and
`["encoder"]` with `norms` shares a head on norms of each site's own, as FedBN does with batch
norms. They are trained inside the same clipped and noised vector as the rest, so what later updates
owe to them is paid for, and they are never uploaded: they stay in `heads/RUN.safetensors` in the
site's folder, for `fmfl-secure evaluate`, `predict` and `export` with `--personal`. Such a file
tells of its site's data what its noise lets it tell, as an update that was seen alone would. The
run's own folder has what these parts were before training, and says so. `plan` counts what is
shared and what stays. With `evaluation.data = "sites"` each site answers with its own parts. A run
that goes on from one with the same parts begins, at every site, with that site's own. Only with
steps at the sites; and not with distributed noise, whose shares protect only what is summed.
`adapter.personal_head = true` is `["head"]`.

`adapter.initial = "run-1"` goes on from a finished run's folder, or from one that `export` wrote,
with other sites or more rounds if need be; every party holds it. It has to be of the same base
model, task, kind and scaling. Ledgers hold what each run costs a site's own people; the report and
the card say besides what the whole line of runs costs somebody who was in all of them, and an
adapter that does not say what it cost is not gone on from.
"""

_BIGGER = """\
## Bigger models on small machines

| setting | what it does |
| --- | --- |
| `model.dtype = "bfloat16"` | keeps frozen matrices in half the memory |
| `model.dtype = "blocks"` | keeps them in blocks of 8 or about 4 bits, of a folder that has such |
| `training.checkpointing = true` | keeps what goes into a layer, and computes the rest again |
| `training.physical_batch_size` | records in memory at once, of a sampled batch of any size |
| `adapter.last_layers` | adapts the last layers only: those below run once a record |
| `training.device` | `cpu`, `cuda`, or `auto`: each party's CUDA device where it has one |

None of them changes what is private. With `bfloat16`, weights are rounded, and multiplied in
float32, a matrix at a time: what is trained, activations, gradients, clipping and noise are exact
as before. Were activations bfloat16 too, a record's gradient would move by 0.5 % with the records
it shares a physical batch with (MiniLM; in float32 by 7e-7), and a unit could move the sum by more
than C. So a private step computes in all bits of float32 whatever its process asked PyTorch for
(`torch.set_float32_matmul_precision`, and convolutions on CUDA devices without being asked).
Checkpointing does not go with `prefix`, whose keys come from outside the layers.

Blocks are GGUF's: 32 values of a row as whole numbers with a float16 scale (`q8_0`, `q4_0`; with an
offset `q4_1`). `fmfl-secure model import SOURCE --weights blocks` keeps those of a GGUF file bit by
bit, `--weights q4_0` and its like make them of any folder. They stay in the mapped file, and a
matrix is float32 for the time of a product. A record's gradient is then that on float32 weights of
the same values (to 1e-6 of the clipped sum, and a record's own to 1e-5 of C whatever shares its
batch: `tests/unit/test_models_blocks.py::test_a_step_on_blocks_is_that_on_their_values`), and every
adapter but `bitfit` and `full` passes the gate on them. A merged export holds the values that the
run trained on, in float32. SmolLM2-135M takes 92 MiB in its own blocks, 513 MiB in float32, and
gives the same logits to the last bit. Other programs do not open such a folder: give them the model
imported in float32.

Weights that the files have in the wanted type are mapped and not copied: of 108 MiB, loading took
12 MiB, and reading all of them 117 MiB, where copies took 333 MiB at their peak. So save a big
model as bfloat16 safetensors, and leave its files alone while a run is on. Noise is drawn on the
processor, from the operating system's randomness, whatever the device.

`fmfl-secure bench large --json`: one private LoRA step (rank 8, queries and values of every layer)
of a Llama, four texts of 32 tokens, two at a time, on one thread; memory is of the whole process,
mapped weights and libraries included (about 450 MiB before the model).

| parameters | weights | peak | CPU s, loading | CPU s, step |
| --- | --- | --- | --- | --- |
| 1.10 billion, 16 layers | 2,106 MiB | 3,060 MiB | 3.1 | 29.6 |
| the same in blocks, `q4_0` (`--blocks q4_0`) | 593 MiB | 1,521 MiB | 0.5 | 26.8 |

The settings beside each other: 4 of those layers (374 million parameters, 714 MiB of bfloat16),
texts of 128 tokens (`--layers 4 --tokens 128`). In float32 the peak is that of loading, which has
to copy weights that the files have in bfloat16.

| `dtype` | `checkpointing` | peak | CPU s, step |
| --- | --- | --- | --- |
| bfloat16 | true | 1,635 MiB | 16.4 |
| bfloat16 | false | 1,787 MiB | 10.8 |
| float32 | true | 2,612 MiB | 11.9 |
| float32 | false | 2,611 MiB | 9.4 |
"""

_SUITES = """
## Benchmarks of your own

`fmfl-secure evaluate RUN --suite FILE` asks a run's language model, and its base model without the
adapter beside it, what files of yours hold; nothing is downloaded. The file:

```toml
[[benchmarks]]
name = "questions"
kind = "multiple-choice"             # the likeliest of a row's choices
data = "questions.jsonl"             # any form that a site's data may have
question = "{question}\\nAnswer:"    # of columns
choices_column = "choices"           # lists, or ARC's {"text": [...]}; or choices = ["no", "yes"]
answer_column = "answer"             # a choice's text, its place from 0, or its letter
examples = "examples.jsonl"          # whose first rows stand before a question
shots = [0, 4]                       # so many of them, each an arm of its own

[[benchmarks]]
name = "summaries"
kind = "answers"                     # generated, and compared with the right one
data = "summaries.csv"
question = "{text}"
answer_column = "summary"

[[benchmarks]]
name = "held out"
kind = "task"                        # the run's own task, with its own metrics
data = "holdout.csv"
```

Multiple choice: accuracy by likelihood, by likelihood a letter, and the calibration error of the
likeliest answer (ten bins). Answers: exact match but for case, blanks and a full stop, and ROUGE-L
(F1 of words). The run's own task: its metrics, such as the F1 of entities, with the calibration
error and the share of the most frequent label where there is one label a record. Means have their
standard errors. Questions that do not fit are counted. The figures are exact: not private.
"""

_ANY_OTHER = """\
Any other architecture is used only at sites whose policy says `architectures = "gated"`; elsewhere
it is refused as not measured (`policy.architecture`). Where its layers are is then worked out from
transformers' own class, layers below the adapter are computed at every step, a language model is
measured to see no token that follows, and `ia3`, `prefix` and `task.head = "architecture"` are not
for it. Mixtures of experts, several towers and encoder-decoders stay refused.

Whatever passes these tables still has to pass the admission gate, which looks at the model itself:
batch normalisation, dropout, an adapter that the loss does not train, and losses that couple
records are found there.
"""


def models_document() -> str:
    """Writes the page `docs/models.md`, as Markdown."""
    adapters = "".join(f"| `{kind.name}` | {kind.trains} |\n" for kind in ADAPTERS)
    classes = ", ".join(f"`{name}`" for name in OWN_CLASSES.values())
    of_adapters = (
        _OF_ADAPTERS.replace("HELD", _held())
        .replace("OF_UNIT_NORM", "a mean, every token, a first token or an embedding at unit norm")
        .replace("CLASSES", classes)
    )
    parts = [_INTRODUCTION, _ADAPTERS + adapters + of_adapters, _BIGGER]
    parts.append('| not with `model.dtype = "bfloat16"` | why |\n| --- | --- |')
    parts.append(
        "".join(
            f"| `{kind.name}` | {kind.needs_float32} |\n" for kind in ADAPTERS if kind.needs_float32
        )
    )
    parts.append("## What works\n")
    reasons: dict[tuple[str, str], int] = {}
    parts += [_task_table(task, reasons) for task in TASKS]
    parts.append("### Reasons\n")
    parts.append(
        "\n".join(
            f"{number}. {reason[0].upper()}{reason[1:]}. Use {instead}."
            for (reason, instead), number in reasons.items()
        )
        + "\n"
    )
    parts.append("## Architectures that are refused\n")
    parts.append("| `model_type` | why | instead |\n| --- | --- | --- |")
    parts.append(
        "\n".join(f"| `{name}` | {why} | {instead} |" for name, (why, instead) in REFUSED.items())
        + "\n"
    )
    parts.append(_ANY_OTHER)
    parts.append(_SUITES)
    parts.append("## Settings that are refused\n")
    parts.append("Techniques of the literature by name: [the survey's map](survey.md).\n")
    parts.append("| setting | why | instead |\n| --- | --- | --- |")
    parts.append(f"| `task.loss = 'info-nce'` under privacy | {INFO_NCE} | {INFO_NCE_INSTEAD} |")
    return "\n".join(parts) + "\n"


def _held() -> str:
    """Tables what heads read with `task.head = "architecture"`, by architecture."""
    lines = ["| with `architecture` on | text | tokens | image |", "| --- | --- | --- | --- |"]
    for model_type, architecture in ARCHITECTURES.items():
        own = OWN_HEADS.get(model_type, {})
        cells = []
        for what in ANSWERS_FOR:
            read = ("image" if what == "image" else "text") in architecture.towers
            read = read and not (what != "image" and len(architecture.towers) > 1)
            cells.append(own[what].said if what in own else "refused" if read else "")
        lines.append(f"| {model_type} | {' | '.join(cells)} |")
    scale = (
        "`feature_scale`, in `task.json`, is the L2 norm of the weights of the model's last norm."
    )
    return "\n".join([*lines, "", scale, ""])


def _task_table(task: TaskKind, reasons: dict[tuple[str, str], int]) -> str:
    lines = [
        f"### {task.name}\n",
        f"| | {' | '.join(ADAPTERS.names)} |",
        f"| --- |{' --- |' * len(ADAPTERS.names)}",
    ]
    for model_type, architecture in ARCHITECTURES.items():
        cells = []
        for adapter in ADAPTERS.names:
            found = refusal(architecture, adapter, task.needs)
            if found is None:
                cells.append("yes")
            else:
                cells.append(str(reasons.setdefault(found, len(reasons) + 1)))
        lines.append(f"| {model_type} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(models_document())
