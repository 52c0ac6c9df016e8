"""The tables of docs/results.md, as Markdown, from what `fmfl-secure compare --output` wrote.

python benchmarks/results_tables.py docs/results/sst2.json docs/results/medical.json
"""

import sys
from pathlib import Path

import msgspec

from fmfl_secure.comparison import Comparison, Summary, summarise

METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1"}


def cell(line: Summary, metric: str) -> str:
    """Mean and spread in the way papers write accuracies."""
    if metric not in line.mean:
        return ""
    mean = f"{line.mean[metric]:.3f}".removeprefix("0")
    if line.seeds < 2:
        return mean
    return f"{mean} ± {line.stdev[metric]:.3f}".replace("± 0.", "± .")


def table(path: Path) -> str:
    """One federation's table."""
    lines = summarise(msgspec.json.decode(path.read_bytes(), type=Comparison))
    rows = ["| | epsilon | " + " | ".join(METRICS.values()) + " | seeds |"]
    rows.append("| --- " * (len(METRICS) + 3) + "|")
    for line in lines:
        epsilon = "" if line.epsilon is None else f"{line.epsilon:g}"
        seeds = "" if line.arm == "untrained" else str(line.seeds)
        cells = [line.title, epsilon, *(cell(line, metric) for metric in METRICS), seeds]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}\n\n{table(Path(name))}\n")
