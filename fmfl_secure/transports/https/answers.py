"""A server's answers, read by a party that trusts none of them: as they came, and so large at most.

Nothing is unpacked: a few KiB of compressed zeros are gigabytes in memory. Nothing is parsed before
all of it is here, and what is larger than it can be is not read to its end.
"""

from __future__ import annotations

from typing import Final, TypeVar

import httpx
import msgspec

from aggregation.protocol import prepared
from fmfl_secure.errors import BadAnswer
from fmfl_secure.outside import MALFORMED

AS_IT_IS: Final = {"accept-encoding": "identity"}
_MOST_DIGITS: Final = 19

_T = TypeVar("_T")


def read_answer(response: httpx.Response, most_bytes: int) -> bytes:
    """The body of an answer whose head has come.

    Args:
        response: Opened as a stream.
        most_bytes: Largest body.

    Raises:
        BadAnswer: It is compressed, or larger.
        httpx.TransportError: It broke off.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadAnswer("the server's answer is compressed, which nobody asked for")
    declared = response.headers.get("content-length", "0")
    if len(declared) > _MOST_DIGITS or (declared.isdigit() and int(declared) > most_bytes):
        raise _too_large(most_bytes)
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(data)


def decode_answer(body: bytes, kind: type[_T]) -> _T:
    """An answer as a type, its ranges checked.

    Raises:
        BadAnswer: It has another form, or says what cannot be.
    """
    try:
        return msgspec.json.decode(body, type=prepared(kind))
    except MALFORMED as error:
        raise BadAnswer(f"the server's answer is not what was asked for: {error}") from error


def _too_large(most_bytes: int) -> BadAnswer:
    return BadAnswer(f"the server's answer has more than {most_bytes} bytes")
