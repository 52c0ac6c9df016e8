"""A CUDA device beside the processor: a private step, the gate, and one federation.

    make test-gpu

Ends without a word of figures where there is no device. A decoder of random weights takes a private
LoRA step on float32, bfloat16 and 4-bit weights, after the admission gate; and three made-up sites
train MiniLM together. A few minutes in all; figures as JSON, one row a line.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig

from fmfl_secure.api import Federation
from fmfl_secure.bench.large import build_step, write_llama
from fmfl_secure.models.computation import Computation
from fmfl_secure.settings.types import WeightType
from privacy.training import check_admission

_TOKENS, _STEPS = 128, 3
_WEIGHTS: tuple[WeightType, ...] = ("float32", "bfloat16", "blocks")
_WORDS = {"no": ("pain", "worse", "fever"), "yes": ("better", "well", "fine")}


def _config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        vocab_size=32_000,
        tie_word_embeddings=False,
    )


def _steps(folder: Path, devices: list[torch.device]) -> Iterator[dict[str, Any]]:
    for weights in _WEIGHTS:
        place = folder / weights
        write_llama(_config(), place, blocks="q4_0" if weights == "blocks" else None)
        for device in devices:
            yield {"what": "step", "weights": weights, **_step(place, weights, device)}


def _step(place: Path, weights: WeightType, device: torch.device) -> dict[str, Any]:
    built = build_step(place, _TOKENS, Computation(dtype=weights, device=device))
    synthetic = built.task.synthetic()
    start = time.perf_counter()
    check_admission(
        built.model,
        loss=built.task.per_record_loss,
        collate=synthetic.collate,
        records=synthetic.records,
        physical_batch_size=4,
    )
    gate = time.perf_counter() - start
    built.trainer.train_round()  # whatever is made once
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(_STEPS):
        built.trainer.train_round()
    spent = (time.perf_counter() - start) / _STEPS
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    return {"device": device.type, "gate_s": gate, "step_s": spent, "device_peak_mib": peak}


def _federation(folder: Path, device: torch.device) -> dict[str, Any]:
    pilot = Federation.create(folder, name="gpu", sites=3)
    file = folder / "federation.toml"
    text = file.read_text(encoding="utf-8")
    for before, after in {
        'device = "auto"': f'device = "{device.type}"',
        '"negative", "positive"': '"no", "yes"',
        "rounds = 40 ": "rounds = 4 ",
        "population = 500": "population = 200",
        'data = ""  ': 'data = "data/holdout.csv"  ',
        'visibility = "private"   # must': 'visibility = "public"   # must',
    }.items():
        if before not in text:
            raise SystemExit(f"the template has no {before!r}")
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8")
    generator = np.random.default_rng(3)
    for name, rows in (*((f"site-{n}", 200) for n in (1, 2, 3)), ("holdout", 100)):
        (folder / "data").mkdir(exist_ok=True)
        with (folder / "data" / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["text", "label"])
            for _ in range(rows):
                label = str(generator.choice(["no", "yes"]))
                writer.writerow([" ".join(generator.choice(_WORDS[label], 4)), label])
    pilot = Federation(folder)
    pilot.initialise(simulated=True)
    start = time.perf_counter()
    record = pilot.run(folder / "run").record
    return {
        "what": "federation",
        "device": device.type,
        "wall_s": time.perf_counter() - start,
        "cohorts": [len(each.cohort) for each in record.rounds],
        **record.rounds[-1].metrics,
    }


def main() -> None:
    """Measure, or say why not."""
    if not torch.cuda.is_available():
        sys.stdout.write("there is no CUDA device here: nothing was measured\n")
        return
    devices = [torch.device("cuda"), torch.device("cpu")]
    with tempfile.TemporaryDirectory() as name:
        rows = _steps(Path(name), devices)
        federations = (_federation(Path(name) / d.type, d) for d in devices)
        for row in (*rows, *federations):
            machine = torch.cuda.get_device_name() if row["device"] == "cuda" else "processor"
            sys.stdout.write(json.dumps({**row, "on": machine}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
