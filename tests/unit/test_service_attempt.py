"""An attempt at the server: who is given what, and that it is enough for the exact sum."""

from __future__ import annotations

import numpy as np
import pytest

from aggregation import (
    Coordinator,
    Decryptor,
    Identity,
    Member,
    MemoryJournal,
    Quantization,
    RoundPlan,
    Segment,
    choose,
)
from aggregation.crypto.graph import ALL_PAIRS_UP_TO, choices
from aggregation.crypto.pairwise import CLASSICAL
from aggregation.protocol import exchange_form, mask_graph
from fmfl_secure.parties.workspace import Members
from fmfl_secure.runtime.agents.simulated import SimulatedSite
from fmfl_secure.runtime.attempt_state import ServerAttempt

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("count", [5, 40, pytest.param(132, marks=pytest.mark.slow)])
def test_a_site_is_given_the_exchanges_it_needs_and_they_are_enough(count: int) -> None:
    names = [f"site-{n:03}" for n in range(count)]
    roles = {role: Identity.generate(role) for role in ("coordinator", "aggregator", "decryptor")}
    identities = {name: Identity.generate(name) for name in names}
    members = Members(
        **{role: identity.public for role, identity in roles.items()},
        sites={name: identity.public for name, identity in identities.items()},
    )
    plan = RoundPlan(
        federation="many",
        run="ab" * 8,
        round=1,
        attempt=1,
        suite="ckks-collective",
        parameter_set=choose(count, 8, suite="ckks-collective").id,
        quantization=Quantization(bits=8, segments=(Segment(name="a", size=300, range=1.0),)),
        members=tuple(Member(members.sites[name]) for name in names),
        aggregator=members.aggregator,
        decryptor=members.decryptor,
        coordinator=members.coordinator,
        adapter_digest=DIGEST,
        layout_digest=DIGEST,
        base_model_digest=DIGEST,
        training_digest=DIGEST,
        mask_graph=mask_graph(count),
        exchange=exchange_form(count, CLASSICAL, vanishing=False),
    )
    coordinator = Coordinator(roles["coordinator"])
    message = coordinator.plan(plan)
    server = ServerAttempt(
        message, coordinator=coordinator, aggregator=roles["aggregator"], members=members
    )
    decryptor = Decryptor(
        roles["decryptor"],
        MemoryJournal(),
        coordinator=members.coordinator,
        pinned=members.pinned,
    )
    sites = {
        name: SimulatedSite(identity, members=members, journal=MemoryJournal())
        for name, identity in identities.items()
    }
    attempts = {name: site.admit(message, b"") for name, site in sites.items()}
    for name, attempt in attempts.items():
        server.receive(name, "ready", [attempt.ready()])
    cohort = coordinator.cohort(message, decryptor.announce(message), server.readies.values())
    server.fix_cohort(cohort)
    for name, attempt in attempts.items():
        server.receive(name, "exchange", [attempt.exchange(cohort)])

    handed = server.handed()
    assert sorted(handed) == names
    if count <= ALL_PAIRS_UP_TO:
        assert {len(given) for given in handed.values()} == {count - 1}
    else:  # those who chose it, which each of the others did so many times
        assert sum(len(given) for given in handed.values()) == count * choices(count)
    for name, given in handed.items():
        upload = attempts[name].upload(cohort, sites[name].train(plan, b""), given)
        server.receive(name, "upload", [upload.manifest])
        server.receive(name, "chunks", upload.chunks)
    listed = decryptor.confirm(cohort, server.opening_list(), server.sealed_secrets())
    server.receive("decryptor", "confirmation", [listed])
    for name, attempt in attempts.items():
        server.receive(name, "opening", [attempt.open(listed)])
    total = server.total()
    release = decryptor.release(cohort, listed, total.manifest, total.chunks)
    expected = np.sum([site.updates[1].astype(np.int64) for site in sites.values()], axis=0)
    for attempt in attempts.values():
        np.testing.assert_array_equal(attempt.verify(release), expected)
