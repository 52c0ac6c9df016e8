"""A suite of benchmarks that a user brings, on a finished adapter beside its base model."""

from fmfl_secure.training.suite.plan import Suite, load_suite
from fmfl_secure.training.suite.run import SuiteRow, evaluate_suite

__all__ = ["Suite", "SuiteRow", "evaluate_suite", "load_suite"]
