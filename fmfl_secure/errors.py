"""What can go wrong, as types.

    FmflError
      ConfigError            the federation's or a site's settings
      DataError              local data (fmfl_secure.data.errors has the kinds)
      ModelError             base model, adapter or layout
      RunError               a run cannot start, go on, or be read back
      SiteFailure            a site failed after it may have read data; always the same code

The packages below have bases of their own, since they may not import this one:
`privacy.PrivacyError` and `aggregation.AggregationError`. All three say in `str(error)` what
happened and what was expected, in `hint` what to do, and carry a `code`: one of a few generic
words that is all that may leave a party when something fails there.
"""

from __future__ import annotations

from aggregation import AggregationError
from privacy import PrivacyError


class FmflError(Exception):
    """Base of this package's errors.

    Attributes:
        code: Generic word that may leave the party. Never depends on a value read from data.
        hint: What the person at the keyboard can do about it; may be empty.
    """

    code = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(FmflError):
    """A setting is unknown, missing, malformed, or contradicts another."""

    code = "configuration"


class ModelError(FmflError):
    """A base model, an adapter or a parameter layout is not what it should be."""

    code = "model"


class RunError(FmflError):
    """A run cannot start, go on, or be read back."""

    code = "run"


class SiteFailure(FmflError):
    """A site failed in a round, once its data may have been read.

    What failed, a row, the training, the memory, can depend on a single unit: the code is the
    same whatever it was. The message is for the people at the site and leaves it never.
    """

    code = "failed"


# What a command line or an engine catches: everything this project raises on purpose.
KNOWN_ERRORS = (FmflError, PrivacyError, AggregationError)
