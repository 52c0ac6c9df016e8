"""What can go wrong with Flower, as types."""

from __future__ import annotations

from fmfl_secure.errors import FmflError


class FlowerError(FmflError):
    """Flower cannot carry the protocol here."""

    code = "failed"


class CourierRefused(FlowerError):
    """Bytes that Flower brought are not what the other side sent; no word of why leaves."""

    code = "refused"
