"""All figures of docs/benchmarks.md on secure aggregation, as JSON.

    python benchmarks/measure_aggregation.py benchmarks/results/aggregation.json [--quick]

What is done is written after each step, so an interrupted run keeps what it has.
"""

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aggregation import Identity
from aggregation.ckks.collective import public_stream
from aggregation.ckks.parameters import parameter_set
from aggregation.crypto.graph import mean_neighbours
from aggregation.crypto.masking import Stream
from aggregation.testing import Federation
from fmfl_secure.bench import footprint, machine, secure_aggregation

COMPARED = (
    ("MiniLM r8", secure_aggregation.expand(secure_aggregation.MINILM_R8), 21),
    ("GPT-2 r8", secure_aggregation.expand(secure_aggregation.GPT2_R8), 11),
    ("1 M", secure_aggregation.tensor_sizes(1_000_000), 5),
    ("10 M", secure_aggregation.tensor_sizes(10_000_000), 3),
)
SITES = 8
CHUNK_BYTES = 30_720


def primitives() -> dict[str, float]:
    """CPU time of what a round is made of, in microseconds; medians."""
    identity, data = Identity.generate("site"), os.urandom(CHUNK_BYTES)
    signature = identity.sign(data[:200])
    parameters = parameter_set("ckks-collective-4096-60-aes")
    stream = Stream(bytes(32), parameters.modulus, parameters.poly_modulus_degree)
    operations: dict[str, Callable[[], object]] = {
        "ed25519_verify": lambda: identity.public.verify(signature, data[:200]),
        "sha256_of_a_chunk": lambda: hashlib.sha256(data).digest(),
        "public_polynomial": lambda: public_stream(bytes(32), parameters).chunk(0),
        "mask_of_a_chunk": lambda: stream.chunk(0),
    }
    spent: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(200):
        for name, operation in operations.items():
            start = time.process_time()
            operation()
            spent[name].append(time.process_time() - start)
    return {name: 1e6 * statistics.median(times) for name, times in spent.items()}


def cores(size: int, pairs: int) -> dict[str, float]:
    """Wall-clock time of one party's work on one core over two; medians of pairs.

    Only on an idle machine: this is the one figure here that another job's time is in.
    """
    every = sorted(os.sched_getaffinity(0))
    times: dict[str, list[float]] = {}
    fed = Federation(SITES, size=size, bits=16, key_agreement="x25519-mlkem768")
    for number in range(pairs):
        spent: dict[int, dict[str, float]] = {}
        for used in (1, 2):
            os.sched_setaffinity(0, every[:used])
            spent[used] = _round_in_wall_time(fed, 1 + 2 * number + used)
        os.sched_setaffinity(0, every)
        for party, one in spent[1].items():
            times.setdefault(party, []).append(one / spent[2][party])
    return {party: statistics.median(ratios) for party, ratios in times.items()}


def _round_in_wall_time(fed: Federation, number: int) -> dict[str, float]:
    """Seconds of all sites' uploads and openings, of their addition, and of the release."""
    attempt = fed.start(fed.plan(round_=number))
    spent = dict.fromkeys(secure_aggregation.STEPS, 0.0)
    aggregator, handed = fed.new_aggregator(attempt), fed.handed(attempt)

    @contextmanager
    def timed(party: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent[party] += time.perf_counter() - start

    for name, site in attempt.sites.items():
        integers = fed.random_integers()
        with timed("client"):
            upload = site.upload(attempt.cohort, integers, handed[name])
        chunks = list(upload.chunks)
        with timed("aggregate"):
            aggregator.add(upload.manifest, chunks)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for site in attempt.sites.values():
        with timed("client"):
            opening = site.open(listed)
        aggregator.add_opening(opening)
    total = aggregator.total()
    chunks = list(total.chunks)
    with timed("decrypt"):
        fed.decryptor.release(attempt.cohort, listed, total.manifest, chunks)
    return spent


def main(path: Path, *, quick: bool) -> None:
    """Measure everything and write it as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})  # rates and floors are of one core
    results: dict[str, object] = {"machine": machine()}

    def keep() -> None:
        path.write_text(json.dumps(results, indent=1) + "\n")

    results["density"] = [
        {
            "suite": suite,
            "sites": sites,
            "bits": bits,
            "neighbours": mean_neighbours(sites),
            "bytes_per_parameter": footprint.density(1_000_000, sites, bits, suite),
        }
        for suite in ("ckks-collective", "ckks-pk")
        for sites in (8, 32, 128)
        for bits in (8, 16)
    ]
    keep()
    memory = []
    for parameters, sites in ((1_000_000, 8), (1_000_000, 64), (10_000_000, 8), (10_000_000, 64)):
        measured = footprint.peak_mib(["ours", parameters, sites, 16, "ckks-collective"])
        memory.append({"parameters": parameters, "sites": sites, "peak_mib": measured})
        results["memory"] = memory
        keep()
    compared = []
    for name, sizes, repeats in COMPARED[: 3 if quick else 4]:
        for bits in (8, 16):
            load = os.getloadavg()[0]
            found = secure_aggregation.compare(
                sizes, SITES, bits, repeats=repeats, peak=False
            ).as_dict()
            found.pop("samples")
            row = {"shape": name, "load_1min": round(load, 2), **found}
            compared.append({**row, "primitives_us": primitives()})
            results["compared"] = compared
            keep()
    os.sched_setaffinity(0, every)
    results["faster_on_two_cores"] = cores(10_000_000, 3)
    keep()
    # One value: what a round costs whatever the update.
    results["fixed_ms"] = secure_aggregation.compare([1], SITES, 16, repeats=21, peak=False).cost_ms
    keep()


if __name__ == "__main__":
    main(Path(sys.argv[1]), quick="--quick" in sys.argv)
