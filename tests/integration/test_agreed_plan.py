"""A coordinator that lies about a field of its plan, whichever: no party takes part in that round.

The lies are signed with the coordinator's own key, and told to the real `Site`, decryptor and
custodian of a federation.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from support import make_federation

from aggregation import AggregationError, Identity, Member, PublicIdentity, RoundPlan
from aggregation.errors import PlanError
from aggregation.protocol import OF_NOTHING, REHEARSED, NormGroup, Vanishing, rehearsal_grid
from aggregation.protocol.messages import seal
from fmfl_secure.errors import FmflError
from fmfl_secure.parties.agreed_plan import (
    EVERYBODY,
    HARMLESS,
    SITES,
    Agreed,
    AgreedAtSite,
    difference,
)
from fmfl_secure.parties.coordinator import Coordinator, start_run
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import Members, Workspace, initialise
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot
from fmfl_secure.vectors.start import RunStart
from fmfl_secure.vectors.start_file import write_start
from privacy import Ledger

NAMES = tuple(f"site-{n}" for n in range(1, 6))
OTHER = "sha256:" + "0" * 64
STRANGER = Identity.generate("stranger").public


class World:
    """A federation of five sites, four at least in a cohort, and the honest plan of a round."""

    def __init__(self, folder: Path, model: Path) -> None:
        federation = make_federation(
            folder, model, sites=5, rounds=2, federation="min_sites = 4", evaluation=False
        )
        federation.write_text(federation.read_text() + '\n[aggregation]\ncustodians = ["board"]\n')
        initialise(folder, epsilon=None, delta=None, simulated=True)
        for name in NAMES:  # whose own rule would let three do
            file = folder / f"sites/{name}/site.toml"
            text = file.read_text()
            assert "min_sites = 4" in text
            file.write_text(text.replace("min_sites = 4", "min_sites = 3"))
        self.workspace = Workspace(folder)
        self.config = load_federation(federation)
        self.members = Members.load(folder / "members.json")
        self.task = build_task(self.config, relative_to=folder)
        self.model = self.task.build_model(seed=self.config.federation.seed)
        self.start = start = start_of(self.config, self.task, self.model)
        self.identity = Identity.load(folder / "coordinator/identity.pem", "coordinator")
        coordinator = Coordinator(
            self.identity,
            members=self.members,
            config=self.config,
            start=start,
            store=start_run(
                folder / "run",
                config=self.config,
                members=self.members,
                start=start,
                origin=folder,
            ),
        )
        self.run = coordinator.run
        self.adapter = coordinator.adapter
        self.honest, _ = coordinator.plan_attempt(1, NAMES)
        self.site = Site(
            self.workspace.site("site-1"),
            run=self.run,
            entry=self.config.sites[0],
            config=self.config,
            task=self.task,
            model=self.model,
        )
        self.site.begin(coordinator.call())

    def agreed(self) -> tuple[Agreed, AgreedAtSite]:
        """As a site would, of the honest plan."""
        honest = self.honest
        common = Agreed(config=self.config, members=self.members, min_cohort=4)
        own = {name: getattr(honest, name, None) for name in AgreedAtSite.__slots__}
        return common, AgreedAtSite(**own | {"base_model_digests": (honest.base_model_digest,)})

    def site_admits(self, plan: RoundPlan) -> None:
        self.site.admit(seal(self.identity, plan), self.adapter)

    def decryptor_announces(self, plan: RoundPlan) -> None:
        open_decryptor(
            self.workspace.role("decryptor"), config=self.config, members=self.members
        ).announce(seal(self.identity, plan))

    def custodian_readies(self, plan: RoundPlan) -> None:
        folder = self.workspace.custodian("board")
        Custodian(folder, "board", self.config).ready(seal(self.identity, plan))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> World:
    return World(tmp_path_factory.mktemp("world"), tiny_model)


# Every field, and the structs in it.


def structs_in(annotation: Any) -> list[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [found for argument in get_args(annotation) for found in structs_in(argument)]


def leaves(kind: type[msgspec.Struct], before: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        nested = structs_in(field.type)
        for each in nested:
            yield from leaves(each, f"{before}{field.name}.")
        if not nested:
            yield before + field.name


FIELDS = tuple(leaves(RoundPlan))
TERMS = (*EVERYBODY, *SITES)


def covers(field: str, leaf: str) -> bool:
    return leaf == field or leaf.startswith(field + ".")


def renamed(party: PublicIdentity) -> PublicIdentity:
    return replace(party, name="stranger")


def rekeyed(party: PublicIdentity) -> PublicIdentity:
    return replace(party, key=STRANGER.key)


def last_site(plan: RoundPlan, identity: Callable[[PublicIdentity], PublicIdentity]) -> RoundPlan:
    """Another in the place of the last site; enough of the others are pinned."""
    *others, last = plan.members
    return replace(plan, members=(*others, Member(identity(last.identity), last.weight)))


def segment(plan: RoundPlan, **changes: object) -> RoundPlan:
    grid = plan.quantization
    first, *rest = grid.segments
    return replace(plan, quantization=replace(grid, segments=(replace(first, **changes), *rest)))


def other_suite(plan: RoundPlan) -> RoundPlan:
    return replace(plan, suite="ckks-pk", parameter_set="ckks-pk-4096-60-20", custodians=())


def a_rehearsal(plan: RoundPlan) -> RoundPlan:
    """In a federation whose settings want none."""
    return replace(
        plan,
        rehearsal=REHEARSED,
        adapter_digest=OF_NOTHING,
        layout_digest=OF_NOTHING,
        base_model_digest=OF_NOTHING,
        quantization=rehearsal_grid(plan.quantization.bits, plan.quantization.size),
        norms=msgspec.UNSET,
        custodians=(),
    )


# A plan that breaks its own form cannot even be signed, so some lies take more than one field.
LIES: dict[str, Callable[[RoundPlan], RoundPlan]] = {
    "federation": lambda p: replace(p, federation="another"),
    "run": lambda p: replace(p, run="ab" * 8),
    "round": lambda p: replace(p, round=3),  # of two
    "suite": other_suite,
    "parameter_set": other_suite,
    "quantization.bits": lambda p: replace(
        p, quantization=replace(p.quantization, bits=p.quantization.bits - 1)
    ),
    "quantization.segments.name": lambda p: segment(p, name="another"),
    "quantization.segments.size": lambda p: segment(p, size=1),
    "quantization.segments.range": lambda p: segment(p, range=1e-3),
    "members.identity.name": lambda p: last_site(p, renamed),
    "members.identity.key": lambda p: last_site(p, rekeyed),
    "members.weight": lambda p: replace(
        p, members=(replace(p.members[0], weight=0.9), *p.members[1:])
    ),
    "aggregator.name": lambda p: replace(p, aggregator=renamed(p.aggregator)),
    "aggregator.key": lambda p: replace(p, aggregator=rekeyed(p.aggregator)),
    "decryptor.name": lambda p: replace(p, decryptor=renamed(p.decryptor)),
    "decryptor.key": lambda p: replace(p, decryptor=rekeyed(p.decryptor)),
    "coordinator.name": lambda p: replace(p, coordinator=renamed(p.coordinator)),
    "coordinator.key": lambda p: replace(p, coordinator=rekeyed(p.coordinator)),
    "adapter_digest": lambda p: replace(p, adapter_digest=OTHER),
    "layout_digest": lambda p: replace(p, layout_digest=OTHER),
    "base_model_digest": lambda p: replace(p, base_model_digest=OTHER),
    "training_digest": lambda p: replace(p, training_digest=OTHER),
    "min_cohort": lambda p: replace(p, min_cohort=3),
    "key_agreement": lambda p: replace(p, key_agreement="x25519", exchange=msgspec.UNSET),
    "custodians.name": lambda p: replace(p, custodians=(renamed(p.custodians[0]),)),
    "custodians.key": lambda p: replace(p, custodians=(rekeyed(p.custodians[0]),)),
    "membership_digest": lambda p: replace(p, membership_digest=OTHER),
    "vanishing.sites": lambda p: replace(p, vanishing=Vanishing(1, 4)),
    "vanishing.openings": lambda p: replace(p, vanishing=Vanishing(1, 3)),
    "rehearsal": a_rehearsal,
    "norms.size": lambda p: replace(p, norms=(NormGroup(p.quantization.size, 1000),)),
    "norms.norm": lambda p: replace(p, norms=(NormGroup(p.quantization.size, 10**9),)),
}

# Of the same kinds, and nothing in them is unknown to the parties: whom they pinned for something
# else, and lists that are longer or shorter than agreed.
SUBTLE: dict[str, tuple[str, Callable[[RoundPlan], RoundPlan]]] = {
    "a site aggregates": (
        "aggregator",
        lambda p: replace(p, aggregator=p.members[4].identity, members=p.members[:4]),
    ),
    "the aggregator decrypts": (
        "aggregator",
        lambda p: replace(p, aggregator=p.decryptor, decryptor=p.aggregator),
    ),
    "the board decrypts": (
        "decryptor",
        lambda p: replace(p, decryptor=p.custodians[0], custodians=()),
    ),
    "no custodian": ("list of custodians", lambda p: replace(p, custodians=())),
    "a custodian more": (
        "list of custodians",
        lambda p: replace(
            p, custodians=(*p.custodians, p.members[4].identity), members=p.members[:4]
        ),
    ),
    "the board takes part": (
        "sites",
        lambda p: replace(p, members=(*p.members, Member(p.custodians[0])), custodians=()),
    ),
    "a sybil more": ("sites", lambda p: replace(p, members=(*p.members, Member(STRANGER)))),
}


def test_every_field_is_compared_or_said_to_be_harmless() -> None:
    listed = {*(term.field for term in TERMS), *HARMLESS}
    for leaf in FIELDS:
        assert any(covers(field, leaf) for field in listed), f"no party looks at {leaf}"
        assert (leaf in LIES) != (leaf in HARMLESS), f"nobody lies about {leaf}"
    for field in listed:
        assert any(covers(field, leaf) for leaf in FIELDS), f"{field} is no field of a plan"
    assert all(len(reason) > 40 for reason in HARMLESS.values())


def test_a_field_that_is_new_would_be_missed() -> None:
    class Wider(RoundPlan, frozen=True):
        colour: str = ""

    (new,) = set(leaves(Wider)) - set(FIELDS)
    assert new == "colour"
    assert not any(covers(term.field, new) for term in TERMS)


@pytest.mark.parametrize("leaf", LIES)
def test_the_table_sees_a_lie_in_each_field(world: World, leaf: str) -> None:
    lied = LIES[leaf](world.honest)
    common, own = world.agreed()
    agreed = {id(term): common for term in EVERYBODY} | {id(term): own for term in SITES}
    terms = [term for term in TERMS if covers(term.field, leaf)]
    assert all(term.holds(world.honest, agreed[id(term)]) for term in TERMS)
    assert terms
    assert not all(term.holds(lied, agreed[id(term)]) for term in terms)


@pytest.mark.parametrize("leaf", LIES)
def test_a_site_refuses_a_plan_with_any_field_changed(world: World, leaf: str) -> None:
    ledger = Ledger(world.workspace.site("site-1") / "ledger.sqlite")
    before = ledger.head()
    with pytest.raises((FmflError, AggregationError)):
        world.site_admits(LIES[leaf](world.honest))
    assert ledger.head() == before
    world.site_admits(world.honest)


KNOWN_TO_ALL = [leaf for leaf in LIES if any(covers(term.field, leaf) for term in EVERYBODY)]


@pytest.mark.parametrize("leaf", KNOWN_TO_ALL)
def test_so_do_decryptor_and_custodian_as_far_as_they_can_know(world: World, leaf: str) -> None:
    lied = LIES[leaf](world.honest)
    with pytest.raises(AggregationError):
        world.decryptor_announces(lied)
    with pytest.raises((FmflError, AggregationError)):
        world.custodian_readies(lied)


@pytest.mark.parametrize("lie", SUBTLE)
def test_parties_that_are_pinned_for_something_else_are_refused(world: World, lie: str) -> None:
    what, change = SUBTLE[lie]
    lied = change(world.honest)
    with pytest.raises((FmflError, PlanError), match=f"plan's {what}|leaves out a custodian"):
        world.site_admits(lied)
    if lied.decryptor == world.members.decryptor:
        with pytest.raises(PlanError, match=f"plan's {re.escape(what)} is not the one agreed"):
            world.decryptor_announces(lied)


def test_what_is_left_to_the_coordinator_is_taken_by_all(world: World) -> None:
    """The attempt's number, who is left out, the order, and a larger smallest cohort."""
    four = tuple(reversed(world.honest.members[:4]))
    fewer = replace(world.honest, attempt=8, members=four)
    larger = replace(world.honest, attempt=9, min_cohort=5)
    for plan in (fewer, larger):
        world.site_admits(plan)
        world.decryptor_announces(plan)
        world.custodian_readies(plan)


@pytest.mark.parametrize(
    ("allowed", "what"),
    [
        (Vanishing(1, 4), None),
        (Vanishing(1, 5), None),  # more openings protect more
        (Vanishing(2, 4), "number of sites that may vanish"),
        (Vanishing(1, 3), "number of openings that a sum takes"),
        (msgspec.UNSET, "number of sites that may vanish"),
    ],
    ids=["agreed", "more openings", "more sites", "fewer openings", "none may"],
)
def test_where_sites_may_vanish_as_many_may_as_agreed(world: World, allowed, what) -> None:
    common, own = world.agreed()
    settings = replace(world.config, federation=replace(world.config.federation, vanished_sites=1))
    agreed = dataclasses.replace(common, config=settings)
    own = dataclasses.replace(own, training_digest=settings.digest)
    plan = replace(world.honest, vanishing=allowed, training_digest=settings.digest)
    assert difference(plan, agreed, own) == what


# A start file that lies: a server believes it, having no model; the sites do not.


def slots(start: RunStart, change: Callable[[TensorSlot], TensorSlot]) -> RunStart:
    (layout,) = start.layouts
    first, *rest = layout.slots
    return dataclasses.replace(start, layouts=(FlatLayout((change(first), *rest)),))


def other_values(start: RunStart) -> RunStart:
    adapter = Adapter.read(start.adapter)
    tensors = {n: t + np.float32(0.5) for n, t in adapter.tensors.items()}
    return dataclasses.replace(start, adapter=Adapter(tensors, {}).encode())


def coarser(start: RunStart) -> RunStart:
    (grid,) = start.grids
    first, *rest = grid.segments
    return dataclasses.replace(
        start, grids=(replace(grid, segments=(replace(first, range=first.range * 2), *rest)),)
    )


LYING_STARTS: dict[str, tuple[str, Callable[[RunStart], RunStart]]] = {
    "base_model_digest": ("base model", lambda s: dataclasses.replace(s, base_model_digest=OTHER)),
    "layouts": (
        "adapter layout",
        lambda s: slots(s, lambda slot: TensorSlot(slot.name, (slot.size,))),
    ),
    "grids": ("quantisation", coarser),
    "adapter": ("adapter", other_values),
}
NOT_OF_A_PLAN = {
    "settings_digest": "a server compares it with its settings' before it starts: see "
    "test_start_file.py; plans carry that of the settings themselves",
    "base_model": "a name to read; what it names is told by the digest",
    "base_model_license": "a word for people, in the adapter's card",
    "files": "what a server writes into its own folder when the run is over: names are checked "
    "when it is read, and whoever opens an adapter compares the base model's digest",
}


# Of a run that asks: `test_answers.py::test_sites_refuse_a_server_that_lies_about_an_answer`.
OF_ANSWERS = {"answer_layout", "answer_grid"}


def test_every_field_of_a_start_is_lied_about_or_of_no_plan() -> None:
    fields = {field.name for field in dataclasses.fields(RunStart)}
    assert fields == {*LYING_STARTS, *NOT_OF_A_PLAN, *OF_ANSWERS}
    assert not {*LYING_STARTS} & {*NOT_OF_A_PLAN}


@pytest.mark.parametrize("field", LYING_STARTS)
def test_a_site_refuses_the_plan_of_a_server_whose_start_file_lies(
    world: World, tmp_path: Path, field: str
) -> None:
    what, lie = LYING_STARTS[field]
    start = lie(world.start)
    path = tmp_path / "start.safetensors"
    write_start(start, path)
    coordinator = Coordinator(
        world.identity,
        members=world.members,
        config=world.config,
        start=start,
        store=start_run(
            tmp_path / "run",
            config=world.config,
            members=world.members,
            start=start,
            origin=tmp_path,
        ),
    )
    coordinator.run = world.run  # so that nothing but the lie is in the way
    plan, message = coordinator.plan_attempt(1, NAMES)
    assert plan != world.honest
    ledger = Ledger(world.workspace.site("site-1") / "ledger.sqlite")
    before = ledger.head()
    with pytest.raises((FmflError, AggregationError), match=what):
        world.site.admit(message, coordinator.adapter)
    assert ledger.head() == before
    world.site_admits(world.honest)
