"""A site's side of the norm check: its projections, sent for one release a round, and its check."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from aggregation.crypto.identity import Identity
from aggregation.crypto.projections import Signs
from aggregation.errors import RecordedError, ReplayError, StateError
from aggregation.protocol import messages
from aggregation.protocol.journal import Journal
from aggregation.protocol.norms import Projections, check_sum, read_projections, signs_for
from aggregation.protocol.round import FixedCohort

_PROJECTED = "site/projected"  # key of the round; digest of the release


class SiteNorms:
    """The norm check of one attempt, as one site makes it.

    Args:
        cohort: The verified cohort.
        integers: What this site uploaded, int32, shape (d,).
    """

    def __init__(self, cohort: FixedCohort, integers: npt.NDArray[np.int32]) -> None:
        self._cohort = cohort
        self._integers = integers
        self._release = b""
        self._signs: Signs | None = None

    def __repr__(self) -> str:
        return "SiteNorms(secret)"

    def project(self, identity: Identity, journal: Journal, release: bytes) -> bytes:
        """Sign this site's projections, on the signs of a release that verified; recorded first.

        Of one round they are sent for one release: no more than these is ever told of an update,
        and nobody tries twice.

        Raises:
            ReplayError: They were sent for another release of this round.
            JournalError: It cannot be recorded.
        """
        digest = messages.digest(release)
        key = self._cohort.round.round_key(identity.public)
        try:
            journal.record(_PROJECTED, key, digest)
        except RecordedError:
            if journal.lookup(_PROJECTED, key) != digest:
                raise ReplayError(
                    "projections were sent for another release of this round"
                ) from None
        values = self._signs_for(release).project(
            self._integers, self._cohort.round.packing.encoding.limit
        )
        body = Projections(self._cohort.transcript, digest, values.astype("<i8").tobytes())
        return messages.seal(identity, body)

    def check(
        self, release: bytes, total: npt.NDArray[np.int64], projections: Iterable[bytes]
    ) -> None:
        """Check everybody's projections against each other and the sum.

        Raises:
            StateError: This site has sent none, or for another release.
            NormError: An update is larger than an honest one, or may be.
            RefusedError: A message does not hold.
        """
        if self._release != messages.digest(release):
            raise StateError("this site has not sent projections for this release")
        read = dict(read_projections(self._cohort, release, each) for each in projections)
        check_sum(self._cohort, self._signs_for(release), total, read)

    def _signs_for(self, release: bytes) -> Signs:
        if self._signs is None:
            self._signs, self._release = signs_for(self._cohort, release), messages.digest(release)
        return self._signs
