"""Measure the protocol beside the per-tensor pattern: one process, one machine, interleaved.

A party's figure is all that stands between what it is given and the bytes it hands on, masks, MAC
and signatures included:

- a client: announces keys, verifies the cohort, agrees on secrets, quantises, encrypts, masks,
  signs, opens with its tags;
- the aggregator: verifies every digest and residue, adds, lists, takes openings, signs the sum;
- the decryptor: announces a key, opens the sealed secrets, decrypts, rounds, signs; the mean is
  dequantised on top.

Two steps have no counterpart in the pattern, in which nobody is authenticated and nothing is
verified: admitting a plan and its cohort, and a site's check of the release. They are measured too,
and are in the ratios of the whole round.

Time is CPU time of this process, which another job on the machine disturbs less than a wall clock.
A repeat runs both, one after the other, so that what disturbs all the same hits both; ratios are
medians of paired ratios.

`fmfl-secure bench aggregation` (`cli.bench`) calls `compare`.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from aggregation.ckks.packing import Packing
from aggregation.ckks.parameters import COLLECTIVE, choose
from aggregation.ckks.quantization import Quantization, Segment, dequantize, quantize
from aggregation.crypto.graph import mean_neighbours
from aggregation.roles.aggregator import Aggregator
from aggregation.testing import Attempt, Federation
from fmfl_secure.bench import floors
from fmfl_secure.bench.footprint import peak_mib
from fmfl_secure.demonstration.per_tensor_ckks import PerTensorCkks

# Tensors of a LoRA adapter of rank 8, as (count, values): queries and values of every layer, and
# of a classifier its head of two labels.
GPT2_R8: Final = ((12, 8 * 768), (12, 2304 * 8))
MINILM_R8: Final = ((24, 8 * 384), (1, 2 * 384), (1, 2))
SHAPES: Final = {"minilm-r8": MINILM_R8, "gpt2-r8": GPT2_R8}

# What each party does, in the order of a round.
STEPS: Final = {
    "client": ("admit", "announce", "agree", "quantise", "upload", "open", "verify"),
    "aggregate": ("admit", "add", "open", "sum"),
    "decrypt": ("announce", "confirm", "release", "dequantise"),
}
BEYOND_THE_PATTERN: Final = ("admit", "verify")


@dataclass(slots=True)
class Figures:
    """One arm's figures; rates in million parameters a second of CPU time."""

    upload_bytes_per_parameter: float
    client_mparams_per_s: float
    aggregate_mparams_per_s: float
    decrypt_mparams_per_s: float
    aggregator_peak_mib: float = 0.0


@dataclass(slots=True)
class Comparison:
    """The answer of `fmfl-secure bench aggregation`: costs, ratios and every repeat.

    Attributes:
        parameters: Values of an update.
        sites: Cohort.
        bits: Width of a quantised value.
        suite: Protocol suite.
        tensors: Tensors of the update.
        repeats: Paired repeats; all figures are medians.
        exact: Whether every released sum was the sum of the quantised updates, bit by bit.
        ours: This project.
        per_tensor_ckks: The pattern.
        ratios: Ours to the pattern's; upload: the pattern's to ours. `..._whole_round` counts every
            step of a party.
        cost_ms: CPU time of one party by step, in milliseconds; of the clients, one's.
        floor_ms: What one party's ciphers, digests and transforms cost (`floors`); the
            aggregator's for one upload. In `ckks-collective`.
        over_floor: Median of the repeats' ratios of a party's cost to its floor: a client without
            what the pattern has no counterpart of, the aggregator's adding of an upload, the key
            holder without dequantising.
        samples: Every repeat's figures.
    """

    parameters: int
    sites: int
    bits: int
    suite: str
    tensors: int
    repeats: int
    exact: bool
    ours: Figures
    per_tensor_ckks: Figures
    ratios: dict[str, float]
    cost_ms: dict[str, dict[str, float]]
    floor_ms: dict[str, float]
    over_floor: dict[str, float]
    samples: list[dict[str, dict[str, float]]] = field(repr=False)

    def as_dict(self) -> dict[str, object]:
        """As JSON: this project's figures at the top level."""
        data = asdict(self)
        return {**data.pop("ours"), **data}


def tensor_sizes(parameters: int) -> list[int]:
    """Sizes of tensors like those of GPT-2's adapter, cut to `parameters` values."""
    sizes: list[int] = []
    left = parameters
    while left:
        size = min((8 * 768, 2304 * 8)[len(sizes) % 2], left)
        sizes.append(size)
        left -= size
    return sizes


def expand(shape: Sequence[tuple[int, int]]) -> list[int]:
    """Sizes of an adapter's tensors from (count, values) pairs."""
    return [size for count, size in shape for _ in range(count)]


def compare(
    sizes: Sequence[int],
    sites: int,
    bits: int,
    *,
    repeats: int = 3,
    suite: str = "ckks-collective",
    peak: bool = True,
) -> Comparison:
    """Run whole rounds beside the per-tensor pattern.

    Args:
        sizes: Values of each tensor.
        sites: Cohort.
        bits: Width of a quantised value.
        repeats: Paired repeats; medians are reported.
        suite: Protocol suite.
        peak: Also measure each arm's aggregator in a process of its own.

    Returns:
        Medians, and the ratio of each figure to the pattern's (upload: the pattern's to ours).
    """
    total, pattern = sum(sizes), PerTensorCkks()
    samples: list[dict[str, dict[str, float]]] = []
    costs: list[dict[tuple[str, str], float]] = []
    least: list[dict[str, float]] = []
    exact = True
    rng = np.random.default_rng()
    for number in range(repeats):
        updates = [rng.normal(scale=0.003, size=total).astype(np.float32) for _ in range(sites)]
        mine, seconds, right = _round(sizes, sites, bits, updates, suite)
        exact = exact and right
        theirs = _pattern_round(pattern, sizes, sites, updates[number % sites])
        samples.append({"ours": mine, "per_tensor_ckks": theirs})
        costs.append(seconds)
        if suite == COLLECTIVE:
            least.append(_floors(total, sites, bits))
        del updates
        gc.collect()
    names = ("upload", *STEPS)
    whole = [f"{role}_whole_round" for role in STEPS]
    arms = {
        arm: Figures(*(statistics.median(s[arm][name] for s in samples) for name in names))
        for arm in ("ours", "per_tensor_ckks")
    }
    ratios = {
        name: statistics.median(s["ours"][name] / s["per_tensor_ckks"][name] for s in samples)
        for name in (*names, *whole)
    }
    ratios["upload"] = 1 / ratios["upload"]
    if peak:
        arms["ours"].aggregator_peak_mib = peak_mib(["ours", total, sites, bits, suite])
        arms["per_tensor_ckks"].aggregator_peak_mib = peak_mib(["pattern", sites, *sizes])
        ratios["aggregator_peak"] = (
            arms["per_tensor_ckks"].aggregator_peak_mib / arms["ours"].aggregator_peak_mib
        )
    return Comparison(
        parameters=total,
        sites=sites,
        bits=bits,
        suite=suite,
        tensors=len(sizes),
        repeats=repeats,
        exact=exact,
        ours=arms["ours"],
        per_tensor_ckks=arms["per_tensor_ckks"],
        ratios=ratios,
        cost_ms={
            role: {
                step: 1e3 * statistics.median(c[role, step] for c in costs) / _parties(role, sites)
                for step in steps
            }
            for role, steps in STEPS.items()
        },
        floor_ms={role: 1e3 * statistics.median(f[role] for f in least) for role in STEPS if least},
        over_floor={
            role: statistics.median(
                _beside(role, cost, sites) / floor[role]
                for cost, floor in zip(costs, least, strict=True)
            )
            for role in STEPS
            if least
        },
        samples=samples,
    )


def _floors(total: int, sites: int, bits: int) -> dict[str, float]:
    chosen = choose(sites, bits, suite=COLLECTIVE)
    packing = Packing(total, chosen.poly_modulus_degree, chosen.encoding(sites, bits))
    released = 2 if sites * packing.encoding.limit < 1 << 15 else 4
    return floors.measure(packing, chosen.modulus, mean_neighbours(sites), released)


def _beside(role: str, cost: dict[tuple[str, str], float], sites: int) -> float:
    """Seconds of one party that are compared with its floor; an upload's, at the aggregator."""
    if role == "aggregate":
        return cost[role, "add"] / sites
    left_out = (*BEYOND_THE_PATTERN, "dequantise")
    steps = [s for (whose, step), s in cost.items() if whose == role and step not in left_out]
    return sum(steps) / _parties(role, sites)


def _parties(role: str, sites: int) -> int:
    return sites if role == "client" else 1


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}

    @contextlib.contextmanager
    def measure(self, role: str, step: str = "") -> Iterator[None]:
        start = time.process_time()
        yield
        spent = time.process_time() - start
        self.seconds[role, step] = self.seconds.get((role, step), 0.0) + spent

    def total(self, role: str, *, but: Sequence[str] = ()) -> float:
        steps = self.seconds.items()
        return sum(spent for (whose, step), spent in steps if whose == role and step not in but)


def _round(
    sizes: Sequence[int],
    sites: int,
    bits: int,
    updates: list[npt.NDArray[np.float32]],
    suite: str,
) -> tuple[dict[str, float], dict[tuple[str, str], float], bool]:
    total = sum(sizes)
    hybrid = "x25519-mlkem768"
    fed = Federation(sites, size=total, bits=bits, suite=suite, key_agreement=hybrid)
    fed.quantization = Quantization(
        bits=bits,
        segments=tuple(
            Segment(name=f"tensor-{i}", size=size, range=0.02) for i, size in enumerate(sizes)
        ),
    )
    clock = _Clock()
    attempt, aggregator = _start(fed, clock)
    sites_, cohort, exchanges = attempt.sites.values(), attempt.cohort, attempt.exchanges
    upload_bytes = sum(len(site.ready()) for site in sites_) + sum(map(len, exchanges))
    exact_sum = np.zeros(total, dtype=np.int64)
    handed = fed.handed(attempt).values()  # what the server hands on; not a step of the pattern's
    for update, site, given in zip(updates, sites_, handed, strict=False):
        with clock.measure("client", "quantise"):
            integers = quantize(update, fed.quantization)
        with clock.measure("client", "upload"):
            upload = site.upload(cohort, integers, given)
        with clock.measure("aggregate", "add"):
            aggregator.add(upload.manifest, upload.chunks)
        exact_sum += integers
        upload_bytes += upload.size_bytes
        del upload, integers
    with clock.measure("aggregate", "open"):
        listed = aggregator.opening_list()
    with clock.measure("decrypt", "confirm"):
        confirmed = fed.decryptor.confirm(cohort, listed, aggregator.sealed_secrets())
    for site in sites_:
        with clock.measure("client", "open"):
            opening = site.open(confirmed)
        with clock.measure("aggregate", "open"):
            aggregator.add_opening(opening)
        upload_bytes += len(opening)
    with clock.measure("aggregate", "sum"):
        summed = aggregator.total()
    with clock.measure("decrypt", "release"):
        release = fed.decryptor.release(cohort, confirmed, summed.manifest, summed.chunks)
    right = True
    for site in sites_:
        with clock.measure("client", "verify"):
            verified = site.verify(release)
        right = right and np.array_equal(verified, exact_sum)
    opened = fed.coordinator.verify(cohort, release)
    with clock.measure("decrypt", "dequantise"):
        dequantize(opened, fed.quantization, float(sites))
    rates = {"upload": upload_bytes / sites / total}
    for role in STEPS:
        values = total / 1e6 if role == "decrypt" else sites * total / 1e6
        rates[role] = values / clock.total(role, but=BEYOND_THE_PATTERN)
        rates[f"{role}_whole_round"] = values / clock.total(role)
    return rates, clock.seconds, right and np.array_equal(opened, exact_sum)


def _start(fed: Federation, clock: _Clock) -> tuple[Attempt, Aggregator]:
    """Steps 1 to 4: plan, admit, announce, fix the cohort, agree on secrets."""
    attempt = Attempt(fed.coordinator.plan(fed.plan()), {})
    for name in fed.names:
        with clock.measure("client", "admit"):
            attempt.sites[name] = fed.site(name, attempt.plan_message)
    with clock.measure("decrypt", "announce"):
        attempt.announcement = fed.decryptor.announce(attempt.plan_message)
    readies = []
    for site in attempt.sites.values():
        with clock.measure("client", "announce"):
            readies.append(site.ready())
    attempt.cohort = fed.coordinator.cohort(attempt.plan_message, attempt.announcement, readies)
    with clock.measure("aggregate", "admit"):
        aggregator = fed.new_aggregator(attempt)
    exchanges = []
    for site in attempt.sites.values():
        with clock.measure("client", "agree"):
            exchanges.append(site.exchange(attempt.cohort))
    attempt.exchanges = tuple(exchanges)
    return attempt, aggregator


def _pattern_round(
    pattern: PerTensorCkks, sizes: Sequence[int], sites: int, update: npt.NDArray[np.float32]
) -> dict[str, float]:
    clock, total = _Clock(), sum(sizes)
    with clock.measure("client"):
        upload = pattern.encrypt(update, sizes)
    with clock.measure("aggregate"):
        # The same bytes for every site: loading and adding them costs what other bytes would.
        summed = pattern.add([upload] * sites)
    with clock.measure("decrypt"):
        pattern.decrypt(summed)
    rates = {
        "client": total / clock.total("client") / 1e6,
        "aggregate": sites * total / clock.total("aggregate") / 1e6,
        "decrypt": total / clock.total("decrypt") / 1e6,
    }
    whole = {f"{role}_whole_round": rate for role, rate in rates.items()}
    return {"upload": sum(map(len, upload)) / total, **rates, **whole}
