"""What a hostile site, aggregator or coordinator makes of sites that may vanish.

Four sites, one of which may vanish and one of which may collude: three openings, of which two at
least are of honest sites. Each rule that this hangs on is left out once, and then the attack works.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from exchanges import index_of, signed_anew, whole
from msgspec.structs import replace
from sealed_falsely import deals, no_polynomial

from aggregation import (
    CohortError,
    Identity,
    Member,
    MemoryJournal,
    OpeningError,
    PlanError,
    RefusedError,
    ReplayError,
    SealedError,
    SiteAttempt,
    StateError,
)
from aggregation.crypto import masking, sealed_box, shamir
from aggregation.protocol import (
    Vanishing,
    messages,
    openings_for,
    read_accusation,
    read_cohort,
    read_exchange,
    read_plan,
)
from aggregation.protocol.accusation import Accusation, accuse
from aggregation.protocol.messages import SALTED_SIZE, Opening, OpeningList
from aggregation.protocol.plan import RoundPlan
from aggregation.protocol.round import FixedCohort
from aggregation.roles import one_cohort
from aggregation.roles.site_shares import SiteShares
from aggregation.testing import Attempt, Federation

ALLOWED = Vanishing(1, openings_for(4, 1))
BAD, VICTIM = "site-2", "site-1"
NAMES = tuple(f"site-{n}" for n in range(4))


def federation(**more) -> Federation:
    more = {"suite": "ckks-collective", "size": 50, "vanishing": ALLOWED, **more}
    return Federation(4, **more)


def fixed(fed: Federation, attempt: Attempt) -> FixedCohort:
    round_ = read_plan(attempt.plan_message, fed.public["coordinator"])
    return read_cohort(round_, attempt.cohort)


def expected(attempt: Attempt) -> np.ndarray:
    return np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)


@pytest.mark.parametrize("vanished", NAMES)
@pytest.mark.parametrize(
    "suite",
    [
        {"suite": "ckks-pk"},
        {"suite": "ckks-collective", "key_agreement": "x25519-mlkem768", "custodians": 1},
    ],
    ids=["ckks-pk", "collective-hybrid-custodian"],
)
def test_the_sum_has_the_update_of_whoever_vanished(vanished: str, suite: dict) -> None:
    fed = federation(**suite)
    attempt = fed.start()
    release = fed.release(attempt, [vanished])
    for name, site in attempt.sites.items():
        if name != vanished:
            assert np.array_equal(site.verify(release), expected(attempt))
    with pytest.raises(StateError):
        attempt.sites[vanished].verify(release)
    assert attempt.aggregator is not None
    assert attempt.aggregator.false_dealers == ()
    assert attempt.aggregator.unopened == (vanished,)


def test_two_that_vanish_are_too_many() -> None:
    fed = federation()
    attempt = fed.start()
    aggregator = fed.open(attempt, ["site-0", "site-3"])
    assert not aggregator.opens
    with pytest.raises(StateError, match="openings are missing: site-0, site-3"):
        aggregator.total()
    shares = aggregator._shares._opened
    with pytest.raises(RefusedError):  # and what it has gives nothing
        aggregator._shares.seed_of("site-0")
    two = {place + 1: parts[0][shamir.SALT_SIZE :] for place, parts in shares.items()}
    seed = attempt.sites["site-0"]._secrets.seed
    assert shamir.combine(two, shamir.at_zero(sorted(two))) != seed


def test_an_opening_tells_nothing_before_it_is_recorded() -> None:
    """A journal that cannot be written: no share leaves."""
    fed = federation()
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    site = attempt.sites[VICTIM]
    said = site.open(listed)
    kinds = {kind for kind, _ in fed.journals[VICTIM]._entries}  # type: ignore[attr-defined]
    assert {"site/cohort", "site/opened"} <= kinds
    assert fed.journals[VICTIM].lookup("site/opened", site._round.attempt_key(
        fed.public[VICTIM])) == said  # fmt: skip
    assert site.open(listed) == said


# Whoever deals what does not hold.


def altered_box(self: SiteShares, cohort, deal, seed):
    made, key = deal(self, cohort, seed)
    place = cohort.position(VICTIM)
    box, commitment = made[place]
    made[place] = box[:5] + bytes([box[5] ^ 1]) + box[6:], commitment
    return made, key


def another_share(self: SiteShares, cohort, deal, seed):
    (made, key), place = deal(self, cohort, seed), cohort.position(VICTIM)
    box, commitment = made[place]
    made[place] = box, bytes([commitment[0] ^ 1]) + commitment[1:]
    return made, key


def of_another_length(self: SiteShares, cohort, deal, seed):
    (made, key), place = deal(self, cohort, seed), cohort.position(VICTIM)
    bound = cohort.transcript + b"another"
    made[place] = sealed_box.seal_box(cohort.readies[place].box, bytes(97), bound), made[place][1]
    return made, key


@pytest.mark.parametrize("spoil", [altered_box, another_share, of_another_length])
@pytest.mark.parametrize("key_agreement", ["x25519", "x25519-mlkem768"])
def test_a_dealer_of_what_does_not_hold_is_named_before_anybody_opens(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable, key_agreement: str
) -> None:
    deals(monkeypatch, BAD, spoil)
    fed = federation(key_agreement=key_agreement)
    attempt = fed.start()
    cohort, said = fixed(fed, attempt), []
    for _ in range(2):
        with pytest.raises(SealedError) as refused:
            attempt.sites[VICTIM].upload(
                attempt.cohort, fed.random_integers(), fed.handed(attempt)[VICTIM]
            )
        said.append(refused.value.accusation)
    assert said[0] == said[1], "and it uploads nothing more in this attempt"
    guilty = read_accusation(cohort, said[0], first=None, exchanges=attempt.exchanges)
    assert guilty == (BAD,)


def test_the_first_site_gives_all_the_same_mac_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_key(self: SiteShares, cohort, seed):
        made, key = deal(self, cohort, seed)
        return made, key if self._name != "site-0" else bytes(31) + b"\1"

    deal = SiteShares.deal
    monkeypatch.setattr(SiteShares, "deal", other_key)
    fed = federation()
    attempt = fed.start()
    with pytest.raises(SealedError, match="MAC key from site-0") as refused:
        attempt.sites[VICTIM].upload(
            attempt.cohort, fed.random_integers(), fed.handed(attempt)[VICTIM]
        )
    guilty = read_accusation(
        fixed(fed, attempt), refused.value.accusation, first=None, exchanges=attempt.exchanges
    )
    assert guilty == ("site-0",)


def test_who_accuses_an_honest_dealer_names_itself() -> None:
    fed = federation()
    attempt = fed.start()
    cohort, own = fixed(fed, attempt), fed.identities[VICTIM]
    shares = attempt.sites[VICTIM]._secrets.shares
    assert shares is not None
    for key, why in (
        (shares.reveal(), "does not hold"),
        (sealed_box.BoxKey().reveal(), "another key than it announced"),
        (b"", "a private box key has 0 bytes"),
    ):
        with pytest.raises(RefusedError, match=why):
            read_accusation(
                cohort, accuse(own, cohort, BAD, key), first=None, exchanges=attempt.exchanges
            )


def test_the_key_that_proves_it_opens_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the accuser's shares, of seeds; masks between pairs hang on other keys."""
    deals(monkeypatch, BAD, altered_box)
    fed = federation()
    attempt = fed.start()
    with pytest.raises(SealedError) as refused:
        attempt.sites[VICTIM].upload(
            attempt.cohort, fed.random_integers(), fed.handed(attempt)[VICTIM]
        )
    body = messages.unseal(refused.value.accusation, Accusation, fed.public[VICTIM])
    cohort = fixed(fed, attempt)
    shared = attempt.sites["site-3"]._secrets.key.exchange(cohort.readies[1].key)
    revealed = sealed_box.BoxKey(body.key)
    assert revealed.public[:32] != cohort.readies[1].key
    assert sealed_box.agree(revealed._key, cohort.readies[3].key) != shared
    assert attempt.sites[VICTIM]._secrets._key is None


@pytest.mark.parametrize("vanishes", [False, True], ids=["opens", "vanishes"])
def test_shares_that_do_not_give_the_seed_name_their_dealer(
    monkeypatch: pytest.MonkeyPatch, vanishes: bool
) -> None:
    """While it opens itself it spoils nothing. Vanishing, it spoils the round, and is named."""
    deals(monkeypatch, BAD, no_polynomial)
    fed = federation()
    attempt = fed.start()
    aggregator = fed.open(attempt, [BAD] if vanishes else [])
    assert aggregator.false_dealers == (BAD,)
    if vanishes:
        with pytest.raises(OpeningError, match=f"shares that {BAD} dealt"):
            aggregator.total()
        return
    total = aggregator.total()
    release = fed.decryptor.release(
        attempt.cohort, attempt.opening_list, total.manifest, total.chunks
    )
    assert np.array_equal(attempt.sites[VICTIM].verify(release), expected(attempt))


@pytest.mark.parametrize("place", [0, 32, SALTED_SIZE * 3 - 1], ids=["salt", "share", "third"])
def test_who_hands_out_another_share_is_refused(place: int) -> None:
    fed = federation()
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    said = messages.unseal(attempt.sites[BAD].open(listed), Opening, fed.public[BAD])
    shares = bytearray(said.shares)
    shares[place] ^= 1
    dealer = f"site-{place // SALTED_SIZE}"
    false = messages.seal(fed.identities[BAD], replace(said, shares=bytes(shares)))
    with pytest.raises(OpeningError, match=f"{BAD} hands out a share that {dealer} did not sign"):
        aggregator.add_opening(false)
    for shorter in (bytes(shares[:-1]), b""):
        with pytest.raises(OpeningError, match="another number of shares"):
            aggregator.add_opening(
                messages.seal(fed.identities[BAD], replace(said, shares=shorter))
            )
    assert aggregator.unopened == NAMES


# One cohort a round.


class Hostile:
    """Coordinator, aggregator, decryptor and one site in one hand, over two cohorts of a round."""

    def __init__(self, fed: Federation) -> None:
        self.fed = fed
        self.updates = {name: fed.random_integers() for name in fed.names}
        self.attempts = 0

    def attempt(self, names: tuple[str, ...] = NAMES) -> tuple[Attempt, bytes]:
        """An attempt, uploaded; and the list of it."""
        self.attempts += 1
        fed = self.fed
        fed.decryptor = fed.new_decryptor()
        fed.decryptor._journal = type(fed.journals["decryptor"])()  # it remembers what it likes
        plan = fed.plan(attempt=self.attempts)
        message = fed.coordinator.plan(plan)
        attempt = Attempt(message, {name: fed.site(name, message) for name in names})
        attempt.announcement = fed.decryptor.announce(message)
        readies = [attempt.sites[name].ready() for name in names]
        attempt.cohort = fed.coordinator.cohort(message, attempt.announcement, readies)
        attempt.exchanges = tuple(attempt.sites[name].exchange(attempt.cohort) for name in names)
        aggregator = attempt.aggregator = fed.new_aggregator(attempt)
        for exchange in attempt.exchanges:
            aggregator.add_exchange(exchange)
        handed = fed.handed(attempt)
        for name in names:
            upload = attempt.sites[name].upload(attempt.cohort, self.updates[name], handed[name])
            aggregator.add(upload.manifest, upload.chunks)
        attempt.opening_list = fed.decryptor.confirm(
            attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        return attempt, attempt.opening_list

    def sum_of(self, attempt: Attempt, *openers: str) -> np.ndarray:
        assert attempt.aggregator is not None
        for name in openers:
            attempt.aggregator.add_opening(attempt.sites[name].open(attempt.opening_list))
        total = attempt.aggregator.total()
        release = self.fed.decryptor.release(
            attempt.cohort, attempt.opening_list, total.manifest, total.chunks
        )
        return attempt.sites[openers[0]].verify(release)


def test_a_coordinator_that_says_somebody_vanished_opens_no_second_cohort() -> None:
    hostile = Hostile(federation())
    first, _ = hostile.attempt()
    hostile.sum_of(first, "site-0", "site-2", "site-3")
    with pytest.raises(ReplayError, match="with another cohort"):
        hostile.attempt(without(VICTIM))


def test_where_sites_forget_which_cohort_they_opened_the_victim_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(one_cohort, "bind", lambda *_: None)
    hostile = Hostile(federation())
    first, _ = hostile.attempt()
    with_victim = hostile.sum_of(first, "site-0", "site-2", "site-3")
    second, _ = hostile.attempt(without(VICTIM))
    rest = hostile.sum_of(second, "site-0", "site-2", "site-3")
    assert np.array_equal(with_victim - rest, hostile.updates[VICTIM])


def without(name: str) -> tuple[str, ...]:
    return tuple(each for each in NAMES if each != name)


def test_a_journal_that_was_put_back_counts_as_one_that_colludes() -> None:
    """With one that does collude that is one too many: two cohorts open, with another in each."""
    for is_put_back in (False, True):
        hostile = Hostile(federation())
        before = copy.copy(hostile.fed.journals[VICTIM]._entries)  # type: ignore[attr-defined]
        first, _ = hostile.attempt(("site-0", VICTIM, "site-2"))
        one = hostile.sum_of(first, VICTIM, "site-2", "site-0")
        hostile.fed.journals["site-0"] = MemoryJournal()  # which colludes
        if not is_put_back:
            with pytest.raises(ReplayError, match="with another cohort"):
                hostile.attempt(("site-0", VICTIM, "site-3"))
            continue
        hostile.fed.journals[VICTIM]._entries = before  # type: ignore[attr-defined]
        second, _ = hostile.attempt(("site-0", VICTIM, "site-3"))
        other = hostile.sum_of(second, VICTIM, "site-3", "site-0")
        updates = {name: update.astype(np.int64) for name, update in hostile.updates.items()}
        assert np.array_equal(one - other, updates["site-2"] - updates["site-3"])


def test_the_same_again_gives_the_same_sum() -> None:
    """An attempt that too few opened is made again: what others add is all that can change."""
    hostile = Hostile(federation())
    first, _ = hostile.attempt()
    first.sites["site-2"].open(first.opening_list)
    second, _ = hostile.attempt()
    total = hostile.sum_of(second, "site-2", "site-3", "site-1")
    assert np.array_equal(total, np.sum(list(hostile.updates.values()), axis=0, dtype=np.int64))


def test_with_other_integers_it_is_not_the_same() -> None:
    hostile = Hostile(federation())
    first, _ = hostile.attempt()
    first.sites["site-2"].open(first.opening_list)
    hostile.updates["site-2"] = hostile.fed.random_integers()
    with pytest.raises(ReplayError, match="with another update"):
        hostile.attempt()


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: replace(plan, min_cohort=4),
        lambda plan: replace(plan, adapter_digest="sha256:" + "1" * 64),
        lambda plan: replace(plan, members=plan.members[::-1]),
        lambda plan: replace(
            plan, members=(*plan.members[:-1], replace(plan.members[-1], weight=0.5))
        ),
        lambda plan: replace(plan, vanishing=Vanishing(2, 3)),
        lambda plan: replace(plan, vanishing=Vanishing(1, 4)),
        lambda plan: replace(plan, vanishing=msgspec.UNSET, exchange=msgspec.UNSET),
    ],
    ids=["least", "adapter", "order", "weight", "more-vanish", "more-open", "none-may"],
)
def test_under_another_plan_it_is_not_the_same(
    change: Callable[[RoundPlan], RoundPlan],
) -> None:
    hostile = Hostile(federation())
    first, _ = hostile.attempt()
    first.sites[VICTIM].open(first.opening_list)
    other = change(hostile.fed.plan(attempt=2))
    with pytest.raises(ReplayError, match="under another plan"):
        hostile.fed.site(VICTIM, hostile.fed.coordinator.plan(other))


def test_lists_that_differ_open_one_sum_at_most() -> None:
    """An aggregator shows two lists: what opens is the uploads that there are, of one cohort."""
    hostile = Hostile(federation())
    attempt, listed = hostile.attempt()
    fed = hostile.fed
    assert attempt.aggregator is not None
    body = messages.unseal(
        attempt.aggregator.opening_list(), OpeningList, fed.public["aggregator"], 10**6
    )
    shown = (body.manifests[0], messages.digest(b"another"), *body.manifests[2:])
    false = messages.seal(fed.identities["aggregator"], replace(body, manifests=shown))
    false = messages.seal(fed.identities["decryptor"], messages.Confirmation(false))
    with pytest.raises(OpeningError, match="does not show this site's upload"):
        attempt.sites[VICTIM].open(false)
    other = attempt.sites["site-3"].open(false)
    with pytest.raises(OpeningError, match="for another list"):
        attempt.aggregator.add_opening(other)
    attempt.aggregator._list, kept = None, attempt.aggregator._list
    attempt.aggregator._list = messages.unseal(
        false, messages.Confirmation, fed.public["decryptor"], 10**6
    ).opening_list
    attempt.aggregator.add_opening(other)
    attempt.aggregator._list = kept
    total = hostile.sum_of(attempt, VICTIM, "site-2")
    assert np.array_equal(total, np.sum(list(hostile.updates.values()), axis=0, dtype=np.int64))
    with pytest.raises(StateError):
        attempt.sites["site-3"].open(listed)
    with pytest.raises(ReplayError):
        hostile.attempt(without(VICTIM))


# Who admits what.


def site(fed: Federation, plan: RoundPlan, pinned=None, openings: int = 0) -> SiteAttempt:
    return SiteAttempt(
        fed.identities[VICTIM],
        fed.coordinator.plan(plan),
        coordinator=fed.public["coordinator"],
        pinned=fed.public if pinned is None else pinned,
        journal=fed.journals[VICTIM],
        openings=openings,
    )


def test_fewer_openings_than_a_site_asks_for_are_refused() -> None:
    """With one more that colludes than was taken, two cohorts would open: see `tests/model`."""
    fed = federation()
    site(fed, fed.plan(), openings=3)
    with pytest.raises(PlanError, match="opens by 3 sites, fewer than this site's 4"):
        site(fed, fed.plan(), openings=openings_for(4, 2))


def test_no_openings_that_are_no_majority() -> None:
    fed = federation()
    for allowed in (Vanishing(1, 2), Vanishing(1, 5)):
        with pytest.raises(PlanError, match="no majority"):
            replace(fed.plan(), vanishing=allowed)


def test_a_cohort_below_the_openings_is_refused() -> None:
    fed = federation(vanishing=Vanishing(1, 4))
    plan = fed.coordinator.plan(fed.plan())
    attempt = fed.site(VICTIM, plan)
    readies = [attempt.ready(), *(fed.site(name, plan).ready() for name in ("site-2", "site-3"))]
    announcement = fed.decryptor.announce(plan)
    with pytest.raises(CohortError, match="fewer sites than the 4 to open"):
        fed.coordinator.cohort(plan, announcement, sorted(readies, key=str))


def test_a_site_that_nobody_pinned_does_not_open_for_others() -> None:
    """Nobody knows whose it is; where all must open, it merely does not count."""
    stranger = Identity.generate("stranger").public
    fed = federation()
    plan = fed.plan()
    more = replace(plan, members=(*plan.members, Member(stranger)))
    with pytest.raises(PlanError, match="stranger is pinned nowhere"):
        site(fed, more)
    without = {"vanishing": msgspec.UNSET, "exchange": msgspec.UNSET}
    site(fed, replace(more, **without))


def test_tags_of_an_upload_are_under_the_self_mask() -> None:
    """Who knows the MAC key, and all masks between pairs cancelled, still reads no tag."""
    hostile = Hostile(federation())
    attempt, _ = hostile.attempt()
    cohort, aggregator = fixed(hostile.fed, attempt), attempt.aggregator
    assert aggregator is not None
    keyed = attempt.sites["site-3"]._mac
    assert keyed is not None
    packed = [attempt.sites[name]._packed for name in NAMES]
    truth = keyed.keyed.tag(np.sum(packed, axis=0))
    prime = (1 << 61) - 1

    def summed(seeds: dict[str, bytes]) -> tuple[int, ...]:
        total = [0, 0]
        for name in NAMES:
            masks = [0, 0]
            if name in seeds:
                stream = masking.self_tags_stream(seeds[name], cohort.transcript, name, prime, 2)
                masks = [int(mask) for mask in stream.chunk(0)]
            for i, tag in enumerate(aggregator._arrivals[name].tags):
                total[i] += tag - masks[i]
        return tuple((t - p) % prime for t, p in zip(total, keyed.keyed.pad(), strict=True))

    seeds = {name: attempt.sites[name]._secrets.seed for name in NAMES}
    assert summed(seeds) == truth
    assert summed({}) != truth
    assert summed({name: seeds[name] for name in without(VICTIM)}) != truth


@pytest.mark.parametrize("kind", ["exchange", "upload", "opening", "ready"])
def test_what_belongs_to_vanishing_sites_is_refused_where_none_may(kind: str) -> None:
    """And the other way round: a plan says which form its messages have."""
    with_, none = federation(), federation(vanishing=None)
    made = {}
    for fed in (with_, none):
        attempt = fed.start()
        if fed is none:
            attempt.exchanges = tuple(s.exchange(attempt.cohort) for s in attempt.sites.values())
        made[fed] = attempt, fixed(fed, attempt)
    for fed, other in ((with_, none), (none, with_)):
        attempt, cohort = made[fed]
        foreign, _ = made[other]
        own = fed.identities[VICTIM]
        if kind == "exchange":
            said = signed_anew(other.identities[VICTIM], foreign.exchanges[1])
            index = replace(index_of(said, other.identities[VICTIM]), transcript=cohort.transcript)
            message = msgspec.msgpack.encode(replace(whole(said), index=messages.seal(own, index)))
            with pytest.raises(CohortError, match="shares where none belong"):
                read_exchange(cohort, message)
        elif kind == "ready":
            body = messages.unseal(
                foreign.sites[VICTIM].ready(), messages.Ready, other.public[VICTIM]
            )
            message = messages.seal(own, replace(body, plan=cohort.round.digest))
            with pytest.raises(CohortError, match="other kinds of keys"):
                fed.coordinator.check_ready(attempt.plan_message, message)
        elif kind == "upload":
            upload = foreign.sites[VICTIM].upload(
                foreign.cohort, other.random_integers(), other.handed(foreign)[VICTIM]
            )
            body = messages.unseal(upload.manifest, messages.UploadManifest, other.public[VICTIM])
            message = messages.seal(own, replace(body, transcript=cohort.transcript))
            with pytest.raises(RefusedError, match=r"MAC keys|tags"):
                fed.new_aggregator(attempt).add(message, upload.chunks)
        else:
            opened = made[fed][0].aggregator or fed.upload(attempt)
            attempt.aggregator = opened
            body = Opening(
                cohort.transcript, messages.digest(opened.opening_list()),
                attempt.sites[VICTIM]._secrets.seed,
                **({"tags": bytes(16)} if fed is with_ else {"shares": bytes(4 * SALTED_SIZE)}),
            )  # fmt: skip
            with pytest.raises(OpeningError, match="another form"):
                opened.add_opening(messages.seal(own, body))


# What is kept for a restart.


def restarted(fed: Federation, attempt: Attempt, plan: bytes = b"") -> SiteAttempt:
    """The victim's attempt, in a process that remembers nothing."""
    return SiteAttempt(
        fed.identities[VICTIM],
        plan or attempt.plan_message,
        coordinator=fed.public["coordinator"],
        pinned=fed.public,
        journal=fed.journals[VICTIM],
        goes_on=True,
    )


def test_what_is_kept_opens_and_does_nothing_else() -> None:
    """It has no MAC key, no key to a mask between two sites, and no second upload."""
    hostile = Hostile(federation())
    attempt, listed = hostile.attempt()
    before = attempt.sites[VICTIM]
    kept, update = before.keep(), hostile.updates[VICTIM]
    assert before._secrets.shares is not None
    secrets = [pair.secret for pair in before._secrets._pairs] + [before._secrets.shares.mac_key]
    assert secrets
    assert not any(secret in kept for secret in secrets)
    after = restarted(hostile.fed, attempt)
    after.recall(kept, update)
    with pytest.raises(ReplayError):
        after.ready()
    with pytest.raises(StateError):
        after.upload(attempt.cohort, update, hostile.fed.handed(attempt)[VICTIM])
    attempt.sites[VICTIM] = after
    assert attempt.aggregator is not None
    total = hostile.sum_of(attempt, "site-0", VICTIM, "site-3")
    assert np.array_equal(total, np.sum(list(hostile.updates.values()), axis=0, dtype=np.int64))
    with pytest.raises(StateError):
        after.verify(b"")
    assert after.open(listed) == after.open(listed)
    with pytest.raises(StateError, match="nothing to keep"):
        after.keep()


def test_it_is_of_one_attempt_and_held_to_one_cohort() -> None:
    hostile = Hostile(federation())
    first, _ = hostile.attempt()
    kept = first.sites[VICTIM].keep()
    second, listed = hostile.attempt()
    later = second.sites[VICTIM].keep()
    with pytest.raises(StateError, match="of another attempt"):
        restarted(hostile.fed, second).recall(kept, hostile.updates[VICTIM])
    with pytest.raises(StateError, match="cannot be read"):
        restarted(hostile.fed, second).recall(later[:-1], hostile.updates[VICTIM])
    second.sites[VICTIM].open(listed)
    with pytest.raises(ReplayError, match="another update"):
        restarted(hostile.fed, second).recall(later, hostile.fed.random_integers())
    with pytest.raises(StateError, match="did not join"):
        restarted(hostile.fed, second, hostile.fed.coordinator.plan(hostile.fed.plan(attempt=9)))
    none = federation(vanishing=None)
    plain = none.start()
    assert plain.sites[VICTIM].keep() == b""
    with pytest.raises(StateError, match="only an attempt in which sites may vanish"):
        restarted(none, plain).recall(kept, hostile.updates[VICTIM])
