"""All figures of docs/benchmarks.md on secure aggregation, as JSON.

    python benchmarks/measure_aggregation.py benchmarks/results/aggregation.json [--quick]

What is done is written after each step, so an interrupted run keeps what it has.
"""

import json
import sys
from pathlib import Path

from aggregation import benchmark, footprint
from aggregation.graph import degree
from fmfl_secure.bench import machine

COMPARED = (
    ("MiniLM r8", benchmark.expand(benchmark.MINILM_R8), 9),
    ("GPT-2 r8", benchmark.expand(benchmark.GPT2_R8), 7),
    ("1 M", benchmark.tensor_sizes(1_000_000), 3),
    ("10 M", benchmark.tensor_sizes(10_000_000), 1),
)
SITES = 8


def main(path: Path, *, quick: bool) -> None:
    """Measure everything and write it as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {"machine": machine()}

    def keep() -> None:
        path.write_text(json.dumps(results, indent=1) + "\n")

    results["density"] = [
        {
            "suite": suite,
            "sites": sites,
            "bits": bits,
            "neighbours": degree(sites),
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
            found = benchmark.compare(sizes, SITES, bits, repeats=repeats, peak=False).as_dict()
            found.pop("samples")
            compared.append({"shape": name, **found})
            results["compared"] = compared
            keep()


if __name__ == "__main__":
    main(Path(sys.argv[1]), quick="--quick" in sys.argv)
