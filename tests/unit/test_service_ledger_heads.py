"""Heads of ledgers between sites and server: what each keeps, and who notices an older ledger."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aggregation import Identity, SqliteJournal, sign_journal_head
from fmfl_secure.errors import Problem, RunError
from fmfl_secure.parties.workspace import Members
from fmfl_secure.runtime.agents.anchors import SiteAnchors
from fmfl_secure.runtime.anchor_registry import AnchorRegistry, AnchorsForSite
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.message_store import open_store
from privacy import Anchor, Ledger, LedgerLocked

NAMES = ("site-1", "site-2", "site-3")


class Owner:
    """A site as far as heads go."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.path = folder / "ledger.sqlite"
        self.identity = identity
        self.others = AnchorStore(folder / "anchors.sqlite")
        Ledger.create(
            self.path, population="p", unit="record", signer=identity,
            public_key=identity.public.key,
        )  # fmt: skip
        self.charge()

    def charge(self) -> None:
        Ledger(self.path, signer=self.identity).grant(
            epsilon=1.0, delta=1e-5, population_size=1000, purpose="test"
        )

    def anchor(self) -> str:
        return Ledger(self.path, signer=self.identity).anchor().line

    def journal_head(self) -> None:
        """It keeps none."""

    def hold_journal(self, heads) -> None:
        """There is none."""

    def hold_to(self, anchors) -> None:
        Ledger(self.path, signer=self.identity).hold_to([Anchor.parse(line) for line in anchors])


class DirectTransport:
    """What `Line` does for heads, by calls."""

    def __init__(self, kept: AnchorRegistry, name: str) -> None:
        self.kept, self.name = kept, name
        self.requests = 0

    def heads(self, *, known: bool, since: str) -> AnchorsForSite:
        self.told = self.kept.tell(self.name, known=known, since=since)
        return self.told

    def bring_heads(self, heads: dict[str, list[str]]) -> None:
        self.requests += 1
        self.kept.bring(heads)

    def give_head(self, head: str) -> None:
        self.kept.give(self.name, head)


class World:
    """Three sites and a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        roles = ("coordinator", "aggregator", "decryptor")
        self.identities = {name: Identity.generate(name) for name in (*roles, *NAMES)}
        public = {name: identity.public for name, identity in self.identities.items()}
        sites = {name: public[name] for name in NAMES}
        self.members = Members(**{name: public[name] for name in roles}, sites=sites)
        self.owners = {}
        for name in NAMES:
            (folder / name).mkdir()
            self.owners[name] = Owner(folder / name, self.identities[name])
        self.restart()

    def restart(self) -> None:
        """Another process at every party, over what is kept."""
        anchors = AnchorStore(self.folder / "server-anchors.sqlite")
        store = open_store("sqlite:service.sqlite", relative_to=self.folder)
        self.kept = AnchorRegistry(anchors, store, lambda: self.members)
        self.transports = {name: DirectTransport(self.kept, name) for name in NAMES}
        self.heads = {
            name: SiteAnchors(self.transports[name], lambda: self.members)  # type: ignore[arg-type]
            for name in NAMES
        }

    def forget(self, name: str) -> None:
        for file in self.folder.glob(f"{name}anchors.sqlite*"):
            file.unlink()
        for file in self.folder.glob("service.sqlite*" if name == "server-" else "none"):
            file.unlink()

    def begin(self, name: str) -> None:
        self.heads[name].bring(self.owners[name], part_bytes=4096)
        self.heads[name].settle(self.owners[name])

    def share(self, *names: str) -> None:
        for name in names:
            self.heads[name].share(self.owners[name])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Every site has charged something, and everyone knows of it; site-1 kept a backup."""
    world = World(tmp_path)
    backup = tmp_path / "backup.sqlite"
    shutil.copy(world.owners["site-1"].path, backup)
    world.owners["site-1"].charge()
    world.share(*NAMES)
    world.share(*NAMES)  # those who shared first hear of the last
    return world


def put_back(world: World) -> None:
    path = world.owners["site-1"].path
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copy(world.folder / "backup.sqlite", path)


def test_a_ledger_that_is_whole_goes_on(world: World) -> None:
    world.restart()
    for name in NAMES:
        world.begin(name)
    world.owners["site-1"].charge()  # ahead of what others know is fine
    world.begin("site-1")
    assert all(each.requests == 0 for each in world.transports.values()), (
        "nothing the server lacked"
    )


def test_a_ledger_that_was_put_back_is_noticed_by_what_the_server_kept(world: World) -> None:
    for name in NAMES:
        world.forget(f"{name}/")
    put_back(world)
    world.restart()
    with pytest.raises(LedgerLocked, match="rolled back"):
        world.begin("site-1")


def test_a_server_that_forgot_learns_it_from_any_site_again(world: World) -> None:
    world.forget("server-")
    world.forget("site-3/")
    put_back(world)
    world.restart()
    world.begin("site-1")  # nobody else was there yet
    world.begin("site-2")
    assert world.transports["site-2"].requests >= 1
    with pytest.raises(LedgerLocked, match="rolled back"):
        world.heads["site-1"].settle(world.owners["site-1"])  # asked before each charge


def test_where_everyone_forgot_it_is_not_noticed(world: World) -> None:
    """The reject arm, and what SECURITY.md says is not protected."""
    for name in ("server-", *(f"{name}/" for name in NAMES)):
        world.forget(name)
    put_back(world)
    world.restart()
    for name in NAMES:
        world.begin(name)


def test_a_site_keeps_the_others_heads_and_not_its_own(world: World) -> None:
    one, two = (world.owners[name] for name in NAMES[:2])
    assert Anchor.parse(one.anchor()).head in {
        Anchor.parse(line).head for line in two.others.held(world.members.sites["site-1"])
    }
    assert two.others.held(world.members.sites["site-2"]) == []


def test_nobody_s_head_is_taken_from_another(world: World, tmp_path: Path) -> None:
    line = world.owners["site-1"].anchor()
    with pytest.raises(Problem, match="not of the site"):
        world.kept.give("site-2", line)
    with pytest.raises(Problem, match="not of the site"):
        world.kept.bring({"site-2": [line]})
    with pytest.raises(Problem, match="not the head"):
        world.kept.give("site-1", line.replace("p", "q", 1))
    identity = world.identities["site-1"]
    odd = Anchor.sign(
        population="a\x00b", public_key=identity.public.key, sequence=1, digest="0" * 64,
        signer=identity,
    )  # fmt: skip
    with pytest.raises(Problem, match="not of the site"):
        world.kept.give("site-1", odd.line)
    world.kept.bring({"somebody": [line], "site-1": [line]})  # a site that was removed since
    assert world.kept.tell("site-1", known=False).known == {}


def test_sites_that_come_at_once_are_all_kept(world: World) -> None:
    """The first to come makes the table while the others ask for it."""
    world.forget("server-")
    world.restart()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: world.begin(NAMES[n % 3]), range(24)))
        list(pool.map(lambda n: world.share(NAMES[n % 3]), range(24)))
    for name in NAMES:
        assert world.kept.tell(name, known=False).own


def test_a_site_that_was_removed_is_told_nothing_of_and_kept(world: World) -> None:
    gone = world.members.sites.pop("site-3")
    assert "site-3" not in world.kept.tell("site-1", known=True).others
    world.begin("site-1")
    assert world.owners["site-1"].others.held(gone) != []


def test_what_was_kept_is_not_written_again_and_the_next_process_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody tells everybody's heads, many times a round."""
    owner = Owner(tmp_path, Identity.generate("site-1"))
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    kept = AnchorStore(tmp_path / "kept.sqlite")
    given = owner.identity.public
    for number in (1, 2):
        owner.charge()
        journal.record("kind", f"key {number}", b"value")
        head, line = sign_journal_head(journal, owner.identity), owner.anchor()
        assert head is not None
        kept.keep([(given, line)])
        kept.keep_journals([(given, head)])
        assert kept.journals(given) == [head], "the latest"
        with monkeypatch.context() as patch:
            patch.setattr("fmfl_secure.storage.anchor_store.make_missing", None)  # no write
            kept.keep([(given, line)])
            kept.keep([(given, owner.anchor())])  # the same head, at another second
            kept.keep_journals([(given, head)])
        again = AnchorStore(tmp_path / "kept.sqlite")
        assert again.journals(given) == [head]
        assert len(again.held(given)) == number
    with pytest.raises(RunError, match="another identity"):
        kept.keep_journals([(Identity.generate("site-1").public, head)])


def test_of_others_a_site_is_told_what_changed_and_of_itself_everything(world: World) -> None:
    """So what a round tells a site grows with who charged, and not with each time it asks."""
    heads, transport = world.heads["site-2"], world.transports["site-2"]
    heads.settle(world.owners["site-2"])
    heads.settle(world.owners["site-2"])
    assert transport.told.others == transport.told.other_journals == {}
    assert transport.told.own
    world.owners["site-3"].charge()
    world.share("site-3")
    heads.settle(world.owners["site-2"])
    assert set(transport.told.others) == {"site-3"}
    kept = world.owners["site-2"].others.held(world.members.sites["site-3"])
    latest = Anchor.parse(world.owners["site-3"].anchor()).head
    assert latest in {Anchor.parse(line).head for line in kept}


@pytest.mark.parametrize("made_up", ["x.y.0", "nothing", "..", "9"])
def test_since_what_is_not_known_here_means_everything(world: World, made_up: str) -> None:
    """Of a server that was started again, of other members, or made up."""
    heads, transport = world.heads["site-2"], world.transports["site-2"]
    heads.settle(world.owners["site-2"])
    before = heads._upto
    for since in (made_up, before.replace(".", ".0", 1), f"{before}x"):
        told = world.kept.tell("site-2", known=False, since=since)
        assert set(told.others) == {"site-1", "site-3"}
    world.restart()
    told = world.kept.tell("site-2", known=False, since=before)
    assert set(told.others) == {"site-1", "site-3"}
    nothing = transport.kept.tell("site-2", known=False, since="now")
    assert (nothing.others, nothing.other_journals, nothing.upto) == ({}, {}, "")
    assert nothing.own == told.own


def test_a_journals_head_is_news_once(world: World, tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "news.sqlite")
    journal.record("a", "b", b"c")
    line = sign_journal_head(journal, world.identities["site-1"])
    upto = world.kept.tell("site-2", known=False).upto
    for news in ({"site-1": [line]}, {}):
        world.kept.give("site-1", line)
        told = world.kept.tell("site-2", known=False, since=upto)
        assert told.other_journals == news
        upto = told.upto
