import msgspec
import pytest

from aggregation import Identity, MembershipList, MessageError, PlanError, SiteAttempt
from aggregation.protocol import membership
from aggregation.testing import Federation


@pytest.fixture
def fed():
    return Federation(4)


def sites(fed):
    return tuple(fed.public[name] for name in fed.names)


def sign(fed, **fields):
    body = {"federation": "test", "number": 1, "previous": "", "members": sites(fed), **fields}
    return membership.sign_membership(fed.identities["coordinator"], MembershipList(**body))


def join(fed, held, plan):
    return SiteAttempt(
        fed.identities["site-0"],
        fed.coordinator.plan(plan),
        coordinator=fed.public["coordinator"],
        pinned=fed.public,
        journal=fed.journals["site-0"],
        membership=held,
    )


def replace(plan, **changes):
    return msgspec.structs.replace(plan, **changes)


def test_a_plan_under_the_list_that_is_held_is_joined(fed):
    held = sign(fed)
    plan = replace(fed.plan(), membership_digest=membership.membership_name(held))
    assert join(fed, held, plan).plan == plan


def test_a_plan_under_another_list_or_with_a_stranger_is_refused(fed):
    held = sign(fed, members=sites(fed)[:3])
    with pytest.raises(PlanError, match="another membership list"):
        join(fed, held, fed.plan())
    with pytest.raises(PlanError, match="no member: site-3"):
        join(fed, held, replace(fed.plan(), membership_digest=membership.membership_name(held)))


def test_a_revoked_key_takes_no_role(fed):
    held = sign(fed, revoked=(fed.public["aggregator"].fingerprint,))
    with pytest.raises(PlanError, match="revoked"):
        join(fed, held, replace(fed.plan(), membership_digest=membership.membership_name(held)))
    with pytest.raises(PlanError, match="revoked key is on the list"):
        sign(fed, revoked=(fed.public["site-1"].fingerprint,))


def test_lists_follow_one_another_and_forget_no_revocation(fed):
    gone = fed.public["site-3"]
    first = sign(fed)
    second = sign(
        fed,
        number=2,
        previous=membership.membership_name(first),
        members=sites(fed)[:3],
        revoked=(gone.fingerprint,),
    )
    coordinator = fed.public["coordinator"]
    assert membership.follow_membership(first, second, coordinator).revoked == (gone.fingerprint,)
    named = membership.membership_name(second)
    forgets = sign(fed, number=3, previous=named, members=sites(fed)[:3])
    with pytest.raises(PlanError, match="forgets a revocation"):
        membership.follow_membership(second, forgets, coordinator)
    with pytest.raises(PlanError, match="not the next"):
        membership.follow_membership(first, forgets, coordinator)
    other = sign(
        fed, number=3, previous=named, federation="x", revoked=(gone.fingerprint,), members=()
    )
    with pytest.raises(PlanError, match="another federation"):
        membership.follow_membership(second, other, coordinator)


def test_a_list_that_does_not_hold_together(fed):
    with pytest.raises(PlanError, match="none before"):
        sign(fed, number=2)
    with pytest.raises(PlanError, match="one name or one key"):
        sign(fed, members=sites(fed)[:1] * 2)
    with pytest.raises(MessageError):
        sign(fed, number=0)
    assert Identity.generate("x").public not in sites(fed)
