"""The routes by which heads of ledgers travel between sites and server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.transports.https.dependencies import SiteParty
from fmfl_secure.transports.https.schemas import BroughtHeadsBody, HeadBody, HeadsBody


def head_routes(heads: AnchorRegistry) -> APIRouter:
    """Routes for sites.

    Args:
        heads: What the server keeps.
    """
    router = APIRouter()

    @router.get("/heads")
    def tell_heads(peer: SiteParty, known: Annotated[bool, Query()] = False) -> HeadsBody:
        """What is kept of the site's ledgers, and the latest of the others'."""
        told = heads.tell(peer.name, known=known)
        return HeadsBody(own=told.own, others=told.others, known=told.known)

    @router.put("/heads", status_code=204)
    def bring_heads(_: SiteParty, body: BroughtHeadsBody) -> None:
        """The site kept these of the other sites' ledgers."""
        heads.bring(body.heads)

    @router.put("/head", status_code=204)
    def give_head(peer: SiteParty, body: HeadBody) -> None:
        """The head that the site's ledger has now."""
        heads.give(peer.name, body.head)

    return router
