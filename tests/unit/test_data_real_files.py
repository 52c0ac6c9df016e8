"""The real files the benchmarks use, where they are at hand."""

import json
from pathlib import Path

import pytest
from text_dataset import read_text_dataset

from fmfl_secure.data import partition_file, read_table

REAL = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real files are not there: ../shared/data beside the repository"
)


@pytest.mark.parametrize(
    ("split", "rows", "positive", "column"),
    [
        ("train", 67_349, 37_569, "sentence"),
        ("dev", 872, 444, "content"),
        ("test", 1_821, 909, "content"),
    ],
)
def test_sst2(split, rows, positive, column):
    path = REAL / "sst2" / f"{split}.tsv"
    dataset = read_text_dataset(
        path, text_column=("sentence", "content"), label_column="label", labels=["0", "1"]
    )
    assert len(dataset) == rows
    assert int(dataset.labels.sum()) == positive
    assert dataset.skipped == 0
    assert len(dataset.units) == rows
    # The file once more, by the plainest means there is.
    lines = path.read_bytes().decode().replace("\r\n", "\n").split("\n")
    assert lines[0] == f"label\t{column}"
    assert lines[-1] == ""
    assert [f"{n}\t{t}" for n, t in zip(dataset.labels, dataset.texts, strict=True)] == lines[1:-1]


def test_medical_abstracts():
    path = REAL / "medical_abstracts" / "medical_abstracts.csv"
    names = read_table(REAL / "medical_abstracts" / "labels.csv").column("condition_label")
    dataset = read_text_dataset(
        path,
        text_column="medical_abstract",
        label_column="condition_label",
        labels=names.to_pylist(),
    )
    assert len(dataset) == 2_888
    assert dataset.label_names == ("1", "2", "3", "4", "5")
    assert set(dataset.labels.tolist()) == {0, 1, 2, 3, 4}
    mean = sum(map(len, dataset.texts)) / len(dataset)
    assert 1_200 < mean < 1_280
    assert dataset.texts[0].startswith("Obstructive sleep apnea following topical")


def test_partition_of_sst2(tmp_path):
    path = REAL / "sst2" / "train.tsv"
    partition_file(
        path,
        4,
        tmp_path,
        by="dirichlet:0.5",
        label_column="label",
        limit=10_000,
        holdout=0.1,
        tune=0.1,
        seed=1,
    )
    manifest = json.loads((tmp_path / "partition.json").read_text(encoding="utf-8"))
    rows = {entry["name"]: entry["rows"] for entry in manifest["files"]}
    assert sum(rows.values()) == 10_000
    assert rows["holdout.tsv"] == rows["tune.tsv"] == 1_000
    source = set(path.read_bytes().splitlines(keepends=True))
    for name in rows:
        assert set((tmp_path / name).read_bytes().splitlines(keepends=True)) <= source
