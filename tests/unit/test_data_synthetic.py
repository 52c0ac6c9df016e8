"""The demo's generated notes."""

import itertools
import re
import time

import numpy as np
import pytest
from text_dataset import read_text_dataset

from fmfl_secure.data import read_table
from fmfl_secure.data.errors import DataArgumentError, OutputError
from fmfl_secure.demonstration.notes import DEMO_CATEGORIES, DEMO_COLUMNS, write_demo_notes


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    started = time.perf_counter()
    notes = write_demo_notes(
        tmp_path_factory.mktemp("demo"), sites=3, per_site=500, holdout=500, seed=11
    )
    return notes, time.perf_counter() - started


def read(path):
    return read_text_dataset(
        path,
        text_column="note",
        label_column="category",
        labels=DEMO_CATEGORIES,
        unit="patient_id",
    )


def test_two_thousand_notes_are_quick(demo):
    assert demo[1] < 2.0  # s


def test_files_columns_and_marks(demo):
    notes, _ = demo
    assert [path.name for path in notes.sites] == ["site-1.csv", "site-2.csv", "site-3.csv"]
    assert notes.holdout.name == "holdout.csv"
    assert notes.categories == DEMO_CATEGORIES
    identifiers = set()
    for path in (*notes.sites, notes.holdout):
        table = read_table(path)
        assert tuple(table.column_names) == DEMO_COLUMNS
        assert table.num_rows == 500
        assert set(table.column("synthetic").to_pylist()) == {"true"}
        identifiers.update(table.column("note_id").to_pylist())
    assert len(identifiers) == 2000


def test_notes_are_marked_varied_and_two_to_four_sentences_long(demo):
    notes, _ = demo
    texts = [text for path in (*notes.sites, notes.holdout) for text in read(path).texts]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert text.startswith("SYNTHETIC NOTE. ")
        assert "{" not in text
        assert 2 <= len(re.findall(r"\.(?: |$)", text)) - 1 <= 4
        assert not re.search(r"\ba [aeio]", text.removeprefix("SYNTHETIC NOTE. A"))


def test_patients_have_several_notes_and_stay_in_one_file(demo):
    notes, _ = demo
    owners = [
        set(read_table(path).column("patient_id").to_pylist())
        for path in (*notes.sites, notes.holdout)
    ]
    assert len(set().union(*owners)) == sum(map(len, owners))
    sizes = np.array([len(unit) for unit in read(notes.sites[0]).units])
    assert set(sizes) == {1, 2, 3}


def test_categories_are_all_there_and_sites_differ_mildly(demo):
    notes, _ = demo
    shares = np.array([np.bincount(read(path).labels, minlength=5) / 500 for path in notes.sites])
    assert shares.min() > 0.1
    assert shares.max() < 0.35
    assert np.ptp(shares, axis=0).max() > 0.05


def test_deterministic_by_seed(tmp_path):
    def files(folder, seed):
        notes = write_demo_notes(tmp_path / folder, sites=2, per_site=20, holdout=10, seed=seed)
        return [path.read_bytes() for path in (*notes.sites, notes.holdout)]

    assert files("a", 1) == files("b", 1)
    assert files("a2", 1) != files("c", 2)


def test_refuses_to_overwrite(tmp_path):
    arguments = {"sites": 1, "per_site": 5, "holdout": 5, "seed": 0}
    write_demo_notes(tmp_path, **arguments)
    with pytest.raises(OutputError, match=r"site-1\.csv, holdout\.csv"):
        write_demo_notes(tmp_path, **arguments)
    write_demo_notes(tmp_path, **arguments, overwrite=True)


@pytest.mark.parametrize(
    "changes", [{"sites": 0}, {"per_site": 0}, {"holdout": 0}, {"seed": -1}], ids=str
)
def test_arguments(tmp_path, changes):
    arguments = {"sites": 1, "per_site": 5, "holdout": 5, "seed": 0} | changes
    with pytest.raises(DataArgumentError, match=f"{next(iter(changes))} is"):
        write_demo_notes(tmp_path, **arguments)


def test_a_linear_model_learns_with_examples_and_stays_below_certainty(tmp_path):
    """Bag of words and ridge regression: enough to see that size matters and noise is there."""
    notes = write_demo_notes(tmp_path, sites=1, per_site=2000, holdout=600, seed=3)
    train, test = read(notes.sites[0]), read(notes.holdout)

    def words(text):
        found = re.findall(r"[a-z]+", text.lower())
        return found + [" ".join(pair) for pair in itertools.pairwise(found)]

    places: dict[str, int] = {}
    for text in train.texts:
        for word in words(text):
            places.setdefault(word, len(places) % 4096)

    def features(texts):
        matrix = np.zeros((len(texts), 4096))
        for row, text in enumerate(texts):
            for word in words(text):
                if word in places:
                    matrix[row, places[word]] = 1.0
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    x, y, targets = features(train.texts), features(test.texts), np.eye(5)[train.labels]

    def accuracy(n):
        kernel = x[:n] @ x[:n].T
        weights = x[:n].T @ np.linalg.solve(kernel + 0.3 * np.eye(n), targets[:n])
        return float(np.mean(np.argmax(y @ weights, axis=1) == test.labels))

    few, many = accuracy(60), accuracy(2000)
    assert 0.80 < many < 0.93
    assert few < many - 0.2
