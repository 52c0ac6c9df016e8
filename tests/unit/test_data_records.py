"""Units, the error hierarchy and the package's surface."""

import pickle

import numpy as np

import fmfl_secure.data as package
from fmfl_secure.data import errors
from fmfl_secure.data.errors import DataError, MalformedRowError
from fmfl_secure.data.records import grouped_units, record_units
from fmfl_secure.errors import FmflError


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
