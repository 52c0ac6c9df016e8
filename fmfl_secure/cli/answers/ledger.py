"""Answers of the commands on ledgers.

`cli.ledger`, `cli.ledger_grants` and `cli.ledger_signers` return these, and `--json` prints them;
`docs/answers.schema.json` is made from the types.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from fmfl_secure.cli.answers.base import Answer


class GrantShown(msgspec.Struct, frozen=True, kw_only=True):
    """A grant, and what has become of it.

    Attributes:
        grant: Its number; 1 is the first.
        at: UTC time of it.
        purpose: What for.
        epsilon: Granted.
        delta: Granted.
        spent: Epsilon of trainings and answers that were begun.
        held: The same with open reservations in full.
        left: Epsilon that may still be reserved.
        insider_epsilon: What all other sites together may learn; null where it permits no shares.
        insider_spent: As `spent`, to all other sites together.
        insider_held: As `held`, to all other sites together.
        delta_reason: Why its delta may be as large; may be empty.
        objection: Why it affords nothing, whatever is left; empty where it stands.
        lowered_from: Epsilon that it had when trainings were charged, and that still counts.
        closed: Why nothing more is reserved of it; empty while that is not so.
        exact_plan: Digest of the one plan that it is for; empty where it is for any.
        is_used: Whether the one run of an exact grant was reserved.
        rationale: Why this epsilon; empty where nobody said.
        decided_by: Who decided that; empty where nobody said.
        review_on: The day by which somebody looks at it again; empty for none.
        review_is_due: Whether that day is past.
    """

    grant: int
    at: str
    purpose: str
    epsilon: float
    delta: float
    spent: float
    held: float
    left: float
    insider_epsilon: float | None
    insider_spent: float | None
    insider_held: float | None
    delta_reason: str
    objection: str
    lowered_from: float | None
    closed: str
    exact_plan: str
    is_used: bool
    rationale: str = ""
    decided_by: str = ""
    review_on: str = ""
    review_is_due: bool = False


class RunShown(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a ledger.

    Attributes:
        run: Its id.
        at: UTC time of its reservation.
        grant: Which grant it is charged to.
        dataset: The data set that it named; empty if none.
        purpose: What for.
        trained: Trainings or answers begun.
        reserved: Rounds reserved.
        open: Whether more may be charged to it.
        expires: UTC time from which nothing is; empty in old records.
        released: Why its owner closed it, or that it expired; empty for any other end.
    """

    run: str
    at: str
    grant: int
    dataset: str
    purpose: str
    trained: int
    reserved: int
    open: bool
    expires: str
    released: str


class SignerShown(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signatures a ledger takes.

    Attributes:
        name: The site's own name for it; empty for the one that made the ledger.
        key: Its public key, in hexadecimal.
        custodian: Whether it may grant, admit and dismiss.
        dismissed: Number of the record that dismissed it; null while it may sign.
    """

    name: str
    key: str
    custodian: bool
    dismissed: int | None


class ChargeShown(msgspec.Struct, frozen=True, kw_only=True):
    """A charge for what a ledger lost.

    Attributes:
        grant: Which grant.
        rounds: How many trainings.
        mechanism: Of each, in words.
    """

    grant: int
    rounds: int
    mechanism: str


class RecoveryShown(msgspec.Struct, frozen=True, kw_only=True):
    """A lost history that was settled.

    Attributes:
        at: UTC time.
        reason: What had happened.
        charges: What was charged for it.
    """

    at: str
    reason: str
    charges: tuple[ChargeShown, ...]


class LedgerShown(Answer, frozen=True, kw_only=True):
    """A ledger, verified.

    Attributes:
        population: Whose.
        unit: What is protected as one.
        population_size: Declared number of units; null where none was declared.
        grants: All of them.
        runs: All of them.
        signers: Whose signatures it takes.
        recoveries: Lost histories that were settled.
        non_private: Runs that used data without privacy: nothing is left of any grant then.
    """

    population: str
    unit: str
    population_size: int | None
    grants: tuple[GrantShown, ...]
    runs: tuple[RunShown, ...]
    signers: tuple[SignerShown, ...]
    recoveries: tuple[RecoveryShown, ...]
    non_private: tuple[str, ...]


class LedgerVerified(Answer, frozen=True, kw_only=True):
    """A ledger whose chain, signatures and arithmetic hold.

    Attributes:
        ledger: Where it is, without a password.
        records: How many records it has.
        head: Its last, SEQUENCE:DIGEST.
        anchored_heads: How many heads that others kept were found in it.
        population: Of the people that it is about.
        identity: Fingerprint of the key that opened it.
    """

    ledger: str
    records: int
    head: str
    anchored_heads: int
    population: str
    identity: str


class ProposalShown(msgspec.Struct, frozen=True, kw_only=True):
    """A site's proposal of its first grant, by its settings.

    Attributes:
        site: Whose.
        population: Of its ledger.
        unit: What is protected as one.
        population_size: Declared number of units.
        epsilon: Proposed.
        delta: Proposed.
        meaning: What that is for one person, in words.
        insider_epsilon: The same against all other sites together; null where it is the same.
        insider_meaning: What that is for one person; empty where it is the same.
        exact: Whether it is for the one run of these settings, and no other.
        delta_reason: Why its delta may be as large; may be empty.
    """

    site: str
    population: str
    unit: str
    population_size: int
    epsilon: float
    delta: float
    meaning: str
    insider_epsilon: float | None
    insider_meaning: str
    exact: bool
    delta_reason: str


class Granted(Answer, frozen=True, kw_only=True):
    """A grant, or what is proposed to be granted.

    Attributes:
        granted: The grant; null where nothing was granted.
        proposal: What is proposed; null where figures were given.
        cap: Most epsilon and delta of all exact grants together; null where no cap is.
        besides: Another grant that was made with it: an exact one for a run's answers.
    """

    granted: GrantShown | None
    proposal: ProposalShown | None
    cap: tuple[float, float] | None = None
    besides: tuple[GrantShown, ...] = ()


class GrantChanged(Answer, frozen=True, kw_only=True):
    """A grant after it was lowered or closed.

    Attributes:
        changed: The grant.
    """

    changed: GrantShown


class SignerAdmitted(Answer, frozen=True, kw_only=True):
    """An identity that may sign in a ledger.

    Attributes:
        name: The site's own name for it.
        fingerprint: Of its key.
        custodian: Whether it may grant, admit and dismiss.
    """

    name: str
    fingerprint: str
    custodian: bool


class SignerDismissed(Answer, frozen=True, kw_only=True):
    """An identity that signs in a ledger no more.

    Attributes:
        fingerprint: Of its key.
        open_runs: Runs of its own that still hold budget.
    """

    fingerprint: str
    open_runs: tuple[str, ...]


class HeadAnchored(Answer, frozen=True, kw_only=True):
    """A signed head, for somebody else to keep.

    Attributes:
        output: File that it was added to.
        head: SEQUENCE:DIGEST.
        population: Of the ledger.
    """

    output: str
    head: str
    population: str


class LedgerRecovered(Answer, frozen=True, kw_only=True):
    """Charges for a lost history were recorded.

    Attributes:
        heads: How many lost heads were settled.
        charges: What was charged.
        grants: All grants afterwards.
    """

    heads: int
    charges: tuple[ChargeShown, ...]
    grants: tuple[GrantShown, ...]


class RunReleased(Answer, frozen=True, kw_only=True):
    """A run whose reservation its owner closed.

    Attributes:
        run: Its id.
        charged: Trainings that stay charged.
        returned: Trainings that never began, and come back.
        anchored_record: The latest record that somebody else vouches for.
        last_record: The ledger's last.
        grants: All grants afterwards.
    """

    run: str
    charged: int
    returned: int
    anchored_record: int
    last_record: int
    grants: tuple[GrantShown, ...]


class LedgerExported(Answer, frozen=True, kw_only=True):
    """All that a ledger says.

    Attributes:
        form: `json` is everything, verifiable by itself; `csv` the charges.
        records: How many records.
        output: File that it was written to; empty where it is in `text`.
        text: It itself, where no file was named.
    """

    form: Literal["json", "csv"]
    records: int
    output: str
    text: str
