import msgspec
import pytest

from aggregation import (
    CohortError,
    Custodian,
    Identity,
    MemoryJournal,
    PlanError,
    ReleaseError,
    ReplayError,
    RoleError,
    SignatureError,
    SiteAttempt,
    StateError,
)
from aggregation.protocol import messages
from aggregation.testing import Federation

HYBRID = "x25519-mlkem768"


def federation(custodians=2, key_agreement=HYBRID):
    return Federation(
        3, suite="ckks-collective", custodians=custodians, key_agreement=key_agreement
    )


def opened(fed, attempt):
    total = fed.open(attempt).total()
    return (attempt.cohort, attempt.opening_list, total.manifest, total.chunks)


@pytest.mark.parametrize("key_agreement", ["x25519", HYBRID])
@pytest.mark.parametrize("custodians", [1, 3])
def test_with_every_custodian_the_sum_opens(custodians, key_agreement):
    fed = federation(custodians, key_agreement)
    attempt = fed.start()
    release = fed.release(attempt)
    total = sum(i.astype("int64") for i in attempt.integers.values())
    assert (attempt.sites["site-1"].verify(release) == total).all()


def test_without_one_of_them_nothing_opens():
    fed = federation()
    attempt = fed.start()
    arguments = opened(fed, attempt)
    approvals = fed.approvals(attempt)
    for some in ([], approvals[:1], approvals[1:]):
        with pytest.raises(ReleaseError, match="not every custodian"):
            fed.decryptor.release(*arguments, approvals=some)
    fed.decryptor.release(*arguments, approvals=approvals)


def test_a_decryptor_that_ignores_the_rule_still_reads_noise():
    """The rule is not only checked: without the streams the secret stays masked."""
    fed = federation(1)
    attempt = fed.start()
    arguments = opened(fed, attempt)
    held = fed.decryptor._attempts
    real = fed.decryptor._read_approvals
    fed.decryptor._read_approvals = lambda *_: []
    with pytest.raises(ReleaseError, match="does not hold"):
        fed.decryptor.release(*arguments)
    fed.decryptor._read_approvals = real
    assert not held


def test_an_approval_is_for_one_list_and_signed():
    fed = federation()
    attempt = fed.start()
    arguments = opened(fed, attempt)
    first, second = fed.approvals(attempt)
    body = messages.unseal(first, messages.Approval, fed.public["custodian-0"], 1 << 20)
    forged = messages.seal(Identity.generate("custodian-0"), body)
    with pytest.raises(SignatureError):
        fed.decryptor.release(*arguments, approvals=[forged, second])
    other = msgspec.structs.replace(body, opening_list=bytes(32))
    wrong = messages.seal(fed.identities["custodian-0"], other)
    with pytest.raises(ReleaseError, match="other uploads"):
        fed.decryptor.release(*arguments, approvals=[wrong, second])


def test_one_approval_a_round_also_after_a_restart():
    fed = federation(1)
    attempt = fed.start()
    opened(fed, attempt)
    custodian = fed.custodians["custodian-0"]
    handed = fed.handed(attempt)["custodian-0"]
    arguments = (attempt.cohort, attempt.opening_list, handed)
    assert custodian.approve(*arguments) == custodian.approve(*arguments)
    with pytest.raises(ReplayError):
        fed.new_custodian("custodian-0").ready(fed.coordinator.plan(fed.plan(attempt=2)))
    with pytest.raises(StateError):
        fed.new_custodian("custodian-0").approve(*arguments)


def test_ready_is_recorded_and_repeated():
    fed = federation(1)
    message = fed.coordinator.plan(fed.plan())
    custodian = fed.custodians["custodian-0"]
    assert custodian.ready(message) == custodian.ready(message)
    with pytest.raises(ReplayError):
        fed.new_custodian("custodian-0").ready(message)
    stranger = Custodian(
        Identity.generate("x"),
        MemoryJournal(),
        coordinator=fed.public["coordinator"],
        pinned=fed.public,
    )
    with pytest.raises(PlanError, match="does not name"):
        stranger.ready(message)
    with pytest.raises(RoleError):
        Custodian(b"key", MemoryJournal(), coordinator=fed.public["coordinator"], pinned={})


def test_a_custodian_approves_only_what_the_decryptor_confirmed():
    fed = federation(1)
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    custodian, handed = fed.custodians["custodian-0"], fed.handed(attempt)["custodian-0"]
    with pytest.raises(messages.MessageError):
        custodian.approve(attempt.cohort, aggregator.opening_list(), handed)
    confirmed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    with pytest.raises(CohortError, match="exchange message is missing"):
        custodian.approve(attempt.cohort, confirmed, handed[:2])
    custodian.approve(attempt.cohort, confirmed, handed)


def test_a_site_insists_on_its_custodians():
    fed = federation(1)
    plan = msgspec.structs.replace(fed.plan(), custodians=())
    message = messages.seal(fed.identities["coordinator"], plan)
    with pytest.raises(PlanError, match="leaves out a custodian: custodian-0"):
        SiteAttempt(
            fed.identities["site-0"],
            message,
            coordinator=fed.public["coordinator"],
            pinned=fed.public,
            journal=MemoryJournal(),
            custodians=["custodian-0"],
        )


def test_plans_with_custodians_that_do_not_hold_together():
    fed = federation(1)
    plan = fed.plan()
    for custodians in (
        (fed.public["aggregator"],),
        (fed.public["site-0"],),
        (fed.public["custodian-0"],) * 2,
        tuple(Identity.generate(f"c{i}").public for i in range(17)),
    ):
        with pytest.raises(PlanError):
            msgspec.structs.replace(plan, custodians=custodians)
    classic = Federation(3)
    with pytest.raises(PlanError, match="need the suite"):
        msgspec.structs.replace(classic.plan(), custodians=(fed.public["custodian-0"],))


def test_a_cohort_without_the_custodians_keys_is_refused():
    fed = federation(2)
    message = fed.coordinator.plan(fed.plan())
    readies = [fed.site(name, message).ready() for name in fed.names]
    announcement = fed.decryptor.announce(message)
    with pytest.raises(CohortError, match="every custodian"):
        fed.coordinator.cohort(message, announcement, readies)
