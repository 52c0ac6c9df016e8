"""A step of distributed noise: what the protocol costs beside the training it protects.

A real run of the embedded engine, with every role, ledger, journal and file: MiniLM, FFA-LoRA on
all layers and a head, 8 sites on one machine, one after the other. Each step is one pair:

    training    of all sites: clipped gradients of their sampled records, summed
    protocol    all else between two releases: plans, charges, keys, rounding and shares of noise,
                stored updates, encryption, masks, sums, checks, the next adapter, statements

Both are CPU time of the same process on one thread, and the median of the steps' ratios stands.
Each site's records are few and sampled often, so that the frozen layers below the adapter have
seen nearly all of them after the first steps, which are not counted: from then on they are
replayed from memory, and training is at its cheapest. No evaluation, which is a choice of the
settings and not of the protocol.

`fmfl-secure bench round --mode distributed` (`cli.bench`) calls `measure_shares`, whose
`RoundClock` observes the run; `bench.engine` uses the same clock.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmfl_secure.bench._paired import cpu_seconds, one_thread, spread
from fmfl_secure.demonstration.notes import DEMO_CATEGORIES, write_demo_notes
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.planning.noise import distributed_plan
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.transports.local.engine import LocalEngine
from privacy.mechanism.distributed import SkellamShare

SITES = 8
_RECORDS = 250  # at each site
_SAMPLE_RATE = 0.5
_FIRST = 4  # steps that fill caches
_SETTINGS = """\
[federation]
name = "bench"
rounds = {rounds}
min_sites = 7
[model]
base = "minilm"
max_length = 96
[task]
kind = "text-classification"
text_columns = ["note"]
label_column = "category"
labels = [{labels}]
[adapter]
kind = "ffa-lora"
rank = 8
alpha = 16
last_layers = {last_layers}
target_modules = ["query", "value"]
[privacy]
noise = "distributed"
epsilon = 3.0
insider_epsilon = 40.0
delta = 1e-5
sample_rate = {sample_rate}
steps_per_round = 1
[training]
physical_batch_size = 64
[evaluation]
data = ""
"""


def measure_shares(steps: int, *, last_layers: int = 1) -> dict[str, Any]:
    """Measure steps of one run.

    Args:
        steps: Steps that count.
        last_layers: Of MiniLM's 6 that are adapted; the frozen ones below are replayed from
            memory, so that few layers make for little training beside the protocol.

    Returns:
        Medians of CPU seconds, all sites together, and the ratio of protocol to training.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread():
        federation = _prepare(Path(folder), rounds=_FIRST + steps, last_layers=last_layers)
        clock = RoundClock()
        LocalEngine(federation, Path(folder) / "run", resume=False, observer=clock).run()
        config = load_federation(federation)
        task = build_task(config, relative_to=federation.parent)
        size = largest_layout(task, task.build_model(seed=config.federation.seed)).size
        share = SkellamShare(distributed_plan(config, config.sites[0], size))
        zeros = np.zeros(size)
        share_s = statistics.median(cpu_seconds(partial(share.protect, zeros)) for _ in range(9))
    pairs = clock.pairs[_FIRST:]
    shares = SITES * share_s  # timed within training, and not a part of it
    training = [pair["training"] - shares for pair in pairs]
    protocol = [pair["protocol"] + shares for pair in pairs]
    return {
        "mode": "distributed",
        "sites": SITES,
        "parameters": size,
        "records_a_step": round(SITES * _RECORDS * _SAMPLE_RATE),
        "steps": steps,
        "cpu_s": {
            "training": statistics.median(training),
            "protocol": statistics.median(protocol),
            "shares": shares,
        },
        "wall_s": {
            part: statistics.median(pair[f"{part}_wall"] for pair in pairs)
            for part in ("training", "protocol")
        },
        "protocol_over_training": spread([p / t for p, t in zip(protocol, training, strict=True)]),
    }


def _prepare(folder: Path, **choices: int) -> Path:
    """A federation's folder; returns its `federation.toml`."""
    write_demo_notes(folder / "data", sites=SITES, per_site=_RECORDS, holdout=1, seed=7)
    labels = ", ".join(f'"{label}"' for label in DEMO_CATEGORIES)
    settings = _SETTINGS.format(labels=labels, sample_rate=_SAMPLE_RATE, **choices)
    for number in range(1, SITES + 1):
        settings += f'[[sites]]\nname = "site-{number}"\npopulation = {_RECORDS}\n'
    federation = folder / "federation.toml"
    federation.write_text(settings, encoding="utf-8")
    initialise(folder, epsilon=None, delta=None, simulated=True)
    return federation


class RoundClock:
    """An observer that splits each round into training and all else."""

    def __init__(self) -> None:
        self.pairs: list[dict[str, float]] = []
        self._now: defaultdict[str, float] = defaultdict(float)
        self._cpu = self._wall = 0.0

    def _lap(self, part: str) -> None:
        """Count the time since the last call towards a part."""
        cpu, wall = time.process_time(), time.perf_counter()
        self._now[part] += cpu - self._cpu
        self._now[f"{part}_wall"] += wall - self._wall
        self._cpu, self._wall = cpu, wall

    def restart(self) -> None:
        """Counts time from now on."""
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        """The run starts; so does the clock."""
        del run, first_round, rounds
        self.restart()

    def site_refused(self, site: str, code: str, reason: str) -> None:
        """No site refuses here.

        Raises:
            RuntimeError: One did.
        """
        raise RuntimeError(f"{site} refused, {code}: {reason}")

    def site_training(self, round_number: int, site: str, step: int, steps: int) -> None:
        """A site trains from its last 0 on until its step is done."""
        del round_number, site, steps
        self._lap("training" if step else "protocol")

    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        """Ends the round's last lap, and with it a pair."""
        del record, epsilon, upload_bytes
        self._lap("protocol")
        self.pairs.append(dict(self._now))
        self._now.clear()
