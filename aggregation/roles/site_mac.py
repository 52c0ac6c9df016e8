"""A site's side of the MAC: where its key comes from, its tags, and the check of a release.

The first site of the cohort draws the key and seals it for each of the others, in its manifest;
those find it through the opening list, which carries that manifest whole. Where sites may vanish it
comes in the exchange, with the shares, and the tags go with the upload.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import numpy.typing as npt

from aggregation.crypto import mac
from aggregation.crypto.mac import LinearMac
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.errors import OpeningError, StateError
from aggregation.protocol import accusation, checks, messages
from aggregation.protocol.messages import OpeningList
from aggregation.protocol.round import FixedCohort
from aggregation.roles.site_secrets import SiteSecrets
from aggregation.threads import batches


class SiteMac:
    """The MAC of one attempt, as one site holds it."""

    def __init__(
        self, cohort: FixedCohort, name: str, key: EphemeralKey, *, mac_key: bytes = b""
    ) -> None:
        """Draw the MAC key, if this is the first site; else note what opens its box.

        Args:
            cohort: The verified cohort.
            name: This site.
            key: Its single-use keys.
            mac_key: The attempt's MAC key, where it has come already.
        """
        self._cohort = cohort
        self._name = name
        self._own = cohort.position(name)
        self._first = cohort.names[0]
        self._keyed: LinearMac | None = None
        self._tags: tuple[int, ...] = ()
        self._key: EphemeralKey | None = None
        self.boxes = b""
        if mac_key:
            self._key_with(mac_key)
            return
        if self._own:
            self._key = key
            # As many zeros, so that all uploads are of one size.
            self.boxes = bytes(mac.BOX_SIZE * (len(cohort.names) - 1))
            return
        kappa, transcript = mac.new_key(), cohort.transcript
        self._key_with(kappa)
        self.boxes = b"".join(
            mac.seal_key(kappa, key.exchange(ready.key), transcript, self._first, other)
            for other, ready in zip(cohort.names[1:], cohort.readies[1:], strict=True)
        )

    def __repr__(self) -> str:
        return "SiteMac(secret)"

    @property
    def keyed(self) -> LinearMac:
        """The MAC under this attempt's key.

        Raises:
            StateError: The key has not come yet.
        """
        if self._keyed is None:
            raise StateError("the MAC key of this attempt has not come yet")
        return self._keyed

    def open(self, listed: OpeningList) -> None:
        """Take the key from the first site's manifest.

        Raises:
            SealedError: The box for this site does not open.
            OpeningError: It is not there.
            RefusedError: The manifest does not hold.
        """
        if self._keyed is not None:
            return
        if messages.digest(listed.first) != listed.manifests[0]:
            raise OpeningError("the list does not carry the first site's manifest")
        sender, first = checks.read_upload(self._cohort, listed.first)
        if sender != self._first:
            raise OpeningError("the list carries another site's manifest in the first's place")
        if self._key is None:
            raise StateError("the single-use key of this attempt is spent")
        self._key_with(accusation.open_mac_key(self._cohort, self._name, first, self._key))
        self._key = None

    def reveal(self) -> bytes:
        """The single-use X25519 key, as proof that the box with the MAC key does not open.

        Raises:
            StateError: It was spent.
        """
        if self._key is None:
            raise StateError("the single-use key of this attempt is spent")
        revealed, self._key = self._key.reveal(), None
        return revealed

    def tag(self, packed: npt.NDArray[np.int64], hidden_by: SiteSecrets) -> bytes:
        """Masked tags of this site's packed integers, shape (chunks, N), for the wire."""
        self._tags = self._sum_of_tags(lambda part: packed[part.start : part.stop])
        pad = self.keyed.pad() if not self._own else (0,) * mac.TAGS
        masked = np.array(mac.add_tags(self._tags, pad), dtype=np.uint64)
        hidden_by.mask_tags(self._cohort, masked, mac.PRIME)
        return mac.encode_tags(tuple(int(tag) for tag in masked))

    def tagged(self, packed: npt.NDArray[np.int64]) -> bool:
        """Whether these are the packed integers that were tagged."""
        return self._sum_of_tags(lambda part: packed[part.start : part.stop]) == self._tags

    def matches(self, total: npt.NDArray[np.int64], tags: bytes) -> bool:
        """Whether released integers, shape (d,), have the summed tags."""
        packing = self._cohort.round.packing
        found = self._sum_of_tags(lambda part: packing.pack_sum(total, part.start, part.stop))
        expected = mac.add_tags(self.keyed.pad(), found)
        # Not secret any more, and every site refuses for itself: no constant time is needed.
        return mac.decode_tags(tags) == expected

    def _sum_of_tags(self, chunks: Callable[[range], npt.NDArray[np.int64]]) -> tuple[int, ...]:
        """Tags of a whole update, given its packed chunks by range."""
        keyed, count = self.keyed, self._cohort.round.packing.chunks
        tags = (keyed.tag(chunks(part), part.start) for part in batches(count))
        return reduce(mac.add_tags, tags, (0,) * mac.TAGS)

    def _key_with(self, kappa: bytes) -> None:
        degree = self._cohort.round.packing.degree
        self._keyed = LinearMac(kappa, self._cohort.transcript, degree)
