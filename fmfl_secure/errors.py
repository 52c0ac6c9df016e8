"""Errors of the product, as types.

    FmflError
      ConfigError            the federation's or a site's settings
        UnknownKind          a name that no adapter, task, mechanism or the like has
      DataError              local data (fmfl_secure.data.errors has the kinds)
      ModelError             base model, adapter or layout
        StartError           a server's start file: missing, damaged, or for other settings
      RunError               a run cannot start, go on, or be read back
        RunStopped           a run has ended before its last round; its report says why
        RunDamaged           what is kept of it, or at a site for it, is not what was written
      Unavailable            what a party works with cannot be used now: held, full, no rights
      AdapterUnverified      a site that was away has nobody's word for the adapter, yet
      SiteFailure            a site failed after it may have read data; always the same code
      ServiceError           a party's own process cannot start or go on
        InUse                another process has the folder
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

Every class declares its `nature`, and whoever makes an outcome or a refusal of an error asks it:

    passing   the surroundings: it is tried again, with pauses; then the process ends, to be started
              again, and goes on. Never the end of a run, nor a site's refusal
    decided   it stays so until a person decides otherwise: an outcome, or a refusal
    damage    something kept is not what it was: somebody has to put it back

Every room raises these. `cli` prints text and hint of those in `KNOWN_ERRORS`, without a
traceback, and `cli.exit_codes` gives each its exit code; stores, agents and servers go by `nature`
and try a passing one again.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

Nature = Literal["passing", "decided", "damage"]
# What the system says of disk, memory, descriptors and time. Of a path, or of rights, it says else.
_SURROUNDINGS: Final = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EFBIG, errno.EINTR, errno.EIO, errno.EMFILE,
     errno.ENFILE, errno.ENOBUFS, errno.ENODEV, errno.ENOLCK, errno.ENOMEM, errno.ENOSPC,
     errno.ENXIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT}
)  # fmt: skip

MAKE_ROOM: Final = "Make room, or the disk writable."
CHECK_PATH: Final = "Check the path, and that this account may read and write there."

if TYPE_CHECKING:
    # What a command line or an engine catches: everything this project raises on purpose.
    KNOWN_ERRORS: tuple[type[Exception], ...]
    # The same, and the system's errors that nobody gave a name to, memory's with them: whoever asks
    # for their nature.
    ANY_FAILURE: tuple[type[Exception], ...]


class FmflError(Exception):
    """Base of this package's errors.

    Attributes:
        nature: What follows from it; see above.
        code: Generic word that may leave the party. Never depends on a value read from data.
        hint: What the person at the keyboard can do about it; may be empty.
    """

    nature: ClassVar[Nature] = "decided"
    code = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(FmflError):
    """A setting is unknown, missing, malformed, or contradicts another."""

    nature: ClassVar[Nature] = "decided"
    code = "configuration"


class UnknownKind(ConfigError):
    """A name that no entry of a registry has; the hint lists those that there are."""

    nature: ClassVar[Nature] = "decided"


class ModelError(FmflError):
    """A base model, an adapter or a parameter layout is not what it should be."""

    nature: ClassVar[Nature] = "decided"
    code = "model"


class StartError(ModelError):
    """A server's start file is missing, damaged, or made for other settings."""

    nature: ClassVar[Nature] = "decided"


class RunError(FmflError):
    """A run cannot start, go on, or be read back."""

    nature: ClassVar[Nature] = "decided"
    code = "run"


class RunStopped(RunError):
    """A run has ended before its last round: decided, and in its report."""

    nature: ClassVar[Nature] = "decided"


class RunDamaged(RunError):
    """The files of a run, or of a site for it, are not what was written."""

    nature: ClassVar[Nature] = "damage"
    code = "damaged"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint or "Put back what was written there.")


class Unavailable(FmflError):
    """A party's surroundings fail it now: held by others, full, not permitted, gone away.

    Tried again it may be there: nothing was decided, and nothing was changed.
    """

    nature: ClassVar[Nature] = "passing"
    code = "unavailable"


class AdapterUnverified(FmflError):
    """A site that missed rounds cannot know that an adapter is the federation's, yet."""

    nature: ClassVar[Nature] = "decided"
    code = "adapter"


class SiteFailure(FmflError):
    """A site failed in a round, once its data may have been read.

    What failed, a row, the training, the memory, can depend on a single unit: the code is the
    same whatever it was. The message is for the people at the site and leaves it never.
    """

    nature: ClassVar[Nature] = "decided"
    code = "failed"


class ServiceError(FmflError):
    """A party's own process cannot start or go on."""

    nature: ClassVar[Nature] = "decided"
    code = "service"


class InUse(ServiceError):
    """Another process has this folder: a party's, or a run's."""

    nature: ClassVar[Nature] = "decided"


class Unreachable(ServiceError):
    """The server does not answer; worth another try later."""

    nature: ClassVar[Nature] = "passing"


class BadAnswer(Unreachable):
    """The server answers what no server of this version would; the same again would not help."""

    nature: ClassVar[Nature] = "passing"


class Rejected(ServiceError):
    """The server refused a request.

    Attributes:
        status: HTTP status.
        reason: The problem's code.
        received: For an upload, the bytes that the server holds; -1 where it did not say.
    """

    nature: ClassVar[Nature] = "decided"

    def __init__(self, status: int, reason: str, text: str, *, received: int = -1) -> None:
        super().__init__(f"the server answered {status} ({reason}): {text}")
        self.status = status
        self.reason = reason
        self.received = received


class NotApproved(ServiceError):
    """The federation's members changed, and this site has not approved that."""

    nature: ClassVar[Nature] = "decided"
    code = "membership"


class Problem(FmflError):
    """A request that is not served.

    Attributes:
        status: HTTP status.
        reason: One word for programs.
        retry_after_s: When to try again; 0 says nothing.
        received: For an upload, the bytes held here; -1 says nothing.
    """

    nature: ClassVar[Nature] = "decided"

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

    nature: ClassVar[Nature] = "decided"
    code = "failed"


class FrameRefused(FlowerError):
    """Bytes that Flower brought are not what the other side sent; no word of why leaves."""

    nature: ClassVar[Nature] = "decided"
    code = "refused"


def is_passing(error: BaseException) -> bool:
    """Whether an error is of the surroundings: to be tried again, and to decide nothing."""
    if isinstance(error, OSError):  # one that nobody gave a name to on its way here
        return error.errno in _SURROUNDINGS
    if isinstance(error, MemoryError) or _is_memory_error_that_was_lost(error):
        return True
    if isinstance(error, RuntimeError) and is_out_of_memory(error):  # as PyTorch tells of it
        return True
    return getattr(error, "nature", "decided") == "passing"


def is_of_a_name(error: BaseException) -> bool:
    """Whether a name that somebody gave, of a file say, is no text in UTF-8, and none can write it.

    Python keeps the bytes of such a name as surrogates, which nothing else makes.
    """
    return isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason


def said(error: BaseException) -> str:
    """An error's text; Python itself gives none where there is no memory."""
    lost = _is_memory_error_that_was_lost(error)
    if lost or (isinstance(error, MemoryError) and not str(error)):
        return "there is not enough memory"
    return str(error)


def _is_memory_error_that_was_lost(error: BaseException) -> bool:
    """Whether C code of Python failed and named no error: seen where there was no memory, alone."""
    words = ("without setting an exception", "without exception set")  # the two that it has
    return isinstance(error, SystemError) and any(each in str(error) for each in words)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was not to be had, in whichever of a library's words."""
    if isinstance(error, MemoryError):
        return True
    # PyTorch's allocator has no type of its own for the machine's memory, nor safetensors for mmap.
    # oneDNN's words are those of a kernel that was built, and found no memory for its code.
    text = str(error)
    return (
        "can't allocate memory" in text
        or "Cannot allocate memory" in text
        or text == "could not create a primitive"
    )


def os_failure(
    otherwise: type[FmflError], what: str, error: OSError, *, hint: str = ""
) -> FmflError:
    """Makes the error to raise for a failure of the operating system.

    Args:
        otherwise: What it is where the path or its rights are wrong.
        what: What could not be done, as the error's text begins.
        error: The system's.
        hint: What to do about it; by default make room, or check the path.

    Returns:
        `Unavailable` where disk, memory or descriptors are at fault; else `otherwise`.
    """
    is_passed = error.errno in _SURROUNDINGS
    kind = Unavailable if is_passed else otherwise
    hint = hint or (MAKE_ROOM if is_passed else CHECK_PATH)
    return kind(f"{what}: {error.strerror or type(error).__name__}", hint=hint)


def is_known(error: BaseException) -> bool:
    """Whether it is one of `KNOWN_ERRORS`."""
    # This project's own need none of the other packages.
    return isinstance(error, FmflError) or isinstance(error, __getattr__("KNOWN_ERRORS"))  # noqa: SIM101


def __getattr__(name: str) -> Any:
    # On first use: both bring NumPy, and a command's help or health needs neither.
    if name in {"KNOWN_ERRORS", "ANY_FAILURE"}:
        from aggregation import AggregationError  # noqa: PLC0415
        from privacy import PrivacyError  # noqa: PLC0415

        known = FmflError, PrivacyError, AggregationError
        return known if name == "KNOWN_ERRORS" else (*known, OSError, MemoryError)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
