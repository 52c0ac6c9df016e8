"""A federation in one process, for tests and examples: every role, each with its own keys.

Nothing here is used by the package itself, and nothing here is less strict than the real thing:
the roles are the real ones, and the bytes between them are those of the wire.

`bench.secure_aggregation` and other measurements run rounds with it, the demonstration attacks
them, and `doctor.machine` asks `works`. A round is `start`, `upload`, `open`, `release`, in this
order; each takes the `Attempt` that the one before it left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.ckks.parameters import choose
from aggregation.ckks.quantization import Quantization, Segment
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import AggregationError
from aggregation.protocol import checks
from aggregation.protocol.evidence import Evidence
from aggregation.protocol.exchange import verify_and_hand_out
from aggregation.protocol.journal import Journal, MemoryJournal
from aggregation.protocol.plan import (
    OF_NOTHING,
    REHEARSED,
    Member,
    NormGroup,
    RoundPlan,
    Vanishing,
    exchange_form,
    mask_graph,
)
from aggregation.protocol.rehearsal import rehearsal_grid
from aggregation.protocol.round import FixedCohort
from aggregation.roles.aggregator import Aggregator
from aggregation.roles.coordinator import Coordinator
from aggregation.roles.custodian import Custodian
from aggregation.roles.decryptor import Decryptor
from aggregation.roles.rehearsed import Judgement, judge
from aggregation.roles.site import SiteAttempt

_DIGEST = "sha256:" + "0" * 64


@dataclass(slots=True)
class Attempt:
    """Messages and integers of one attempt, as far as it has come."""

    plan_message: bytes
    sites: dict[str, SiteAttempt]
    announcement: bytes = b""
    cohort: bytes = b""
    exchanges: tuple[bytes, ...] = ()
    integers: dict[str, npt.NDArray[np.int32]] = field(default_factory=dict)
    opening_list: bytes = b""
    aggregator: Aggregator | None = None


class Federation:
    """K sites, a coordinator, an aggregator, a decryptor and, if wanted, custodians."""

    def __init__(
        self,
        sites: int = 3,
        *,
        size: int = 100,
        bits: int = 16,
        suite: str = "ckks-pk",
        key_agreement: str = "x25519",
        custodians: int = 0,
        vanishing: Vanishing | None = None,
        norms: Sequence[NormGroup] | None = None,
    ) -> None:
        """Generate all identities and journals."""
        self.names = tuple(f"site-{i}" for i in range(sites))
        self.custodian_names = tuple(f"custodian-{i}" for i in range(custodians))
        self.bits = bits
        self.size = size
        self.suite = suite
        self.key_agreement = key_agreement
        self.vanishing: Vanishing | msgspec.UnsetType = vanishing or msgspec.UNSET
        self.norms: tuple[NormGroup, ...] | msgspec.UnsetType = tuple(norms or ()) or msgspec.UNSET
        self.quantization = Quantization(
            bits=bits, segments=(Segment(name="flat", size=size, range=1.0),)
        )
        roles = ("aggregator", "decryptor", "coordinator", *self.custodian_names)
        self.identities = {n: Identity.generate(n) for n in (*self.names, *roles)}
        self.journals: dict[str, Journal] = {
            name: MemoryJournal() for name in (*self.names, "decryptor", *self.custodian_names)
        }
        self.custodians = {name: self.new_custodian(name) for name in self.custodian_names}
        self.coordinator = Coordinator(self.identities["coordinator"])
        self.decryptor = self.new_decryptor()

    @property
    def public(self) -> Mapping[str, PublicIdentity]:
        """All public identities by name: what everybody pins."""
        return {name: identity.public for name, identity in self.identities.items()}

    def new_decryptor(self) -> Decryptor:
        """A decryptor over the same journal, as after a restart."""
        return Decryptor(
            self.identities["decryptor"],
            self.journals["decryptor"],
            coordinator=self.public["coordinator"],
            pinned=self.public,
        )

    def new_custodian(self, name: str) -> Custodian:
        """A custodian over the same journal, as after a restart."""
        return Custodian(
            self.identities[name],
            self.journals[name],
            coordinator=self.public["coordinator"],
            pinned=self.public,
        )

    def plan(
        self, *, round_: int = 1, attempt: int = 1, names: Sequence[str] | None = None
    ) -> RoundPlan:
        """A plan inviting `names`, all sites by default."""
        invited = self.names if names is None else tuple(names)
        public = self.public
        return RoundPlan(
            federation="test",
            run="00112233445566778899aabbccddeeff",
            round=round_,
            attempt=attempt,
            suite=self.suite,
            parameter_set=choose(len(invited), self.bits, suite=self.suite).id,
            quantization=self.quantization,
            members=tuple(Member(identity=public[name]) for name in invited),
            aggregator=public["aggregator"],
            decryptor=public["decryptor"],
            coordinator=public["coordinator"],
            adapter_digest=_DIGEST,
            layout_digest=_DIGEST,
            base_model_digest=_DIGEST,
            training_digest=_DIGEST,
            key_agreement=self.key_agreement,
            custodians=tuple(public[name] for name in self.custodian_names),
            mask_graph=mask_graph(len(invited)),
            vanishing=self.vanishing,
            exchange=exchange_form(
                len(invited), self.key_agreement, vanishing=bool(self.vanishing)
            ),
            norms=self.norms,
        )

    def site(self, name: str, plan_message: bytes) -> SiteAttempt:
        """One site's attempt under a plan."""
        return SiteAttempt(
            self.identities[name],
            plan_message,
            coordinator=self.public["coordinator"],
            pinned=self.public,
            journal=self.journals[name],
        )

    def start(self, plan: RoundPlan | None = None, *, exchange: bool = True) -> Attempt:
        """Steps 1 to 4: plan, admit, announce, ready, fix the cohort, exchange if wanted."""
        plan = self.plan() if plan is None else plan
        message = self.coordinator.plan(plan)
        names = [m.identity.name for m in plan.members]
        attempt = Attempt(message, {name: self.site(name, message) for name in names})
        attempt.announcement = self.decryptor.announce(message)
        readies = [site.ready() for site in attempt.sites.values()]
        custodians = [custodian.ready(message) for custodian in self.custodians.values()]
        attempt.cohort = self.coordinator.cohort(message, attempt.announcement, readies, custodians)
        if exchange and (self.key_agreement != "x25519" or self.vanishing):
            attempt.exchanges = tuple(
                site.exchange(attempt.cohort) for site in attempt.sites.values()
            )
        return attempt

    def random_integers(self) -> npt.NDArray[np.int32]:
        """An update with every value its width allows, extremes included."""
        limit = (1 << (self.bits - 1)) - 1
        rng = np.random.default_rng()
        return rng.integers(-limit, limit, self.size, dtype=np.int32, endpoint=True)

    def upload(self, attempt: Attempt) -> Aggregator:
        """Step 5: every site uploads a random update; returns the aggregator."""
        attempt.aggregator = self.new_aggregator(attempt)
        if self.vanishing:
            for message in attempt.exchanges:
                attempt.aggregator.add_exchange(message)
        handed = self.handed(attempt)
        for name, site in attempt.sites.items():
            attempt.integers[name] = self.random_integers()
            upload = site.upload(attempt.cohort, attempt.integers[name], handed[name])
            attempt.aggregator.add(upload.manifest, upload.chunks)
        return attempt.aggregator

    def open(self, attempt: Attempt, vanished: Sequence[str] = ()) -> Aggregator:
        """Steps 5 and 6: upload, state the list, open, all but those that vanish."""
        aggregator = self.upload(attempt)
        attempt.opening_list = self.decryptor.confirm(
            attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        for name, site in attempt.sites.items():
            if name not in vanished:
                aggregator.add_opening(site.open(attempt.opening_list))
        return aggregator

    def rehearsal(self, number: int = 1, names: Sequence[str] | None = None) -> RoundPlan:
        """The plan of a rehearsal inviting `names`, all sites by default."""
        return msgspec.structs.replace(
            self.plan(round_=number, names=names),
            quantization=rehearsal_grid(self.bits, self.size),
            adapter_digest=OF_NOTHING,
            layout_digest=OF_NOTHING,
            base_model_digest=OF_NOTHING,
            rehearsal=REHEARSED,
            norms=msgspec.UNSET,
        )

    def rehearse(self, attempt: Attempt) -> Evidence:
        """All steps of a rehearsal that began, as far as they go; then everybody reveals."""
        aggregator, handed = self.new_aggregator(attempt), self.handed(attempt)
        manifests, openings, release = dict[str, bytes](), dict[str, bytes](), b""
        chunks: dict[str, tuple[bytes, ...]] = {}
        for name, site in attempt.sites.items():
            upload = site.upload(attempt.cohort, site.public_integers, handed[name])
            manifests[name], chunks[name] = upload.manifest, tuple(upload.chunks)
            aggregator.add(upload.manifest, upload.chunks)
        try:
            listed = self.decryptor.confirm(
                attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
            )
            for name, site in attempt.sites.items():
                openings[name] = site.open(listed)
                aggregator.add_opening(openings[name])
            total = aggregator.total()
            release = self.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
        except AggregationError:
            release = b""  # somebody spoiled it, and what everybody reveals says who
        reveals = {name: site.reveal(release) for name, site in attempt.sites.items()}
        reveals["decryptor"] = self.decryptor.reveal(attempt.plan_message, attempt.cohort)
        exchanges = dict(zip(attempt.sites, attempt.exchanges, strict=True))
        return Evidence(
            attempt.plan_message, attempt.cohort, exchanges, manifests, chunks, openings, release,
            {}, reveals,
        )  # fmt: skip

    def judge(self, evidence: Evidence) -> Judgement:
        """Judges the evidence of a rehearsal as the coordinator would."""
        round_ = checks.read_plan(evidence.plan, self.public["coordinator"])
        return judge(checks.read_cohort(round_, evidence.cohort), evidence)

    def new_aggregator(self, attempt: Attempt) -> Aggregator:
        """An aggregator for an attempt with a fixed cohort."""
        return Aggregator(
            self.identities["aggregator"],
            attempt.plan_message,
            attempt.cohort,
            coordinator=self.public["coordinator"],
            pinned=self.public,
        )

    def approvals(self, attempt: Attempt) -> list[bytes]:
        """Step 6 of every custodian."""
        handed = self.handed(attempt)
        return [
            custodian.approve(attempt.cohort, attempt.opening_list, handed[name])
            for name, custodian in self.custodians.items()
        ]

    def handed(self, attempt: Attempt) -> dict[str, list[bytes]]:
        """By name, what each party is handed of the exchange messages."""
        return verify_and_hand_out(self.fixed(attempt), attempt.exchanges)

    def fixed(self, attempt: Attempt) -> FixedCohort:
        """The cohort of an attempt, verified."""
        round_ = checks.read_plan(attempt.plan_message, self.public["coordinator"])
        return checks.read_cohort(round_, attempt.cohort)

    def release(self, attempt: Attempt, vanished: Sequence[str] = ()) -> bytes:
        """Steps 5 to 8: everything up to the signed release."""
        total = self.open(attempt, vanished).total()
        return self.decryptor.release(
            attempt.cohort,
            attempt.opening_list,
            total.manifest,
            total.chunks,
            approvals=self.approvals(attempt),
        )


def works() -> bool:
    """Whether a round of three sites with three values each gives their exact sum here."""
    federation = Federation(sites=3, size=3, suite="ckks-collective")
    attempt = federation.start()
    release = federation.release(attempt)
    expected = np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)
    return all(np.array_equal(s.verify(release), expected) for s in attempt.sites.values())
