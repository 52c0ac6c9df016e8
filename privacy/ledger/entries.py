"""Entries of a grant, as values: runs' reservations, trainings begun, recoveries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from privacy.accounting.events import Event
from privacy.ledger.charges import Charge
from privacy.ledger.datasets import Dataset
from privacy.ledger.times import read_time


@dataclass(slots=True)
class Reservation:
    """A run's hold on a grant.

    Attributes:
        run: Run id.
        charge: The worst case that is held, and the grant it is held against.
        plan: Digest of the privacy plan and the training it belongs to.
        purpose: What the run is for.
        at: UTC time of the record.
        commits: Round number and UTC time of each training begun, in order.
        dataset: The data set it named; None if it named none.
        population_size: Declared, rounded number of units; None in records of 0.1.0.
        expires: UTC time from which nothing is committed against it; empty in records of versions
            whose reservations never expired.
        call: Digest of the coordinator's signed call to the run; empty where there was none.
        signer: Which identity reserved, as `privacy.ledger.signers` names it.
        open: Whether it may still be committed against.
        evidence: What closed it: digest of the coordinator's signed end of the run.
        released: Why its owner closed it, or that it expired; empty for any other end.
    """

    run: str
    charge: Charge
    plan: str
    purpose: str
    at: str
    dataset: Dataset | None = None
    population_size: int | None = None
    expires: str = ""
    call: str = ""
    signer: str = ""
    commits: list[tuple[int, str]] = field(default_factory=list)
    open: bool = True
    evidence: str = ""
    released: str = ""

    @property
    def grant(self) -> int:
        """Number of the grant it is charged to."""
        return self.charge.grant

    @property
    def event(self) -> Event:
        """The event that one round is accounted as."""
        return self.charge.event

    @property
    def rounds(self) -> int:
        """Trainings reserved in all, repeats included."""
        return self.charge.rounds

    def has_expired(self, now: datetime) -> bool:
        """Whether it is open, and its time is over."""
        return self.open and bool(self.expires) and now >= read_time(self.expires)

    @property
    def charged_rounds(self) -> int:
        """Rounds that count against the grant: all while open, the begun ones after."""
        return self.rounds if self.open else len(self.commits)

    @property
    def remaining_rounds(self) -> int:
        """Trainings that may still begin."""
        return self.rounds - len(self.commits) if self.open else 0


@dataclass(frozen=True, slots=True)
class Spend:
    """One training that began, or one charge for a lost history, and where it left its grant.

    Attributes:
        run: Run id; empty for a lost history.
        round: Round number; 0 for a lost history.
        grant: Number of the grant.
        epsilon: Epsilon of all that was spent of this grant so far, this included.
        at: UTC time of the record.
    """

    run: str
    round: int
    grant: int
    epsilon: float
    at: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """An officer's record of a history that the ledger lost, and its charges.

    Attributes:
        heads: Heads that others kept of the lost history, `SEQUENCE:DIGEST`.
        charges: What is charged for it.
        reason: In the officer's words.
        at: UTC time of the record.
    """

    heads: tuple[str, ...]
    charges: tuple[Charge, ...]
    reason: str
    at: str
