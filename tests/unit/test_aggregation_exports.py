import inspect

import aggregation
from aggregation import AggregationError, RefusedError, errors


def test_everything_exported_exists_and_is_documented():
    assert len(set(aggregation.__all__)) == len(aggregation.__all__)
    for name in aggregation.__all__:
        assert inspect.getdoc(getattr(aggregation, name)), name


def test_every_error_is_exported_and_tells_outsiders_one_of_two_words():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    for cls in classes:
        assert issubclass(cls, AggregationError)
        assert cls.__name__ in aggregation.__all__
        assert cls.__name__ in errors.__doc__
        assert cls.code == ("refused" if issubclass(cls, RefusedError) else "failed")
