"""A whole round, end to end, all roles in one process with separate keys and journals."""

import numpy as np
import pytest

from aggregation import (
    Aggregator,
    Coordinator,
    Decryptor,
    Identity,
    Member,
    MemoryJournal,
    Quantization,
    RoundPlan,
    Segment,
    SiteAttempt,
    choose,
    dequantize,
    quantize,
)


@pytest.mark.parametrize(("sites", "bits"), [(3, 16), (5, 16), (5, 8), (3, 32)])
def test_a_round_releases_the_exact_sum(sites, bits):
    names = [f"site-{i}" for i in range(sites)]
    identities = {n: Identity.generate(n) for n in (*names, "agg", "dec", "coord")}
    public = {n: i.public for n, i in identities.items()}
    quantization = Quantization(
        bits=bits,
        segments=(Segment(name="a", size=5000, range=0.01), Segment(name="b", size=777, range=2.0)),
    )
    digest = "sha256:" + "0" * 64
    weights = [1.0, 0.5, *[1.0] * (sites - 2)] if sites > 3 else [1.0] * sites
    plan = RoundPlan(
        federation="demo",
        run="ab" * 8,
        round=1,
        attempt=1,
        suite="ckks-pk",
        parameter_set=choose(sites, bits, suite="ckks-pk").id,
        quantization=quantization,
        members=tuple(Member(public[n], w) for n, w in zip(names, weights, strict=True)),
        aggregator=public["agg"],
        decryptor=public["dec"],
        coordinator=public["coord"],
        adapter_digest=digest,
        layout_digest=digest,
        base_model_digest=digest,
        training_digest=digest,
    )
    coordinator = Coordinator(identities["coord"])
    message = coordinator.plan(plan)
    attempts = [
        SiteAttempt(
            identities[n],
            message,
            coordinator=public["coord"],
            pinned=public,
            journal=MemoryJournal(),
        )
        for n in names
    ]
    decryptor = Decryptor(
        identities["dec"], MemoryJournal(), coordinator=public["coord"], pinned=public
    )
    announcement = decryptor.announce(message)
    # The order in which sites get ready does not matter.
    readies = [attempt.ready() for attempt in reversed(attempts)]
    cohort = coordinator.cohort(message, announcement, readies)
    rng = np.random.default_rng(7)
    updates = [rng.normal(size=quantization.size) * 0.004 for _ in names]
    integers = [
        quantize(u, attempt.plan.quantization, weight)
        for u, attempt, weight in zip(updates, attempts, weights, strict=True)
    ]
    aggregator = Aggregator(identities["agg"], message, cohort, coordinator=public["coord"])
    for attempt, values in zip(attempts, integers, strict=True):
        upload = attempt.upload(cohort, values)
        aggregator.add(upload.manifest, upload.chunks)
    opening_list = aggregator.opening_list()
    for attempt in attempts:
        aggregator.add_opening(attempt.open(opening_list))
    total = aggregator.total()
    release = decryptor.release(cohort, opening_list, total.manifest, total.chunks)

    exact = np.sum([i.astype(np.int64) for i in integers], axis=0)
    for attempt in attempts:
        np.testing.assert_array_equal(attempt.verify(release), exact)
    np.testing.assert_array_equal(coordinator.verify(cohort, release), exact)
    mean = dequantize(exact, quantization, sum(weights))
    clipped = [np.clip(u[:5000], -0.01, 0.01) * w for u, w in zip(updates, weights, strict=True)]
    step = 0.01 / quantization.limit
    error = np.abs(mean[:5000] - np.sum(clipped, axis=0) / sum(weights))
    assert error.max() <= sites * step / sum(weights)
