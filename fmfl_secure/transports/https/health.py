"""CustodianRequests a process on this machine how it is, as a container's health check does."""

from __future__ import annotations

import tomllib
from pathlib import Path

import httpx

from fmfl_secure.errors import ServiceError
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.settings.service import Operations

_TIMEOUT_S = 5.0


def ask(kit: Path, *, port: int | None = None) -> str:
    """Ask for readiness.

    Args:
        kit: The process's kit.
        port: Its operations port; None takes the kit's.

    Raises:
        ServiceError: It does not answer, or is not ready.
    """
    settings = tomllib.loads(Kit(kit).service_file.read_text(encoding="utf-8"))
    number = port or settings.get("operations", {}).get("port", Operations().port)
    headers = {"authorization": f"Bearer {Kit(kit).operations_token()}"}
    try:
        response = httpx.get(
            f"http://127.0.0.1:{number}/ready",
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        answer = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(f"nothing healthy answers on port {number}: {error}") from error
    if response.status_code != 200:
        raise ServiceError(f"not ready: {answer.get('reason') or answer.get('message')}")
    return str(answer["status"])
