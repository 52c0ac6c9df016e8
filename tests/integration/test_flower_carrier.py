"""Rounds over orders and answers, with a post that loses, repeats and forges; without Flower."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from service_world import NAMES, World

from aggregation import Decryptor, Identity, MemoryJournal
from fmfl_secure.errors import InUse
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.runtime.agents.decryptor import DecryptorAgent
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.settings.service import Time
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.in_use import in_use
from fmfl_secure.transports.flower.frames import Answer, Failed, Order, Refused, open_frame, seal
from fmfl_secure.transports.flower.order_transport import OrderTransport
from fmfl_secure.transports.flower.party import FlowerParty
from fmfl_secure.transports.flower.server import FlowerServer

SLOW = pytest.mark.slow


class Side:
    """A world as a `RunServer`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.identity = world.identities["coordinator"]
        self.board, self.inbox, self.store = world.board, world.inbox, world.inbox.store
        del self.board.silent_s  # who is silent, the carrier says here
        self.config = world.config
        self.heads = AnchorRegistry(
            AnchorStore(world.folder / "anchors.sqlite"), self.store, self.members
        )
        self.membership = MembershipFolder(world.folder)
        self.run = world.run
        self.output = world.folder / "run"

    def members(self):
        return self.world.members

    def alone(self):
        return in_use(self.output, "server")

    def drive(self) -> None:
        self.run.drive()

    def stop(self) -> None:
        self.run.stop()


class MemoryPost:
    """Nodes that are parties in this process. `tamper` sees each order and answer by party."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.parties: dict[int, tuple[str, FlowerParty]] = {}
        self.online: set[int] = set()
        self.waiting: dict[str, bytes | None] = {}
        self.steps: list[tuple[str, str]] = []
        self.tamper: Callable[[str, Order, Callable[[], bytes]], bytes | None] = (
            lambda _name, _order, answer: answer()
        )
        self.journal = MemoryJournal()
        for name in ("decryptor", *NAMES):
            self.start(name)

    def start(self, name: str) -> None:
        """A process of a party: its secrets are new, its journal and updates are its own."""
        transport, stopping = OrderTransport(), threading.Event()
        identity, members = self.world.identities[name], self.world.members
        if name == "decryptor":
            role = Decryptor(
                identity, self.journal, coordinator=members.coordinator, pinned=members.pinned
            )
            agent = DecryptorAgent(role, transport, stopping=stopping, once=False)
        else:
            agent = SiteAgent(
                lambda _: self.world.sites[name],
                members=lambda: members,
                transport=transport,
                open_transport=lambda: transport,
                stopping=stopping,
                once=False,
            )  # fmt: skip
        party = FlowerParty(identity, members.coordinator, agent, transport)
        number = 100 + ("decryptor", *NAMES).index(name)
        self.parties[number] = (name, party)
        self.online.add(number)

    def nodes(self):
        return set(self.online)

    def send(self, node: int, frame: bytes) -> str | None:
        if node not in self.online:
            return None
        name, party = self.parties[node]
        order, _ = open_frame(frame, Order, self.world.members.coordinator)
        self.steps.append((name, order.step))
        message = str(len(self.steps))
        self.waiting[message] = self.tamper(name, order, lambda: party.answer(frame))
        return message

    def replies(self, ids):
        return [(i, self.waiting.pop(i)) for i in list(ids) if i in self.waiting]


@pytest.fixture
def post(tmp_path: Path, tiny_model: Path) -> MemoryPost:
    return MemoryPost(World(tmp_path, tiny_model, gather_s=600.0))


def carried(post: MemoryPost):
    FlowerServer(Side(post.world), post, pause_s=0.01).run()  # type: ignore[arg-type]
    return post.world.coordinator.rounds


def test_a_round_is_carried_and_every_order_is_given_once(post: MemoryPost) -> None:
    (record,) = carried(post)
    assert (record.status, record.attempts, record.cohort) == ("released", 1, NAMES)
    post.world.assert_sum(record)
    for name in NAMES:
        said = [step for party, step in post.steps if party == name]
        assert said == ["hello", "join", "ready", "exchange", "upload", "open", "verify", "end"]


@pytest.mark.parametrize(
    "step", [pytest.param("ready", marks=SLOW), pytest.param("exchange", marks=SLOW), "upload"]
)
def test_a_node_that_is_gone_ends_the_attempt_and_the_next_goes_on_without(
    post: MemoryPost, step: str
) -> None:
    def tamper(name, order, answer):
        if name == "site-2" and order.step == step:
            post.online.discard(next(n for n, (p, _) in post.parties.items() if p == name))
            return None
        return answer()

    post.tamper = tamper
    (record,) = carried(post)
    assert record.status == "released"
    assert record.cohort == ("site-1", "site-3", "site-4")
    assert record.attempts == (1 if step == "ready" else 2)
    post.world.assert_sum(record)


@pytest.mark.parametrize(
    "step", ["open", *(pytest.param(step, marks=SLOW) for step in ("ready", "exchange", "upload"))]
)
def test_an_answer_that_was_lost_is_asked_for_again(
    post: MemoryPost, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It was done, and its node is still there: the same words come, and nothing is lost."""
    monkeypatch.setattr("fmfl_secure.transports.flower.server._AGAIN_S", 0.01)
    said = []

    def tamper(name, order, answer):
        frame = answer()
        if (name, order.step) == ("site-2", step):
            said.append(open_frame(frame, Answer, post.world.identities[name].public)[0].words)
            return None if len(said) < 3 else frame
        return frame

    post.tamper = tamper
    (record,) = carried(post)
    assert (record.status, record.attempts, record.cohort) == ("released", 1, NAMES)
    assert record.refusals == {}
    assert said[0] == said[1] == said[2]
    post.world.assert_sum(record)


def test_a_site_of_which_no_answer_arrives_is_gone_on_without(
    post: MemoryPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmfl_secure.transports.flower.server._AGAIN_S", 0.01)
    lost = []

    def tamper(name, order, answer):
        frame = answer()
        if (name, order.step) == ("site-2", "upload"):
            lost.append(name)
            return None
        return frame

    post.tamper = tamper
    (record,) = carried(post)
    assert len(lost) >= 5, "one more may be on its way"
    assert record.status == "released"
    assert record.attempts in {2, 3}, "forgiven once, if its node had shown itself by then"
    assert record.cohort == ("site-1", "site-3", "site-4")


def test_a_party_that_lost_its_secrets_says_so_and_sends_the_same_update_again(
    post: MemoryPost,
) -> None:
    done = []

    def tamper(name, order, answer):
        if name == "site-2" and order.step == "upload" and not done:
            done.append(name)
            post.start(name)  # on the same node, with the same folder, and no memory
            return next(p for n, p in post.parties.values() if n == name).answer(
                seal(post.world.identities["coordinator"], order)
            )
        return answer()

    post.tamper = tamper
    trained = post.world.sites["site-2"].updates
    (record,) = carried(post)
    assert (record.status, record.attempts, record.cohort) == ("released", 2, NAMES)
    assert list(trained) == [1], "one update, whatever was repeated"
    post.world.assert_sum(record)


@pytest.mark.slow
def test_an_order_that_comes_twice_gives_the_same_messages(post: MemoryPost) -> None:
    seen = []

    def tamper(name, order, answer):
        first, second = answer(), answer()
        if name in NAMES and order.step in {"ready", "exchange", "upload", "open"}:
            heads = [
                open_frame(f, Answer, post.world.identities[name].public)[0]
                for f in (first, second)
            ]
            assert heads[0].words == heads[1].words
            assert heads[0].words
            seen.append(order.step)
        return second

    post.tamper = tamper
    (record,) = carried(post)
    assert (record.status, record.attempts) == ("released", 1)
    assert sorted(set(seen)) == ["exchange", "open", "ready", "upload"]


def test_an_answer_counts_only_with_the_party_s_signature_and_to_that_order(
    post: MemoryPost,
) -> None:
    """Who runs the SuperLink cannot put words into a site's mouth."""
    forged = []
    stranger = Identity.generate("site-3")

    def tamper(name, order, answer):
        if name == "site-3" and order.step == "join" and len(forged) < 2:
            _, opened = open_frame(
                seal(post.world.identities["coordinator"], order), Order,
                post.world.members.coordinator,
            )  # fmt: skip
            words = [Refused("budget"), Failed("failed")]
            signer = stranger if not forged else post.world.identities["site-3"]
            digest = opened.digest if not forged else "0" * 64
            forged.append(name)
            return seal(signer, Answer("site-3", digest, words))
        return answer()

    post.tamper = tamper
    (record,) = carried(post)
    assert len(forged) == 2
    assert record.refusals == {}
    assert record.cohort == NAMES


@pytest.mark.slow
def test_a_decryptor_that_was_away_is_asked_again(post: MemoryPost) -> None:
    lost = []

    def tamper(name, order, answer):
        if name == "decryptor" and order.step in {"confirm", "release"} and order.step not in lost:
            lost.append(order.step)
            with suppress(StopIteration):
                answer()  # it did it, and the answer was lost
            return None
        return answer()

    post.tamper = tamper
    (record,) = carried(post)
    assert (record.status, record.attempts) == ("released", 1)
    assert lost == ["confirm", "release"]


@pytest.mark.slow
def test_another_version_takes_no_part(post: MemoryPost, monkeypatch: pytest.MonkeyPatch) -> None:
    def tamper(name, order, answer):
        if name == "site-4":
            with monkeypatch.context() as patch:
                patch.setattr(
                    "fmfl_secure.transports.flower.party.fingerprint", lambda: "0.0.9+sha256:ab"
                )
                return answer()
        return answer()

    post.tamper = tamper
    post.world.run.waiting.limits = Time(gather_s=0.2, end_s=5.0)
    (record,) = carried(post)
    assert record.cohort == ("site-1", "site-2", "site-3")
    assert ("site-4", "join") not in post.steps


def test_a_run_is_carried_by_one_process_at_a_time(post: MemoryPost) -> None:
    import fcntl

    side = Side(post.world)
    with (side.output / "in-use.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InUse, match="is in use"):
            FlowerServer(side, post, pause_s=0.01).run()  # type: ignore[arg-type]
    assert post.steps == []
