"""The record of a run: the facts a report is made of, and the form of `report.json`.

Everything here may be shown to all parties: it comes from signed messages, declared settings,
ledgers, and figures computed on data declared public. Nothing in it was computed from a site's
records other than through the privacy mechanism.

A run's results are written from it (`report.results`). `parties.coordinator` keeps a `RoundRecord`
a round, and pages, cards and bundles read what `decode_record` gives.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.extensions import is_extension
from fmfl_secure.outside import MALFORMED
from fmfl_secure.run.answer_record import AnswerRecord
from fmfl_secure.run.attack_record import AttackRecord
from fmfl_secure.run.audit_record import AuditRecord
from fmfl_secure.run.evaluation_record import EvaluationRecord
from fmfl_secure.run.keys_record import KeysRecord
from fmfl_secure.run.ranges import Count, Figure, Number, Share, Spent, Text
from fmfl_secure.run.statement import SiteStatement, unbounded
from fmfl_secure.settings.noise import NOISE, NoiseMechanism, NoiseName
from fmfl_secure.settings.sections import AT_SITES
from fmfl_secure.vectors.adapter_line import AdapterLine

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
        answers_noise_multiplier: Of answers beside training, noise over what one unit moves their
            sum by; 0 where there are none, or nothing is trained.
    """

    noise: NoiseName
    unit: str
    relation: str
    target_epsilon: Figure
    delta: Share
    sample_rate: Share
    noise_multiplier: Figure
    max_grad_norm: Figure
    steps_per_round: Count
    rounds: Count
    repeats: Count
    colluding_sites: Count = 0
    insider_epsilon: Figure = 0.0
    answers_noise_multiplier: Figure = 0.0

    @property
    def noise_mechanism(self) -> NoiseMechanism:
        """The entry of the registry that `noise` names."""
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
    poly_modulus_degree: Count
    coeff_mod_bit_sizes: tuple[Count, ...]
    security_bits: Count
    bits: Count
    parameters: Count
    upload_bytes: Count


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
        not_shown: Why the statement that it made is not shown; absent where it is, or none was
            made.
    """

    name: str
    population: Count
    identity: str
    public_key: str
    visibility: Literal["private", "public"]
    rounds: tuple[Number, ...]
    refusal: str | None
    statement: SiteStatement | None
    statement_signature: str
    not_shown: Text | msgspec.UnsetType = msgspec.UNSET


class RehearsalRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rehearsal: a round's steps on public numbers, after which all keys were revealed.

    Attributes:
        number: Which of the run's, from 1.
        before: The round that it came before, or in the middle of.
        occasion: What for: `start` of the run, or a `failure` that nobody's name went with.
        cohort: Names of the sites that took part; empty where it did not get so far.
        holds: Whether the sum of the public numbers came out, at every site.
        named: By party, why it is to blame: a word that `aggregation` has the meanings of, or what
            an attempt at a round says of a site.
        reason: What ended it, if something did.
        at: UTC time of its end.
    """

    number: Number
    before: Number
    occasion: Literal["start", "failure"]
    cohort: tuple[str, ...]
    holds: bool
    named: dict[str, str]
    reason: str
    at: str


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
        answer: The released sum of a round that asked something, in steps of its grid; absent in a
            round that trained.
        vanished: Sites of the cohort that vanished after their upload; absent where none did.
        rehearsals: Rehearsals before it and between its attempts; absent where there were none.
    """

    round: Number
    status: Literal["released", "lost"]
    attempts: Count
    cohort: tuple[str, ...]
    refusals: dict[str, str]
    adapter_digest: str
    release_digest: str
    metrics: dict[str, float]
    at: str
    answer: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    vanished: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    rehearsals: tuple[RehearsalRecord, ...] | msgspec.UnsetType = msgspec.UNSET


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
        line: The earlier runs that the adapter continues; absent where it started afresh.
        answers: What the sites' answers say, as their released sums have it; absent where nothing
            was answered.
        attack: Attacks on the finished adapter, by data that their sites declare public; absent
            where none were made.
        looked_at: What the adapter does by label, on the public evaluation set; absent where there
            is none, or nobody looked.
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
    line: AdapterLine | msgspec.UnsetType = msgspec.UNSET
    answers: tuple[AnswerRecord, ...] | msgspec.UnsetType = msgspec.UNSET
    attack: AttackRecord | msgspec.UnsetType = msgspec.UNSET
    looked_at: EvaluationRecord | msgspec.UnsetType = msgspec.UNSET

    @property
    def task(self) -> str:
        """Kind of task, another package's by its name; empty where the settings do not say."""
        section = self.settings.get("task", {})
        return str(section.get("name", section.get("kind", "")))

    @property
    def asked(self) -> dict[str, Any]:
        """The section of the settings that says what sites are asked; empty where nothing is."""
        evaluation = self.settings.get("evaluation", {})
        found = evaluation if evaluation.get("data") == AT_SITES else self.settings.get("question")
        return found or {}

    @property
    def trains(self) -> bool:
        """Whether the run trains anything, or asks alone."""
        return not self.asked or self.asked.get("every", 0) > 0

    @property
    def planned_answers(self) -> int:
        """How many answers the run asks of the sites."""
        if not self.trains:
            return self.mechanism.rounds
        every = self.asked.get("every", 0)
        return -(-self.mechanism.rounds // every) if every else 0

    @property
    def planned_rounds(self) -> int:
        """All rounds of the run, those that ask instead of training included."""
        return self.planned_answers + (self.mechanism.rounds if self.trains else 0)

    @property
    def extensions(self) -> tuple[str, ...]:
        """Names of other packages' code that took part."""
        kinds = (str(self.settings.get("adapter", {}).get("kind", "")), self.task)
        readers = self.settings.get("task", {}).get("readers", ())
        return tuple(name for name in (*kinds, *map(str, readers)) if is_extension(name))


class _Asked(msgspec.Struct):
    """What is told of a section of settings that asks sites, in its ranges."""

    data: str = ""
    every: Count = 0
    holdout: Share = 0.0
    epsilon: Spent = 0.0
    what: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()


def encode_record(record: RunRecord) -> bytes:
    """The record as indented JSON with sorted keys; null is an epsilon without a bound."""
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n"


def decode_round(data: bytes) -> RoundRecord:
    """Read a round as a run's state keeps it.

    Raises:
        msgspec.DecodeError: It is something else.
    """
    return msgspec.convert(unbounded(msgspec.json.decode(data)), RoundRecord)


def decode_record(data: bytes) -> RunRecord:
    """Read `report.json`.

    Raises:
        RunError: It is not a run's record, or a figure in it is impossible.
    """
    try:
        record = msgspec.convert(unbounded(msgspec.json.decode(data)), RunRecord)
        for name in ("evaluation", "question"):
            msgspec.convert(record.settings.get(name), _Asked | None)
    except (OverflowError, *MALFORMED) as error:
        raise RunError(
            f"not a run's record: {error}",
            hint="Make report.json again from the run's state: fmfl-secure report RUN.",
        ) from error
    return record
