"""What can go wrong, as types.

    FmflError
      ConfigError            the federation's or a site's settings
        UnknownKind          a name that no adapter, task, mechanism or the like has
      DataError              local data (fmfl_secure.data.errors has the kinds)
      ModelError             base model, adapter or layout
        StartError           a server's start file: missing, damaged, or for other settings
      RunError               a run cannot start, go on, or be read back
      AdapterUnverified      a site that was away has nobody's word for the adapter, yet
      SiteFailure            a site failed after it may have read data; always the same code
      ServiceError           a party's own process cannot start or go on
        Unreachable          the server does not answer
          BadAnswer          it answers what no server of this version would
        Rejected             the server refused a request; carries status and code
        NotApproved          the members changed, and this site has not approved that
      Problem                what the server answers with: status, code, a sentence
      FlowerError            Flower cannot carry the protocol here
        FrameRefused       bytes that Flower brought are not what the other side sent

A problem's text names steps, sizes and roles. It never carries a value that came with a request,
and nothing of what lies in a party's files.

The packages below have bases of their own, since they may not import this one:
`privacy.PrivacyError` and `aggregation.AggregationError`. All three say in `str(error)` what
happened and what was expected, in `hint` what to do, and carry a `code`: one of a few generic
words that is all that may leave a party when something fails there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What a command line or an engine catches: everything this project raises on purpose.
    KNOWN_ERRORS: tuple[type[Exception], ...]


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


class UnknownKind(ConfigError):
    """A name that no entry of a registry has; the hint lists those that there are."""


class ModelError(FmflError):
    """A base model, an adapter or a parameter layout is not what it should be."""

    code = "model"


class StartError(ModelError):
    """What a server starts a run from is missing, damaged, or made for other settings."""


class RunError(FmflError):
    """A run cannot start, go on, or be read back."""

    code = "run"


class AdapterUnverified(FmflError):
    """A site that missed rounds cannot know that an adapter is the federation's, yet."""

    code = "adapter"


class SiteFailure(FmflError):
    """A site failed in a round, once its data may have been read.

    What failed, a row, the training, the memory, can depend on a single unit: the code is the
    same whatever it was. The message is for the people at the site and leaves it never.
    """

    code = "failed"


class ServiceError(FmflError):
    """A party's own process cannot start or go on."""

    code = "service"


class Unreachable(ServiceError):
    """The server does not answer; worth another try later."""


class BadAnswer(Unreachable):
    """The server answers what no server of this version would; the same again would not help."""


class Rejected(ServiceError):
    """The server refused a request.

    Attributes:
        status: HTTP status.
        reason: The problem's code.
        received: For an upload, the bytes that the server holds; -1 where it did not say.
    """

    def __init__(self, status: int, reason: str, text: str, *, received: int = -1) -> None:
        super().__init__(f"the server answered {status} ({reason}): {text}")
        self.status = status
        self.reason = reason
        self.received = received


class NotApproved(ServiceError):
    """The federation's members changed, and this site has not approved that."""

    code = "membership"


class Problem(FmflError):
    """A request that is not served.

    Attributes:
        status: HTTP status.
        reason: One word for programs.
        retry_after_s: When to try again; 0 says nothing.
        received: For an upload, the bytes held here; -1 says nothing.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        text: str,
        *,
        retry_after_s: int = 0,
        received: int = -1,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.received = received


class FlowerError(FmflError):
    """Flower cannot carry the protocol here."""

    code = "failed"


class FrameRefused(FlowerError):
    """Bytes that Flower brought are not what the other side sent; no word of why leaves."""

    code = "refused"


def is_known(error: BaseException) -> bool:
    """Whether it is one of `KNOWN_ERRORS`."""
    # This project's own need none of the other packages.
    return isinstance(error, FmflError) or isinstance(error, __getattr__("KNOWN_ERRORS"))  # noqa: SIM101


def __getattr__(name: str) -> Any:
    # On first use: both bring NumPy, and a command's help or health needs neither.
    if name == "KNOWN_ERRORS":
        from aggregation import AggregationError  # noqa: PLC0415
        from privacy import PrivacyError  # noqa: PLC0415

        return FmflError, PrivacyError, AggregationError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
