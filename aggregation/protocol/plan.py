"""The round plan: everything that all parties must agree on before a round starts.

The coordinator makes one for each attempt and signs it; every other party reads it with
`checks.read_plan`, which makes a `Round` of it, and compares it with its own settings before it
acts.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, ClassVar, Final

import msgspec

from aggregation.ckks.parameters import COLLECTIVE, parameter_set
from aggregation.ckks.quantization import Quantization
from aggregation.crypto.graph import ALL_PAIRS_UP_TO, CHOSEN, MAX_ATTEMPTS, SAME_AS_0_1_0_UP_TO
from aggregation.crypto.identity import NAME, PublicIdentity
from aggregation.crypto.pairwise import CLASSICAL, KEY_AGREEMENTS
from aggregation.crypto.projections import LEAST_GROUP, MOST_GROUP
from aggregation.errors import PlanError
from aggregation.protocol.messages import MAX_CUSTODIANS, MAX_SHARED, Body

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_RUN: Final = re.compile(r"[0-9a-f]{8,64}", re.ASCII)

BY_READER: Final = "by-reader"  # exchange messages are an index, and a part for each reader
# A plan with this as its kind is a rehearsal, and has this in place of adapter, layout and model.
REHEARSED: Final = "public-integers"
OF_NOTHING: Final = (
    "sha256:" + hashlib.sha256(b"fmfl-secure/aggregation/v1/rehearsal/nothing").hexdigest()
)

Counter = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


def mask_graph(sites: int) -> str | msgspec.UnsetType:
    """Returns `RoundPlan.mask_graph` of a plan that invites so many sites."""
    return CHOSEN if sites > SAME_AS_0_1_0_UP_TO else msgspec.UNSET


def exchange_form(sites: int, key_agreement: str, *, vanishing: bool) -> str | msgspec.UnsetType:
    """Returns `RoundPlan.exchange`: a form where sites cannot do without an exchange, else unset.

    Args:
        sites: Invited.
        key_agreement: The plan's.
        vanishing: Whether sites may vanish in it.
    """
    needed = vanishing or key_agreement != CLASSICAL or sites > ALL_PAIRS_UP_TO
    return BY_READER if needed else msgspec.UNSET


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site a plan invites.

    Attributes:
        identity: Name and public key.
        weight: Weight over the largest, in (0, 1]; public, and coarse.
    """

    identity: PublicIdentity
    weight: float = 1.0

    def __post_init__(self) -> None:
        # Weights below a thousandth vanish on the grid and are a mistake more often than a wish.
        if not 1e-3 <= self.weight <= 1.0:
            raise PlanError(f"weight {self.weight} of {self.identity.name} is not 0.001 to 1")


class Vanishing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That sites may vanish after their upload, and the others open for them.

    Attributes:
        sites: How many of a cohort, at most.
        openings: The fewest openings that a sum opens with, whatever its cohort: more than half of
            the sites that there are and of those that collude together (`openings_for`).
    """

    sites: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARED - 1)]
    openings: Annotated[int, msgspec.Meta(ge=2, le=MAX_SHARED)]


class NormGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Consecutive values of an update whose norm is checked together.

    Attributes:
        size: How many.
        norm: The largest Euclidean norm that they have in an honest update of weight 1, in steps
            of the grid, before they are rounded to it; from public settings alone.
    """

    size: Annotated[int, msgspec.Meta(ge=LEAST_GROUP, le=MOST_GROUP)]
    norm: Annotated[int, msgspec.Meta(ge=1, le=2**40)]


def openings_for(known: int, colluding: int) -> int:
    """The fewest openings with which no two cohorts of a round can open, t > (n + c) / 2.

    Of the openings of two cohorts, t - c each are of honest sites, and those are more than all
    n - c that there are: one site would have opened both, which none does.

    Args:
        known: Sites n that a party has pinned.
        colluding: Sites c of them that may collude with whoever else there is.
    """
    return (known + colluding) // 2 + 1


class RoundPlan(Body, frozen=True, forbid_unknown_fields=True):
    """One attempt at a round, as the coordinator signs it.

    Attributes:
        federation: Name of the federation.
        run: Identifier of the training run, 8 to 64 hexadecimal digits.
        round: Number of the round, from 1.
        attempt: Number of the attempt at this round, from 1.
        suite: Protocol suite.
        parameter_set: Id in the vetted table.
        quantization: The grid of the update.
        members: Sites invited; their order is the order of the cohort.
        aggregator: Who adds.
        decryptor: Who opens the sum.
        coordinator: Who signs this plan.
        adapter_digest: `sha256:` of the current global adapter.
        layout_digest: `sha256:` of the names and shapes of its tensors.
        base_model_digest: `sha256:` of the base model.
        training_digest: `sha256:` of the public training settings.
        min_cohort: Smallest cohort, at least 3.
        key_agreement: How sites agree on pairwise secrets: `x25519`, or `x25519-mlkem768` with
            an `exchange` message more.
        custodians: Parties that must all approve before the sum opens; collective suite only.
        membership_digest: `sha256:` of the membership list the plan was made under; may be empty.
        mask_graph: Who shares masks with whom, as `graph.CHOSEN`, where more sites are invited than
            0.1.0 took all pairs of; elsewhere not there, and the plan is what it was for 0.1.0.
        vanishing: Whether sites may vanish after their upload, and how many; not there where
            every site of a cohort must open.
        exchange: The form of exchange messages, as `BY_READER`, where sites cannot do without them
            (`exchange_form`); elsewhere not there.
        norms: Groups of values, all of them in order, whose norms are checked; not there where
            none is.
        rehearsal: `REHEARSED` in a plan of no round, on public integers, whose secrets are all
            revealed; `round` is then its number among the run's rehearsals, and adapter, layout
            and base model are `OF_NOTHING`. Not there in a plan of a round.
    """

    KIND: ClassVar[str] = "plan"
    CAP: ClassVar[int] = 4 * 1024 * 1024

    federation: str
    run: str
    round: Counter
    attempt: Counter
    suite: str
    parameter_set: str
    quantization: Quantization
    members: tuple[Member, ...]
    aggregator: PublicIdentity
    decryptor: PublicIdentity
    coordinator: PublicIdentity
    adapter_digest: str
    layout_digest: str
    base_model_digest: str
    training_digest: str
    min_cohort: int = 3
    key_agreement: str = CLASSICAL
    custodians: tuple[PublicIdentity, ...] = ()
    membership_digest: str = ""
    mask_graph: str | msgspec.UnsetType = msgspec.UNSET
    vanishing: Vanishing | msgspec.UnsetType = msgspec.UNSET
    exchange: str | msgspec.UnsetType = msgspec.UNSET
    norms: tuple[NormGroup, ...] | msgspec.UnsetType = msgspec.UNSET
    rehearsal: str | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.federation):
            raise PlanError("the federation's name must be 1 to 64 letters, digits and . _ -")
        if not _RUN.fullmatch(self.run):
            raise PlanError("the run must be 8 to 64 hexadecimal digits")
        for name in ("adapter", "layout", "base_model", "training"):
            if not _DIGEST.fullmatch(getattr(self, f"{name}_digest")):
                raise PlanError(f"{name}_digest must be 'sha256:' and 64 hexadecimal digits")
        if self.membership_digest and not _DIGEST.fullmatch(self.membership_digest):
            raise PlanError("membership_digest must be empty, or 'sha256:' and 64 digits")
        if not 3 <= self.min_cohort <= len(self.members):
            raise PlanError(
                f"min_cohort {self.min_cohort} is not 3 to {len(self.members)}, the members invited"
            )
        keys = [m.identity.key for m in self.members]
        names = [m.identity.name for m in self.members]
        if len(set(keys)) != len(keys) or len(set(names)) != len(names):
            raise PlanError("two members have one name or one key")
        if self.aggregator.key == self.decryptor.key:
            raise PlanError("the aggregator and the decryptor must be two parties")
        self._check_custodians()
        known: dict[str, bytes] = {}
        parties = (self.aggregator, self.decryptor, *self.custodians)
        for party in (*(m.identity for m in self.members), *parties):
            if known.setdefault(party.name, party.key) != party.key:
                raise PlanError(f"the name {party.name} stands for two keys")
        chosen = parameter_set(self.parameter_set)
        if chosen.suite != self.suite:
            raise PlanError(f"{self.parameter_set} belongs to the suite {chosen.suite}")
        chosen.encoding(len(self.members), self.quantization.bits)
        if self.key_agreement not in KEY_AGREEMENTS:
            raise PlanError(f"key_agreement must be one of: {', '.join(KEY_AGREEMENTS)}")
        self._check_graph()
        self._check_vanishing()
        self._check_exchange()
        self._check_norms()
        self._check_rehearsal()

    def _check_norms(self) -> None:
        if self.norms is msgspec.UNSET:
            return
        covered = sum(group.size for group in self.norms)
        if covered != self.quantization.size:
            raise PlanError(
                f"norms are of {covered} values, and an update has {self.quantization.size}"
            )

    def _check_rehearsal(self) -> None:
        of_nothing = [
            getattr(self, f"{name}_digest") == OF_NOTHING
            for name in ("adapter", "layout", "base_model")
        ]
        if self.rehearsal is msgspec.UNSET:
            if any(of_nothing):
                raise PlanError("a plan of a round names an adapter, a layout and a base model")
            return
        if self.rehearsal != REHEARSED:
            raise PlanError(f"rehearsal must be {REHEARSED!r}, or not be there")
        if not all(of_nothing) or [s.name for s in self.quantization.segments] != [REHEARSED]:
            raise PlanError("a rehearsal is of no adapter, layout and base model")
        if self.suite != COLLECTIVE or self.custodians:
            raise PlanError(f"a rehearsal is of the suite {COLLECTIVE}, and without custodians")
        if self.attempt != 1 or self.round > MAX_ATTEMPTS:
            raise PlanError(f"a run has {MAX_ATTEMPTS} rehearsals at most, of one attempt each")

    def _check_vanishing(self) -> None:
        if self.vanishing is msgspec.UNSET:
            return
        invited, openings = len(self.members), self.vanishing.openings
        if invited > MAX_SHARED:
            raise PlanError(f"no site may vanish of {invited}, only of {MAX_SHARED} at most")
        if not openings_for(invited, 0) <= openings <= invited:
            raise PlanError(
                f"{openings} openings are no majority of the {invited} sites invited, or more"
            )

    def _check_exchange(self) -> None:
        vanishing = self.vanishing is not msgspec.UNSET
        expected = exchange_form(len(self.members), self.key_agreement, vanishing=vanishing)
        if self.exchange == expected:
            return
        if expected == BY_READER:
            raise PlanError(
                f"this plan needs exchange {BY_READER!r}: before 0.2.0 every site was handed every "
                "other's whole exchange message. Update server and sites together"
            )
        raise PlanError("exchange has no place in a plan whose sites can do without")

    def _check_graph(self) -> None:
        # Each leaves an entry in every party's journal, whoever chooses neighbours in it.
        if self.attempt > MAX_ATTEMPTS:
            raise PlanError(f"attempt {self.attempt} at one round is beyond {MAX_ATTEMPTS}")
        expected = mask_graph(len(self.members))
        if self.mask_graph == expected:
            return
        if expected == CHOSEN:
            raise PlanError(
                f"a plan of {len(self.members)} sites needs mask_graph {CHOSEN!r}: neighbours as "
                "0.1.0 drew them can be arranged by whoever sends the last key"
            )
        raise PlanError(f"mask_graph has no place in a plan of {len(self.members)} sites")

    def _check_custodians(self) -> None:
        if not self.custodians:
            return
        if self.suite != COLLECTIVE:
            raise PlanError(f"custodians need the suite {COLLECTIVE}")
        if len(self.custodians) > MAX_CUSTODIANS:
            raise PlanError(f"{len(self.custodians)} custodians are more than {MAX_CUSTODIANS}")
        keys = [c.key for c in self.custodians]
        others = {self.aggregator.key, self.decryptor.key, *(m.identity.key for m in self.members)}
        if len(set(keys)) != len(keys) or others & set(keys):
            raise PlanError("a custodian must be a party of its own")
