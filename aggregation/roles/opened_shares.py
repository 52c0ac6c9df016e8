"""Shares that were handed out in openings, and the seeds that they give."""

from __future__ import annotations

import hmac

from aggregation.crypto import shamir
from aggregation.errors import MessageError, OpeningError, StateError
from aggregation.protocol import dealt
from aggregation.protocol.exchange import Exchanged
from aggregation.protocol.messages import SALTED_SIZE
from aggregation.protocol.round import FixedCohort


class OpenedShares:
    """Of one cohort in one attempt. Nothing in it is secret any more."""

    def __init__(self, cohort: FixedCohort) -> None:
        self._cohort = cohort
        self._signed: dict[int, Exchanged] = {}
        self._opened: dict[int, tuple[bytes, ...]] = {}  # by place: its share of each seed
        self._places: tuple[int, ...] = ()
        self._coefficients: dict[int, int] = {}

    def expect(self, sent: Exchanged) -> None:
        """Take a dealer's commitments, from its verified exchange message."""
        self._signed[sent.sender] = sent

    def add(self, name: str, salted: bytes) -> None:
        """Take what a site handed out.

        Raises:
            OpeningError: Another number, or one that is not what its dealer signed: the site took
                it as right before it uploaded.
        """
        names, place = self._cohort.names, self._cohort.position(name)
        if len(salted) != SALTED_SIZE * len(names):
            raise OpeningError(f"the opening of {name} has another number of shares")
        parts = tuple(salted[i : i + SALTED_SIZE] for i in range(0, len(salted), SALTED_SIZE))
        for dealer, part in enumerate(parts):
            sent = self._signed.get(dealer)
            if sent is None:
                raise StateError(f"the exchange message of {names[dealer]} comes first")
            made = dealt.commitment(self._cohort, names[dealer], name, part)
            if not hmac.compare_digest(made, dealt.commitment_of(sent, place)):
                raise OpeningError(f"{name} hands out a share that {names[dealer]} did not sign")
        self._opened[place] = parts

    def seed_of(self, name: str) -> bytes:
        """Joins the shares of a site's seed, 32 bytes; empty if they give no seed at all.

        Of the first that came, as many as it takes: whoever dealt rightly gives the same with any.

        Raises:
            OpeningError: There are too few.
        """
        dealer, needed = self._cohort.position(name), self._cohort.openings
        if len(self._opened) < needed:
            raise OpeningError(f"{len(self._opened)} openings are fewer than the {needed} it takes")
        places = tuple(self._opened)[:needed]
        if places != self._places:
            self._places = places
            self._coefficients = shamir.at_zero([place + 1 for place in places])
        shares = {place + 1: self._opened[place][dealer][shamir.SALT_SIZE :] for place in places}
        try:
            return shamir.combine(shares, self._coefficients)
        except MessageError:
            return b""
