"""The projected norm check: what one site can add to a sum, bounded without seeing it.

Once a sum is released, and with it every update fixed, a challenge is derived from the release.
Each site sends projections of its own whole numbers on random signs (`crypto.projections`), group
by group. Everybody checks that each site's are no longer than those of an honest update, and that
all together are the projections of the sum. What a site did not send is what is left of the sum's;
it is held to the limits of all who sent none, together, and so many may be missing as may vanish,
or one. `docs/protocol.md` has the claims and their proof.

`roles.site_norms` makes a site's projections and, before a site says that the sum verifies, checks
everybody's; `runtime.attempt_state` does the same at the server, and `planning.norms` says what
the bound will be.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.crypto.projections import FEW_ROWS, ROWS, Signs, rows_of
from aggregation.errors import CohortError, NormError, StateError
from aggregation.protocol import messages
from aggregation.protocol.messages import Body, Bytes32
from aggregation.protocol.plan import NormGroup
from aggregation.protocol.round import FixedCohort

_DOMAIN: Final = b"fmfl-secure/aggregation/norms/v1"
# An honest group of the largest norm is beyond its limit with probability 4e-12 and 7e-12.
SLACK: Final = {ROWS: 1.7, FEW_ROWS: 2.0}
_CLOSE: Final = 1e-6  # nearer to a limit than floating point can tell, whole numbers decide

Projected = npt.NDArray[np.int64]


class Projections(Body, frozen=True, forbid_unknown_fields=True):
    """A site's projections of the update that it uploaded.

    Attributes:
        transcript: Of the attempt.
        release: Mark of the release that the challenge is of.
        values: Little-endian int64, those of the first group first.
    """

    KIND: ClassVar[str] = "projections"
    PER_VALUE: ClassVar[int] = 1  # at most 64 of 8 bytes for 512 values

    transcript: Bytes32
    release: Bytes32
    values: bytes


def limit_of(group: NormGroup, weight: float) -> float:
    """How long a group's projections may be, over the root of their number.

    Args:
        group: The group.
        weight: Of the site. Rounding to the grid adds less than a step to each value.
    """
    return SLACK[rows_of(group.size)] * (weight * group.norm + math.sqrt(group.size))


class NormCheck:
    """The check of one attempt's sum, for whoever has its release.

    Args:
        cohort: The verified cohort of a plan in which norms are checked.
        release: Mark of the decryptor's signed release (`Released.mark`).

    Raises:
        StateError: Norms are not checked in this plan.
    """

    def __init__(self, cohort: FixedCohort, release: bytes) -> None:
        norms = cohort.round.plan.norms
        if norms is msgspec.UNSET:
            raise StateError("norms are not checked in this plan")
        self._cohort = cohort
        self._groups = norms
        self.release = release
        self._rows = np.array([rows_of(group.size) for group in norms])
        self._starts = np.cumsum([0, *self._rows[:-1]])
        self._slack = np.array([SLACK[rows] for rows in self._rows.tolist()])
        self._norms = np.array([group.norm for group in norms], dtype=np.float64)
        self._rounding = np.sqrt([group.size for group in norms])

    @cached_property
    def signs(self) -> Signs:
        """The signs that everybody projects on, fixed by this attempt and this release."""
        state = hashlib.sha256(_DOMAIN + self._cohort.transcript + self.release)
        return Signs(state.digest(), [group.size for group in self._groups])

    @property
    def missing_allowed(self) -> int:
        """How many sites' projections may be missing."""
        vanishing = self._cohort.round.plan.vanishing
        return 1 if vanishing is msgspec.UNSET else vanishing.sites

    def read(self, message: bytes) -> tuple[str, Projected]:
        """Verify a site's projections, all but that they are of what it uploaded.

        Returns:
            Whose they are, and the projections, int64.

        Raises:
            NormError: They are longer than an honest update's.
            RefusedError: Malformed, unsigned, or of another attempt or release.
        """
        cohort = self._cohort
        cap = cohort.round.cap(Projections)
        name = messages.sender(message, cap)
        body = messages.unseal(message, Projections, cohort.member(name), cap)
        if body.transcript != cohort.transcript or body.release != self.release:
            raise CohortError(f"the projections of {name} are of another attempt")
        if len(body.values) != 8 * int(self._rows.sum()):
            raise CohortError(f"{name} sends another number of projections")
        found = np.frombuffer(body.values, dtype="<i8").astype(np.int64)
        beyond = self._beyond(found, [name])
        if beyond is not None:
            raise NormError(
                f"the update of {name} is larger than an honest one, in group {beyond + 1} of "
                f"{len(self._groups)}"
            )
        return name, found

    def check_sum(self, total: npt.NDArray[np.int64], sent: Mapping[str, Projected]) -> None:
        """Check that projections add up to those of the sum.

        Args:
            total: The released sum, int64, shape (d,); verified by its tags, where this party can.
            sent: By site, what `read` gave.

        Raises:
            NormError: They do not; or too many are missing, or what those add is too large.
        """
        cohort = self._cohort
        missing = [name for name in cohort.names if name not in sent]
        if len(missing) > self.missing_allowed:
            raise NormError(
                f"the projections of {', '.join(missing)} are missing: too many to bound them "
                "together"
            )
        added = np.zeros(self.signs.size, dtype=np.int64)
        for each in sent.values():
            added += each
        if not missing:
            if not self.signs.agree(total, cohort.limit, added):
                raise NormError("the projections that the sites sent are not those of the sum")
            return
        left = self.signs.project(total, cohort.limit) - added
        if self._beyond(left, missing) is not None:
            raise NormError(
                f"what {', '.join(missing)} and others added to the sum without saying is larger "
                "than honest updates are"
            )

    def _beyond(self, found: Projected, names: Iterable[str]) -> int | None:
        """The first group longer than what these sites may have, or None; alike at every party."""
        limits = np.zeros(len(self._groups))
        for name in names:
            weight = self._cohort.members[self._cohort.position(name)].weight
            limits += self._slack * (weight * self._norms + self._rounding)
        squares = np.add.reduceat(found.astype(np.float64) ** 2, self._starts)
        doubtful = squares > (1.0 - _CLOSE) * self._rows * limits**2
        for place in np.flatnonzero(doubtful).tolist():
            start, count = int(self._starts[place]), int(self._rows[place])
            exact = sum(int(value) ** 2 for value in found[start : start + count])
            if exact > count * Fraction(float(limits[place])) ** 2:
                return int(place)
        return None
