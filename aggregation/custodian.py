"""A custodian: somebody without whose word nothing opens.

Split knowledge: with m custodians in a plan, all m must agree before a sum opens, whatever the
decryptor, the aggregator and the sites do. It is what a threshold key would be wanted for, exact
and with no change of parameters.

Each site adds a stream that it shares with each custodian to its masked secret. A custodian checks
that a list of uploads is whole, signed by aggregator and decryptor, and that it approved no other
for this round; then it hands out the *sum* of its streams, which fits that one sum and no single
site's secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from . import masking, messages, pairwise, protocol, residues
from .errors import CohortError, PlanError, RecordedError, ReplayError, RoleError, StateError
from .identity import Identity, PublicIdentity
from .journal import Journal
from .messages import Approval, CustodianReady
from .pairwise import EphemeralKey
from .protocol import FixedCohort, Round

_READY: Final = "custodian/ready"
_APPROVED: Final = "custodian/approved"


class Custodian:
    """Steps 4 and 6 of a round, for any number of rounds.

    4. `ready` draws single-use keys for a plan, records them, and announces them.
    6. `approve` hands out the sum of its streams for one confirmed list; recorded first, one a
       (run, round), also across restarts. The same request gets the same bytes again.

    Keys live in memory only. Calls must come from one thread at a time.
    """

    def __init__(
        self,
        identity: Identity,
        journal: Journal,
        *,
        coordinator: PublicIdentity,
        pinned: Mapping[str, PublicIdentity],
        min_cohort: int = protocol.MIN_COHORT,
    ) -> None:
        """Set the role up.

        Args:
            identity: The custodian's key pair.
            journal: Its durable record.
            coordinator: Whose plans it follows.
            pinned: By name, the parties it knows: aggregator, decryptor and sites.
            min_cohort: The fewest pinned sites whose sum it lets open.

        Raises:
            RoleError: Something else than an identity was handed in.
        """
        if not isinstance(identity, Identity):
            raise RoleError("a custodian signs with its own Identity")
        self._identity = identity
        self._journal = journal
        self._coordinator = coordinator
        self._pinned = dict(pinned)
        self._min_cohort = min_cohort
        self._attempts: dict[str, tuple[Round, EphemeralKey, bytes]] = {}

    def __repr__(self) -> str:
        return f"Custodian({self._identity.public.name!r})"

    def ready(self, plan_message: bytes) -> bytes:
        """Announce single-use keys for a plan (step 4). A second call returns the same message.

        The keys of an earlier attempt at the same round are forgotten.

        Raises:
            RefusedError: The plan does not hold, or its cohort is too small.
            ReplayError: The round was approved, or this attempt joined before a restart.
        """
        round_ = protocol.read_plan(plan_message, self._coordinator)
        own = self._identity.public
        if own not in round_.plan.custodians:
            raise PlanError(f"the plan does not name {own.name} as a custodian")
        protocol.admit(round_.plan, round_.plan.members, own, self._pinned, self._min_cohort)
        slot = round_.round_key(own)
        if slot in self._attempts and self._attempts[slot][0].digest == round_.digest:
            return self._attempts[slot][2]
        if self._journal.lookup(_APPROVED, slot) is not None:
            raise ReplayError("this round was approved already")
        key = EphemeralKey(hybrid=round_.hybrid)
        body = CustodianReady(round_.digest, key.public, key.kem_public)
        message = messages.seal(self._identity, body)
        try:
            self._journal.record(_READY, round_.attempt_key(own), messages.digest(message))
        except RecordedError:
            raise ReplayError("this attempt was joined already; plan a new one") from None
        self._attempts[slot] = (round_, key, message)
        return message

    def approve(
        self, cohort_message: bytes, opening_list: bytes, exchanges: Iterable[bytes] = ()
    ) -> bytes:
        """Hand out the sum of this custodian's streams (step 6).

        Args:
            cohort_message: The fixed cohort.
            opening_list: The decryptor's confirmation of the aggregator's list.
            exchanges: In a hybrid plan, every site's exchange message.

        Returns:
            The signed approval, for the decryptor.

        Raises:
            StateError: No key is held for this plan.
            ReplayError: The round was approved for other uploads.
            RefusedError: Something does not hold.
        """
        body = messages.unseal(
            cohort_message, messages.Cohort, self._coordinator, messages.COHORT_CAP
        )
        found = [a for a in self._attempts.values() if a[0].digest == body.plan]
        if not found:
            raise StateError("no key is held for this plan: a new attempt is needed")
        round_, key, _ = found[0]
        cohort = protocol.read_cohort(round_, cohort_message)
        own = self._identity.public
        protocol.admit(round_.plan, cohort.members, own, self._pinned, self._min_cohort)
        position = round_.plan.custodians.index(own)
        if cohort.custodians[position].key != key.public:
            raise CohortError("the cohort does not carry this custodian's ready message")
        _, listed = protocol.read_opening_list(cohort, opening_list)
        slot = round_.round_key(own)
        stored = self._journal.lookup(_APPROVED, slot)
        if stored is not None:
            return self._repeat(cohort, listed, stored)
        packed = self._streams(cohort, key, position, exchanges)
        message = messages.seal(self._identity, Approval(cohort.transcript, listed, packed))
        try:
            self._journal.record(_APPROVED, slot, message)
        except RecordedError:
            raise ReplayError("this round was approved already") from None
        return message

    def _repeat(self, cohort: FixedCohort, listed: bytes, stored: bytes) -> bytes:
        own = self._identity.public
        body = messages.unseal(stored, Approval, own, messages.APPROVAL_CAP)
        if body.transcript != cohort.transcript or body.opening_list != listed:
            raise ReplayError("this round was approved already, for other uploads")
        return stored

    def _streams(
        self, cohort: FixedCohort, key: EphemeralKey, position: int, exchanges: Iterable[bytes]
    ) -> bytes:
        transcript, own = cohort.transcript, self._identity.public.name
        modulus, degree = cohort.round.parameters.modulus, cohort.round.packing.degree
        ciphertexts: dict[int, bytes] = {}
        if cohort.round.hybrid:
            for message in exchanges:
                sender, sent = protocol.read_exchange(cohort, message)
                ciphertexts[sender] = sent[len(sent) - len(cohort.custodians) + position]
            if len(ciphertexts) != len(cohort.members):
                raise CohortError("an exchange message is missing")
        streams = []
        for i, name in enumerate(cohort.names):
            shared = key.exchange(cohort.readies[i].key)
            if cohort.round.hybrid:
                kem = (key.decapsulate(ciphertexts[i]), ciphertexts[i])
                shared = pairwise.combine(shared, *kem, transcript, name, own)
            stream_key = masking.derive(shared, transcript, masking.CUSTODIAN_LABEL, name, own)
            streams.append(masking.Stream(stream_key, modulus, degree))
        return residues.pack(masking.sum_streams(streams, 0, modulus, degree), modulus)
