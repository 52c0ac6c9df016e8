"""Compares a signed plan with what a party agreed to: every field, or why one need not be.

A guarantee rests on nobody else than the party that it protects, so a coordinator's signature
says only who asks. The tables below go through `RoundPlan` field by field. `EVERYBODY` is what
site, decryptor and custodian each hold a plan to, from their own settings and from whom they
pinned; `SITES` is what a site alone can know, having model, adapter and run; `HARMLESS` has the
fields that no party compares, each with its reason. A test lies about every field, and fails for
one that is in no table.

What the coordinator is left free to choose: the attempt's number, which of the settings' sites it
invites, and their order. The cohort that it fixes later follows from the plan but for who is in
it: that is held to `Agreed.min_cohort` by `aggregation` when it is fixed, as the invitation is.

`parties.site` asks for the first `difference` before it takes part in an attempt;
`parties.decryptor` and `parties.custodian` ask for an `objection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, Generic, TypeVar

import msgspec

from aggregation import HYBRID, Quantization, RoundPlan
from aggregation.protocol import NormGroup
from fmfl_secure.parties.workspace import Members
from fmfl_secure.settings.federation import FederationConfig

KEY_AGREEMENT: Final = HYBRID  # of every run; by `x25519` alone, recorded traffic opens one day


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Terms that every party holds a plan to.

    Attributes:
        config: The federation's settings, as this party has them.
        members: Whom it pinned.
        min_cohort: The fewest sites it lets a sum be of: the settings', or more.
    """

    config: FederationConfig
    members: Members
    min_cohort: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedAtSite:
    """Terms that a site holds a plan to besides, from what it has and measured itself.

    Attributes:
        run: Id of the run that its ledger reserved for.
        training_digest: Of its settings.
        base_model_digests: Of its base model, by this version's rule and by 0.1.0's, under which a
            run may have begun.
        layout_digest: Of what its adapter trains in the plan's round.
        adapter_digest: Of the adapter that came with the plan.
        quantization: The grid of that round.
        parameter_set: Id of the encryption parameters.
        membership_digest: Of the membership list in force here; empty where there is none.
        norms: Groups whose norms are checked, and how long an honest update is in each.
    """

    run: str
    training_digest: str
    base_model_digests: tuple[str, ...]
    layout_digest: str
    adapter_digest: str
    quantization: Quantization
    parameter_set: str
    membership_digest: str
    norms: tuple[NormGroup, ...] | msgspec.UnsetType = msgspec.UNSET


A = TypeVar("A", Agreed, AgreedAtSite)


@dataclass(frozen=True, slots=True)
class Term(Generic[A]):
    """One thing that a plan must agree with.

    Attributes:
        field: Of `RoundPlan`, with dots into its structs; what lies below it is compared too.
        what: How a refusal names it.
        holds: Whether a plan agrees.
    """

    field: str
    what: str
    holds: Callable[[RoundPlan, A], bool]


def _members(plan: RoundPlan, agreed: Agreed) -> bool:
    """Whether all are the settings' sites, with the keys pinned here."""
    names = {entry.name for entry in agreed.config.sites}
    pinned = agreed.members.sites
    invited = [member.identity for member in plan.members]
    return all(i.name in names and pinned.get(i.name) == i for i in invited)


def _weights(plan: RoundPlan, agreed: Agreed) -> bool:
    """Others than the settings' would let one site outweigh the rest."""
    weights = agreed.config.weights()
    return all(m.weight == weights.get(m.identity.name) for m in plan.members)


def _custodians(plan: RoundPlan, agreed: Agreed) -> bool:
    """Exactly the settings', in their order: one more could hold up what all agreed to open.

    A rehearsal has none: nothing of it is worth guarding.
    """
    if _is_rehearsal(plan):
        return not plan.custodians
    names, pinned = agreed.config.aggregation.custodians, agreed.members.custodians
    return plan.custodians == tuple(pinned.get(name) for name in names)


def _is_rehearsal(plan: RoundPlan) -> bool:
    return plan.rehearsal is not msgspec.UNSET


def _rehearsal(plan: RoundPlan, agreed: Agreed) -> bool:
    return not _is_rehearsal(plan) or agreed.config.federation.rehearsals != "never"


def _vanishing(plan: RoundPlan, agreed: Agreed) -> bool:
    most = agreed.config.federation.vanished_sites
    return (0 if plan.vanishing is msgspec.UNSET else plan.vanishing.sites) == most


def _openings(agreed: Agreed) -> int:
    return agreed.config.openings(len(agreed.members.sites))


# The first that does not hold is named, so who is invited comes before their weights.
EVERYBODY: Final[tuple[Term[Agreed], ...]] = (
    # Its name is in the journals' keys: under another, one round would open twice.
    Term("federation", "federation", lambda p, a: p.federation == a.config.federation.name),
    # Only of public integers, which site and plan hold it to; its secrets are revealed.
    Term("rehearsal", "rehearsal", _rehearsal),
    # The ledger's reservation is for these and no more; a rehearsal is of none.
    Term("round", "round", lambda p, a: _is_rehearsal(p) or p.round <= a.config.all_rounds),
    Term("members.identity", "sites", _members),
    Term("members.weight", "weights", _weights),
    # Each in its own role: pinned in another, it would be trusted with what it must not hold.
    Term("aggregator", "aggregator", lambda p, a: p.aggregator == a.members.aggregator),
    Term("decryptor", "decryptor", lambda p, a: p.decryptor == a.members.decryptor),
    Term("coordinator", "coordinator", lambda p, a: p.coordinator == a.members.coordinator),
    Term("custodians", "list of custodians", _custodians),
    # More than agreed protects more; fewer, with distributed noise, is noise that is not there.
    Term("min_cohort", "smallest cohort", lambda p, a: p.min_cohort >= a.min_cohort),
    # More than agreed may not vanish, nor may fewer openings do: two cohorts could open.
    Term("vanishing.sites", "number of sites that may vanish", _vanishing),
    Term(
        "vanishing.openings",
        "number of openings that a sum takes",
        lambda p, a: p.vanishing is msgspec.UNSET or 0 < _openings(a) <= p.vanishing.openings,
    ),
    Term("suite", "encryption suite", lambda p, a: p.suite == a.config.aggregation.suite),
    Term("key_agreement", "key agreement", lambda p, _: p.key_agreement == KEY_AGREEMENT),
)

SITES: Final[tuple[Term[AgreedAtSite], ...]] = (
    Term("run", "run", lambda p, a: p.run == a.run),
    Term(
        "training_digest",
        "training settings",
        lambda p, a: p.training_digest == a.training_digest,
    ),
    Term(
        "base_model_digest", "base model", lambda p, a: p.base_model_digest in a.base_model_digests
    ),
    Term("layout_digest", "adapter layout", lambda p, a: p.layout_digest == a.layout_digest),
    Term("adapter_digest", "adapter", lambda p, a: p.adapter_digest == a.adapter_digest),
    Term("quantization", "quantisation", lambda p, a: p.quantization == a.quantization),
    Term("parameter_set", "parameter set", lambda p, a: p.parameter_set == a.parameter_set),
    Term(
        "membership_digest",
        "membership list",
        lambda p, a: p.membership_digest == a.membership_digest,
    ),
    # With larger ones a hostile site would go further; with smaller ones honest ones be named.
    Term("norms", "bound on an update's size", lambda p, a: p.norms == a.norms),
)

HARMLESS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "attempt": "every attempt at a round sends the integers stored for it, at no charge, under "
        "keys and masks of its own; a site's journal joins each once, and opens one a round",
        "mask_graph": "a plan has the one that goes with how many sites it invites, or is none",
        "exchange": "a plan has the one form that there is where sites need it, or is none",
    }
)


def difference(plan: RoundPlan, agreed: Agreed, site: AgreedAtSite | None = None) -> str | None:
    """Finds the first field of a plan that is not as agreed, or None.

    Args:
        plan: Whose signature holds.
        agreed: What this party knows.
        site: What a site knows besides.

    Returns:
        The name of the first that differs, for a refusal.
    """
    for term in EVERYBODY:
        if not term.holds(plan, agreed):
            return term.what
    if site is not None:
        for own in SITES:
            if not own.holds(plan, site):
                return own.what
    return None


def objection(
    config: FederationConfig, members: Members, min_cohort: int
) -> Callable[[RoundPlan], str | None]:
    """Returns `difference` for a decryptor or a custodian, by what it knows.

    Args:
        config: The federation's settings, as it has them.
        members: Whom it pinned.
        min_cohort: Its own smallest cohort; the settings' counts where it is larger.
    """
    least = max(min_cohort, config.federation.min_sites)
    return partial(difference, agreed=Agreed(config=config, members=members, min_cohort=least))
