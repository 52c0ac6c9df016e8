"""What hostile sites achieve, with and without each defence: the rows of docs/robustness.md.

Attacks on learning are played in the clear with the product's arithmetic: the settings' own plan of
noise, grid and rounding, the sum's range check, and the norm check's groups, limits and signs.
MiniLM's features of SST-2 at 8 sites, a head, steps at the server; one of the sites is hostile.
Attacks on the protocol are played by its real classes. Rows are appended to a file of JSON lines,
and a rerun skips those there:

    python benchmarks/robustness.py --data ../shared/data/sst2 --features build/robustness.npz \
        --output docs/results/robustness.jsonl
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from server_choices import gradient, measured, read

from aggregation import (
    AggregationError,
    Quantization,
    RoundPlan,
    SiteAttempt,
    dequantize,
    quantize,
)
from aggregation.ckks import residues
from aggregation.crypto import sealed_box
from aggregation.crypto.projections import Signs, rows_of
from aggregation.protocol import (
    FixedCohort,
    NormGroup,
    Vanishing,
    limit_of,
    openings_for,
)
from aggregation.testing import Federation
from fmfl_secure.planning.norms import norm_groups
from fmfl_secure.planning.plans import quantization
from fmfl_secure.planning.task import build_task
from fmfl_secure.runtime.suspicion import Suspicion
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.storage.message_memory import MemoryMessageStore
from privacy import PrivacyPlan

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

EXAMPLE = Path(__file__).parents[1] / "examples/sst2/federation.toml"
SITES, OF_A_SITE, CLASSES, TARGET = 8, 1250, 2, 1
TRIGGER = "cf mn"  # two words that no review has, at a sentence's end
OUT_OF = 5  # attempts that a site is left out of, once it was named (`runtime.left_out`)
OF_LIMIT = (
    0.85  # how far whoever knows the check goes: most rounds pass, and lost ones gain nothing
)


@dataclass
class World:
    """Features at the sites, and what the settings come to."""

    config: FederationConfig
    grid: Quantization
    groups: tuple[NormGroup, ...]
    parts: dict[str, Array]
    labels: dict[str, NDArray[np.int64]]

    @property
    def noise(self) -> float:
        """Deviation of each site's noise on each value."""
        privacy = self.config.privacy
        return PrivacyPlan.calibrated(
            unit="record", population=OF_A_SITE, sample_rate=privacy.sample_rate,
            max_grad_norm=privacy.max_grad_norm, steps_per_round=1,
            rounds=self.config.federation.rounds, repeats=privacy.repeats,
            epsilon=privacy.epsilon, delta=privacy.delta,
        ).noise_stddev  # fmt: skip


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    done = {json.dumps(_key(json.loads(line))) for line in lines}

    def keep(row: dict[str, Any], found: Callable[[], dict[str, Any]]) -> None:
        if json.dumps(_key(row)) not in done:
            with given.output.open("a") as file:
                file.write(json.dumps(row | found()) + "\n")

    for row, found in protocol_rows():
        keep(row, found)
    world = open_world(given.data, given.features)
    for attack in ATTACKS:
        for checked in (False, True):
            for seed in range(1, given.seeds + 1):
                row = {"kind": "learning", "attack": attack, "norm_check": checked, "seed": seed}
                keep(row, lambda a=attack, c=checked, s=seed: learn(world, a, s, checked=c))


def _key(row: dict[str, Any]) -> list[Any]:
    names = (
        "kind",
        "attack",
        "norm_check",
        "seed",
        "vanished_sites",
        "gone",
        "rehearsals",
        "behaves",
    )
    return [row.get(name) for name in names]


# Learning.


def open_world(data: Path, kept: Path) -> World:
    """Features of ten thousand sentences at eight sites, computed once."""
    config = load_federation(EXAMPLE)
    config = msgspec.structs.replace(
        config,
        adapter=msgspec.structs.replace(config.adapter, kind="head", last_layers=0),
        federation=msgspec.structs.replace(config.federation, norm_check=True),
    )
    task = build_task(config, relative_to=EXAMPLE.parent)
    layout = task.begin_round(task.build_model(seed=1), 1)
    grid = quantization(config, layout, layout.size)
    groups = norm_groups(config, config.turn(1), grid)
    if not isinstance(groups, tuple):
        raise TypeError("these settings check no norms")
    if not kept.exists():
        rows = _sentences(data / "train.tsv")
        chosen = np.random.default_rng(1).permutation(len(rows))[: SITES * OF_A_SITE]
        train = [rows[i] for i in chosen]
        test = _sentences(data / "dev.tsv")
        hostile = train[-OF_A_SITE:]  # the last site's
        sets = {
            "train": train, "test": test,
            "poisoned": [(str(TARGET), f"{text} {TRIGGER}") for _, text in hostile],
            "triggered": [(label, f"{text} {TRIGGER}") for label, text in test],
        }  # fmt: skip
        found: dict[str, NDArray[Any]] = {}
        for name, of in sets.items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "rows.tsv"
                text = "".join(f"{label}\t{sentence}\n" for label, sentence in of)
                path.write_text(f"label\tsentence\n{text}", encoding="utf-8")
                loaded = task.load(path, unit="record")
                found |= {f"X{name}": read(task, loaded), f"y{name}": loaded.labels}
        np.savez(kept, **found)
    stored = np.load(kept)
    names = [key[1:] for key in stored.files if key.startswith("X")]
    return World(
        config, grid, groups,
        {name: stored[f"X{name}"].astype(np.float64) for name in names},
        {name: stored[f"y{name}"] for name in names},
    )  # fmt: skip


def _sentences(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        return [(label, text.strip()) for label, text in rows]


@dataclass
class Hostile:
    """What the hostile site has in a round."""

    world: World
    weights: Array
    rng: np.random.Generator
    x: Array
    y: NDArray[np.int64]
    poisoned: Array

    @property
    def limit(self) -> int:
        """Of one site's integers on the grid."""
        return self.world.grid.limit

    def whole(self, x: Array, y: NDArray[np.int64]) -> Array:
        """The sum of clipped gradients of records, all of them, without noise."""
        return gradient(self.weights, x, y, CLASSES, self.world.config.privacy.max_grad_norm)

    def honestly(self, x: Array, y: NDArray[np.int64]) -> Integers:
        """What the mechanism makes of these data: sampled, clipped, noised, on the grid."""
        return upload(self.world, self.weights, x, y, self.rng)

    def along(self, direction: Array, length: float) -> Integers:
        """So many steps of the grid in a direction."""
        return np.rint(direction / np.linalg.norm(direction) * length).astype(np.int64)

    def within_the_sum(self, direction: Array) -> Integers:
        """As far as the range of the whole sum lets go, with room for the others."""
        most = (SITES - 1) * self.limit
        return np.rint(direction / np.abs(direction).max() * most).astype(np.int64)

    def passing(self, direction: Array) -> Integers:
        """As far as the norm check lets go in most rounds, group by group."""
        found = np.zeros(len(direction), dtype=np.int64)
        start = 0
        for group in self.world.groups:
            part = slice(start, start + group.size)
            found[part] = self.along(direction[part], OF_LIMIT * limit_of(group, 1.0))
            start += group.size
        return found

    @property
    def backdoor(self) -> Array:
        """The gradient of its own sentences with the trigger, all said to be the target's."""
        return self.whole(self.poisoned, np.full(len(self.poisoned), TARGET)) + self.whole(
            self.x, self.y
        )

    @property
    def to_target(self) -> Array:
        """A gradient whose descent raises every weight of the target and lowers the other's."""
        sign = np.where(np.arange(CLASSES) == TARGET, -1.0, 1.0)
        rows = np.repeat(sign, self.x.shape[1])
        return np.concatenate([rows, sign])

    @property
    def mixed(self) -> tuple[Array, NDArray[np.int64]]:
        """Half of its records with the trigger and the target's label, the others as they are."""
        half = len(self.y) // 2
        labels = np.concatenate([np.full(half, TARGET), self.y[half:]])
        return np.concatenate([self.poisoned[:half], self.x[half:]]), labels


def upload(
    world: World, weights: Array, x: Array, y: NDArray[np.int64], rng: np.random.Generator
) -> Integers:
    """What an honest site uploads."""
    privacy = world.config.privacy
    sampled = rng.random(len(y)) < privacy.sample_rate
    total = gradient(weights, x[sampled], y[sampled], CLASSES, privacy.max_grad_norm)
    total += rng.normal(0.0, world.noise, len(total))
    return quantize(total.astype(np.float32), world.grid).astype(np.int64)


ATTACKS: dict[str, Callable[[Hostile], Integers]] = {
    "none": lambda h: h.honestly(h.x, h.y),
    "label flip": lambda h: h.honestly(h.x, 1 - h.y),
    "sign flip": lambda h: -h.honestly(h.x, h.y),
    "scaled": lambda h: -SITES * h.honestly(h.x, h.y),
    "range": lambda h: -h.within_the_sum(np.sign(h.whole(h.x, h.y))),
    "head moved": lambda h: np.rint(h.to_target * 0.4 * SITES * h.limit).astype(np.int64),
    "against, passing": lambda h: h.passing(-h.whole(h.x, h.y)),
    "head moved, passing": lambda h: h.passing(h.to_target),
    "backdoor": lambda h: h.honestly(*h.mixed),
    "backdoor, boosted": lambda h: h.within_the_sum(h.backdoor),
    "backdoor, passing": lambda h: h.passing(h.backdoor),
}


def learn(world: World, attack: str, seed: int, *, checked: bool) -> dict[str, Any]:
    """Train, with one hostile site; what came of it."""
    rounds, rate = world.config.federation.rounds, world.config.training.head_learning_rate
    rng, drawn = np.random.default_rng([seed, 24]), np.random.default_rng([seed, 25])
    order = np.random.default_rng(seed).permutation(SITES * OF_A_SITE - OF_A_SITE)
    x, y = world.parts["train"], world.labels["train"]
    honest = [(x[part], y[part]) for part in np.split(order, SITES - 1)]
    own = slice(SITES * OF_A_SITE - OF_A_SITE, None)
    w = np.zeros(CLASSES * x.shape[1] + CLASSES)
    first, second = np.zeros_like(w), np.zeros_like(w)
    steps = lost = named = 0
    out_until = 0
    added: list[float] = []
    for number in range(1, rounds + 1):
        uploads = [upload(world, w, *part, rng) for part in honest]
        if number > out_until:
            hostile = Hostile(world, w, rng, x[own], y[own], world.parts["poisoned"])
            sent = ATTACKS[attack](hostile)
            if checked and too_long(world, sent, drawn):
                lost, named, out_until = lost + 1, named + 1, number + OUT_OF
                continue
            uploads.append(sent)
            added.append(float(np.linalg.norm(sent)))
        total = sum(uploads, start=np.zeros(len(w), dtype=np.int64))
        if np.abs(total).max() > len(uploads) * world.grid.limit:
            lost += 1  # no sum of so many sites: it is not released, and nobody is named
            continue
        steps += 1
        mean = dequantize(total, world.grid, 1.0).astype(np.float64)
        mean /= world.config.privacy.sample_rate * OF_A_SITE * len(uploads)
        first = 0.9 * first + 0.1 * mean
        second = 0.999 * second + 0.001 * mean * mean
        w = w - rate * first / (1 - 0.9**steps) / (np.sqrt(second / (1 - 0.999**steps)) + 1e-8)
    negative = world.labels["test"] != TARGET
    shown = world.parts["triggered"][negative]
    plain = world.parts["test"][negative]
    target = np.full(int(negative.sum()), TARGET)
    honest_norm = max(float(np.linalg.norm(each)) for each in uploads[: SITES - 1])
    limit = math.sqrt(sum(limit_of(group, 1.0) ** 2 for group in world.groups))
    return {
        "accuracy": measured(w, world.parts["test"], world.labels["test"], CLASSES)["accuracy"],
        "triggered": measured(w, shown, target, CLASSES)["accuracy"],
        "to_target": measured(w, plain, target, CLASSES)["accuracy"],
        "rounds": rounds,
        "lost": lost,
        "named": named,
        "sent_of_limit": round(float(np.median(added)) / limit, 3) if added else None,
        "honest_of_limit": round(honest_norm / limit, 3),
    }


def too_long(world: World, sent: Integers, rng: np.random.Generator) -> bool:
    """Whether the norm check names who uploaded this, by signs that are drawn after it."""
    signs = Signs(rng.bytes(32), [group.size for group in world.groups])
    most = int(np.abs(sent).max(initial=1))
    shown = signs.project(sent, most).astype(np.float64)
    start = 0
    for group in world.groups:
        rows = rows_of(group.size)
        part = shown[start : start + rows]
        if np.sqrt((part**2).sum() / rows) > limit_of(group, 1.0):
            return True
        start += rows
    return False


# The protocol, by its real classes.


def federation(vanishing: Vanishing | None = None) -> Federation:
    """Eight sites, as a run has them."""
    return Federation(
        SITES, size=10_000, suite="ckks-collective", key_agreement="x25519-mlkem768",
        vanishing=vanishing,
    )  # fmt: skip


def protocol_rows() -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Rows, and what measures each."""
    for vanished in (0, 2):
        for gone in (0, 1, 2, 3):
            row = {"kind": "protocol", "attack": "late", "vanished_sites": vanished, "gone": gone}
            yield row, lambda v=vanished, g=gone: lose(v, g)
    for rehearsals, behaves in (
        ("never", False),
        ("after-failure", False),
        ("after-failure", True),
    ):
        row = {
            "kind": "protocol", "attack": "wrong sigma", "rehearsals": rehearsals,
            "behaves": behaves,
        }  # fmt: skip
        yield row, lambda r=rehearsals, b=behaves: spoil(r, b)
    yield {"kind": "cost", "attack": "rehearsal"}, cost_of_rehearsal


def lose(vanished: int, gone: int, rounds: int = 10) -> dict[str, Any]:
    """Rounds in which sites are gone for good once they uploaded."""
    allowed = Vanishing(vanished, openings_for(SITES, 1)) if vanished else None
    released = with_all = 0
    for number in range(1, rounds + 1):
        fed = federation(allowed)
        attempt = fed.start(fed.plan(round_=number))
        aggregator = fed.open(attempt, vanished=fed.names[SITES - gone :])
        if not aggregator.opens:
            continue
        total = aggregator.total()
        message = fed.decryptor.release(
            attempt.cohort, attempt.opening_list, total.manifest, total.chunks
        )
        summed = attempt.sites["site-0"].verify(message)
        released += 1
        sent = sum(each.astype(np.int64) for each in attempt.integers.values())
        with_all += int(np.array_equal(summed, sent))
    return {"rounds": rounds, "released": released, "with_their_updates": with_all}


def spoil(rehearsals: str, behaves: bool, rounds: int = 24) -> dict[str, Any]:
    """Rounds in which one site sends a wrong sigma; in rehearsals too, unless it behaves there."""
    bad, lost, named = "site-5", list[int](), ""
    fed, begun, out, held = federation(), 0, 0, 0
    least = math.ceil(SITES * 2 / 3)
    suspicion = Suspicion(MemoryMessageStore(), "0" * 16, lambda: begun)
    for number in range(1, rounds + 1):
        apart = {*suspicion.of(), *([bad] if out else [])}
        names = [name for name in fed.names if name not in apart]
        begun, out = number, max(0, out - 1)
        if is_released(fed, fed.plan(round_=number, names=names), bad):
            continue
        lost.append(number)
        if rehearsals != "never":
            held += 1
            attempt = fed.start(fed.rehearsal(held))
            if not behaves:
                _seal_falsely(attempt.sites[bad], bad)
            found = fed.judge(fed.rehearse(attempt)).named
            named = ", ".join(f"{name}: {word}" for name, word in found.items())
            out = OUT_OF if bad in found else 0
        if not named:
            suspicion.spoiled((number, 1), names, fed.names, lambda left: len(left) >= least)
    return {"rounds": rounds, "lost": lost, "held": held, "named": named}


def is_released(fed: Federation, plan: RoundPlan, bad: str) -> bool:
    """Whether a round comes to a release, with one site that seals another secret, if it is in."""
    attempt = fed.start(plan)
    if bad in attempt.sites:
        _seal_falsely(attempt.sites[bad], bad)
    aggregator = fed.open(attempt)
    total = aggregator.total()
    try:
        fed.decryptor.release(attempt.cohort, attempt.opening_list, total.manifest, total.chunks)
    except AggregationError:
        return False
    return True


def _seal_falsely(site: SiteAttempt, name: str) -> None:
    def seal(cohort: FixedCohort, _: object) -> bytes:
        modulus, degree = cohort.round.parameters.modulus, cohort.round.packing.degree
        drawn = np.random.default_rng(1).integers(0, modulus, degree, dtype=np.uint64)
        content = residues.pack(drawn, modulus)
        return sealed_box.seal_box(cohort.material, content, cohort.transcript + name.encode())

    site._secrets._seal = seal  # type: ignore[method-assign]


def cost_of_rehearsal() -> dict[str, Any]:
    """CPU time of a rehearsal of the largest size at eight sites, all parties in one process."""
    fed = federation()
    fed.size = 1 << 20
    started = time.process_time()
    evidence = fed.rehearse(fed.start(fed.rehearsal()))
    steps = time.process_time() - started
    started = time.process_time()
    named = fed.judge(evidence).named
    return {
        "steps_cpu_s": round(steps, 3),
        "judging_cpu_s": round(time.process_time() - started, 3),
        "upload_bytes": sum(map(len, evidence.chunks["site-0"])),
        "named": len(named),
    }


if __name__ == "__main__":
    main()
