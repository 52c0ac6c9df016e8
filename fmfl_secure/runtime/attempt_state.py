"""One attempt at a round, as the server sees it: which messages came, and whether they hold.

No I/O and no waiting. Messages go in one by one, in the order of the protocol's steps, and are
verified before they count; the same messages again, in a new process, give the same state.

`runtime.inbox` gives it each message by `receive`; `runtime.attempt_driver` asks it what is
missing, and takes list, sum and released integers from it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregation import (
    Aggregator,
    CohortError,
    Evidence,
    Identity,
    PublicIdentity,
    RoundPlan,
    StateError,
    SumUpload,
)
from aggregation import Coordinator as ProtocolCoordinator
from aggregation.protocol import (
    EXCHANGE_CAP,
    REFUSED,
    VERIFIED,
    Accusation,
    Announcement,
    Approval,
    Confirmation,
    CustodianReady,
    FixedCohort,
    NormCheck,
    Opening,
    Projections,
    Ready,
    Release,
    Reveal,
    Round,
    Sigma,
    UploadManifest,
    Verdict,
    digest,
    hand_out,
    read_accusation,
    read_announcement,
    read_cohort,
    read_custodian,
    read_exchange,
    read_opening_list,
    read_plan,
    read_reveal,
    read_upload,
    read_verdict,
    sender,
    unseal,
)
from fmfl_secure.parties.workspace import DECRYPTOR, Members

# Kinds of messages by who may send them.
ACCUSATION: Final = "accusation"
REVEAL: Final = "reveal"
SITE_KINDS: Final = (
    "ready", "exchange", "upload", "chunks", "opening", "projections", "verdict", ACCUSATION,
    REVEAL,
)  # fmt: skip
DECRYPTOR_KINDS: Final = ("announcement", "confirmation", "release", ACCUSATION, REVEAL)
CUSTODIAN_KINDS: Final = ("custodian-ready", "approval")
KINDS: Final = tuple(dict.fromkeys(SITE_KINDS + DECRYPTOR_KINDS + CUSTODIAN_KINDS))


class ServerAttempt:
    """Messages of one attempt.

    Args:
        plan_message: The signed plan.
        coordinator: The coordinator's protocol half.
        aggregator: The aggregator's identity.
        members: All parties.
    """

    def __init__(
        self,
        plan_message: bytes,
        *,
        coordinator: ProtocolCoordinator,
        aggregator: Identity,
        members: Members,
    ) -> None:
        self.message = plan_message
        self.round: Round = read_plan(plan_message, members.coordinator)
        self.plan: RoundPlan = self.round.plan
        self._coordinator = coordinator
        self._identity = aggregator
        self._members = members
        self._lock = threading.RLock()
        self.announcement: bytes | None = None
        self.readies: dict[str, bytes] = {}
        self.custodian_readies: dict[str, bytes] = {}
        self.approvals: dict[str, bytes] = {}
        self.cohort_message: bytes | None = None
        self.cohort: FixedCohort | None = None
        self.exchanges: dict[str, bytes] = {}
        self._readers: dict[str, tuple[int, ...]] = {}  # places that each has a part for
        self._manifests: dict[str, bytes] = {}
        self._aggregator: Aggregator | None = None
        self.confirmation: bytes | None = None
        self.release: bytes | None = None
        self._released: NDArray[np.int64] | None = None
        self.is_recalled = False
        self.projections: dict[str, bytes] = {}
        self._projected: dict[str, NDArray[np.int64]] = {}
        self._norms: NormCheck | None = None  # once there is a release
        self.verdicts: dict[str, Verdict] = {}
        self.verdict_messages: dict[str, bytes] = {}
        self.accusers: dict[str, bytes] = {}
        self.guilty: set[str] = set()  # sites that accusations convict
        # Of a rehearsal, what it takes to judge it.
        self._chunks: dict[str, tuple[bytes, ...]] = {}
        self._openings: dict[str, bytes] = {}
        self.reveals: dict[str, bytes] = {}
        self.upload_bytes = 0

    @property
    def place(self) -> tuple[int, int]:
        """Round and attempt, where it is looked for; a rehearsal is of no round, which is 0."""
        plan = self.plan
        return (0, plan.round) if self.round.is_rehearsal else (plan.round, plan.attempt)

    @property
    def invited(self) -> tuple[str, ...]:
        """Names of the sites that the plan invites."""
        return tuple(member.identity.name for member in self.plan.members)

    @property
    def custodians(self) -> tuple[str, ...]:
        """Names of the custodians without whose word nothing opens."""
        return tuple(identity.name for identity in self.plan.custodians)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites in the cohort; empty before it is fixed."""
        return self.cohort.names if self.cohort else ()

    def handed(self) -> dict[str, list[bytes]]:
        """Returns each reader's parts of the others' exchange messages, by name."""
        cohort = self._fixed()
        return hand_out(
            cohort, {self.exchanges[name]: self._readers[name] for name in cohort.names}
        )

    def cap(self, kind: str) -> int:
        """Largest message of a kind in this attempt, in bytes."""
        items = self.round.upload_items
        chunks = self.round.packing.chunks * self.round.chunk_size
        return {
            "announcement": Announcement.cap(),
            "ready": Ready.cap(),
            "custodian-ready": CustodianReady.cap(),
            "approval": Approval.cap(),
            "exchange": EXCHANGE_CAP,
            "upload": UploadManifest.cap(items),
            "chunks": chunks + (Sigma.cap() if self.round.collective else 0),
            "confirmation": Confirmation.cap(items),
            "opening": Opening.cap(),
            "release": Release.cap(values=self.round.packing.size),
            "projections": Projections.cap(values=self.round.packing.size),
            "verdict": Verdict.cap(),
            ACCUSATION: Accusation.cap(),
            REVEAL: Reveal.cap(),
        }[kind]

    def receive(self, party: str, kind: str, parts: Iterable[bytes]) -> None:
        """Take a whole message. The same again changes nothing.

        Raises:
            AggregationError: It does not hold, is not this party's, or comes out of order.
        """
        with self._lock:
            if kind == "chunks":
                self._take_chunks(party, parts)
                return
            message = b"".join(parts)
            taker = {
                "announcement": self._take_announcement,
                "ready": self._take_ready,
                "custodian-ready": self._take_custodian_ready,
                "approval": self._take_approval,
                "exchange": self._take_exchange,
                "upload": self._take_manifest,
                "confirmation": self._take_confirmation,
                "opening": self._take_opening,
                "release": self._take_release,
                "projections": self._take_projections,
                "verdict": self._take_verdict,
                ACCUSATION: self._take_accusation,
                REVEAL: self._take_reveal,
            }[kind]
            taker(party, message)

    def _take_announcement(self, party: str, message: bytes) -> None:
        self._require(party == DECRYPTOR, "only the decryptor announces")
        read_announcement(self.round, message)
        self.announcement = self._once(self.announcement, message)

    def _take_ready(self, party: str, message: bytes) -> None:
        self._require(sender(message, Ready.cap()) == party, "another site's message")
        if self.readies.get(party) == message:
            return
        self._require_now(self.cohort is None, "the cohort is fixed")
        self._coordinator.check_ready(self.message, message)
        self.readies[party] = self._once(self.readies.get(party), message)

    def _take_custodian_ready(self, party: str, message: bytes) -> None:
        read_custodian(self.round, self._custodian(party), message)
        self._require_now(
            self.cohort is None or party in self.custodian_readies, "the cohort is fixed"
        )
        known = self.custodian_readies.get(party)
        self.custodian_readies[party] = self._once(known, message)

    def _take_approval(self, party: str, message: bytes) -> None:
        body = unseal(message, Approval, self._custodian(party))
        self._require(body.transcript == self._fixed().transcript, "an approval of another cohort")
        self._require_now(self.confirmation is not None, "the list is not confirmed yet")
        self._require(
            body.opening_list == digest(self.opening_list()), "another list than the aggregator's"
        )
        self.approvals[party] = self._once(self.approvals.get(party), message)

    def _custodian(self, party: str) -> PublicIdentity:
        found = {identity.name: identity for identity in self.plan.custodians}.get(party)
        if found is None:
            raise CohortError("the plan names no such custodian")
        return found

    def _take_exchange(self, party: str, message: bytes) -> None:
        sent = read_exchange(self._fixed(), message)
        self._require(self._fixed().names[sent.sender] == party, "another site's message")
        self.exchanges[party] = self._once(self.exchanges.get(party), message)
        self._readers[party] = tuple(sent.parts)
        if self.round.shares:
            self._adding().add_exchange(message)

    def _take_manifest(self, party: str, message: bytes) -> None:
        name, _ = read_upload(self._fixed(), message)
        self._require(name == party, "another site's message")
        self._manifests[party] = self._once(self._manifests.get(party), message)

    def _take_chunks(self, party: str, parts: Iterable[bytes]) -> None:
        manifest = self._manifests.get(party)
        if manifest is None or self._aggregator is None:
            raise StateError("the manifest comes before the chunks")
        sizes = [self.round.chunk_size] * self.round.packing.chunks
        counted = _Counted(parts)
        chunks = _split(counted, sizes)
        if self.round.is_rehearsal:  # of any other, only the sum is kept
            kept = tuple(chunks)
            self._aggregator.add(manifest, kept)
            self._chunks[party] = kept  # once it is what its site signed: else it is no evidence
        else:
            self._aggregator.add(manifest, chunks)
        self.upload_bytes = len(manifest) + counted.size

    def _take_confirmation(self, party: str, message: bytes) -> None:
        self._require(party == DECRYPTOR, "only the decryptor confirms")
        _, listed = read_opening_list(self._fixed(), message)
        self._require(listed == digest(self.opening_list()), "another list than the aggregator's")
        self.confirmation = self._once(self.confirmation, message)

    def _take_opening(self, party: str, message: bytes) -> None:
        self._require(sender(message, Opening.cap()) == party, "another site's message")
        self._adding().add_opening(message)
        if self.round.is_rehearsal:
            self._openings[party] = message

    def _take_reveal(self, party: str, message: bytes) -> None:
        name, _ = read_reveal(self._fixed(), message)
        self._require(name == party, "another party's message")
        self.reveals[party] = self._once(self.reveals.get(party), message)

    def _take_release(self, party: str, message: bytes) -> None:
        self._require(party == DECRYPTOR, "only the decryptor releases")
        if self.release != message:
            known = self._coordinator.read_release(self._cohort_message(), message, self.message)
            self.release = self._once(self.release, message)
            self._released = known.integers
            if self.round.checks_norms:
                self._norms = NormCheck(self._fixed(), known.mark)

    def _take_projections(self, party: str, message: bytes) -> None:
        self._require(self.round.checks_norms, "norms are not checked in this plan")
        name, projected = self._checking().read(message)
        self._require(name == party, "another site's message")
        self.projections[party] = self._once(self.projections.get(party), message)
        self._projected[party] = projected

    def _take_verdict(self, party: str, message: bytes) -> None:
        self._require_now(self.release is not None, "nothing was released")
        name, verdict = read_verdict(self._fixed(), message)
        self._require(name == party, "another site's message")
        known = self.verdict_messages.get(party)
        self.verdict_messages[party] = self._once(known, message)
        self.verdicts[party] = verdict

    def _take_accusation(self, party: str, message: bytes) -> None:
        cohort = self._fixed()
        if self.round.shares and party != DECRYPTOR:  # of shares, before anybody uploads
            self._require_now(len(self.exchanges) == len(cohort.names), "not every share is here")
            secrets: tuple[bytes, ...] = ()
        else:
            self._require_now(not self.missing_uploads, "not every upload is here")
            secrets = self.sealed_secrets()
        self._require(sender(message, Accusation.cap()) == party, "another party's message")
        guilty = read_accusation(
            cohort,
            message,
            secrets=secrets,
            first=self._manifests.get(cohort.names[0]),
            exchanges=self.exchanges.values(),
        )
        self.accusers[party] = self._once(self.accusers.get(party), message)
        self.guilty.update(guilty)

    # What the driver does between messages.

    def fix_cohort(self, cohort_message: bytes) -> None:
        """Fix the cohort, whose signature was the coordinator's own doing."""
        with self._lock:
            self.cohort = read_cohort(self.round, cohort_message)
            self.cohort_message = cohort_message
            self._aggregator = Aggregator(
                self._identity,
                self.message,
                cohort_message,
                coordinator=self._members.coordinator,
                pinned=self._members.pinned,
            )

    @property
    def missing_uploads(self) -> tuple[str, ...]:
        """Sites of the cohort whose upload is not complete."""
        with self._lock:
            return self._adding().missing

    @property
    def unopened(self) -> tuple[str, ...]:
        """Sites of the cohort that have not opened."""
        with self._lock:
            return self._adding().unopened

    @property
    def opens(self) -> bool:
        """Whether enough sites have opened for the sum to."""
        with self._lock:
            return self._adding().opens

    @property
    def needed_openings(self) -> int:
        """How many sites of the cohort must open."""
        return self._fixed().openings

    @property
    def vanished(self) -> tuple[str, ...]:
        """Sites whose updates are in a sum that they did not open; unknown after a recall."""
        return self.unopened if self.round.shares and not self.is_recalled else ()

    @property
    def false_dealers(self) -> tuple[str, ...]:
        """Sites whose shares do not give what they signed; known once enough have opened."""
        with self._lock:
            return self._adding().false_dealers

    def recall(self, confirmation: bytes) -> None:
        """Take up an attempt whose messages are gone, at the list that its sites opened for.

        What may be left of it is the decryptor's recorded release, and what sites said of that.

        Raises:
            AggregationError: It is not a list of this cohort.
        """
        with self._lock:
            read_opening_list(self._fixed(), confirmation)
            self.confirmation = confirmation
            self.is_recalled = True

    def verified(self, adapter_digest: str) -> tuple[str, ...]:
        """Sites at which the sum verified, and gave this adapter."""
        with self._lock:
            return tuple(
                name
                for name, said in self.verdicts.items()
                if said.outcome == VERIFIED and said.after == adapter_digest
            )

    @property
    def refused(self) -> tuple[str, ...]:
        """Sites at which the sum does not verify."""
        with self._lock:
            said = self.verdicts.items()
            return tuple(sorted(name for name, each in said if each.outcome == REFUSED))

    def opening_list(self) -> bytes:
        """The aggregator's list, once every upload is there."""
        with self._lock:
            return self._adding().opening_list()

    def sealed_secrets(self) -> tuple[bytes, ...]:
        """The sites' sealed secrets for the decryptor, in cohort order."""
        with self._lock:
            return self._adding().sealed_secrets()

    def total(self) -> SumUpload:
        """The signed sum, once every site opened."""
        with self._lock:
            return self._adding().total()

    def released_sum(self) -> NDArray[np.int64]:
        """The sum that was released, int64, shape (d,)."""
        with self._lock:
            if self._released is None:
                raise StateError("nothing was released")
            return self._released

    def check_norms(self) -> None:
        """Check what sites have shown of their updates against the sum.

        Raises:
            NormError: It does not add up, or too much is missing.
            StateError: Nothing was released, or norms are not checked.
        """
        with self._lock:
            self._checking().check_sum(self.released_sum(), self._projected)

    def _checking(self) -> NormCheck:
        if self._norms is None:
            raise StateError("nothing was released")
        return self._norms

    def evidence(self) -> Evidence:
        """Everything that came of a rehearsal."""
        with self._lock:
            return Evidence(
                plan=self.message,
                cohort=self._cohort_message(),
                exchanges=dict(self.exchanges),
                manifests={name: self._manifests[name] for name in self._chunks},
                chunks=dict(self._chunks),
                openings=dict(self._openings),
                release=self.release or b"",
                projections=dict(self.projections),
                reveals=dict(self.reveals),
            )

    def _fixed(self) -> FixedCohort:
        if self.cohort is None:
            raise StateError("the cohort is not fixed yet")
        return self.cohort

    def _cohort_message(self) -> bytes:
        if self.cohort_message is None:
            raise StateError("the cohort is not fixed yet")
        return self.cohort_message

    def _adding(self) -> Aggregator:
        if self._aggregator is None:
            raise StateError("the cohort is not fixed yet")
        return self._aggregator

    @staticmethod
    def _once(known: bytes | None, message: bytes) -> bytes:
        if known is not None and known != message:
            raise StateError("another message of this kind came before")
        return message

    @staticmethod
    def _require(holds: bool, text: str) -> None:
        if not holds:
            raise CohortError(text)

    @staticmethod
    def _require_now(holds: bool, text: str) -> None:
        """Of what is right, and comes too early or too late."""
        if not holds:
            raise StateError(text)


class _Counted:
    """Passes parts on and counts their bytes."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = parts
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            self.size += len(part)
            yield part


def _split(parts: Iterable[bytes], sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut a stream into pieces of these sizes, and one of whatever is left."""
    stream, rest = iter(parts), bytearray()
    for size in sizes:
        while len(rest) < size:
            part = next(stream, None)
            if part is None:
                break
            rest += part
        yield bytes(rest[:size])
        del rest[:size]
    for part in stream:
        rest += part
    if rest:
        yield bytes(rest)
