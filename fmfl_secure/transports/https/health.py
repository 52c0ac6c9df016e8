"""Asks a process on this machine how it is, as a container's health check does."""

from __future__ import annotations

import http.client
import tomllib
from pathlib import Path

import msgspec

from fmfl_secure.errors import ServiceError
from fmfl_secure.outside import MALFORMED, parse_toml, read_settings
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.settings.service import Operations

_TIMEOUT_S = 5.0
_MAX_ANSWER = 1 << 16  # bytes


class _Answer(msgspec.Struct, frozen=True):
    status: str = ""
    reason: str = ""
    message: str = ""


def ask(kit: Path, *, port: int | None = None) -> str:
    """Ask for readiness.

    Args:
        kit: The process's kit.
        port: Its operations port; None takes the kit's.

    Raises:
        ServiceError: There is no kit, or it does not answer, or is not ready.
    """
    number = port or _port_of(Kit(kit))
    headers = {"authorization": f"Bearer {Kit(kit).operations_token()}"}
    # Not by httpx, which the service itself uses: it takes longer to load than to be answered.
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/ready", headers=headers)
        response = connection.getresponse()
        answer = msgspec.json.decode(response.read(_MAX_ANSWER), type=_Answer)
    except (OSError, http.client.HTTPException, *MALFORMED) as error:
        raise ServiceError(
            f"nothing healthy answers on port {number}: {error}",
            hint="Start the kit's process; or name the port that it said with --port.",
        ) from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ServiceError(f"not ready: {answer.reason or answer.message}")
    return answer.status


def _port_of(kit: Kit) -> int:
    try:
        settings = parse_toml(read_settings(kit.service_file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ServiceError(
            f"{kit.folder} is no party's kit: {error}",
            hint="Name the folder that request, provision or unseal made.",
        ) from error
    operations = settings.get("operations", {})
    try:
        return msgspec.convert(operations, Operations).port
    except msgspec.ValidationError as error:
        raise ServiceError(
            f"[operations] in {kit.service_file}: {error}",
            hint="Correct it there, or name the port with --port.",
        ) from error
