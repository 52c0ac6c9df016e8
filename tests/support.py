"""Tiny models and federations for tests. Everything is made from configurations, in a second."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmfl_secure.parties.workspace import Workspace, initialise
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import FederationConfig

if TYPE_CHECKING:
    from fmfl_secure.parties.site import Site

# fmt: off
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta",
         "iota", "kappa", "lamda", "mu", "nu", "xi", "pi", "rho"]
# fmt: on


def write_tiny_bert(folder: Path, *, layers: int = 2, width: int = 16) -> Path:
    """Write an untrained BERT with its tokenizer as safetensors and JSON."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = BertModel(
            BertConfig(
                vocab_size=len(vocabulary),
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=2,
                intermediate_size=2 * width,
                max_position_embeddings=64,
            )
        )
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def write_rows(path: Path, rows: int, *, seed: int, columns: tuple[str, str] = ("text", "label")):
    """Texts whose words lean towards their label."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number in range(rows):
            label = number % 2
            lean = WORDS[:8] if label else WORDS[8:]
            words = [
                str(generator.choice(lean if generator.random() < 0.8 else WORDS))
                for _ in range(int(generator.integers(3, 9)))
            ]
            writer.writerow([" ".join(words), "yes" if label else "no"])


def settings(
    model: Path,
    *,
    sites: int = 3,
    rounds: int = 2,
    epsilon: float = 8.0,
    steps: int = 2,
    privacy: str = "",
    federation: str = "",
    task: str = "",
    adapter: str = "last_layers = 1",
    plain: bool = False,
    evaluation: bool = True,
    aggregation: str = "",
) -> str:
    """A federation.toml for `write_rows` files; `plain` takes `adapter` for the whole section."""
    if not plain:
        adapter = f'kind = "ffa-lora"\nrank = 2\ntarget_modules = ["query", "value"]\n{adapter}'
    entries = "".join(
        f'\n[[sites]]\nname = "site-{n}"\npopulation = 40\n' for n in range(1, sites + 1)
    )
    if aggregation:
        aggregation = f"[aggregation]\n{aggregation}"
    return f"""
[federation]
name = "tiny"
rounds = {rounds}
{federation}
[model]
base = "{model}"
max_length = 16
[task]
kind = "text-classification"
text_columns = ["text"]
label_column = "label"
labels = ["no", "yes"]
{task}
[adapter]
{adapter}
[privacy]
epsilon = {epsilon}
sample_rate = 0.25
steps_per_round = {steps}
{privacy}
[training]
physical_batch_size = 8
[evaluation]
data = "{"data/holdout.csv" if evaluation else ""}"
visibility = "public"
{aggregation}
{entries}"""


def make_federation(
    folder: Path, model: Path, *, sites: int = 3, grant: float | None = None, **more
):
    """A folder with data, settings, identities and ledgers; returns its federation.toml."""
    for number in range(1, sites + 1):
        write_rows(folder / "data" / f"site-{number}.csv", 40, seed=number)
    write_rows(folder / "data" / "holdout.csv", 30, seed=99)
    path = folder / "federation.toml"
    path.write_text(settings(model, sites=sites, **more), encoding="utf-8")
    initialise(folder, epsilon=grant, delta=None, simulated=True)
    return path


def open_own_site(
    folder: Path, name: str, run: str, *, config: FederationConfig, building: threading.Lock
) -> Site:
    """A site of a federation's folder with a model of its own, as in a process of its own.

    Models are built one at a time: seeds are the process's, not a thread's.
    """
    from fmfl_secure.parties.site import Site
    from fmfl_secure.planning.task import build_task

    task = build_task(config, relative_to=folder)
    with building:
        model = task.build_model(seed=config.federation.seed)
    entry = next(entry for entry in config.sites if entry.name == name)
    own = Workspace(folder).site(name)
    return Site(own, run=run, entry=entry, config=config, task=task, model=model)


def leave_no_records(data: Path) -> None:
    """Break a table, or all those of a folder, behind its first row: reading one is complained of.

    That row is there to be found before a charge, as a table without any is refused then.
    """
    for path in [data] if data.is_file() else data.iterdir():
        head, first, *_ = path.read_text().splitlines()
        path.write_text(f'{head}\n{first}\n"broken" here\n')


class Quiet:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.refused: dict[str, tuple[str, str]] = {}
        self.rounds: list[RoundRecord] = []
        self.trained: list[tuple[int, str]] = []

    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        self.run = run

    def site_refused(self, site: str, code: str, reason: str) -> None:
        self.refused[site] = (code, reason)

    def site_training(self, round_number: int, site: str, step: int, steps: int) -> None:
        if step == steps:
            self.trained.append((round_number, site))

    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        self.rounds.append(record)


def make_kits(folder: Path, model: Path, *, sites: int = 3, time: str = "", **more) -> Path:
    """Kits with data for real processes on loopback; returns the folder of the kits."""
    from fmfl_secure.planning.task import make_start_file
    from fmfl_secure.provisioning.provision import provision
    from fmfl_secure.transports.https.ports import free_port

    federation = folder / "federation.toml"
    folder.mkdir(parents=True, exist_ok=True)
    federation.write_text(settings(model, sites=sites, **more), encoding="utf-8")
    port = free_port()
    kits = folder / "kits"
    provision(federation, kits, url=f"https://localhost:{port}")
    make_start_file(federation, kits / "server/start.safetensors")
    for number in range(1, sites + 1):
        write_rows(kits / f"site-{number}/data/train.csv", 40, seed=number)
    write_rows(kits / "server/data/holdout.csv", 30, seed=99)
    (kits / "server/service.toml").write_text(
        f"""[listen]
address = "127.0.0.1"
port = {port}
[operations]
port = 0
[time]
{time}
""",
        encoding="utf-8",
    )
    for name in sorted(file.parent.name for file in kits.glob("*/service.toml")):
        if name == "server":
            continue
        (kits / name / "service.toml").write_text(
            f"""[server]
url = "https://localhost:{port}"
retry_s = 0.5
[operations]
port = 0
""",
            encoding="utf-8",
        )
    return kits
