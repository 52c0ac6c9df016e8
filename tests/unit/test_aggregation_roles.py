"""Each role's refusals: what it is handed, which error it raises, and that its state survives."""

import msgspec
import numpy as np
import pytest

from aggregation import (
    AggregationError,
    Aggregator,
    CohortError,
    Coordinator,
    Decryptor,
    Identity,
    InputError,
    JournalError,
    Member,
    MemoryJournal,
    MessageError,
    OpeningError,
    PlanError,
    ReleaseError,
    ReplayError,
    RoleError,
    SignatureError,
    SiteAttempt,
    SqliteJournal,
    StateError,
    UploadError,
    parameter_set,
)
from aggregation.ckks import suites
from aggregation.protocol import messages
from aggregation.protocol.messages import (
    Announcement,
    Cohort,
    Opening,
    OpeningList,
    Ready,
    Release,
    SumManifest,
    UploadManifest,
)
from aggregation.testing import Federation


@pytest.fixture
def fed():
    return Federation(3)


def replace(plan, **changes):
    return msgspec.structs.replace(plan, **changes)


# Construction: the type says whose secret it is.


def test_roles_take_an_identity_and_no_other_secret(fed):
    attempt = fed.start()
    key = suites.new_key(parameter_set(fed.plan().parameter_set))
    for wrong in (key, b"secret", None, fed.public["aggregator"]):
        with pytest.raises(RoleError):
            Aggregator(
                wrong, attempt.plan_message, attempt.cohort, coordinator=fed.public["coordinator"]
            )
        with pytest.raises(RoleError):
            Coordinator(wrong)
        with pytest.raises(RoleError):
            Decryptor(wrong, MemoryJournal(), coordinator=fed.public["coordinator"], pinned={})
        with pytest.raises(RoleError):
            SiteAttempt(
                wrong,
                attempt.plan_message,
                coordinator=fed.public["coordinator"],
                pinned=fed.public,
                journal=MemoryJournal(),
            )


def test_an_aggregator_reaches_nothing_secret(fed):
    """Walk everything an aggregator holds: no key, seed, context or stream before the openings."""
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    seen, todo = set(), [aggregator]
    names = set()
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, (bytes, str, int, float, np.ndarray, type)):
            continue
        seen.add(id(item))
        names.add(type(item).__name__)
        if isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set)):
            todo += list(item)
        else:
            todo += list(getattr(item, "__dict__", {}).values())
            for cls in type(item).__mro__:
                slots = getattr(cls, "__slots__", ())
                todo += [getattr(item, s) for s in slots if hasattr(item, s)]
    assert not names & {"KeyHolder", "Encryptor", "EphemeralKey", "Stream", "SiteMasks"}
    assert "Identity" in names


# Step 2: admission.


def site_of(fed, plan, **changes):
    arguments = {
        "coordinator": fed.public["coordinator"],
        "pinned": fed.public,
        "journal": MemoryJournal(),
        **changes,
    }
    return SiteAttempt(fed.identities["site-0"], fed.coordinator.plan(plan), **arguments)


def without(mapping, *names):
    return {k: v for k, v in mapping.items() if k not in names}


def test_a_plan_by_another_coordinator_is_refused(fed):
    other = Identity.generate("coordinator")
    with pytest.raises(SignatureError):
        site_of(fed, fed.plan(), coordinator=other.public)


@pytest.mark.parametrize("missing", ["site-1", "aggregator", "decryptor"])
def test_only_pinned_parties_count(fed, missing):
    with pytest.raises(PlanError, match="pinned"):
        site_of(fed, fed.plan(), pinned=without(fed.public, missing))


@pytest.mark.parametrize("name", ["site-1", "aggregator", "decryptor"])
def test_a_pinned_name_with_another_key_is_refused(fed, name):
    pinned = {**fed.public, name: Identity.generate(name).public}
    with pytest.raises(PlanError, match="pinned"):
        site_of(fed, fed.plan(), pinned=pinned)


def test_strangers_may_take_part_but_do_not_count():
    fed = Federation(5)
    plan = fed.plan()
    site_of(fed, plan, pinned=without(fed.public, "site-3", "site-4"))
    with pytest.raises(PlanError, match="fewer than min_cohort"):
        site_of(fed, plan, pinned=without(fed.public, "site-2", "site-3", "site-4"))
    with pytest.raises(PlanError, match="fewer than min_cohort"):
        site_of(fed, plan, pinned=without(fed.public, "site-3", "site-4"), min_cohort=4)


def test_the_own_min_cohort_is_at_least_three(fed):
    with pytest.raises(PlanError, match="below 3"):
        site_of(fed, fed.plan(), min_cohort=2)


def test_weights_that_leave_one_site_alone_are_refused():
    fed = Federation(4)
    weights = [1.0, 0.01, 0.01, 0.01]
    members = tuple(Member(fed.public[n], w) for n, w in zip(fed.names, weights, strict=True))
    plan = replace(fed.plan(), members=members)
    with pytest.raises(PlanError, match="weights"):
        fed.coordinator.plan(plan)
    # A coordinator that signs it all the same meets the sites' own check.
    message = messages.seal(fed.identities["coordinator"], plan)
    with pytest.raises(PlanError, match="by weight"):
        fed.site("site-0", message)


def test_a_site_that_is_not_invited(fed):
    stranger = Identity.generate("site-9")
    with pytest.raises(PlanError, match="does not invite"):
        SiteAttempt(
            stranger,
            fed.coordinator.plan(fed.plan()),
            coordinator=fed.public["coordinator"],
            pinned=fed.public,
            journal=MemoryJournal(),
        )


def test_coordinator_signs_only_its_own_whole_plans(fed):
    with pytest.raises(PlanError, match="coordinator"):
        fed.coordinator.plan(replace(fed.plan(), coordinator=fed.public["site-0"]))
    with pytest.raises(MessageError):
        fed.coordinator.plan(replace(fed.plan(), round=0))


# Step 4: ready, announcement, cohort.


def test_ready_is_recorded_before_it_is_sent(fed):
    message = fed.coordinator.plan(fed.plan())
    site = fed.site("site-0", message)
    assert site.ready() == site.ready()
    with pytest.raises(ReplayError):
        fed.site("site-0", message)

    class Broken(MemoryJournal):
        def record(self, *_entry):
            raise JournalError("disk full")

    site = SiteAttempt(
        fed.identities["site-1"],
        message,
        coordinator=fed.public["coordinator"],
        pinned=fed.public,
        journal=Broken(),
    )
    with pytest.raises(JournalError):
        site.ready()


def test_two_objects_of_one_attempt_announce_one_key(fed):
    message = fed.coordinator.plan(fed.plan())
    first, second = fed.site("site-0", message), fed.site("site-0", message)
    first.ready()
    with pytest.raises(ReplayError):
        second.ready()


def test_announcement_is_per_attempt_and_recorded(fed):
    message = fed.coordinator.plan(fed.plan())
    assert fed.decryptor.announce(message) == fed.decryptor.announce(message)
    with pytest.raises(ReplayError):
        fed.new_decryptor().announce(message)


def test_decryptor_admits_like_a_site(fed):
    message = fed.coordinator.plan(fed.plan())
    decryptor = Decryptor(
        fed.identities["decryptor"],
        MemoryJournal(),
        coordinator=fed.public["coordinator"],
        pinned=without(fed.public, "site-2"),
    )
    with pytest.raises(PlanError, match="fewer"):
        decryptor.announce(message)
    other = Decryptor(
        Identity.generate("decryptor"),
        MemoryJournal(),
        coordinator=fed.public["coordinator"],
        pinned=fed.public,
    )
    with pytest.raises(PlanError, match="not this one"):
        other.announce(message)


def test_cohort_refusals(fed):
    message = fed.coordinator.plan(fed.plan())
    other = fed.coordinator.plan(fed.plan(attempt=2))
    sites = [fed.site(n, message) for n in fed.names]
    readies = [s.ready() for s in sites]
    announcement = fed.decryptor.announce(message)
    stale = fed.site("site-2", other).ready()
    cohort = fed.coordinator.cohort
    assert fed.coordinator.check_ready(message, readies[1]) == "site-1"
    with pytest.raises(CohortError, match="min_cohort"):
        cohort(message, announcement, readies[:2])
    with pytest.raises(CohortError, match="another plan"):
        cohort(message, announcement, [*readies[:2], stale])
    with pytest.raises(CohortError, match="another plan"):
        cohort(other, announcement, readies)
    with pytest.raises(MessageError):
        cohort(message, readies[0], readies)
    stranger = messages.seal(Identity.generate("x"), Ready(messages.digest(message), bytes(32)))
    with pytest.raises(CohortError, match="nobody"):
        cohort(message, announcement, [*readies, stranger])
    twice = messages.seal(fed.identities["site-0"], Ready(messages.digest(message), b"\x07" * 32))
    with pytest.raises(CohortError, match="two ready"):
        cohort(message, announcement, [*readies, twice])
    same = messages.unseal(readies[0], Ready, fed.public["site-0"], 1024).key
    copied = messages.seal(fed.identities["site-1"], Ready(messages.digest(message), same))
    with pytest.raises(CohortError, match="one key"):
        cohort(message, announcement, [readies[0], copied, readies[2]])
    short = messages.seal(
        fed.identities["decryptor"], Announcement(messages.digest(message), bytes(10))
    )
    with pytest.raises(MessageError, match="10 bytes"):
        cohort(message, short, readies)
    fixed = cohort(message, announcement, readies)
    assert cohort(message, announcement, reversed(readies)) == fixed


def test_a_second_cohort_for_one_plan_is_refused():
    fed = Federation(4)
    attempt = fed.start(replace(fed.plan(), min_cohort=3))
    readies = [s.ready() for s in attempt.sites.values()]
    with pytest.raises(StateError, match="another cohort"):
        fed.coordinator.cohort(attempt.plan_message, attempt.announcement, readies[:3])


def test_a_cohort_in_another_order_or_with_repeats_is_refused(fed):
    attempt = fed.start()
    readies = [s.ready() for s in attempt.sites.values()]
    plan = messages.digest(attempt.plan_message)
    for wrong in (readies[::-1], [*readies, readies[2]], [readies[0]] * 3):
        message = messages.seal(
            fed.identities["coordinator"], Cohort(plan, attempt.announcement, tuple(wrong))
        )
        with pytest.raises(CohortError):
            attempt.sites["site-0"].upload(message, fed.random_integers())
    attempt.sites["site-0"].upload(attempt.cohort, fed.random_integers())


# Step 5: upload.


def test_one_transcript_one_upload(fed):
    attempt = fed.start()
    site, integers = attempt.sites["site-0"], fed.random_integers()
    first = site.upload(attempt.cohort, integers)
    assert site.upload(attempt.cohort, integers.copy()) == first
    other = integers.copy()
    other[0] = 0 if other[0] else 1
    with pytest.raises(StateError, match="already"):
        site.upload(attempt.cohort, other)
    with pytest.raises(StateError, match="already"):
        site.upload(b"another", integers)


def test_upload_needs_ready_and_the_plans_integers(fed):
    message = fed.coordinator.plan(fed.plan())
    with pytest.raises(StateError, match="ready"):
        fed.site("site-0", message).upload(b"", fed.random_integers())
    attempt = fed.start(fed.plan(attempt=2))
    site = attempt.sites["site-0"]
    for wrong in (
        fed.random_integers().astype(np.int64),
        fed.random_integers()[:-1],
        np.full(100, 2**20, dtype=np.int32),
        None,
    ):
        with pytest.raises(InputError):
            site.upload(attempt.cohort, wrong)
    site.upload(attempt.cohort, fed.random_integers())


def test_a_cohort_without_this_sites_key_is_refused():
    fed = Federation(4)
    attempt = fed.start()
    message = messages.seal(
        fed.identities["coordinator"],
        Cohort(
            messages.digest(attempt.plan_message),
            attempt.announcement,
            tuple(attempt.sites[n].ready() for n in fed.names[1:]),
        ),
    )
    with pytest.raises(CohortError, match="does not carry"):
        attempt.sites["site-0"].upload(message, fed.random_integers())


def test_aggregator_takes_each_upload_once_and_whole():
    fed = Federation(3, size=20_000)  # three chunks
    attempt = fed.start()
    aggregator = fed.new_aggregator(attempt)
    integers = [fed.random_integers() for _ in fed.names]
    uploads = [
        attempt.sites[n].upload(attempt.cohort, i) for n, i in zip(fed.names, integers, strict=True)
    ]
    manifest, chunks = uploads[0].manifest, list(uploads[0].chunks)
    assert len(chunks) == 3
    for wrong in (
        [],
        chunks[:2],
        [chunks[0], chunks[2], chunks[1]],
        [chunks[0], chunks[0], chunks[2]],
        [*chunks[:2], chunks[2][:-1]],
        [*chunks[:2], chunks[2] + b"\0"],
        [*chunks[:2], bytes([chunks[2][0] ^ 1]) + chunks[2][1:]],
        [*chunks, chunks[0]],
        [None],
        list(uploads[1].chunks),
    ):
        with pytest.raises(UploadError):
            aggregator.add(manifest, wrong)
    assert aggregator.missing == fed.names
    with pytest.raises(StateError, match="missing"):
        aggregator.opening_list()
    for _ in range(2):
        for upload in uploads:
            aggregator.add(upload.manifest, iter(upload.chunks))
    assert aggregator.missing == ()
    # However often it was tried, the sum holds each chunk once.
    opening_list = aggregator.opening_list()
    for site in attempt.sites.values():
        aggregator.add_opening(site.open(opening_list))
    total = aggregator.total()
    assert aggregator.total() is total
    release = fed.decryptor.release(attempt.cohort, opening_list, total.manifest, total.chunks)
    exact = np.sum([i.astype(np.int64) for i in integers], axis=0)
    np.testing.assert_array_equal(fed.coordinator.verify(attempt.cohort, release), exact)


@pytest.mark.parametrize("broken_after", [1, 16, 20, 37])
def test_an_upload_of_several_batches_that_breaks_off_is_summed_once(broken_after):
    fed = Federation(3, size=37 * 3 * 4096 - 5, suite="ckks-collective")
    attempt = fed.start()
    aggregator = fed.new_aggregator(attempt)
    assert aggregator.round.packing.chunks == 37
    for name, site in attempt.sites.items():
        attempt.integers[name] = fed.random_integers()
        upload = site.upload(attempt.cohort, attempt.integers[name])
        with pytest.raises(UploadError, match=f"chunk {broken_after} of 38 is missing"):
            aggregator.add(upload.manifest, upload.chunks[:broken_after])
        aggregator.add(upload.manifest, upload.chunks)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for site in attempt.sites.values():
        aggregator.add_opening(site.open(listed))
    total = aggregator.total()
    release = fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
    exact = np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)
    np.testing.assert_array_equal(attempt.sites["site-1"].verify(release), exact)


def manifest_of(fed, attempt, name, **changes):
    body = messages.unseal(
        attempt.sites[name].upload(attempt.cohort, attempt.integers[name]).manifest,
        UploadManifest,
        fed.public[name],
        10_000,
    )
    return messages.seal(fed.identities[name], replace(body, **changes))


def test_aggregator_refuses_manifests(fed):
    attempt = fed.start()
    for name in fed.names:
        attempt.integers[name] = fed.random_integers()
    aggregator = fed.new_aggregator(attempt)
    upload = attempt.sites["site-0"].upload(attempt.cohort, attempt.integers["site-0"])
    chunks = upload.chunks
    for changes in (
        {"transcript": bytes(32)},
        {"chunk_digests": b""},
        {"chunk_digests": bytes(64)},
    ):
        with pytest.raises(UploadError):
            aggregator.add(manifest_of(fed, attempt, "site-0", **changes), chunks)
    with pytest.raises(UploadError, match="outside"):
        aggregator.add(messages.seal(Identity.generate("x"), Ready(bytes(32), bytes(32))), [])
    forged = messages.seal(
        Identity.generate("site-0"), UploadManifest(bytes(32), bytes(32), bytes(32), b"")
    )
    with pytest.raises(SignatureError):
        aggregator.add(forged, [])
    aggregator.add(upload.manifest, chunks)
    with pytest.raises(UploadError, match="another upload"):
        aggregator.add(manifest_of(fed, attempt, "site-0", commitment=bytes(32)), chunks)


# Step 6: open.


def list_of(fed, attempt, **changes):
    aggregator = fed.upload(attempt)
    body = messages.unseal(aggregator.opening_list(), OpeningList, fed.public["aggregator"], 10_000)
    return messages.seal(fed.identities["aggregator"], replace(body, **changes))


def test_a_site_opens_only_for_a_list_with_its_own_upload(fed):
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    good = aggregator.opening_list()
    body = messages.unseal(good, OpeningList, fed.public["aggregator"], 10_000)
    site = attempt.sites["site-1"]
    for changes in (
        {"transcript": bytes(32)},
        {"manifests": body.manifests[:2]},
        {"manifests": (*body.manifests, bytes(32))},
        {"manifests": (body.manifests[0], bytes(32), body.manifests[2])},
        {"manifests": (body.manifests[1], body.manifests[0], body.manifests[2])},
    ):
        wrong = messages.seal(fed.identities["aggregator"], replace(body, **changes))
        with pytest.raises(OpeningError):
            site.open(wrong)
    with pytest.raises(SignatureError):
        site.open(messages.seal(Identity.generate("aggregator"), body))
    assert site.open(good) == site.open(good)
    other = replace(body, manifests=(bytes(32), *body.manifests[1:]))
    with pytest.raises(StateError, match="another list"):
        site.open(messages.seal(fed.identities["aggregator"], other))


def test_open_and_verify_need_the_steps_before(fed):
    attempt = fed.start()
    with pytest.raises(StateError):
        attempt.sites["site-0"].open(b"")
    with pytest.raises(StateError):
        attempt.sites["site-0"].verify(b"")
    aggregator = fed.new_aggregator(attempt)
    with pytest.raises(StateError):
        aggregator.add_opening(b"")
    with pytest.raises(StateError):
        aggregator.total()


def test_aggregator_refuses_openings(fed):
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    listed = aggregator.opening_list()
    opening = attempt.sites["site-0"].open(listed)
    body = messages.unseal(opening, Opening, fed.public["site-0"], 1024)
    for changes in ({"transcript": bytes(32)}, {"opening_list": bytes(32)}, {"seed": bytes(32)}):
        with pytest.raises(OpeningError):
            aggregator.add_opening(
                messages.seal(fed.identities["site-0"], replace(body, **changes))
            )
    with pytest.raises(OpeningError, match="committed"):
        aggregator.add_opening(messages.seal(fed.identities["site-1"], body))
    with pytest.raises(CohortError):
        aggregator.add_opening(messages.seal(Identity.generate("x"), body))
    aggregator.add_opening(opening)
    assert aggregator.unopened == ("site-1", "site-2")
    with pytest.raises(StateError, match="site-1"):
        aggregator.total()


# Steps 8 and 9: release.


def test_decryptor_refuses_before_the_key_is_used_and_keeps_it():
    fed = Federation(3, size=10_000)  # two chunks
    attempt = fed.start()
    total = fed.open(attempt).total()
    manifest, chunks = total.manifest, list(total.chunks)
    body = messages.unseal(manifest, SumManifest, fed.public["aggregator"], 10_000)
    listed = messages.unseal(attempt.opening_list, OpeningList, fed.public["aggregator"], 10_000)

    def resealed(**changes):
        return messages.seal(fed.identities["aggregator"], replace(body, **changes))

    def relisted(**changes):
        return messages.seal(fed.identities["aggregator"], replace(listed, **changes))

    release = fed.decryptor.release
    cohort, opening_list = attempt.cohort, attempt.opening_list
    for arguments in (
        (cohort, opening_list, manifest, chunks[:1]),
        (cohort, opening_list, manifest, chunks[::-1]),
        (cohort, opening_list, manifest, [*chunks, chunks[0]]),
        (cohort, opening_list, manifest, []),
        (cohort, opening_list, resealed(transcript=bytes(32)), chunks),
        (cohort, opening_list, resealed(opening_list=bytes(32)), chunks),
        (cohort, opening_list, resealed(chunk_digests=bytes(32)), chunks),
        (cohort, relisted(transcript=bytes(32)), manifest, chunks),
        (cohort, relisted(manifests=listed.manifests[:2]), manifest, chunks),
        (cohort, relisted(manifests=listed.manifests[::-1]), manifest, chunks),
        (cohort, manifest, opening_list, chunks),
        (opening_list, opening_list, manifest, chunks),
        (b"", b"", b"", []),
        (cohort, opening_list, messages.seal(fed.identities["site-0"], body), chunks),
    ):
        with pytest.raises(AggregationError) as caught:
            release(*arguments)
        assert caught.value.code == "refused"
    # A signed sum of residues that are none is refused by form, before the key is touched.
    junk = [b"\xff" * len(c) for c in chunks]
    digests = b"".join(messages.digest(c) for c in junk)
    with pytest.raises(UploadError, match="modulus"):
        release(cohort, opening_list, resealed(chunk_digests=digests), junk)
    message = release(cohort, opening_list, manifest, chunks)
    exact = np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)
    np.testing.assert_array_equal(fed.coordinator.verify(cohort, message), exact)


def test_one_release_a_round_also_after_a_restart(fed):
    attempt = fed.start()
    total = fed.open(attempt).total()
    arguments = (attempt.cohort, attempt.opening_list, total.manifest, total.chunks)
    release = fed.decryptor.release(*arguments)
    restarted = fed.new_decryptor()
    with pytest.raises(StateError):
        restarted.release(*arguments)
    assert restarted.release(*arguments, plan_message=attempt.plan_message) == release
    assert fed.decryptor.release(*arguments, plan_message=attempt.plan_message) == release
    with pytest.raises(ReplayError):
        restarted.announce(fed.coordinator.plan(fed.plan(attempt=2)))
    other = OpeningList(
        messages.unseal(release, Release, fed.public["decryptor"], 10_000).transcript,
        (bytes(32),) * 3,
        b"",
    )
    with pytest.raises(ReplayError):
        restarted.release(
            attempt.cohort,
            messages.seal(fed.identities["aggregator"], other),
            total.manifest,
            total.chunks,
            plan_message=attempt.plan_message,
        )


def test_a_new_attempt_or_close_destroys_the_key(fed):
    attempt = fed.start()
    total = fed.open(attempt).total()
    arguments = (attempt.cohort, attempt.opening_list, total.manifest, total.chunks)
    fed.decryptor.announce(fed.coordinator.plan(fed.plan(attempt=2)))
    with pytest.raises(StateError, match="no key"):
        fed.decryptor.release(*arguments)
    later = fed.start(fed.plan(round_=2))
    total = fed.open(later).total()
    fed.decryptor.close()
    with pytest.raises(StateError, match="no key"):
        fed.decryptor.release(later.cohort, later.opening_list, total.manifest, total.chunks)


def test_receivers_refuse_releases(fed):
    attempt = fed.start()
    release = fed.release(attempt)
    body = messages.unseal(release, Release, fed.public["decryptor"], 10_000)
    site = attempt.sites["site-0"]
    over = np.full(100, 3 * 32767 + 1, dtype="<i4").tobytes()
    for changes in (
        {"transcript": bytes(32)},
        {"integers": body.integers[:-4]},
        {"integers": body.integers + bytes(4)},
        {"integers": over},
    ):
        wrong = messages.seal(fed.identities["decryptor"], replace(body, **changes))
        with pytest.raises(ReleaseError):
            site.verify(wrong)
        with pytest.raises(ReleaseError):
            fed.coordinator.verify(attempt.cohort, wrong)
    other_list = messages.seal(fed.identities["decryptor"], replace(body, opening_list=bytes(32)))
    with pytest.raises(ReleaseError, match="other uploads"):
        site.verify(other_list)
    with pytest.raises(SignatureError):
        site.verify(messages.seal(Identity.generate("decryptor"), body))
    np.testing.assert_array_equal(
        site.verify(release), fed.coordinator.verify(attempt.cohort, release)
    )
    restarted = Coordinator(fed.identities["coordinator"])
    with pytest.raises(StateError, match="plan message"):
        restarted.verify(attempt.cohort, release)
    assert restarted.verify(attempt.cohort, release, attempt.plan_message).shape == (100,)
    members = fed.plan().members
    assert site.cohort == fed.coordinator.members(attempt.cohort) == members
    assert fed.site("site-0", fed.coordinator.plan(fed.plan(round_=2))).cohort == ()


def test_aggregator_checks_its_plan_and_pins(fed):
    attempt = fed.start()
    arguments = (attempt.plan_message, attempt.cohort)
    with pytest.raises(PlanError, match="not this one"):
        Aggregator(
            Identity.generate("aggregator"), *arguments, coordinator=fed.public["coordinator"]
        )
    with pytest.raises(PlanError, match="pinned"):
        Aggregator(
            fed.identities["aggregator"],
            *arguments,
            coordinator=fed.public["coordinator"],
            pinned={"site-1": Identity.generate("site-1").public},
        )


def test_what_a_journal_on_disk_remembers(fed, tmp_path):
    """Both rules that need memory hold for new objects over the same files."""
    path = tmp_path / "site.db"
    fed.journals = {name: SqliteJournal(tmp_path / f"{name}.db") for name in fed.journals}
    fed.journals["site-0"] = SqliteJournal(path)
    fed.decryptor = fed.new_decryptor()
    attempt = fed.start()
    release = fed.release(attempt)
    assert attempt.sites["site-0"].verify(release).shape == (100,)
    fed.journals["site-0"] = SqliteJournal(path)
    with pytest.raises(ReplayError, match="opened"):
        fed.site("site-0", fed.coordinator.plan(fed.plan(attempt=2)))
    fed.site("site-0", fed.coordinator.plan(fed.plan(round_=2)))
    fed.journals["decryptor"] = SqliteJournal(tmp_path / "decryptor.db")
    with pytest.raises(ReplayError, match="released"):
        fed.new_decryptor().announce(fed.coordinator.plan(fed.plan(attempt=2)))
