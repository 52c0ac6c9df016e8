"""Holds a report against itself and against what its sites signed, field by field.

A coordinator has a key of its own and signs what it likes; what sites signed it cannot make up. A
site's statement says by the settings' digest what the run was to be, what one round did, and which
rounds the site trained. From the settings follow sites, mechanism, encryption and the figures of
answers. What is held by none of these is on the list of `report.on_its_word`.

`report.signed` calls `require_agreement` for every report that is read back.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from aggregation import PublicIdentity
from fmfl_secure._version import __version__
from fmfl_secure.errors import KNOWN_ERRORS, RunError
from fmfl_secure.planning.terms import Terms, reservations_of, terms_of
from fmfl_secure.report.derived import encryption_of, mechanism_of
from fmfl_secure.report.names import count, listing
from fmfl_secure.report.overview import guarantee, not_stated, statements
from fmfl_secure.run.answer_record import AnswerRecord
from fmfl_secure.run.answers import answers_of
from fmfl_secure.run.record import FORMAT, Encryption, Mechanism, RunRecord, SiteRecord
from fmfl_secure.run.statement import RunCharge, SiteStatement
from fmfl_secure.settings.federation import ROLE_NAMES, FederationConfig, convert_config
from fmfl_secure.settings.noise import LOCAL
from fmfl_secure.settings.sections import AT_SITES
from privacy import (
    NonPrivate,
    PlanError,
    PoissonSampledGaussian,
    PoissonSampledSkellam,
    parse_event,
    pld_epsilon,
)

_ALIKE: Final = 1e-6  # noise multipliers that libraries' versions may calibrate apart
_ALIKE_COSTS: Final = 0.05  # the same of a cost, computed by another version's grid
_LEAST_COST: Final = 1e-3
_BY_CALIBRATION: Final = frozenset({"noise_multiplier", "answers_noise_multiplier"})


@dataclass(frozen=True, slots=True)
class Derived:
    """Holds all that a record's own settings come to here."""

    mechanism: Mechanism
    encryption: Encryption
    terms: Mapping[str, Terms]
    answers: tuple[AnswerRecord, ...]


def require_agreement(record: RunRecord) -> None:
    """Require that a record's parts follow from each other, and from what sites signed in it.

    Raises:
        RunError: Two of them contradict each other.
        AggregationError: A site's public key is none.
    """
    if record.format != FORMAT:
        raise RunError(f"the report has format {record.format}, expected {FORMAT}")
    _require_settings(record)
    _require_rounds(record)
    _require_beside(record)
    derived = derive(record)
    if isinstance(derived, Derived):
        _require_derived(record, derived)
    terms = derived.terms if isinstance(derived, Derived) else None
    for site, statement in statements(record):
        _require_statement(record, site, statement, terms)


def without_contradictions(record: RunRecord) -> RunRecord:
    """A record that shows no statement of a site which contradicts it, and says why.

    One site that signed something else would have every report of the run refused.

    Args:
        record: As its run's state has it.
    """
    derived = derive(record)
    terms = derived.terms if isinstance(derived, Derived) else None
    return msgspec.structs.replace(
        record, sites=tuple(_as_shown(record, site, terms) for site in record.sites)
    )


def _as_shown(record: RunRecord, site: SiteRecord, terms: Mapping[str, Terms] | None) -> SiteRecord:
    if site.statement is None:
        return site
    try:
        _require_statement(record, site, site.statement, terms)
    except RunError as error:
        return msgspec.structs.replace(
            site, statement=None, statement_signature="", not_shown=str(error)
        )
    return site


def _require_statement(
    record: RunRecord,
    site: SiteRecord,
    statement: SiteStatement,
    terms: Mapping[str, Terms] | None,
) -> None:
    """Requires of a statement what follows from the record; without terms, what sites signed."""
    own = own_charges(record, statement)
    if not own and site.rounds and record.mechanism.noise_mechanism.private:
        # A site reserves before its first round.
        raise RunError(
            f"{site.name}'s statement is of another run: it knows nothing of {record.run}, in "
            f"which {site.name} took part"
        )
    for charge in own:
        _require_charge(record, site.name, charge, terms)
    if own and not any(charge.open for charge in own):
        _require_trained(record, site, statement)
    _require_cost(record, site.name, statement)


def _require_settings(record: RunRecord) -> None:
    """The digest is that of the settings, and what is copied from them is what they say."""
    settings = record.settings
    canonical = msgspec.json.encode(settings, order="sorted")
    found = "sha256:" + hashlib.sha256(canonical).hexdigest()
    if found != record.settings_digest:
        raise RunError(
            f"the settings are not those of their digest: it is {record.settings_digest}, and they "
            f"have {found}"
        )
    data = str(_section(settings, "evaluation").get("data", ""))
    listed = settings.get("sites")
    copied = {
        "federation": (_section(settings, "federation").get("name"), record.federation),
        "evaluation": ("" if data == AT_SITES else Path(data).name, record.evaluation),
        "sites": (
            [
                (each.get("name"), each.get("population"))
                for each in (listed if isinstance(listed, list) else ())
                if isinstance(each, dict)
            ],
            [(site.name, site.population) for site in record.sites],
        ),
    }
    for name, (said, stands) in copied.items():
        if said != stands:
            raise RunError(f"{name}: the settings say {said!r}, and the report {stands!r}")
    pinned = _section(settings, "model").get("digest")
    if pinned and pinned != record.base_model_digest:
        raise RunError(
            f"the settings pin base model {pinned}, and the report says {record.base_model_digest}"
        )
    if bool(_section(settings, "adapter").get("initial")) != bool(record.line):
        raise RunError(
            "the settings go on from an earlier adapter and the report names none, or the other "
            "way round"
        )
    custodians = _section(settings, "aggregation").get("custodians")
    custodians = custodians if isinstance(custodians, list) else []
    roles = {*ROLE_NAMES, *(f"custodian {name}" for name in custodians)}
    if roles != set(record.identities):
        raise RunError(
            f"the settings have the parties {listing(sorted(roles))} beside the sites, and the "
            f"report has {listing(sorted(record.identities))}"
        )


def _require_rounds(record: RunRecord) -> None:
    """Rounds follow each other, and what is said of a site is what is said of its rounds."""
    names = {site.name for site in record.sites}
    if [each.round for each in record.rounds] != [*range(1, len(record.rounds) + 1)]:
        raise RunError("the rounds of the report do not follow each other from 1")
    planned = record.planned_rounds
    if len(record.rounds) > planned:
        raise RunError(f"{len(record.rounds)} rounds are reported of {planned} planned ones")
    if record.status == "finished" and (len(record.rounds) != planned or record.stop_reason):
        raise RunError(
            f"the report says that the run has finished, and has {len(record.rounds)} of "
            f"{planned} planned rounds{', and why it stopped' if record.stop_reason else ''}"
        )
    for each in record.rounds:
        gone = () if isinstance(each.vanished, msgspec.UnsetType) else each.vanished
        if strangers := sorted(({*each.refusals} - names) | ({*gone} - {*each.cohort})):
            raise RunError(
                f"{strangers[0]} refused round {each.round} or vanished from it, and was not there"
            )
        if len({*each.cohort}) != len(each.cohort):
            raise RunError(f"a site is twice in round {each.round}")
    for site in record.sites:
        own = tuple(each.round for each in record.rounds if site.name in each.cohort)
        if site.rounds != own:
            raise RunError(
                f"{site.name} was in rounds {list(site.rounds)} by itself, and in {list(own)} by "
                "the rounds"
            )


def _require_beside(record: RunRecord) -> None:
    """What was made beside the run is of this run; and a key is the one of its fingerprint."""
    for what, found in (
        ("empirical check", record.audit),
        ("attacks", record.attack),
        ("figures by label", record.looked_at),
    ):
        if not found:
            continue
        if found.run not in {record.run, ""} or found.settings_digest != record.settings_digest:
            raise RunError(f"the {what} in the report are of another run or other settings")
    for site in record.sites:
        if PublicIdentity.parse(site.name, site.public_key).fingerprint != site.identity:
            raise RunError(f"{site.name}'s public key is not the one of its fingerprint")
        if site.statement is None and site.statement_signature:
            raise RunError(f"{site.name}'s statement is missing, and its signature is there")
        if site.statement is not None and site.not_shown:
            raise RunError(f"{site.name}'s statement is said not to be shown, and is there")


def is_of_this_version(record: RunRecord) -> bool:
    """Whether a record says that it is of this version, by which all of it can be made again."""
    return record.versions.get("fmfl-secure") == __version__


def derive(record: RunRecord) -> Derived | str:
    """Works out all that the settings come to; says why not, where this version cannot.

    Raises:
        RunError: They are of this version, and come to nothing.
    """
    size = record.encryption.parameters
    try:
        config = convert_config(record.settings, FederationConfig, source="the report's settings")
        return Derived(
            mechanism=mechanism_of(config, size),
            encryption=encryption_of(
                config, parameters=size, upload=record.encryption.upload_bytes
            ),
            terms={
                each.reservation(record.run): each
                for each in terms_of(config, config.sites[0], size)
            },
            answers=answers_of(config, record.rounds),
        )
    except KNOWN_ERRORS as error:
        # Another package's task need not be installed where a report is read.
        if is_of_this_version(record) and not record.extensions:
            raise RunError(f"the settings in the report come to nothing: {error}") from error
        return str(error)


def _require_derived(record: RunRecord, derived: Derived) -> None:
    here = is_of_this_version(record)
    said, found = record.mechanism, derived.mechanism
    for name in Mechanism.__struct_fields__:
        one, two = getattr(said, name), getattr(found, name)
        if name in _BY_CALIBRATION and one and two:
            # Of another version sites' signed words are what holds it.
            agrees = not here or math.isclose(one, two, rel_tol=_ALIKE)
        else:
            agrees = one == two
        if not agrees:
            raise RunError(
                f"mechanism.{name}: the report says {one}, and its settings come to {two}"
            )
    if not here:
        return
    if record.encryption != derived.encryption:
        raise RunError("the encryption in the report is not the one that its settings come to")
    answers = () if isinstance(record.answers, msgspec.UnsetType) else record.answers
    if msgspec.to_builtins(answers) != msgspec.to_builtins(derived.answers):
        raise RunError("the figures of answers are not those of the sums that the report holds")


def _require_charge(
    record: RunRecord, name: str, charge: RunCharge, all_terms: Mapping[str, Terms] | None
) -> None:
    """Compares what a site's ledger holds of this run with what the report says of the run."""
    if all_terms is not None:
        terms = all_terms.get(charge.run)
        if terms is None:
            raise RunError(
                f"{name} signed that it was charged for {charge.run}, which the report's settings "
                "do not ask for"
            )
        said = terms.trainings, terms.purpose(record.federation)
        if (charge.rounds_reserved, charge.purpose) != said:
            raise RunError(
                f"{name} signed that {charge.rounds_reserved} rounds were reserved for "
                f"“{charge.purpose}”, and the report comes to {said[0]} for “{said[1]}”"
            )
    if isinstance(charge.plan, str) and charge.plan != record.settings_digest:
        raise RunError(
            f"{name} signed that it ran by settings {charge.plan}, and the report has those of "
            f"{record.settings_digest}"
        )
    _require_event(record, name, charge)
    last = len(record.rounds) + (record.status != "finished")
    if beyond := [number for number in charge.rounds_trained if number > last]:
        raise RunError(
            f"{name} signed that it trained round {beyond[0]}, and the report ends at "
            f"{len(record.rounds)}"
        )


def _require_trained(record: RunRecord, site: SiteRecord, statement: SiteStatement) -> None:
    """A ledger that has closed a run names every round that its site can have been in."""
    if late := not_stated(record, site, statement):
        raise RunError(
            f"{site.name} signed that its part in the run is over and that it never trained round "
            f"{late[0]}, in which it was by the report"
        )


def _require_event(record: RunRecord, name: str, charge: RunCharge) -> None:
    """Compares what a ledger holds that one round did with the report's mechanism."""
    if not isinstance(charge.event, dict):
        return
    event, mechanism = parse_event(charge.event), record.mechanism
    if isinstance(event, NonPrivate):
        raise RunError(f"{name} signed that {charge.run} had no noise")
    beside = record.trains and charge.run != record.run  # answers, of which every unit is in each
    multiplier = mechanism.answers_noise_multiplier if beside else mechanism.noise_multiplier
    in_shares = isinstance(event, PoissonSampledSkellam)
    signed = (in_shares, event.sample_rate, event.steps)
    said = (
        mechanism.noise_mechanism.in_shares,
        1.0 if beside else mechanism.sample_rate,
        1 if beside else mechanism.steps_per_round,
    )
    if signed != said or not math.isclose(event.noise_multiplier, multiplier, rel_tol=_ALIKE):
        raise RunError(
            f"{name} signed that a round of {charge.run} was {_in_words(*signed)} at noise "
            f"multiplier {event.noise_multiplier:.6g}, and the report says {_in_words(*said)} at "
            f"{multiplier:.6g}"
        )


def _in_words(in_shares: bool, sample_rate: float, steps: int) -> str:
    noise = "noise in shares" if in_shares else "noise of its own"
    return f"{count(steps, 'step')} at sample rate {sample_rate:g} with {noise}"


def _require_cost(record: RunRecord, name: str, statement: SiteStatement) -> None:
    """Where a version signed no event: that the run costs what a site signed that it cost."""
    if not is_without_plan(record, statement) or not is_costed(record, statement):
        return
    mechanism, delta = record.mechanism, guarantee(statement)[1]
    try:
        event = PoissonSampledGaussian(
            mechanism.sample_rate, mechanism.noise_multiplier, mechanism.steps_per_round
        )
    except PlanError as error:
        raise RunError(f"the report's mechanism is none: {error}") from error
    trained = sum(len(each.rounds_trained) for each in own_charges(record, statement))
    cost, signed = pld_epsilon([event] * trained, delta), statement.pld_epsilon_run
    if math.isfinite(signed) and not math.isclose(
        cost, signed, rel_tol=_ALIKE_COSTS, abs_tol=_LEAST_COST
    ):
        raise RunError(
            f"{name} signed that the run cost epsilon {signed:.4g} by PLD, and with the report's "
            f"noise multiplier {mechanism.noise_multiplier:.6g} it costs {cost:.4g}"
        )


def own_charges(record: RunRecord, statement: SiteStatement) -> list[RunCharge]:
    """Picks out of a statement this run's charges: of its training, and of its answers."""
    return [each for each in statement.runs if each.run in reservations_of(record.run)]


def is_without_plan(record: RunRecord, statement: SiteStatement) -> bool:
    """Whether a site signed that it was in the run, and not by which settings."""
    return any(not isinstance(each.plan, str) for each in own_charges(record, statement))


def is_costed(record: RunRecord, statement: SiteStatement) -> bool:
    """Whether the report says all that the run's cost at a site follows from."""
    beside = record.trains and any(
        each.run != record.run for each in own_charges(record, statement)
    )
    return record.mechanism.noise_mechanism == LOCAL and not beside


def _section(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}
