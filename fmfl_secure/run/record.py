"""The record of a run: the facts a report is made of, and the form of `report.json`.

Everything here may be shown to all parties: it comes from signed messages, declared settings,
ledgers, and figures computed on data declared public. Nothing in it was computed from a site's
records other than through the privacy mechanism.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.extensions import is_extension
from fmfl_secure.run.audit_record import AuditRecord
from fmfl_secure.run.keys_record import KeysRecord
from fmfl_secure.settings.noise import NOISE, NoiseMechanism, NoiseName

FORMAT = 1


class Mechanism(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The privacy mechanism, equal at every site.

    Attributes:
        noise: `local`, `distributed`, or `none` for a baseline without privacy.
        unit: What one protected unit is: `record` or a column's name.
        relation: Neighbouring relation.
        target_epsilon: What the run, repeats included, was calibrated to; 0 without noise, which
            promises nothing.
        delta: At that delta.
        sample_rate: Poisson inclusion probability.
        noise_multiplier: Noise over clipping bound; 0 without noise.
        max_grad_norm: Clipping bound C.
        steps_per_round: Noised steps a round.
        rounds: Rounds planned.
        repeats: Rounds that could be trained again after a crash.
        colluding_sites: With distributed noise, how many sites of a cohort may give their noise
            away before `target_epsilon` is lost.
        insider_epsilon: With distributed noise, what the run may cost against all other sites
            together; else 0.
    """

    noise: NoiseName
    unit: str
    relation: str
    target_epsilon: float
    delta: float
    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float
    steps_per_round: int
    rounds: int
    repeats: int
    colluding_sites: int = 0
    insider_epsilon: float = 0.0

    @property
    def noise_mechanism(self) -> NoiseMechanism:
        """What `noise` names."""
        return NOISE.get(self.noise)


class Encryption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How updates were protected on their way.

    Attributes:
        suite: Protocol suite.
        parameter_set: Id in the vetted table.
        poly_modulus_degree: Ring dimension N.
        coeff_mod_bit_sizes: Bits of the primes.
        security_bits: Claimed classical security.
        bits: Bits a value is quantised to.
        parameters: Length of the update.
        upload_bytes: What one site uploads in a round.
    """

    suite: str
    parameter_set: str
    poly_modulus_degree: int
    coeff_mod_bit_sizes: tuple[int, ...]
    security_bits: int
    bits: int
    parameters: int
    upload_bytes: int


class GrantRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grant in a site's ledger after the run.

    Attributes:
        number: 1 for the first.
        epsilon: Granted.
        delta: Granted.
        purpose: In the custodian's words.
        at: UTC time.
        epsilon_spent: By all runs so far, trainings that began.
        epsilon_charged: The same with open reservations in full.
        epsilon_left: Granted less charged.
        insider_epsilon: Granted against all other sites together, where shares of distributed
            noise are permitted.
        insider_epsilon_spent: Of that, by all runs so far.
        insider_epsilon_charged: The same with open reservations in full.
        population_size: Declared number of units of the population, with this grant.
        delta_reason: Why delta, with that of earlier grants, may be above 1 / (10 x that number),
            in the custodian's words.
        objection: Why the grant affords nothing any more; absent where it stands.
        lowered_from: What epsilon was, where it was lowered after trainings were charged.
        closed: Why the custodian closed it; absent where it is open.
        exact: Whether it is for one run that was fixed beforehand; absent where it is a filter's.
        is_used: Whether that run has reserved.
        cap: Most epsilon and delta that all exact grants of the ledger may come to; at the first.
    """

    number: int
    epsilon: float
    delta: float
    purpose: str
    at: str
    epsilon_spent: float
    epsilon_charged: float
    epsilon_left: float
    insider_epsilon: float | None = None
    insider_epsilon_spent: float | None = None
    insider_epsilon_charged: float | None = None
    # Left out where unset, so that what sites signed with 0.1.0 is what they signed.
    population_size: int | msgspec.UnsetType = msgspec.UNSET
    delta_reason: str | msgspec.UnsetType = msgspec.UNSET
    objection: str | msgspec.UnsetType = msgspec.UNSET
    lowered_from: float | msgspec.UnsetType = msgspec.UNSET
    closed: str | msgspec.UnsetType = msgspec.UNSET
    exact: bool | msgspec.UnsetType = msgspec.UNSET
    is_used: bool | msgspec.UnsetType = msgspec.UNSET
    cap: tuple[float, float] | msgspec.UnsetType = msgspec.UNSET

    @property
    def counted_delta(self) -> float:
        """What of delta a sum over grants counts: of exact ones, their cap's, and once."""
        if self.cap:
            return self.cap[1]
        return 0.0 if self.exact else self.delta

    @property
    def counts(self) -> bool:
        """Whether it is part of what the ledger guarantees: it stands, or something is charged."""
        open_ = not (self.objection or self.closed or self.is_used)
        return open_ or self.epsilon_charged > 0.0

    @property
    def pledged(self) -> float:
        """The epsilon that a guarantee counts it with; see `privacy.Grant.pledged`."""
        return self.lowered_from or self.epsilon


class RunCharge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run in a site's ledger.

    Attributes:
        run: Run id.
        grant: Number of the grant it is charged to.
        purpose: What for.
        at: UTC time of the reservation.
        rounds_reserved: Trainings held, repeats included.
        rounds_trained: Round number of each training that began, in order.
        open: Whether the reservation still holds budget.
    """

    run: str
    grant: int
    purpose: str
    at: str
    rounds_reserved: int
    rounds_trained: tuple[int, ...]
    open: bool


class RecoveryNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a site's ledger lost records once, and an officer recorded what to charge for them.

    Attributes:
        at: UTC time of the officer's record.
        trainings: How many were charged.
    """

    at: str
    trainings: int


class SiteStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a site states of its ledger at the end of a run, signed by the site.

    Attributes:
        site: Its name.
        population: The custodian's name for the people concerned.
        unit: The ledger's unit.
        grants: Every grant.
        runs: Every run over the ledger's life, this one included.
        recoveries: Losses of records that an officer made up for.
        population_size: The largest number of units that a grant or run of the ledger has
            declared; absent if none has.
        epsilon_by_round: Epsilon spent of the grant after each training of this run, cumulative
            over the ledger's life; by the grant's filter.
        epsilon_before: The same before this run began.
        pld_epsilon_run: This run alone by PLD, had its parameters been fixed in advance.
        pld_epsilon_life: The ledger's whole life by PLD.
        head_sequence: Number of records in the chain.
        head_digest: Digest of the last one: an anchor for whoever keeps it.
        verified: Whether chain, signatures and arithmetic verified when this was written.
        runs_left: How many more runs of this one's mechanism and length the ledger would admit;
            absent where it reserved nothing.
    """

    site: str
    population: str
    unit: str
    grants: tuple[GrantRecord, ...]
    runs: tuple[RunCharge, ...]
    epsilon_by_round: tuple[float, ...]
    epsilon_before: float
    pld_epsilon_run: float
    pld_epsilon_life: float
    head_sequence: int
    head_digest: str
    verified: bool
    recoveries: tuple[RecoveryNote, ...] = ()
    population_size: int | msgspec.UnsetType = msgspec.UNSET
    runs_left: int | msgspec.UnsetType = msgspec.UNSET


class SiteRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site's part in the run.

    Attributes:
        name: Its name.
        population: Declared number of units.
        identity: `ed25519:` fingerprint of its key.
        public_key: The key itself, `ed25519:` and base64; what its statement's signature verifies
            against, once the fingerprint was compared.
        visibility: Of its data, as the site declares it.
        rounds: Released rounds that include it.
        refusal: Generic code if it refused the run; None otherwise.
        statement: Its ledger statement; None if it keeps no ledger for this run.
        statement_signature: Ed25519 over the statement, hexadecimal; empty if there is none.
    """

    name: str
    population: int
    identity: str
    public_key: str
    visibility: Literal["private", "public"]
    rounds: tuple[int, ...]
    refusal: str | None
    statement: SiteStatement | None
    statement_signature: str


class RoundRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One round.

    Attributes:
        round: Its number, from 1.
        status: `released`, or `lost` when it was opened and no release survived.
        attempts: Attempts it took.
        cohort: Names of the sites in the released sum.
        refusals: Generic code by site that took no part.
        adapter_digest: Of the adapter after the round.
        release_digest: SHA-256 of the decryptor's signed release.
        metrics: On the public evaluation set; empty without one.
        at: UTC time of the release.
    """

    round: int
    status: Literal["released", "lost"]
    attempts: int
    cohort: tuple[str, ...]
    refusals: dict[str, str]
    adapter_digest: str
    release_digest: str
    metrics: dict[str, float]
    at: str


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of a run; `report.json` is this.

    Attributes:
        format: Version of this form.
        federation: Name of the federation.
        run: Run id.
        status: `finished`; `interrupted` and resumable; or `stopped` before its planned rounds.
        stop_reason: Why it stopped, if it did.
        started: UTC time.
        updated: UTC time of the last change.
        settings: The federation's settings, every default written out.
        settings_digest: Their digest, which every round's plan carries.
        base_model: Name of the base model.
        base_model_digest: Its digest.
        layout_digest: Digest of the adapter's tensor layout.
        mechanism: The privacy mechanism.
        encryption: How updates were protected.
        sites: Every site listed in the settings.
        rounds: Every round so far.
        initial_metrics: Before the first round, on the public evaluation set.
        evaluation: File name of that set; empty without one.
        identities: Fingerprints of coordinator, aggregator, decryptor and custodians.
        versions: Of this project and the libraries it rests on.
        audit: The empirical audit of these settings, if one was made.
        keys: Who drew the parties' keys, and who compared them; absent in records of 0.1.0.
    """

    format: int
    federation: str
    run: str
    status: Literal["finished", "interrupted", "stopped"]
    stop_reason: str
    started: str
    updated: str
    settings: dict[str, Any]
    settings_digest: str
    base_model: str
    base_model_digest: str
    layout_digest: str
    mechanism: Mechanism
    encryption: Encryption
    sites: tuple[SiteRecord, ...]
    rounds: tuple[RoundRecord, ...]
    initial_metrics: dict[str, float]
    evaluation: str
    identities: dict[str, str]
    versions: dict[str, str]
    audit: AuditRecord | None = None
    keys: KeysRecord | msgspec.UnsetType = msgspec.UNSET

    @property
    def task(self) -> str:
        """Kind of task, another package's by its name; empty where the settings do not say."""
        section = self.settings.get("task", {})
        return str(section.get("name", section.get("kind", "")))

    @property
    def extensions(self) -> tuple[str, ...]:
        """What of other packages' code took part, by name."""
        kinds = (str(self.settings.get("adapter", {}).get("kind", "")), self.task)
        return tuple(kind for kind in kinds if is_extension(kind))


# Epsilons without a bound are infinite here and null in JSON, which knows no infinity.
EPSILONS = frozenset(
    {
        "epsilon_spent",
        "epsilon_charged",
        "epsilon_before",
        "epsilon_by_round",
        "pld_epsilon_run",
        "pld_epsilon_life",
    }
)
INSIDER_EPSILONS = frozenset({"insider_epsilon_spent", "insider_epsilon_charged"})


def encode_record(record: RunRecord) -> bytes:
    """The record as indented JSON with sorted keys; null is an epsilon without a bound."""
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n"


def decode_record(data: bytes) -> RunRecord:
    """Read `report.json`.

    Raises:
        RunError: It is not a run's record.
    """
    try:
        return msgspec.convert(_unbounded(msgspec.json.decode(data)), RunRecord)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise RunError(f"not a run's record: {error}") from error


def _unbounded(data: Any, *, is_epsilon: bool = False) -> Any:
    if isinstance(data, dict):
        names = EPSILONS
        if data.get("insider_epsilon") is not None:  # else null says that there is no such figure
            names |= INSIDER_EPSILONS
        return {k: _unbounded(v, is_epsilon=k in names) for k, v in data.items()}
    if isinstance(data, list):
        return [_unbounded(value, is_epsilon=is_epsilon) for value in data]
    return math.inf if data is None and is_epsilon else data
