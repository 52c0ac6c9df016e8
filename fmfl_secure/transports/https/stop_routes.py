"""The route by which a party brings the server a signed stop of its run."""

from __future__ import annotations

import base64
from collections.abc import Callable

from fastapi import APIRouter

from fmfl_secure.errors import Problem
from fmfl_secure.transports.https.dependencies import Party
from fmfl_secure.transports.https.schemas import StopBody


def stop_routes(take_stop: Callable[[bytes], None]) -> APIRouter:
    """The route, for every party.

    Args:
        take_stop: Keeps a signed stop of a run, if it holds.
    """
    router = APIRouter()

    @router.put("/stop", status_code=204)
    def stop(_: Party, body: StopBody) -> None:
        """A signed stop of a run, the party's own or another's."""
        try:
            statement = base64.b64decode(body.statement, validate=True)
        except ValueError:
            raise Problem(422, "malformed", "the stop is not in base64") from None
        take_stop(statement)

    return router
