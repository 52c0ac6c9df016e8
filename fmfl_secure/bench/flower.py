"""RoundDriver on Flower's simulation, with a tiny model or with sites that train nothing.

What is timed is the carrying: keys, ledgers, ciphertexts and stored messages are real, the model is
a BERT of width 16 with random weights, and each site has forty rows of drawn words.

`fmfl-secure bench flower` (`cli.bench`) calls `measure_flower`: `write_federation` makes the
folder, `Simulation` or, to compare, the local engine runs it, and the clock observes each round's
end.
"""

from __future__ import annotations

import csv
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from typing_extensions import override

from aggregation import Identity
from fmfl_secure.parties.workspace import (
    AGGREGATOR,
    COORDINATOR,
    DECRYPTOR,
    ROLES,
    Members,
    Workspace,
    initialise,
)
from fmfl_secure.run.observer import Silent
from fmfl_secure.run.record import RoundRecord

_ROWS: Final = 40
_WIDTH: Final = 16
_WORDS: Final = tuple(f"{first}{second}" for first in ("ba", "de", "ki", "mo") for second in "lnrs")


class _Clock(Silent):
    """When each round ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    @override
    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        self.at.append(time.monotonic())

    @override
    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        del record, epsilon, upload_bytes
        self.at.append(time.monotonic())


def measure_flower(
    sites: int, rounds: int, *, engine: str, train: bool, workers: int = 0
) -> dict[str, Any]:
    """Run a synthetic federation.

    Args:
        sites: Sites.
        rounds: RoundDriver.
        engine: `flower-sim`, or `local` for the same work by calls alone.
        train: Whether sites train; else only the aggregation is carried, on Flower.
        workers: Processes that the sites are spread over; 0 takes one a core.

    Returns:
        Seconds of a round, and CPU seconds of this process and of those it waited for: hosts
        are among them, and of Ray what its own processes waited for.
    """
    with tempfile.TemporaryDirectory(prefix="fmfl-load-") as name:
        folder = Path(name)
        path = write_federation(folder, sites, rounds, train=train)
        clock, before = _Clock(), _cpu_s()
        record = _run(path, folder / "run", clock, engine, train=train, workers=workers)
        cpu_s = _cpu_s() - before
    seconds = [later - earlier for earlier, later in zip(clock.at, clock.at[1:], strict=False)]
    return {
        "engine": engine,
        "trains": train,
        "sites": sites,
        "rounds": [r.status for r in record.rounds],
        "cohorts": [len(r.cohort) for r in record.rounds],
        "attempts": [r.attempts for r in record.rounds],
        "parameters": record.encryption.parameters,
        "seconds_a_round": {
            "median": round(statistics.median(seconds), 2),
            "first": round(seconds[0], 2),
            "max": round(max(seconds), 2),
        },
        "cpu_seconds_a_round": round(cpu_s / rounds, 2),  # with start and end of the run
        "peak_mib_of_a_process": max(
            resource.getrusage(who).ru_maxrss // 1024
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ),
    }


def _run(path: Path, output: Path, clock: _Clock, engine: str, *, train: bool, workers: int) -> Any:
    if engine == "local":
        from fmfl_secure.transports.local.engine import LocalEngine  # noqa: PLC0415 - loads PyTorch

        return LocalEngine(path, output, resume=False, observer=clock).run()
    from fmfl_secure.transports.flower.simulation import Simulation  # noqa: PLC0415 - the extra

    return Simulation(
        path, output, resume=False, observer=clock, workers=workers, simulate=not train
    ).run()


def _cpu_s() -> float:
    """Of this process and of those it waited for."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def write_federation(folder: Path, sites: int, rounds: int, *, train: bool) -> Path:
    """Write a federation with its model, data and keys; returns its `federation.toml`."""
    _write_model(folder / "model")
    entries = "".join(
        f'\n[[sites]]\nname = "site-{n}"\npopulation = {_ROWS}\n' for n in range(1, sites + 1)
    )
    privacy = (
        "sample_rate = 0.25\nsteps_per_round = 2\nepsilon = 8.0" if train else 'noise = "none"'
    )
    path = folder / "federation.toml"
    path.write_text(
        f"""[federation]
name = "load"
rounds = {rounds}
[model]
base = {json.dumps(str(folder / "model"))}
max_length = 16
[task]
kind = "text-classification"
text_columns = ["text"]
label_column = "label"
labels = ["no", "yes"]
[adapter]
kind = "ffa-lora"
rank = 2
target_modules = ["query", "value"]
last_layers = 1
[privacy]
{privacy}
[training]
physical_batch_size = 8
{entries}""",
        encoding="utf-8",
    )
    if train:
        for number in range(1, sites + 1):
            _write_rows(folder / "data" / f"site-{number}.csv", seed=number)
        initialise(folder, epsilon=None, delta=None, simulated=True)
    else:
        _write_keys(Workspace(folder), [f"site-{n}" for n in range(1, sites + 1)])
    return path


def _write_keys(workspace: Workspace, names: list[str]) -> None:
    """Identities alone: sites that train nothing keep no ledger."""
    public = {}
    folders = {role: workspace.role(role) for role in ROLES}
    folders |= {name: workspace.site(name) for name in names}
    for name, folder in folders.items():
        folder.mkdir(parents=True, mode=0o700)
        identity = Identity.generate(name)
        identity.save(folder / "identity.pem")
        public[name] = identity.public
    members = Members(
        coordinator=public[COORDINATOR],
        aggregator=public[AGGREGATOR],
        decryptor=public[DECRYPTOR],
        sites={name: public[name] for name in names},
    )
    for folder in (workspace.folder, *(folders[name] for name in names)):
        (folder / "members.json").write_bytes(members.encode())


def _write_rows(path: Path, *, seed: int) -> None:
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for number in range(_ROWS):
            half = _WORDS[:8] if number % 2 else _WORDS[8:]
            words = generator.choice(half, size=int(generator.integers(3, 9)))
            writer.writerow([" ".join(words), "yes" if number % 2 else "no"])


def _write_model(folder: Path) -> None:
    """An untrained BERT with a tokenizer of whole words."""
    import torch  # noqa: PLC0415
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast  # noqa: PLC0415

    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *_WORDS)
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        BertModel(
            BertConfig(
                vocab_size=len(vocabulary),
                hidden_size=_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=2 * _WIDTH,
                max_position_embeddings=64,
            )
        ).save_pretrained(folder, safe_serialization=True)
