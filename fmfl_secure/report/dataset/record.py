"""The facts of a dataset report, and the form of `dataset.json`.

`report.dataset.build` makes one from a ledger, and `report.dataset.page` shows it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fmfl_secure.run.statement import GrantRecord

FORMAT = 1


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that was charged: a training that began, or a lost history.

    Attributes:
        at: UTC time of the ledger's record.
        run: Run id; empty for a lost history.
        round: Round number; 0 for a lost history.
        grant: Number of the grant.
        epsilon_after: Epsilon spent of that grant, this included.
    """

    at: str
    run: str
    round: int
    grant: int
    epsilon_after: float


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of a run, as its own report tells it.

    Attributes:
        federation: Name of the federation.
        status: Of the run.
        stop_reason: Why it stopped, if it did.
        updated: UTC time of the run's last change.
        rounds: Released rounds with this site in the sum.
        sites: Names of all sites that were in a sum with it.
        roles: Fingerprints of coordinator, aggregator, decryptor and custodians.
        refusal: Code by which this site refused the run; None if it took part.
    """

    federation: str
    status: Literal["finished", "interrupted", "stopped"]
    stop_reason: str
    updated: str
    rounds: tuple[int, ...]
    sites: tuple[str, ...]
    roles: dict[str, str]
    refusal: str | None


class DatasetRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that the ledger paid for, or that this site refused.

    Attributes:
        run: Run id.
        at: UTC time of its reservation; of its last change if nothing was reserved.
        purpose: What for.
        dataset: The custodian's name for the data that it used; empty if it named none.
        grant: Number of the grant; 0 if nothing was reserved.
        mechanism: `Poisson-sampled Gaussian`, `Poisson-sampled Skellam`, `none`; empty if nothing
            was reserved.
        sample_rate: Of each step.
        noise_multiplier: Of each step.
        steps: Of each training.
        rounds_reserved: Trainings held, repeats included.
        rounds_charged: Trainings that count against the grant now.
        trained: Round number of each training that began, in order.
        epsilon_alone: What its charged trainings would come to in a ledger of their own, at the
            grant's delta.
        pld_epsilon: The same of those that began by PLD, had the parameters been fixed in advance.
        open: Whether it still holds budget.
        closed_by: Digest of the coordinator's signed end of the run; empty while open, and where
            something else closed it.
        outcome: What its report says, if it was at hand.
        released: Why the ledger's owner closed it, or that it expired.
    """

    run: str
    at: str
    purpose: str
    dataset: str
    grant: int
    mechanism: str
    sample_rate: float
    noise_multiplier: float
    steps: int
    rounds_reserved: int
    rounds_charged: int
    trained: tuple[int, ...]
    epsilon_alone: float
    pld_epsilon: float
    open: bool
    closed_by: str
    outcome: Outcome | None = None
    released: str = ""


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A history that the ledger lost, and what its officer recorded for it.

    Attributes:
        at: UTC time of the officer's record.
        reason: In the officer's words.
        heads: Heads that others kept of what was lost.
        trainings: How many were charged; 0 charges nothing.
        unbounded: Whether everything was charged, so that no grant made before affords any more.
    """

    at: str
    reason: str
    heads: tuple[str, ...]
    trainings: int
    unbounded: bool


class WithoutPrivacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A use of the data without noise, which ended every grant.

    Attributes:
        at: UTC time.
        run: Run id.
        reason: As it was recorded.
    """

    at: str
    run: str
    reason: str


class DatasetBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One data set of the population, by its custodian's name.

    Attributes:
        name: The name.
        runs: Ids of the runs that named it.
        epsilon: What all runs on it may cost together, as last declared; null without a cap.
        delta: At this delta; null without a cap.
        epsilon_charged: What is charged to it, runs that named no data set included; null without
            a cap.
    """

    name: str
    runs: tuple[str, ...]
    epsilon: float | None
    delta: float | None
    epsilon_charged: float | None


class DatasetRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a site's ledger says of its data; `dataset.json` is this.

    Attributes:
        format: Version of this form.
        made: UTC time at which the ledger was read.
        site: The site's name, where it is known; else empty.
        population: The custodian's name for the people concerned.
        unit: The ledger's protected unit.
        relation: Neighbouring relation.
        identity: `ed25519:` fingerprint of the site's key, under which every record is signed.
        opened: UTC time of the first record.
        head_sequence: Number of records in the chain.
        head_digest: Digest of the last one.
        heads_checked: How many heads that others kept of it were looked for.
        heads_missing: Those that it lacks: it was truncated, rolled back or forked.
        guarantee_epsilon: All grants added up, or more where a recovery charged more.
        guarantee_delta: Likewise.
        pld_epsilon: All trainings that began, by PLD, had the parameters been fixed in advance.
        grants: Every grant.
        runs: Every run, in the order in which they reserved; those refused last.
        trainings: Every charge, in order.
        losses: Histories that the ledger lost.
        without_privacy: Uses without noise.
        datasets: Data sets by name.
        policy: The site's policy when the report was made, every rule that is set; null if its
            settings were not at hand.
        version: Of this project.
        population_size: The largest number of units that a grant or a run has declared; null if
            none has.
    """

    format: int
    made: str
    site: str
    population: str
    unit: str
    relation: str
    identity: str
    opened: str
    head_sequence: int
    head_digest: str
    heads_checked: int
    heads_missing: tuple[str, ...]
    guarantee_epsilon: float
    guarantee_delta: float
    pld_epsilon: float
    grants: tuple[GrantRecord, ...]
    runs: tuple[DatasetRun, ...]
    trainings: tuple[Training, ...]
    losses: tuple[Loss, ...]
    without_privacy: tuple[WithoutPrivacy, ...]
    datasets: tuple[DatasetBudget, ...]
    policy: dict[str, Any] | None
    version: str
    population_size: int | None = None


# Infinite here, null in JSON.
UNBOUNDED = frozenset({"guarantee_epsilon", "pld_epsilon", "epsilon_after", "epsilon_alone"})


def encode_dataset(record: DatasetRecord) -> bytes:
    """The record as indented JSON with sorted keys; null is an epsilon without a bound."""
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n"
