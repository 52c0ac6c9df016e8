"""Who asks, by certificate, as dependencies of the server's routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from fmfl_secure.errors import Problem
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE, Peer
from fmfl_secure.transports.https.guard import PEER


def _peer(request: Request) -> Peer:
    peer: Peer | None = request.scope.get(PEER)
    if peer is None:
        raise Problem(401, "unauthenticated", "a client certificate is needed")
    return peer


def _role(*roles: str) -> Callable[[Request], Peer]:
    def required(request: Request) -> Peer:
        peer = _peer(request)
        if peer.role not in roles:
            raise Problem(403, "wrong-role", "this is another role's to ask")
        return peer

    return required


Party = Annotated[Peer, Depends(_role(SITE, DECRYPTOR, CUSTODIAN))]
SiteParty = Annotated[Peer, Depends(_role(SITE))]
