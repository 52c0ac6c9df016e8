"""Draw the picture of docs/benchmarks.md from what measure_aggregation.py wrote.

python benchmarks/plot_aggregation.py RESULTS.json PICTURE.svg
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

TARGETS = {"upload": 16, "client": 6, "aggregate": 20, "decrypt": 3}


def main(source: Path, target: Path) -> None:
    """Draw one bar a shape and width for each ratio."""
    compared = json.loads(source.read_text())["compared"]
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), sharey=True, constrained_layout=True)
    labels = [f"{row['shape']}, {row['bits']} bits" for row in compared]
    for axis, (name, wanted) in zip(axes, TARGETS.items(), strict=True):
        values = [row["ratios"][name] for row in compared]
        axis.barh(labels, values, color="#33658a")
        axis.axvline(wanted, color="#c8553d", linestyle="--", linewidth=1)
        axis.set_title(f"{name} (wanted {wanted} x)", fontsize=9)
        for i, value in enumerate(values):
            axis.text(value, i, f" {value:.0f} x", va="center", fontsize=7)
        axis.margins(x=0.18)
        axis.tick_params(labelsize=8)
    axes[0].invert_yaxis()
    figure.suptitle("Better than one CKKS vector a tensor by this factor, 8 sites", fontsize=10)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
