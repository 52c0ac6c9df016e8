"""A server hands each site its part of others' exchange messages: what it can make of that."""

from __future__ import annotations

import msgspec
import pytest
from exchanges import handed_anew, signed_anew, whole

from aggregation import CohortError, PlanError, RefusedError, ReleaseError
from aggregation.protocol import Vanishing, openings_for, read_exchange, verify_and_hand_out
from aggregation.protocol.exchange import Handed, Part
from aggregation.testing import Attempt, Federation

VICTIM, OTHER, SENDER = "site-0", "site-1", "site-2"


@pytest.fixture
def fed() -> Federation:
    more = {"vanishing": Vanishing(1, openings_for(4, 1)), "size": 50}
    return Federation(4, suite="ckks-collective", key_agreement="x25519-mlkem768", **more)


def uploads(fed: Federation, attempt: Attempt, name: str, given) -> None:
    attempt.sites[name].upload(attempt.cohort, fed.random_integers(), given)


def test_what_each_is_handed_is_its_own_part_and_nobody_elses(fed: Federation) -> None:
    attempt = fed.start()
    parts = [whole(message).parts for message in attempt.exchanges]
    for place, given in enumerate(fed.handed(attempt).values()):
        assert len(given) == 3
        for message in given:
            found = [
                (sender, leaf)
                for sender, said in enumerate(parts)
                for leaf, part in enumerate(said)
                if part in message
            ]
            assert found == [(found[0][0], place)]


def test_another_part_in_its_place_is_refused(fed: Federation) -> None:
    """Altered, another reader's, another sender's, of another attempt, or nothing at all."""
    attempt = fed.start()
    handed = fed.handed(attempt)
    first, second, third = handed[VICTIM]
    mine, others = (
        msgspec.msgpack.decode(each, type=Handed) for each in (second, handed[OTHER][1])
    )
    part = msgspec.msgpack.decode(mine.part, type=Part)
    emptied = msgspec.msgpack.encode(msgspec.structs.replace(part, box=b""))
    old = fed.handed(fed.start(fed.plan(round_=2)))[VICTIM][1]
    for forged in (
        handed_anew(second, part=mine.part[:-1] + bytes([mine.part[-1] ^ 1])),
        handed_anew(second, part=emptied),
        handed_anew(second, part=others.part),
        handed_anew(second, part=others.part, proof=others.proof),
        handed_anew(second, proof=mine.proof[:-1]),
        handed_anew(second, index=whole(attempt.exchanges[1]).index),
        handed[OTHER][1],
        attempt.exchanges[2],
        old,
        b"",
    ):
        with pytest.raises(RefusedError) as refused:
            uploads(fed, attempt, VICTIM, (first, forged, third))
        assert not getattr(refused.value, "accusation", b""), "no honest sender is accused of it"
    with pytest.raises(CohortError, match=f"exchange message of {SENDER} is missing"):
        uploads(fed, attempt, VICTIM, (first, third))
    with pytest.raises(CohortError, match="a second exchange message"):
        uploads(fed, attempt, VICTIM, (first, second, third, second))
    uploads(fed, attempt, VICTIM, (first, second, third))


def test_a_whole_message_whose_parts_are_not_the_signed_ones_stops_at_the_server(
    fed: Federation,
) -> None:
    """So what an honest server hands on is what was signed, and a site that signs less is named."""
    attempt = fed.start()
    said = whole(attempt.exchanges[2])
    for parts in (said.parts[:-1], said.parts[::-1], (*said.parts, said.parts[0]), ()):
        message = msgspec.msgpack.encode(msgspec.structs.replace(said, parts=parts))
        with pytest.raises(CohortError, match=f"{SENDER} has parts it did not sign"):
            read_exchange(fed.fixed(attempt), message)
    fewer = signed_anew(fed.identities[SENDER], attempt.exchanges[2], {0: {"box": b""}})
    with pytest.raises(CohortError, match=f"{SENDER} has shares where none belong, or none"):
        read_exchange(fed.fixed(attempt), fewer)


@pytest.mark.parametrize("agreement", ["x25519-mlkem768"])
def test_two_messages_of_one_site_open_nothing(agreement: str) -> None:
    """A colluding site signs one index for one reader and another for the rest: masks differ."""
    fed = Federation(4, suite="ckks-collective", key_agreement=agreement, size=50)
    attempt = fed.start()
    cohort = fed.fixed(attempt)
    victim = cohort.initiates(2)[0]
    own, bad = fed.identities[SENDER], cohort.names[victim]
    other = signed_anew(own, attempt.exchanges[2], {victim: {"ciphertext": bytes(1088)}})
    handed = fed.handed(attempt)
    twice = (*attempt.exchanges[:2], other, attempt.exchanges[3])
    handed[bad] = verify_and_hand_out(cohort, twice)[bad]
    aggregator = attempt.aggregator = fed.new_aggregator(attempt)
    for name, site in attempt.sites.items():
        upload = site.upload(attempt.cohort, fed.random_integers(), handed[name])
        aggregator.add(upload.manifest, upload.chunks)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for site in attempt.sites.values():
        aggregator.add_opening(site.open(listed))
    total = aggregator.total()
    with pytest.raises(ReleaseError):
        fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)


@pytest.mark.parametrize(
    "fed_of",
    [
        lambda: Federation(3, key_agreement="x25519-mlkem768"),
        lambda: Federation(4, vanishing=Vanishing(1, openings_for(4, 1))),
    ],
    ids=["hybrid", "vanishing"],
)
def test_a_plan_of_the_older_form_is_refused_by_name_before_anything_is_charged(fed_of) -> None:
    plan = fed_of().plan()
    with pytest.raises(PlanError, match=r"needs exchange 'by-reader'.*Update"):
        msgspec.structs.replace(plan, exchange=msgspec.UNSET)
    with pytest.raises(PlanError, match="needs exchange"):
        msgspec.structs.replace(plan, exchange="whole")


def test_where_sites_can_do_without_a_plan_names_no_form() -> None:
    plan = Federation(3).plan()
    assert plan.exchange is msgspec.UNSET
    with pytest.raises(PlanError, match="exchange has no place"):
        msgspec.structs.replace(plan, exchange="by-reader")
