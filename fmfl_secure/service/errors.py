"""What the service refuses, as types; each is one HTTP status and one code.

    FmflError
      ServiceError          a party's own process cannot start or go on
        Unreachable         the server does not answer, or not as it should
        Rejected            the server refused a request; carries status and code
        NotApproved         the members changed, and this site has not approved that
      Problem               what the server answers with: status, code, a sentence

A problem's text names steps, sizes and roles. It never carries a value that came with a request,
and nothing of what lies in a party's files.
"""

from __future__ import annotations

from fmfl_secure.errors import FmflError


class ServiceError(FmflError):
    """A party's own process cannot start or go on."""

    code = "service"


class Unreachable(ServiceError):
    """The server does not answer, or not as it should; worth another try later."""


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
