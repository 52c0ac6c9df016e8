"""Everybody who is not honest in one hand: what such a server can do to honest parties of a round.

Coordinator, aggregator and the colluding sites are the adversary, and the decryptor unless it is
said to be honest. It hears everything, forgets nothing, signs whatever its keys sign, and decides
who is told what and when. Of what it could say, the model has: plans under several attempts and
federations, every cohort of the sites that are ready, large enough or not, lists that show each
site's upload or another in its place, and every order. Processes end, and journals are put back.
Where sites may vanish it opens a cohort with the openings of some, and its liars'. It can hold a
rehearsal beside the round, take each's plan for the other's, and ask for keys of either any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import NamedTuple

import msgspec
import numpy as np
from parties import DecryptorParty, Party, SiteParty, digest, drawn

from aggregation import (
    Coordinator,
    Decryptor,
    Identity,
    Member,
    MemoryJournal,
    Quantization,
    RoundPlan,
    Segment,
    SiteAttempt,
    SumUpload,
    Upload,
    choose,
)
from aggregation.protocol import OF_NOTHING, REHEARSED, messages, rehearsal_grid
from aggregation.protocol.checks import read_cohort, read_plan
from aggregation.protocol.exchange import verify_and_hand_out
from aggregation.protocol.messages import Cohort, Confirmation, OpeningList
from aggregation.protocol.plan import Vanishing, exchange_form, openings_for
from fmfl_secure.parties.workspace import Members
from fmfl_secure.runtime.attempt_state import ServerAttempt

ROLES = ("coordinator", "aggregator", "decryptor")
COHORT = "cohort"  # all honest sites of one
REHEARSAL = "rehearsal/1"  # a plan's name
NOTHING = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Plan:
    body: RoundPlan
    message: bytes


class State(NamedTuple):
    """Everything there is.

    Attributes:
        sites: What each honest site holds, as a number of its `Party`.
        decryptor: The same of an honest decryptor.
        heard: Bits of what was said.
        crashes: How many processes may still end.
        put_backs: How many journals may still be put back.
    """

    sites: tuple[int, ...]
    decryptor: int
    heard: int
    crashes: int
    put_backs: int


class Model:
    """A round, as an adversary may run it.

    Args:
        honest: How many honest sites.
        liars: How many that collude.
        floor: The fewest sites that an honest party lets a sum be of.
        least: The fewest that the adversary tries.
        plans: Federation and attempt of each plan of the round that it signs.
        is_honest: Whether the decryptor is.
        crashes: How many processes may end.
        put_backs: How many journals may be put back, unnoticed.
        journal: Makes a party's journal.
        keeps_updates: Whether a site stores what it trained.
        false_lists: Whether it shows lists that are not as they should be.
        vanishing: What plans say of sites that may vanish; None where all must open.
        colluding: How many sites an honest one takes to collude, where some may vanish.
        rehearses: Whether it signs the plan of a rehearsal as well.
    """

    def __init__(
        self,
        *,
        honest: int,
        liars: int = 0,
        floor: int = 3,
        least: int = 3,
        plans: Sequence[tuple[str, int]] = (("one", 1), ("one", 2)),
        is_honest: bool = False,
        crashes: int = 0,
        put_backs: int = 0,
        journal: type[MemoryJournal] = MemoryJournal,
        keeps_updates: bool = True,
        false_lists: bool = True,
        vanishing: Vanishing | None = None,
        colluding: int = 0,
        rehearses: bool = False,
    ) -> None:
        self.honest = tuple(f"honest-{n}" for n in range(1, honest + 1))
        self.liars = tuple(f"liar-{n}" for n in range(1, liars + 1))
        self.names = self.honest + self.liars
        self.floor, self.least, self.is_honest = floor, least, is_honest
        self.journal, self.keeps_updates = journal, keeps_updates
        self.false_lists = false_lists
        self.vanishing: Vanishing | msgspec.UnsetType = vanishing or msgspec.UNSET
        self.shares = vanishing is not None
        self.openings = openings_for(len(self.names), colluding) if vanishing else 0
        self.exchanges: dict[str, tuple[bytes, ...]] = {}  # by cohort, once all have spoken
        self._handed: dict[tuple[str, str], tuple[bytes, ...]] = {}
        self.identities = {name: Identity.generate(name) for name in (*ROLES, *self.names)}
        public = {name: identity.public for name, identity in self.identities.items()}
        self.members = Members(
            **{role: public[role] for role in ROLES},
            sites={name: public[name] for name in self.names},
        )
        self.coordinator = Coordinator(self.identities["coordinator"])
        self.plans = {f"{name}/{number}": self._plan(name, number) for name, number in plans}
        if rehearses:
            self.plans[REHEARSAL] = self._rehearsal()
        self._named = {messages.digest(plan.message): name for name, plan in self.plans.items()}
        self.cohorts: dict[str, bytes] = {}
        self.of: dict[str, tuple[str, tuple[str, ...]]] = {}  # a cohort's plan and its sites
        self.asked: dict[str, bytes] = {}  # the aggregator's lists
        self.lists: dict[str, bytes] = {}  # those that the decryptor confirmed
        self.secrets: dict[str, tuple[bytes, ...]] = {}
        self.totals: dict[str, SumUpload] = {}
        self._bits: dict[tuple[str, str, str], int] = {}
        self._said: dict[tuple[str, str, str], bytes] = {}
        self._options: dict[int, tuple[tuple[str, tuple], ...]] = {}
        self._opened: dict[int, str] = {}
        self._masks: dict[str, int] = {}  # bits of a kind
        self._formed_of: dict[int, list[str]] = {}
        self._servers: dict[str, ServerAttempt] = {}
        self._made: dict[str, list[str]] = {}
        self._transcripts: dict[bytes, str] = {}  # cohorts by what they hash to
        self.sites: tuple[Party, ...] = tuple(SiteParty(name, self) for name in self.honest)
        self.decryptor = DecryptorParty("decryptor", self)
        self.start = State((0,) * honest, 0, 0, crashes, put_backs)

    def _plan(self, federation: str, attempt: int) -> Plan:
        members, sites = self.members, len(self.names)
        plan = RoundPlan(
            federation=federation,
            run="ab" * 8,
            round=1,
            attempt=attempt,
            suite="ckks-collective",
            parameter_set=choose(sites, 8, suite="ckks-collective").id,
            quantization=Quantization(bits=8, segments=(Segment(name="a", size=3, range=1.0),)),
            members=tuple(Member(members.sites[name]) for name in self.names),
            aggregator=members.aggregator,
            decryptor=members.decryptor,
            coordinator=members.coordinator,
            adapter_digest=NOTHING,
            layout_digest=NOTHING,
            base_model_digest=NOTHING,
            training_digest=NOTHING,
            key_agreement="x25519",
            vanishing=self.vanishing,
            exchange=exchange_form(sites, "x25519", vanishing=self.shares),
        )
        return Plan(plan, self.coordinator.plan(plan))

    def _rehearsal(self) -> Plan:
        """Of the same run and number as the round, and of everybody."""
        body = msgspec.structs.replace(
            self._plan("one", 1).body,
            quantization=rehearsal_grid(8, 3),
            adapter_digest=OF_NOTHING,
            layout_digest=OF_NOTHING,
            base_model_digest=OF_NOTHING,
            rehearsal=REHEARSED,
        )
        return Plan(body, self.coordinator.plan(body))

    # What happens.

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        """Whatever can happen next and changes anything."""
        for who, op in self.options(state.heard):
            yield from self._asked(state, who, op)
        for place in range(len(self.sites)):
            if state.crashes:
                yield from self._told(state, place, ("crash",), crashes=1)
            if state.put_backs:
                yield from self._told(state, place, ("put back",), put_backs=1)
        if state.crashes and self.is_honest:
            yield from self._told(state, -1, ("crash",), crashes=1)

    def _asked(self, state: State, who: str, op: tuple) -> Iterator[tuple[str, State]]:
        """One party is told something, or a whole cohort."""
        if who == "decryptor":
            yield from self._told(state, -1, op)
        elif who != COHORT:
            yield from self._told(state, self.honest.index(who), op)
        else:
            following = state
            for name in self.of[op[2]][1]:
                if name in self.honest:
                    for _, told in self._told(following, self.honest.index(name), op):
                        following = told
            if following != state:
                yield f"{' '.join(self.of[op[2]][1])}: {' '.join(op)}", following

    def _told(
        self, state: State, place: int, op: tuple, *, crashes: int = 0, put_backs: int = 0
    ) -> Iterator[tuple[str, State]]:
        party = self.decryptor if place < 0 else self.sites[place]
        before = state.decryptor if place < 0 else state.sites[place]
        after, said = party.told(before, op)
        heard = state.heard
        for kind, message in said:
            heard |= self._bit(kind, party.name, op, message)
        if (after, heard) == (before, state.heard):
            return
        sites, decryptor = list(state.sites), state.decryptor
        if place < 0:
            decryptor = after
        else:
            sites[place] = after
        following = State(
            tuple(sites), decryptor, heard, state.crashes - crashes, state.put_backs - put_backs
        )
        yield f"{party.name}: {' '.join(op)}", following

    def _bit(self, kind: str, name: str, op: tuple, message: bytes) -> int:
        """What was said, as a bit: of its plan, or from the upload on of its cohort."""
        about = op[1] if kind == "announcement" else op[-1].partition(":")[0]
        if kind == "ready":
            body = messages.unseal(message, messages.Ready, self.members.sites[name])
            about = f"{self._named[body.plan]} {digest(message)}"
        elif kind == "confirmation":
            about = op[3]
            self.lists.setdefault(about, message)
        elif kind == "opening":  # one that was recorded is of another attempt than it is asked for
            about = self.opens(name, message)
        key = (kind, name, about)
        if key not in self._bits:
            self._bits[key] = 1 << len(self._bits)
            self._said[key] = message
            self._masks[kind] = self._masks.get(kind, 0) | self._bits[key]
        return self._bits[key]

    def opens(self, name: str, opening: bytes) -> str:
        """The cohort that an opening is of."""
        body = messages.unseal(opening, messages.Opening, self.members.sites[name])
        return self._transcripts[body.transcript]

    def heard(self, heard: int, kind: str) -> dict[tuple[str, str], bytes]:
        """By who and about what: what was said of a kind."""
        return {
            (name, about): self._said[said, name, about]
            for (said, name, about), bit in self._bits.items()
            if said == kind and heard & bit
        }

    def options(self, heard: int) -> tuple[tuple[str, tuple], ...]:
        """What the adversary can tell whom, with what it has heard."""
        if heard not in self._options:
            self._options[heard] = tuple(self._tell(heard))
        return self._options[heard]

    def _tell(self, heard: int) -> Iterator[tuple[str, tuple]]:
        for plan in self.plans:
            for name in self.honest:
                yield name, ("ready", plan)
                if REHEARSAL in self.plans:
                    yield name, ("taken for the other", plan)
            if self.is_honest:
                yield "decryptor", ("announce", plan)
        before = heard & (self._masks.get("ready", 0) | self._masks.get("announcement", 0))
        if before not in self._formed_of:
            self._formed_of[before] = self._formed(heard)
        for cohort in self._formed_of[before]:
            plan, names = self.of[cohort]
            honest = [name for name in names if name in self.honest]
            if self.shares:
                # In one step: of a cohort in which not all have dealt, nothing more is asked.
                yield COHORT, ("exchange", plan, cohort)
            if not self.shares or self._exchanged(heard, cohort):
                for name in honest:
                    yield name, ("upload", plan, cohort)
            for name in honest if REHEARSAL in self.plans else ():
                yield name, ("reveal", plan, cohort)
            if self._have(heard, "upload", cohort):
                yield from self._open(heard, plan, cohort, honest)

    def _have(self, heard: int, kind: str, cohort: str) -> bool:
        """Whether every honest site of a cohort has said this about it."""
        bits = self._bits
        return all(
            heard & bits.get((kind, name, cohort), 0)
            for name in self.of[cohort][1]
            if name in self.honest
        )

    def _exchanged(self, heard: int, cohort: str) -> bool:
        """Whether every site of a cohort has dealt its shares; liars do as they should."""
        if not self._have(heard, "exchange", cohort):
            return False
        if cohort not in self.exchanges:
            plan, names = self.of[cohort]
            said = []
            for name in names:
                if name in self.honest:
                    said.append(self._said["exchange", name, cohort])
                    continue
                liar = self._liar(name, plan)
                with drawn(name, cohort):
                    said.append(liar.exchange(self.cohorts[cohort]))
            self.exchanges[cohort] = tuple(said)
        return True

    def handed(self, cohort: str, name: str) -> tuple[bytes, ...]:
        """What a site is handed of a cohort's exchange messages, once all have spoken."""
        said = self.exchanges.get(cohort, ())
        if said and (cohort, name) not in self._handed:
            plan = self.plans[self.of[cohort][0]].message
            fixed = read_cohort(read_plan(plan, self.members.coordinator), self.cohorts[cohort])
            handed = verify_and_hand_out(fixed, said)
            self._handed |= {(cohort, each): tuple(given) for each, given in handed.items()}
        return self._handed.get((cohort, name), ())

    def opens_with(self, cohort: str, openings: int) -> bool:
        """Whether a cohort's sum opens with the openings of so many honest sites."""
        plan, names = self.of[cohort]
        liars = sum(name in self.liars for name in names)
        allowed = self.plans[plan].body.vanishing
        if allowed is msgspec.UNSET:
            return openings + liars == len(names)
        return openings + liars >= max(len(names) - allowed.sites, allowed.openings)

    def _opens(self, heard: int, cohort: str) -> bool:
        said = sum(
            bool(heard & self._bits.get(("opening", name, cohort), 0))
            for name in self.of[cohort][1]
            if name in self.honest
        )
        return self._have(heard, "upload", cohort) and self.opens_with(cohort, said)

    def _open(
        self, heard: int, plan: str, cohort: str, honest: Sequence[str]
    ) -> Iterator[tuple[str, tuple]]:
        if cohort not in self._made:
            self._made[cohort] = self._listed(self._server(heard, cohort), cohort, honest)
        for listed in self._made[cohort]:
            if self.is_honest and not heard & self._bits.get(
                ("confirmation", "decryptor", listed), 0
            ):
                yield "decryptor", ("confirm", plan, cohort, listed)
                continue
            for name in honest:
                yield name, ("open", plan, listed)
        genuine = f"{cohort}:"
        if self.is_honest and genuine in self.lists and self._opens(heard, cohort):
            openings = self.heard(heard, "opening")
            if self._adds_up(heard, openings, cohort, genuine, honest):
                yield "decryptor", ("release", plan, cohort, genuine)

    def _formed(self, heard: int) -> list[str]:
        """Every cohort that can be made of who is ready."""
        readies, announced = self.heard(heard, "ready"), self.heard(heard, "announcement")
        formed = []
        for plan in self.plans:
            announcement = announced.get(("decryptor", plan), b"")
            if not self.is_honest:
                announcement = self._announces(plan)
            by_site = {
                name: [m for (who, about), m in readies.items()
                       if who == name and about.partition(" ")[0] == plan]
                for name in self.honest
            } | {name: [self._liar(name, plan).ready()] for name in self.liars}  # fmt: skip
            able = [name for name in self.names if by_site[name]]
            sizes = range(self.least, len(able) + 1)
            if announcement:
                for names in chain.from_iterable(combinations(able, size) for size in sizes):
                    formed += self._cohorts(plan, announcement, names, by_site)
        return formed

    def _cohorts(
        self,
        plan: str,
        announcement: bytes,
        names: tuple[str, ...],
        by_site: dict[str, list[bytes]],
    ) -> Iterable[str]:
        # A journal that was put back announces other keys: the later ones are taken.
        readies = tuple(by_site[name][-1] for name in names)
        body = Cohort(messages.digest(self.plans[plan].message), announcement, readies)
        message = messages.seal(self.identities["coordinator"], body)
        cohort = digest(message)
        if cohort not in self.of:
            self.cohorts[cohort], self.of[cohort] = message, (plan, names)
            round_ = read_plan(self.plans[plan].message, self.members.coordinator)
            self._transcripts[read_cohort(round_, message).transcript] = cohort
        return [cohort]

    # The adversary's own parties, with real classes and nothing that they would remember.

    def _announces(self, plan: str) -> bytes:
        decryptor = Decryptor(
            self.identities["decryptor"], MemoryJournal(),
            coordinator=self.members.coordinator, pinned=self.members.pinned,
        )  # fmt: skip
        with drawn("decryptor", plan):
            return decryptor.announce(self.plans[plan].message)

    def _liar(self, name: str, plan: str) -> SiteAttempt:
        with drawn(name, plan):
            attempt = SiteAttempt(
                self.identities[name], self.plans[plan].message,
                coordinator=self.members.coordinator, pinned=self.members.pinned,
                journal=MemoryJournal(),
            )  # fmt: skip
            attempt.ready()
        return attempt

    def _server(self, heard: int, cohort: str) -> ServerAttempt:
        """The server's own state, with all uploads of a cohort."""
        if cohort not in self._servers:
            self._servers[cohort] = self._with_uploads(heard, cohort)
        return self._servers[cohort]

    def _with_uploads(self, heard: int, cohort: str) -> ServerAttempt:
        plan, names = self.of[cohort]
        server = ServerAttempt(
            self.plans[plan].message, coordinator=self.coordinator,
            aggregator=self.identities["aggregator"], members=self.members,
        )  # fmt: skip
        server.fix_cohort(self.cohorts[cohort])
        for name, message in zip(names, self.exchanges.get(cohort, ()), strict=self.shares):
            server.receive(name, "exchange", [message])
        uploads, chunks = self.heard(heard, "upload"), self.heard(heard, "chunks")
        for name in names:
            if name in self.honest:
                server.receive(name, "upload", [uploads[name, cohort]])
                server.receive(name, "chunks", [chunks[name, cohort]])
            else:
                upload = self._lies(name, plan, cohort)[1]
                server.receive(name, "upload", [upload.manifest])
                server.receive(name, "chunks", upload.chunks)
        return server

    def _lies(self, name: str, plan: str, cohort: str) -> tuple[SiteAttempt, Upload]:
        """A colluding site, with what it uploaded; in a rehearsal nobody takes anything else."""
        liar, message = self._liar(name, plan), self.cohorts[cohort]
        with drawn(name, cohort):
            if self.shares:
                liar.exchange(message)
            sent = np.zeros(3, dtype=np.int32) if plan != REHEARSAL else liar.public_integers
            return liar, liar.upload(message, sent, self.handed(cohort, name))

    def _listed(self, server: ServerAttempt, cohort: str, honest: Sequence[str]) -> list[str]:
        """The list as it is, and one for each honest site with another upload in its place."""
        genuine = server.opening_list()
        self.secrets[cohort] = server.sealed_secrets()
        signer, cap = self.members.aggregator, server.round.cap(OpeningList)
        body = messages.unseal(genuine, OpeningList, signer, cap)
        self.asked[f"{cohort}:"] = genuine
        honest = honest if self.false_lists else ()
        for name in honest:
            place = server.sites.index(name)
            shown = list(body.manifests)
            shown[place] = messages.digest(name.encode())
            false = OpeningList(body.transcript, tuple(shown), body.first)
            self.asked[f"{cohort}:{name}"] = messages.seal(self.identities["aggregator"], false)
        made = [f"{cohort}:", *(f"{cohort}:{name}" for name in honest)]
        if not self.is_honest:
            for listed in made:
                confirmation = Confirmation(self.asked[listed])
                self.lists[listed] = messages.seal(self.identities["decryptor"], confirmation)
        return made

    def _adds_up(
        self,
        heard: int,
        openings: dict[tuple[str, str], bytes],
        cohort: str,
        listed: str,
        honest: Sequence[str],
    ) -> bool:
        """Whether enough openings are for the list as it is; then the sum is kept."""
        plan, names = self.of[cohort]
        wanted = messages.digest(self.asked[listed])
        fitting = {}
        for name in honest:
            opening = openings.get((name, cohort))
            signer = self.members.sites[name]
            if opening is not None:
                body = messages.unseal(opening, messages.Opening, signer)
                fitting |= {name: opening} if body.opening_list == wanted else {}
        if not self.opens_with(cohort, len(fitting)):
            return False
        if listed not in self.totals:
            server = self._with_uploads(heard, cohort)
            server.opening_list()
            server.receive("decryptor", "confirmation", [self.lists[listed]])
            for name in names:
                if name in self.liars:
                    fitting[name] = self._lies(name, plan, cohort)[0].open(self.lists[listed])
                if name in fitting:
                    server.receive(name, "opening", [fitting[name]])
            self.totals[listed] = server.total()
        return True

    # What must hold.

    def broken(self, state: State) -> str:
        """At most one cohort of a round opens, and nothing is released or charged twice.

        Nobody reveals keys of a round, and a rehearsal charges nothing.
        """
        for party, held in zip(self.sites, state.sites, strict=True):
            if any(times > 1 for times in party.charged[held].values()):
                return f"{party.name} is charged twice"
            if set(self.plans) == {REHEARSAL} and party.charged[held]:
                return f"{party.name} is charged for a rehearsal"
        if state.heard not in self._opened:
            self._opened[state.heard] = self._twice(state.heard)
        return self._opened[state.heard]

    def _twice(self, heard: int) -> str:
        if any(self.of[about][0] != REHEARSAL for _, about in self.heard(heard, "reveal")):
            return "keys of a round are revealed"
        released = {about for _, about in self.heard(heard, "release")}
        if sum(self.of[about][0] != REHEARSAL for about in released) > 1:
            return "two sums are released"
        made = [cohort for cohort in self._made if self.of[cohort][0] != REHEARSAL]
        opened = [cohort for cohort in made if self._opens(heard, cohort)]
        # Where sites may vanish, the same cohort may open again: of the same integers.
        sums = {self.of[cohort][1] for cohort in opened} if self.shares else set(opened)
        if len(sums) > 1 and not self.is_honest:
            return "two cohorts open: " + " and ".join(" ".join(self.of[c][1]) for c in opened)
        return ""
