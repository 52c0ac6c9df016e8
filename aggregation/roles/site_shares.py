"""Shares of self-masks that a site holds, so that a sum opens without some of its cohort.

A site shares the seed of its self-mask out once the cohort is fixed, and takes its share of every
other's before it uploads. In its opening it hands out all of them. Pairwise secrets are not shared:
a site that uploads nothing ends the attempt, as where nobody may vanish.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from aggregation.crypto import mac, sealed_box, shamir
from aggregation.crypto.sealed_box import BoxKey
from aggregation.errors import CohortError, SealedError, StateError
from aggregation.protocol import dealt
from aggregation.protocol.exchange import Exchanged
from aggregation.protocol.round import FixedCohort


class SiteShares:
    """Shares of one attempt, as one site deals and holds them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._box = BoxKey()
        self._own = b""  # of its own seed, with the salt
        self._held: tuple[bytes, ...] = ()
        self._key = b""
        self.accused = ""  # whoever dealt what does not hold

    def __repr__(self) -> str:
        return "SiteShares(secret)"

    def __reduce__(self) -> str:
        raise TypeError("the secrets of an attempt are not copied or stored")

    @property
    def box_key(self) -> bytes:
        """The public key that shares for this site are sealed for."""
        return self._box.public

    @property
    def mac_key(self) -> bytes:
        """The attempt's MAC key, 32 bytes.

        Raises:
            StateError: It has not come yet.
        """
        if not self._key:
            raise StateError("the MAC key of this attempt has not come yet")
        return self._key

    @property
    def held(self) -> tuple[bytes, ...]:
        """Its share of every site's seed, with the salt, in cohort order.

        Raises:
            StateError: They have not come yet.
        """
        if not self._held:
            raise StateError("the shares of this attempt have not come yet")
        return self._held

    def deal(self, cohort: FixedCohort, seed: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Share the seed of this site's self-mask out, and from the first site the MAC key.

        Args:
            cohort: The verified cohort.
            seed: 32 bytes.

        Returns:
            By position the box, which this site itself has none of, and the commitment to the share
            in it; then the commitment to the MAC key, or zeros.
        """
        own, transcript = cohort.position(self._name), cohort.transcript
        if not own:
            self._key = mac.new_key()
        key = self._key or bytes(mac.KEY_SIZE)
        parts: list[tuple[bytes, bytes]] = []
        shares = shamir.share(seed, cohort.openings, len(cohort.members))
        for place, (name, ready) in enumerate(zip(cohort.names, cohort.readies, strict=True)):
            salted = secrets.token_bytes(shamir.SALT_SIZE) + shares[place]
            box = b""
            if place == own:
                self._own = salted
            elif isinstance(ready.box, bytes):
                bound = dealt.bound_to(cohort, self._name, name)
                box = sealed_box.seal_box(ready.box, salted + key, bound)
            parts.append((box, dealt.commitment(cohort, self._name, name, salted)))
        return parts, bytes(mac.KEY_SIZE) if own else dealt.key_commitment(key, transcript)

    def take(self, cohort: FixedCohort, exchanges: Iterable[Exchanged]) -> None:
        """Take what every other site dealt.

        Raises:
            SealedError: A box does not open, or has something else than its dealer signed.
            RefusedError: A message is missing.
        """
        by_place = {cohort.position(self._name): self._own}
        for sent in exchanges:
            try:
                share = dealt.open_share(cohort, sent, self._name, self._box.open)
            except SealedError:
                self.accused = cohort.names[sent.sender]
                raise
            by_place[sent.sender] = share.salted
            if not sent.sender:
                self._key = share.key
        missing = [name for i, name in enumerate(cohort.names) if i not in by_place]
        if missing:
            raise CohortError(f"the exchange message of {', '.join(missing)} is missing")
        self._held = tuple(by_place[place] for place in range(len(cohort.members)))

    def recall(self, held: tuple[bytes, ...]) -> None:
        """Have the shares that were held before a restart."""
        self._held = held

    def reveal(self) -> bytes:
        """The private box key, as proof of what does not open; this site uploads nothing after."""
        return self._box.reveal()

    def forget(self) -> None:
        """Forget the shares, once they are handed out or of no use."""
        self._own, self._held = b"", ()
