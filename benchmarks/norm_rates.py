"""How often the norm check flags honest updates: real uploads, many challenges.

Updates are those of the product's own training on real texts, in the clear: each clipped, noised
and rounded to its grid. Two ways of training, and each also at its largest public norm: every
group of an update lengthened, before it is rounded, to the norm that the plan allows. (Adam's first
step is there by itself: each of its values is at the end of the range.)

A round is one challenge, fresh for each, and one update of every site, drawn from those of all
rounds that were trained; it is flagged if any of its sites is, in any group. So the challenges of
all rounds are independent, and the updates are used again. Beside it stands how often lengths
exceed smaller limits, which shows that the measurement would see flags if there were any:

    python benchmarks/norm_rates.py examples/medical_abstracts/federation.toml \
        medical_abstracts.csv --output benchmarks/results/norm_rates.json
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import beta, chi2

from aggregation.crypto.projections import Signs, rows_of
from aggregation.protocol import NormGroup
from aggregation.protocol.norms import SLACK, limit_of
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.planning.norms import norm_groups
from fmfl_secure.planning.plans import quantization, site_plan
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.training.local_round import train_locally
from fmfl_secure.training.server_step import ServerStep

SITES, POPULATION, ROUNDS = 8, 150, 6
SMALLER = (1.0, 1.1, 1.2, 1.3)  # of the largest norm, where SLACK has 1.7
ARMS: dict[str, dict[str, Any]] = {
    "gradients, steps at the server": {"steps_at": "server", "steps": 1},
    "one Adam step at the sites": {"steps_at": "site", "steps": 1},
}


@dataclass(frozen=True, slots=True)
class Uploads:
    """What the sites of one arm uploaded.

    Attributes:
        integers: Shape (rounds, sites, d).
        groups: Of the plan.
        limit: The grid's.
    """

    integers: npt.NDArray[np.int32]
    groups: tuple[NormGroup, ...]
    limit: int

    def at_the_largest_norm(self) -> Uploads:
        """Each group lengthened to its norm, in its own direction, and rounded as ever."""
        rng = np.random.default_rng(secrets.randbits(64))
        made = self.integers.astype(np.float64)
        start = 0
        for group in self.groups:
            part = made[..., start : start + group.size]
            part *= group.norm / np.linalg.norm(part, axis=-1, keepdims=True)
            start += group.size
        made = np.floor(made + rng.random(made.shape))
        return Uploads(made.astype(np.int32), self.groups, int(np.abs(made).max()))


def settings(config: FederationConfig, steps_at: str, steps: int) -> FederationConfig:
    """The federation of this measurement: eight sites, norms checked, steps where the arm says."""
    replace = msgspec.structs.replace
    entry = replace(config.sites[0], population=POPULATION)
    return replace(
        config,
        federation=replace(config.federation, rounds=ROUNDS, norm_check=True),
        privacy=replace(config.privacy, steps_per_round=steps),
        training=replace(config.training, steps_at=steps_at),
        evaluation=type(config.evaluation)(),
        sites=tuple(replace(entry, name=f"site-{n}") for n in range(1, SITES + 1)),
    )


def load(config: FederationConfig, rows: list[dict[str, str]]) -> tuple[Task, dict[str, TaskData]]:
    """The task and the sites' data: what frozen layers make of them is computed once for all."""
    with tempfile.TemporaryDirectory() as folder:
        task = build_task(config, relative_to=Path(folder))
        data = {}
        for place, entry in enumerate(config.sites):
            path = Path(folder) / f"{entry.name}.csv"
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows[place * POPULATION : (place + 1) * POPULATION])
            data[entry.name] = task.load_pooled([path], unit="record", on_bad_row="skip")
    return task, data


def train(config: FederationConfig, task: Task, data: Mapping[str, TaskData]) -> Uploads:
    """All rounds of a run, in the clear; keeps what every site uploads."""
    model = task.build_model(seed=config.federation.seed)
    size = largest_layout(task, model).size
    adapter, server = adapter_bytes(model), ServerStep(config)
    found: list[list[npt.NDArray[np.int32]]] = []
    groups: Any = ()
    for number in range(1, ROUNDS + 1):
        layout = task.begin_round(model, number)
        grid = quantization(config, layout, size)
        groups = norm_groups(config, config.turn(number), grid)
        found.append(
            [
                train_locally(
                    model,
                    adapter,
                    data[entry.name],
                    config=config,
                    task=task,
                    plan=site_plan(config, entry, size),
                    layout=layout,
                    rank=config.rank_of(entry.name),
                    quantization=grid,
                )
                for entry in config.sites
            ]
        )
        total = np.sum(found[-1], axis=0, dtype=np.int64)
        adapter = server.apply(layout, grid, adapter, total, [e.name for e in config.sites])
    return Uploads(np.array(found), groups, grid.limit)


def challenged(uploads: Uploads, rounds: int) -> Iterator[npt.NDArray[np.float64]]:
    """For each round, how long the sites' projections are, over the largest norm; (sites, groups).

    The same arithmetic as a site's, and the same comparison but for floating point.
    """
    rng = np.random.default_rng(secrets.randbits(64))
    sizes = [group.size for group in uploads.groups]
    rows = np.array([rows_of(size) for size in sizes])
    starts = np.cumsum([0, *rows[:-1]])
    norms = np.array([group.norm + math.sqrt(group.size) for group in uploads.groups])
    for _ in range(rounds):
        # All sites' groups in one go: each uses the same columns, whichever it is.
        signs = Signs(secrets.token_bytes(32), sizes * SITES)
        drawn = uploads.integers[rng.integers(ROUNDS, size=SITES), np.arange(SITES)]
        projected = signs.project(drawn.ravel(), uploads.limit).reshape(SITES, -1)
        squares = np.add.reduceat(projected.astype(np.float64) ** 2, starts, axis=1)
        yield np.sqrt(squares / rows) / norms


def measure(uploads: Uploads, rounds: int) -> dict[str, Any]:
    """Flags of so many rounds, and how often smaller limits are exceeded."""
    slack = np.array([limit_of(g, 1.0) / (g.norm + math.sqrt(g.size)) for g in uploads.groups])
    flagged, longest = 0, 0.0
    beyond = dict.fromkeys(SMALLER, 0)
    looked = 0
    for lengths in challenged(uploads, rounds):
        flagged += bool((lengths > slack).any())
        longest = max(longest, float((lengths / slack).max()))
        looked += lengths.size
        for limit in SMALLER:
            beyond[limit] += int((lengths > limit).sum())
    low = beta.ppf(0.025, flagged, rounds - flagged + 1) if flagged else 0.0
    high = beta.ppf(0.975, flagged + 1, rounds - flagged)
    starts = np.cumsum([0, *[group.size for group in uploads.groups[:-1]]])
    squares = np.add.reduceat(uploads.integers.astype(np.float64) ** 2, starts, axis=-1)
    rows = np.array([rows_of(group.size) for group in uploads.groups])
    share = np.sqrt(squares) / np.array([group.norm for group in uploads.groups])
    return {
        "rounds": rounds,
        "flagged": flagged,
        "interval_95": [float(low), float(high)],
        "stated_odds": SITES * sum(_odds(group.size) for group in uploads.groups),
        "longest_over_limit": longest,
        "norms_over_largest": [float(share.min()), float(np.median(share)), float(share.max())],
        "group_checks": looked,
        "beyond_smaller_limits": {str(limit): n / looked for limit, n in beyond.items()},
        "chi_square_at_the_largest_norm": {
            str(limit): float(np.mean(chi2.sf(limit**2 * rows, rows))) for limit in SMALLER
        },
    }


def _odds(size: int) -> float:
    """At most, of a group at its largest norm."""
    rows = rows_of(size)
    r = SLACK[rows] ** 2
    return math.exp(-rows / 2 * (r - 1 - math.log(r)))


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("federation", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10_000)
    given = parser.parse_args()
    config = load_federation(given.federation)
    with given.texts.open(encoding="utf-8", newline="") as file:
        rows = random.Random(1).sample(list(csv.DictReader(file)), SITES * POPULATION)
    results: dict[str, Any] = {}
    task, data = load(settings(config, steps_at="server", steps=1), rows)
    for name, arm in ARMS.items():
        start = time.process_time()
        uploads = train(settings(config, **arm), task, data)
        trained_s = time.process_time() - start
        results[name] = {
            "values": int(uploads.integers.shape[-1]),
            "groups": [[group.size, group.norm] for group in uploads.groups],
            "updates": SITES * ROUNDS,
            "training_cpu_s_of_a_site_and_round": trained_s / SITES / ROUNDS,
            "as uploaded": measure(uploads, given.rounds),
            "at the largest public norm": measure(uploads.at_the_largest_norm(), given.rounds),
        }
        given.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
