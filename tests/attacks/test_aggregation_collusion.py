"""What parties see when they put together what they know, and what a coordinator can arrange."""

import msgspec
import numpy as np
import pytest
from residue_spread import spread

from aggregation import (
    CohortError,
    Identity,
    Member,
    PlanError,
    ReleaseError,
    ReplayError,
    SignatureError,
    StateError,
    UploadError,
    parameter_set,
)
from aggregation.ckks import _ckks, collective, residues
from aggregation.crypto import masking, sealed_box
from aggregation.protocol import checks, messages
from aggregation.testing import Federation
from fmfl_secure.demonstration import collusion

SET = parameter_set("ckks-collective-4096-60-aes")
Q = SET.modulus


@pytest.mark.parametrize("colluding", [1, 2, 3])
def test_collusion_opens_an_upload_only_when_everybody_else_colludes(colluding):
    """Decryptor, aggregator and some of four sites against the first one.

    With all three others the sum tells them anyway; with fewer their masks are not enough.
    """
    fed = Federation(4, size=8192, suite="ckks-collective")
    attempt = fed.start()
    fed.upload(attempt)
    victim = attempt.sites["site-0"]
    transcript = attempt.aggregator.transcript
    sealed = attempt.aggregator.sealed_secrets()[0]
    key = next(iter(fed.decryptor._attempts.values())).key
    box = messages.unseal(sealed, messages.Sigma, fed.public["site-0"], 1 << 20).box
    upload = victim.upload(attempt.cohort, attempt.integers["site-0"])
    packing = attempt.aggregator.round.packing
    opened = collusion.open_upload(
        collusion.Target(
            name="site-0",
            transcript=transcript,
            parameters=SET,
            c0=attempt.aggregator.round.unpack_chunks(upload.chunks[:-1])[:, 0],
            sigma=residues.unpack(key.open_box(box, transcript + b"site-0"), 4096, Q),
            seed=victim._secrets.seed,  # the self-mask is known too, once opened
        ),
        collusion.pairs_known_to(fed.names[1 : 1 + colluding], victim._secrets._pairs),
        packing,
    )
    expected = packing.pack(attempt.integers["site-0"])
    if colluding < 3:
        assert spread(opened.secret, Q) > 2**57
        assert all(spread(chunk, Q) > 2**57 for chunk in opened.c0)
        assert np.mean(opened.coefficients == expected) < 0.01
        return
    assert np.abs(residues.to_signed(opened.secret, Q)).max() == 1
    np.testing.assert_array_equal(opened.coefficients, expected)
    integers = collusion.integers_of(opened.coefficients, packing)
    np.testing.assert_array_equal(integers, attempt.integers["site-0"])


def test_sites_and_the_aggregator_without_the_decryptor_learn_nothing():
    """Even all other sites: what is left of the upload is an encryption under its own secret."""
    fed = Federation(3, size=8192, suite="ckks-collective")
    attempt = fed.start()
    fed.upload(attempt)
    victim = attempt.sites["site-0"]
    upload = victim.upload(attempt.cohort, attempt.integers["site-0"])
    c0 = residues.unpack(upload.chunks[0], 4096, Q).copy()
    known = collusion.pairs_known_to(fed.names[1:], victim._secrets._pairs)
    transcript = attempt.aggregator.transcript
    assert spread(collusion.unmask(c0[None], known, transcript, masking.PAIR_LABEL, Q), Q) > 2**57


@pytest.mark.parametrize("reused", [True, False])
def test_a_stream_shared_by_ciphertext_and_secret_would_cancel(reused, monkeypatch):
    """c0_0 - sigma is free of pairwise masks if both use one stream, as if there were none."""
    if reused:
        monkeypatch.setattr(masking, "PAIR_SIGMA_LABEL", masking.PAIR_LABEL)
    fed = Federation(3, size=8192, suite="ckks-collective")
    kept = []
    original = collective.CollectiveEncryptor.secret

    def remember(self):
        kept.append(self)
        return original(self)

    monkeypatch.setattr(collective.CollectiveEncryptor, "secret", remember)
    attempt = fed.start()
    integers = fed.random_integers()
    site = attempt.sites["site-0"]
    upload = site.upload(attempt.cohort, integers)
    cohort = site._cohort
    key = next(iter(fed.decryptor._attempts.values())).key
    box = messages.unseal(upload.chunks[-1], messages.Sigma, fed.public["site-0"], 1 << 20).box
    sigma = residues.unpack(key.open_box(box, cohort.transcript + b"site-0"), 4096, Q)
    difference = residues.unpack(upload.chunks[0], 4096, Q).copy()
    residues.subtract(difference, sigma, Q)
    self_mask = masking.self_stream(
        site._secrets.seed, cohort.transcript, "site-0", Q, 4096, masking.SELF_SIGMA_LABEL
    )
    residues.add(difference, self_mask.chunk(0), Q)
    # What no mask at all would leave: x + e - a s - s. All but the small x + e is computed here.
    secret = kept[0]._secret
    points = collective.public_stream(cohort.transcript, SET).chunk(0)
    ring = _ckks.context(SET)
    product = _ckks.Multiplier(ring, secret).times(ring.to_ntt(points[None]))[0]
    residues.add(product, residues.from_signed(secret, Q), Q)
    residues.add(difference, product, Q)
    packing = site._round.packing
    x = packing.pack(integers)[0] << packing.encoding.scale_bits
    residues.subtract(difference, residues.from_signed(x, Q), Q)
    if reused:
        assert np.abs(residues.to_signed(difference, Q)).max() <= 21
    else:
        assert spread(difference, Q) > 2**57


def test_two_collective_attempts_cannot_be_subtracted():
    fed = Federation(4, size=8192, suite="ckks-collective")
    first = fed.start()
    fed.upload(first)
    second = fed.start(fed.plan(attempt=2, names=fed.names[:3]))
    again = fed.new_aggregator(second)
    for name in fed.names[:3]:
        upload = second.sites[name].upload(second.cohort, first.integers[name])
        again.add(upload.manifest, upload.chunks)
    a = first.aggregator._sum[:, 0] % np.uint64(Q)
    residues.subtract(a, again._sum[:, 0] % np.uint64(Q), Q)
    assert spread(a, Q) > 2**57
    listed = fed.decryptor.confirm(second.cohort, again.opening_list(), again.sealed_secrets())
    second.sites["site-0"].open(listed)
    with pytest.raises(ReplayError):
        fed.site("site-0", fed.coordinator.plan(fed.plan(attempt=3)))
    with pytest.raises(StateError):
        # The key of the first attempt is gone since the second was announced.
        fed.decryptor.confirm(
            first.cohort, first.aggregator.opening_list(), first.aggregator.sealed_secrets()
        )


def test_a_substituted_box_key_is_refused():
    """Whoever carries the announcement could read sigma under a key of its own."""
    fed = Federation(3, suite="ckks-collective")
    attempt = fed.start()
    plan = messages.digest(attempt.plan_message)
    readies = tuple(attempt.sites[n].ready() for n in fed.names)
    own = sealed_box.BoxKey()
    for signer in ("coordinator", "aggregator", "site-1"):
        body = messages.Announcement(plan, own.public)
        fake = messages.seal(fed.identities[signer], body)
        cohort = messages.Cohort(plan, fake, readies)
        message = messages.seal(fed.identities["coordinator"], cohort)
        with pytest.raises(SignatureError):
            attempt.sites["site-0"].upload(message, fed.random_integers())
    attempt.sites["site-0"].upload(attempt.cohort, fed.random_integers())


# A coordinator that would isolate a site.


def replace(plan, **changes):
    return msgspec.structs.replace(plan, **changes)


def test_isolated_by_weights():
    fed = Federation(5)
    weights = [1.0, *[0.001] * 4]
    members = tuple(Member(fed.public[n], w) for n, w in zip(fed.names, weights, strict=True))
    message = messages.seal(fed.identities["coordinator"], replace(fed.plan(), members=members))
    with pytest.raises(PlanError, match="by weight"):
        fed.site("site-0", message)


def test_isolated_among_sybils():
    fed = Federation(3)
    sybils = tuple(Member(Identity.generate(f"sybil-{i}").public) for i in range(20))
    plan = replace(fed.plan(), members=(fed.plan().members[0], *sybils))
    message = messages.seal(fed.identities["coordinator"], plan)
    with pytest.raises(PlanError, match="fewer than min_cohort"):
        fed.site("site-0", message)


def test_isolated_by_a_cohort_that_leaves_the_pinned_sites_out():
    """The plan invites them, the cohort then holds sybils only: judged again before the upload."""
    fed = Federation(3)
    sybils = [Identity.generate(f"sybil-{i}") for i in range(3)]
    members = (*fed.plan().members, *(Member(s.public) for s in sybils))
    message = messages.seal(fed.identities["coordinator"], replace(fed.plan(), members=members))
    site = fed.site("site-0", message)
    plan = messages.digest(message)
    readies = [site.ready()]
    for i, sybil in enumerate(sybils):
        readies.append(messages.seal(sybil, messages.Ready(plan, bytes([i + 1]) * 32)))
    cohort = messages.Cohort(plan, fed.decryptor.announce(message), tuple(readies))
    fixed = messages.seal(fed.identities["coordinator"], cohort)
    with pytest.raises(PlanError, match="fewer than min_cohort"):
        site.upload(fixed, fed.random_integers())


def test_isolated_by_an_adapter_of_its_own():
    """Pasquini et al. 2022: another adapter for one site nulls the others' updates.

    The adapter's digest is in the plan, the plan in the transcript: its masks cancel with nobody's,
    and its upload is not of the others' attempt.
    """
    fed = Federation(3, suite="ckks-collective")
    private = fed.coordinator.plan(replace(fed.plan(), adapter_digest="sha256:" + "1" * 64))
    common = fed.coordinator.plan(fed.plan())
    lone, others = fed.site("site-0", private), [fed.site(n, common) for n in fed.names[1:]]
    announcement = fed.decryptor.announce(common)
    readies = [lone.ready(), *(site.ready() for site in others)]
    with pytest.raises(CohortError, match="another plan"):
        fed.coordinator.cohort(common, announcement, readies)
    # Even if the coordinator leaves site-0 out of the common cohort, too few are left.
    with pytest.raises(CohortError, match="min_cohort"):
        fed.coordinator.cohort(common, announcement, readies[1:])


@pytest.mark.parametrize("role", ["site-1", "aggregator", "decryptor"])
def test_isolated_by_a_key_of_the_coordinators_own(role):
    """It names itself, under a new key, in another party's place."""
    fed = Federation(3, suite="ckks-collective")
    own = Identity.generate(role).public
    plan = fed.plan()
    if role.startswith("site"):
        members = tuple(Member(own) if m.identity.name == role else m for m in plan.members)
        plan = replace(plan, members=members)
    else:
        plan = replace(plan, **{role: own})
    with pytest.raises(PlanError, match="pinned"):
        fed.site("site-0", messages.seal(fed.identities["coordinator"], plan))


def test_a_site_that_equivocates_on_its_key_only_breaks_the_attempt():
    """Two keys for one plan: two cohorts, two transcripts, and no upload fits the other."""
    fed = Federation(4, suite="ckks-collective")
    attempt = fed.start()
    plan = messages.digest(attempt.plan_message)
    second = messages.seal(fed.identities["site-3"], messages.Ready(plan, b"\x11" * 32))
    readies = [attempt.sites[n].ready() for n in fed.names]
    with pytest.raises(CohortError, match="two ready"):
        fed.coordinator.cohort(attempt.plan_message, attempt.announcement, [*readies, second])
    fork = messages.seal(
        fed.identities["coordinator"],
        messages.Cohort(plan, attempt.announcement, (*readies[:3], second)),
    )
    forked = attempt.sites["site-0"].upload(fork, fed.random_integers())
    with pytest.raises(UploadError, match="another cohort"):
        fed.new_aggregator(attempt).add(forked.manifest, forked.chunks)


@pytest.mark.parametrize("suite", ["ckks-pk", "ckks-collective"])
def test_replayed_reordered_resigned_and_cross_run_messages(suite):
    fed = Federation(3, suite=suite)
    attempt = fed.start()
    aggregator = fed.upload(attempt)
    uploads = {n: s.upload(attempt.cohort, attempt.integers[n]) for n, s in attempt.sites.items()}
    again = fed.new_aggregator(attempt)
    first = uploads["site-0"]
    # re-signed by another site, as its own
    body = messages.unseal(first.manifest, messages.UploadManifest, fed.public["site-0"], 1 << 20)
    stolen = messages.seal(fed.identities["site-1"], body)
    if suite == "ckks-collective":  # the sealed secret in it is still site-0's
        with pytest.raises(SignatureError):
            again.add(stolen, first.chunks)
    else:
        again.add(stolen, first.chunks)
    with pytest.raises(UploadError, match="another upload"):
        again.add(uploads["site-1"].manifest, uploads["site-1"].chunks)
    # a list in another order shows no site its own upload
    listed = messages.unseal(
        aggregator.opening_list(), messages.OpeningList, fed.public["aggregator"], 1 << 20
    )
    shuffled = messages.OpeningList(listed.transcript, listed.manifests[::-1], listed.first)
    message = messages.seal(fed.identities["aggregator"], shuffled)
    if suite == "ckks-collective":
        message = fed.decryptor.confirm(attempt.cohort, message, aggregator.sealed_secrets())
    with pytest.raises(checks.OpeningError):
        attempt.sites["site-0"].open(message)
    # another run, same names, same keys
    other = Federation(3, suite=suite)
    other.identities = fed.identities
    other.coordinator = fed.coordinator
    other.journals = {name: type(j)() for name, j in fed.journals.items()}
    other.decryptor = other.new_decryptor()
    foreign = other.start(replace(other.plan(), run="ffeeddcc00112233"))
    with pytest.raises(UploadError, match="another cohort"):
        fed.new_aggregator(foreign).add(first.manifest, first.chunks)
    release = other.release(foreign)
    with pytest.raises((ReleaseError, StateError)):
        attempt.sites["site-1"].verify(release)
