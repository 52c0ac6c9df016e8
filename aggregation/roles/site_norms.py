"""A site's side of the norm check: its projections, sent for one release a round, and its check."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from aggregation.crypto.identity import Identity
from aggregation.errors import RecordedError, ReplayError, StateError
from aggregation.protocol import messages
from aggregation.protocol.checks import Released
from aggregation.protocol.journal import Journal
from aggregation.protocol.norms import NormCheck, Projections
from aggregation.protocol.round import FixedCohort

_PROJECTED = "site/projected"  # key of the round; mark of the release


class SiteNorms:
    """The norm check of one attempt, as one site makes it.

    Args:
        cohort: The verified cohort.
        integers: What this site uploaded, int32, shape (d,).
    """

    def __init__(self, cohort: FixedCohort, integers: npt.NDArray[np.int32]) -> None:
        self._cohort = cohort
        self._integers = integers
        self._check: NormCheck | None = None

    def __repr__(self) -> str:
        return "SiteNorms(secret)"

    def project(self, identity: Identity, journal: Journal, release: bytes) -> bytes:
        """Sign this site's projections, on the signs of a release that verified; recorded first.

        Of one round they are sent for one release: no more than these is ever told of an update,
        and nobody tries twice.

        Args:
            identity: The site's key pair.
            journal: Its record.
            release: Mark of the release.

        Raises:
            ReplayError: They were sent for another release of this round.
            JournalError: It cannot be recorded.
        """
        key = self._cohort.round.round_key(identity.public)
        try:
            journal.record(_PROJECTED, key, release)
        except RecordedError:
            if journal.lookup(_PROJECTED, key) != release:
                raise ReplayError(
                    "projections were sent for another release of this round"
                ) from None
        if self._check is None or self._check.release != release:
            self._check = NormCheck(self._cohort, release)
        largest = self._cohort.round.packing.encoding.limit
        values = self._check.signs.project(self._integers, largest)
        body = Projections(self._cohort.transcript, release, values.astype("<i8").tobytes())
        return messages.seal(identity, body)

    def check(self, released: Released, projections: Iterable[bytes]) -> None:
        """Check everybody's projections against each other and the sum.

        Raises:
            StateError: This site has sent none, or for another release.
            NormError: An update is larger than an honest one, or may be.
            RefusedError: A message does not hold.
        """
        check = self._check
        if check is None or check.release != released.mark:
            raise StateError("this site has not sent projections for this release")
        check.check_sum(released.integers, dict(map(check.read, projections)))
