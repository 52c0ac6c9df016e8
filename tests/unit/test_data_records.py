"""The dataset type, the error hierarchy and the package's surface."""

import pickle

import numpy as np
import pytest

import fmfl_secure.data as package
from fmfl_secure.data import TextDataset, errors
from fmfl_secure.data.errors import DataArgumentError, DataError, MalformedRowError
from fmfl_secure.data.records import grouped_units, record_units
from fmfl_secure.errors import FmflError


def make(**changes) -> TextDataset:
    values = {
        "texts": ("a rare disease", "another"),
        "labels": np.array([0, 1]),
        "units": record_units(2),
        "label_names": ("x", "y"),
        "skipped": 4711,
    }
    return TextDataset(**(values | changes))


def test_repr_shows_neither_text_nor_count():
    assert repr(make()) == str(make()) == "TextDataset(<private>)"


def test_frozen_and_read_only():
    dataset = make()
    with pytest.raises(AttributeError):
        dataset.texts = ()
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.units[0][0] = 1
    assert len(dataset) == 2


def test_empty_is_possible():
    dataset = make(texts=(), labels=np.array([], dtype=np.int64), units=())
    assert len(dataset) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.array([0, 1], dtype=np.int32)}, "int32"),
        ({"labels": np.array([0, 1, 0])}, "one per text"),
        ({"labels": np.array([[0], [1]])}, "2 dimension"),
        ({"labels": np.array([0, 2])}, "not an index"),
        ({"labels": np.array([0, -1])}, "not an index"),
        ({"units": (np.array([0]),)}, "exactly once"),
        ({"units": (np.array([0, 1]), np.array([1]))}, "exactly once"),
        ({"units": (np.array([0]), np.array([2]))}, "exactly once"),
        ({"units": (np.array([0, 1]), np.array([], dtype=np.int64))}, "non-empty"),
        ({"units": (np.array([0.0, 1.0]),)}, "int64"),
    ],
)
def test_construction_is_checked(changes, said):
    with pytest.raises(DataArgumentError, match=said):
        make(**changes)


def test_grouping_keeps_the_order_of_first_appearance():
    assert [unit.tolist() for unit in grouped_units(["b", "a", "b", "c"])] == [[0, 2], [1], [3]]
    assert all(unit.dtype == np.int64 for unit in grouped_units(["b", "a"]))
    assert grouped_units([]) == record_units(0) == ()


def test_every_error_is_a_data_error_with_the_one_code():
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    assert len(kinds) == 16
    for kind in kinds:
        assert issubclass(kind, FmflError)
        assert issubclass(kind, DataError)
        assert kind.code == "failed"
        assert kind.__name__ in errors.__doc__


def test_errors_survive_pickling(tmp_path):
    error = MalformedRowError("broken", hint="mend it", path=tmp_path / "x.csv", row=3, line=5)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MalformedRowError
    assert str(again) == str(error) == f"{tmp_path / 'x.csv'}, row 3 (line 5): broken"
    assert (again.hint, again.path, again.row, again.line) == ("mend it", error.path, 3, 5)


def test_exports():
    assert package.__all__ == sorted(package.__all__)
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("fmfl_secure")
    }
    assert public | {"Conversation", "OnBadRow", "Role"} == set(package.__all__)
