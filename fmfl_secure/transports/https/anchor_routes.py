"""The routes by which heads of ledgers and journals travel between parties and server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from fmfl_secure.runtime.anchor_registry import ALL, AnchorRegistry
from fmfl_secure.transports.https.dependencies import Party, SiteParty
from fmfl_secure.transports.https.schemas import BroughtHeadsBody, HeadBody, HeadsBody


def head_routes(heads: AnchorRegistry) -> APIRouter:
    """Routes for sites, and as far as journals go for decryptor and custodians.

    Args:
        heads: What the server keeps.
    """
    router = APIRouter()

    @router.get("/heads")
    def tell_heads(
        peer: Party,
        known: Annotated[bool, Query()] = False,
        since: Annotated[str, Query(max_length=64)] = ALL,
    ) -> HeadsBody:
        """Tells heads that are kept of the party's own ledgers and journals, and of others'."""
        told = heads.tell(peer.name, known=known, since=since)
        return HeadsBody(
            own=told.own,
            others=told.others,
            known=told.known,
            journals=told.journals,
            other_journals=told.other_journals,
            upto=told.upto,
        )

    @router.put("/heads", status_code=204)
    def bring_heads(_: SiteParty, body: BroughtHeadsBody) -> None:
        """The site kept these of the others' ledgers and journals."""
        heads.bring(body.heads)

    @router.put("/head", status_code=204)
    def give_head(peer: Party, body: HeadBody) -> None:
        """The head that the party's ledger or journal has now."""
        heads.give(peer.name, body.head)

    return router
