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

from collections.abc import Iterable
from dataclasses import dataclass

from aggregation.ckks import residues
from aggregation.crypto import masking, pairwise
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.errors import CohortError, PlanError
from aggregation.protocol import checks
from aggregation.protocol.exchange import read_handed
from aggregation.protocol.messages import Approval, CustodianReady
from aggregation.protocol.round import FixedCohort, Round
from aggregation.roles.release_once import Gatekeeper, Held


@dataclass(slots=True, repr=False, kw_only=True)
class _Attempt(Held):
    key: EphemeralKey


class Custodian(Gatekeeper[_Attempt]):
    """Steps 4 and 6 of a round, for any number of rounds.

    4. `ready` draws single-use keys for a plan, records them, and announces them.
    6. `approve` hands out the sum of its streams for one confirmed list; recorded first, one a
       (run, round), also across restarts. The same request gets the same bytes again.

    Keys live in memory only. Calls must come from one thread at a time.
    """

    ANNOUNCED = "custodian/ready"
    SPOKEN = "custodian/approved"
    WORD = Approval
    DONE = "approved"

    def ready(self, plan_message: bytes) -> bytes:
        """Announce single-use keys for a plan (step 4). A second call returns the same message.

        The keys of an earlier attempt at the same round are forgotten.

        Raises:
            RefusedError: The plan does not hold, or its cohort is too small.
            ReplayError: The round was approved, or this attempt joined before a restart.
        """
        return self._announce(plan_message)

    def approve(
        self,
        cohort_message: bytes,
        opening_list: bytes,
        exchanges: Iterable[bytes] = (),
        *,
        plan_message: bytes | None = None,
    ) -> bytes:
        """Hand out the sum of this custodian's streams (step 6).

        Args:
            cohort_message: The fixed cohort.
            opening_list: The decryptor's confirmation of the aggregator's list.
            exchanges: In a hybrid plan, what is handed to it of every site's exchange message.
            plan_message: The plan; needed only to have a stored approval repeated after a restart.

        Returns:
            The signed approval, for the decryptor.

        Raises:
            StateError: No key is held for this plan.
            ReplayError: The round was approved for other uploads.
            RefusedError: Something does not hold.
        """
        attempt = self._find(cohort_message)
        if attempt is None and plan_message is not None:
            cohort = self._admit(cohort_message, self._read_plan(plan_message))
        else:
            cohort = self._admit(cohort_message, self._need(attempt))
        _, listed = checks.read_opening_list(cohort, opening_list)
        stored = self._repeat(cohort, listed)
        if stored is not None:
            return stored
        attempt = self._need(attempt)
        position = cohort.round.plan.custodians.index(self.public)
        if cohort.custodians[position].key != attempt.key.public:
            raise CohortError("the cohort does not carry this custodian's ready message")
        streams = self._streams(cohort, attempt.key, position, exchanges)
        return self._speak(cohort.round, Approval(cohort.transcript, listed, streams))

    def _read_plan(self, plan_message: bytes) -> Round:
        round_ = checks.read_plan(plan_message, self._coordinator)
        if self.public not in round_.plan.custodians:
            raise PlanError(f"the plan does not name {self.public.name} as a custodian")
        return round_

    def _draw(self, round_: Round) -> tuple[_Attempt, CustodianReady]:
        key = EphemeralKey(hybrid=round_.hybrid)
        body = CustodianReady(round_.digest, key.public, key.kem_public)
        return _Attempt(round=round_, key=key), body

    def _streams(
        self, cohort: FixedCohort, key: EphemeralKey, position: int, exchanges: Iterable[bytes]
    ) -> bytes:
        transcript, own = cohort.transcript, self._identity.public.name
        modulus, degree = cohort.round.parameters.modulus, cohort.round.packing.degree
        ciphertexts: dict[int, bytes] = {}
        if cohort.round.hybrid:
            for message in exchanges:
                place = len(cohort.members) + position
                sent = read_handed(cohort, place, message)
                ciphertexts[sent.sender] = sent.parts[place].ciphertext
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
        return residues.pack(masking.sum_streams(streams, 0, 1, modulus, degree), modulus)
