"""The real parties as functions: of what one was told so far, to what it says next.

Each is made anew from its history, told the next thing, and asked what it then holds: two histories
that leave it alike are one state. So that they can be alike, what a party draws hangs on who draws
it and for which plan, and not on what else it has done; after a journal was put back it draws anew.
Agents, attempts, checks and the rules of journals are the product's. Data, model and ledger are not
here (`SimulatedSite`); a training is counted instead.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregation import (
    AggregationError,
    CohortError,
    Decryptor,
    MemoryJournal,
    RoundPlan,
    SiteAttempt,
)
from aggregation.crypto import sealed_box
from aggregation.crypto.masking import Pair
from aggregation.protocol.plan import OF_NOTHING
from aggregation.protocol.round import FixedCohort
from aggregation.protocol.uploads import Chunks
from aggregation.roles.site_secrets import SiteSecrets
from aggregation.testing import works
from fmfl_secure.parties.workspace import Members
from fmfl_secure.runtime.agents.simulated import SimulatedSite
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import DocumentRef, Work

Op = tuple[Any, ...]
# What was encapsulated, by who for whom.
_KEPT: dict[tuple[object, bytes], tuple[bytes, bytes]] = {}
_ENCAPSULATE = sealed_box.encapsulate
_ENCRYPTED: dict[tuple[str, bytes], tuple[Chunks, list[bytes], bytes | None, list[Pair]]] = {}
_ENCRYPT = SiteSecrets.encrypt


def _encrypt_once(
    self: SiteSecrets, cohort: FixedCohort, packed: np.ndarray
) -> tuple[Chunks, list[bytes], bytes | None]:
    """What is drawn alike is encrypted alike: computed once, and then the same again."""
    key = (self._name, cohort.transcript)
    if key not in _ENCRYPTED:
        with drawn(*key):  # what is drawn after it must not hang on whether it was computed
            _ENCRYPTED[key] = (*_ENCRYPT(self, cohort, packed), self._pairs)
    chunks, digests, box, self._pairs = _ENCRYPTED[key]
    return copy.copy(chunks), list(digests), box  # what comes after them is each upload's own


@contextmanager
def drawn(*of: object) -> Iterator[None]:
    """Have all randomness hang on this and nothing else."""
    count = 0

    def some(size: int = 32) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(repr((of, count)).encode()).digest(size)

    def encapsulate(public: bytes) -> tuple[bytes, bytes]:
        key = ((of, count), public)  # the library draws for itself: once, and then the same again
        if key not in _KEPT:
            _KEPT[key] = _ENCAPSULATE(public)
        return _KEPT[key]

    class X25519:
        from_private_bytes = X25519PrivateKey.from_private_bytes

        @staticmethod
        def generate() -> X25519PrivateKey:
            return X25519PrivateKey.from_private_bytes(some(32))

    class MlKem:
        from_seed_bytes = MLKEM768PrivateKey.from_seed_bytes

        @staticmethod
        def generate() -> MLKEM768PrivateKey:
            return MLKEM768PrivateKey.from_seed_bytes(some(64))

    with (
        patch("secrets.token_bytes", some),
        patch("os.urandom", some),
        patch("secrets.randbits", lambda bits: int.from_bytes(some(bits // 8), "little")),
        patch("aggregation.crypto.sealed_box.X25519PrivateKey", X25519),
        patch("aggregation.crypto.pairwise.X25519PrivateKey", X25519),
        patch("aggregation.crypto.sealed_box.MLKEM768PrivateKey", MlKem),
        patch("aggregation.crypto.sealed_box.encapsulate", encapsulate),
        patch.object(SiteSecrets, "encrypt", _encrypt_once),
    ):
        yield


@cache
def _warm() -> None:
    """Have loaded and tested what draws when it is first used."""
    if not works():
        raise RuntimeError("a round does not give its sum here")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class Spoken:
    """A way to the server that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []
        self.documents: dict[str, bytes] = {}

    def work(
        self, step: Step, body: RoundPlan, /, sizes: Sequence[int] = (), **documents: bytes
    ) -> Work:
        self.said = []
        self.documents = {hashlib.sha256(data).hexdigest(): data for data in documents.values()}
        named = {
            name: DocumentRef(hashlib.sha256(data).hexdigest(), len(data))
            for name, data in documents.items()
        }
        rehearses = body.rehearsal is not msgspec.UNSET
        place = (body.run, 0, body.round) if rehearses else (body.run, body.round, body.attempt)
        return Work(1, step, *place, named, list(sizes), 0, 1 << 20)

    def fetch(self, document: DocumentRef) -> bytes:
        return self.documents[document.sha256]

    def send(self, _: Work, kind: str, message: bytes) -> None:
        self.said.append((kind, message))

    def fail(self, *_: object) -> None:
        """Nobody counts them here."""

    refuse = join = state = fail


class Modelled(SimulatedSite):
    """A site of the model: it counts what it charges, and has a floor."""

    def __init__(
        self, *given: Any, floor: int, openings: int, charged: dict[int, int], **more: Any
    ) -> None:
        super().__init__(*given, **more)
        self._floor, self._openings, self._charged = floor, openings, charged

    def admit(self, plan_message: bytes, *_: object) -> SiteAttempt:
        return self._agreed(self._attempt(plan_message), rehearses=False)

    def rehearse(self, plan_message: bytes) -> SiteAttempt:
        return self._agreed(self._attempt(plan_message), rehearses=True)

    def _attempt(self, plan_message: bytes) -> SiteAttempt:
        return SiteAttempt(
            self._identity,
            plan_message,
            coordinator=self._members.coordinator,
            pinned=self._members.pinned,
            journal=self._journal,
            floor=self._floor,
            openings=self._openings,
        )

    @staticmethod
    def _agreed(attempt: SiteAttempt, *, rehearses: bool) -> SiteAttempt:
        """Of `parties.agreed_plan` what tells a round from a rehearsal: a layout, or none."""
        if (attempt.plan.layout_digest == OF_NOTHING) != rehearses:
            raise CohortError("the plan's layout is not the one that was agreed on")
        return attempt

    def train(self, plan, *given: Any) -> np.ndarray:
        if plan.round not in self.updates:
            self._charged[plan.round] = self._charged.get(plan.round, 0) + 1
        with drawn(self._identity.public.name, "update"):  # or keys would hang on when it trained
            return super().train(plan, *given)


@dataclass
class Holding:
    """What a party has: the first three survive its process."""

    journal: MemoryJournal
    updates: dict[int, np.ndarray] = field(default_factory=dict)
    charged: dict[int, int] = field(default_factory=dict)
    agent: tuple[SiteAgent, Spoken] | None = None
    decryptor: Decryptor | None = None
    epoch: int = 0


@dataclass(frozen=True)
class Facts:
    """Of a site: the plan whose secrets it has, and the opening that it recorded."""

    live: bytes = b""
    opened: bytes = b""


class Party(ABC):
    """One honest party, and every state that it was ever seen in.

    Args:
        name: Its name.
        world: The model that it is of.
    """

    def __init__(self, name: str, world: Any) -> None:
        self.name, self.world = name, world
        _warm()
        self._histories: list[tuple[Op, ...]] = [()]
        self._marks = [self._mark(self._begin())]
        self._known: dict[str, int] = {self._marks[0]: 0}
        self._steps: dict[tuple[int, Op], tuple[int, tuple[tuple[str, bytes], ...]]] = {}
        self.charged: list[dict[int, int]] = [{}]
        self.facts: list[Facts] = [Facts()]

    def told(self, state: int, op: Op) -> tuple[int, tuple[tuple[str, bytes], ...]]:
        """What it becomes, and what it says."""
        if (state, op) not in self._steps:
            held = self._begin()
            for earlier in self._histories[state]:
                self._do(held, earlier)
            if self._mark(held) != self._marks[state]:  # else what is found would mean nothing
                raise RuntimeError(f"{self.name} does not do the same again: {op}")
            said = tuple(self._do(held, op))
            mark = self._mark(held)
            if mark not in self._known:
                self._known[mark] = len(self._histories)
                self._histories.append((*self._histories[state], op))
                self._marks.append(mark)
                self.charged.append(dict(held.charged))
                self.facts.append(self._facts(held))
            self._steps[state, op] = self._known[mark], said
        return self._steps[state, op]

    def _begin(self) -> Holding:
        return Holding(self.world.journal())

    def _do(self, held: Holding, op: Op) -> list[tuple[str, bytes]]:
        try:
            with drawn(self.name, held.epoch, op[1] if len(op) > 1 else "", op[0]):
                return self._takes(held, op)
        except AggregationError:
            return []

    @abstractmethod
    def _takes(self, held: Holding, op: Op) -> list[tuple[str, bytes]]:
        """Do it with what it has."""

    def _facts(self, held: Holding) -> Facts:
        live = held.agent[0]._live if held.agent else None
        opened = [m for (kind, _), m in held.journal._entries.items() if kind == "site/opened"]
        return Facts(live.plan_message if live else b"", opened[-1] if opened else b"")

    @abstractmethod
    def _lives(self, held: Holding) -> object:
        """What is in its process, so that two that do the same from here on look the same."""

    def _mark(self, held: Holding) -> str:
        kept = sorted((*key, digest(value)) for key, value in held.journal._entries.items())
        updates = sorted(held.updates)
        return repr((held.epoch, kept, updates, sorted(held.charged.items()), self._lives(held)))


class SiteParty(Party):
    """An honest site: its agent, as long as its process lives."""

    def _takes(self, held: Holding, op: Op) -> list[tuple[str, bytes]]:
        what, world = op[0], self.world
        if what == "crash":
            held.agent = None
            if not world.keeps_updates:
                held.updates = {}
            return []
        if what == "put back":
            held.agent, held.journal = None, world.journal()
            held.epoch += 1
            return []
        plan = world.plans[op[1]]
        if held.agent is None:
            held.agent = self._agent(held)
        agent, spoken = held.agent
        if what in ("ready", "taken for the other"):
            rehearses = plan.body.rehearsal is not msgspec.UNSET
            step = Step.REHEARSE if rehearses == (what == "ready") else Step.READY
            agent.do(spoken.work(step, plan.body, plan=plan.message, adapter=b""))
            return spoken.said
        if what == "reveal":
            agent.do(spoken.work(Step.REVEAL, plan.body, cohort=world.cohorts[op[2]]))
            return spoken.said
        if what == "exchange":
            agent.do(spoken.work(Step.EXCHANGE, plan.body, cohort=world.cohorts[op[2]]))
            return spoken.said
        if what == "upload":
            if not world.shares:  # else it was a step of its own, and others' words are needed
                agent.do(spoken.work(Step.EXCHANGE, plan.body, cohort=world.cohorts[op[2]]))
            said = world.handed(op[2], self.name)
            sizes = [len(message) for message in said]
            agent.do(spoken.work(Step.UPLOAD, plan.body, sizes, exchanges=b"".join(said)))
            return spoken.said
        listed = world.lists[op[2]]
        agent.do(spoken.work(Step.OPEN, plan.body, plan=plan.message, list=listed))
        if what == "open, unheard":  # it dies before a word of it leaves
            held.agent = None
            return []
        return spoken.said

    def _agent(self, held: Holding) -> tuple[SiteAgent, Spoken]:
        world, spoken = self.world, Spoken()
        members: Members = world.members
        site = Modelled(
            world.identities[self.name], members=members, journal=held.journal,
            floor=world.floor, openings=world.openings, charged=held.charged,
        )  # fmt: skip
        site.updates = held.updates
        agent = SiteAgent(
            lambda _: site, members=lambda: members, transport=spoken,  # type: ignore[arg-type]
            open_transport=None, stopping=threading.Event(), once=True,
        )  # fmt: skip
        return agent, spoken

    def _lives(self, held: Holding) -> object:
        live = held.agent[0]._live if held.agent else None
        if live is None:
            return ()
        a = live.attempt
        upload = a._upload.manifest if a._upload else b""
        parts = (
            a._ready, a._cohort_digest, a._exchange, upload, a._opening_list, a._opening, a._reveal,
        )  # fmt: skip
        return (live.place, digest(live.plan_message), *(digest(part or b"") for part in parts))


class DecryptorParty(Party):
    """An honest decryptor."""

    def _takes(self, held: Holding, op: Op) -> list[tuple[str, bytes]]:
        world, what = self.world, op[0]
        if what == "crash" or held.decryptor is None:
            held.decryptor = Decryptor(
                world.identities[self.name],
                held.journal,
                coordinator=world.members.coordinator,
                pinned=world.members.pinned,
                floor=world.floor,
            )
        if what == "crash":
            return []
        decryptor, plan = held.decryptor, world.plans[op[1]]
        if what == "announce":
            return [("announcement", decryptor.announce(plan.message))]
        cohort = world.cohorts[op[2]]
        if what == "confirm":
            return [
                (
                    "confirmation",
                    decryptor.confirm(cohort, world.asked[op[3]], world.secrets[op[2]]),
                )
            ]
        total, listed = world.totals[op[3]], world.lists[op[3]]
        message = decryptor.release(
            cohort, listed, total.manifest, total.chunks, plan_message=plan.message
        )
        return [("release", message)]

    def _lives(self, held: Holding) -> object:
        if held.decryptor is None:
            return ()
        return sorted(
            (slot, a.round.digest, a.announcement, a.cohort_digest, a.confirmed, a.accusation)
            for slot, a in held.decryptor._attempts.items()
        )
