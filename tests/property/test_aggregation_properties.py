"""Properties over random inputs: exact round trips, and parsers that only ever refuse."""

import functools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation import (
    AggregationError,
    Member,
    ParameterError,
    PublicIdentity,
    Quantization,
    RoundPlan,
    Segment,
    dequantize,
    parameter_set,
    quantize,
)
from aggregation.ckks import residues
from aggregation.ckks.packing import Packing
from aggregation.protocol import checks, cohort_rule, messages
from aggregation.testing import Federation

SET = parameter_set("ckks-pk-4096-60-20")
FAST = settings(max_examples=60, deadline=None, derandomize=True)
BODIES = (
    RoundPlan,
    messages.Announcement,
    messages.Ready,
    messages.Cohort,
    messages.UploadManifest,
    messages.OpeningList,
    messages.Opening,
    messages.SumManifest,
    messages.Release,
)


@FAST
@given(
    sites=st.integers(2, 12),
    bits=st.integers(2, 32),
    size=st.integers(1, 300),
    seed=st.integers(0, 2**32),
)
def test_packed_sums_unpack_to_the_sum(sites, bits, size, seed):
    encoding = SET.encoding(sites, bits)
    packing = Packing(size=size, degree=16, encoding=encoding)
    rng = np.random.default_rng(seed)
    limit = encoding.limit
    updates = rng.integers(-limit, limit, (sites, size), dtype=np.int32, endpoint=True)
    updates[:, 0] = rng.choice([-limit, limit])
    total = np.sum([packing.pack(u) for u in updates], axis=0)
    assert np.abs(total).max() << encoding.scale_bits <= SET.modulus // 2
    np.testing.assert_array_equal(packing.unpack(total), updates.astype(np.int64).sum(axis=0))


@FAST
@given(sites=st.integers(-5, 2000), bits=st.integers(-5, 70))
def test_parameters_fit_or_are_refused(sites, bits):
    try:
        encoding = SET.encoding(sites, bits)
    except ParameterError:
        return
    assert encoding.digits >= 1
    assert encoding.log2_failure <= -40


@FAST
@given(
    st.sampled_from([SET.modulus, 1032193, 40961, 13]),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
)
def test_residues_round_trip(q, values):
    array = np.array([v % q for v in values * 2], dtype=np.uint64)
    np.testing.assert_array_equal(residues.unpack(residues.pack(array, q), len(array), q), array)


@FAST
@given(st.binary(max_size=200), st.integers(0, 10))
def test_any_bytes_are_residues_or_refused(data, half):
    try:
        values = residues.unpack(data, 2 * half, SET.modulus)
    except AggregationError:
        return
    assert values.size == 2 * half
    assert values.max(initial=0) < SET.modulus
    assert residues.pack(values, SET.modulus) == data


@FAST
@given(
    bits=st.integers(2, 32),
    scale=st.floats(1e-20, 1e20),
    seed=st.integers(0, 2**32),
    weight=st.floats(1e-3, 1.0),
)
def test_quantization_stays_on_the_grid_and_within_a_step(bits, scale, seed, weight):
    grid = Quantization(bits=bits, segments=(Segment(name="a", size=50, range=scale),))
    update = np.random.default_rng(seed).uniform(-scale, scale, 50)
    integers = quantize(update, grid, weight)
    assert np.abs(integers.astype(np.int64)).max() <= grid.limit
    back = dequantize(integers.astype(np.int64), grid, weight)
    step = scale / grid.limit
    assert np.abs(back - update).max() <= step / weight * (1 + 1e-6)


@FAST
@given(st.binary(max_size=400), st.sampled_from(BODIES))
def test_random_bytes_are_refused(data, body):
    key = PublicIdentity("a", bytes(32))
    with pytest.raises(AggregationError):
        messages.unseal(data, body, key, 1 << 20)


@functools.cache
def recorded():
    """One whole round, recorded: every message, and what each role does with it."""
    fed = Federation(3, size=50)
    attempt = fed.start()
    total = fed.open(attempt).total()
    opening_list = attempt.opening_list
    release = fed.decryptor.release(attempt.cohort, opening_list, total.manifest, total.chunks)
    site = attempt.sites["site-0"]
    upload = site.upload(attempt.cohort, attempt.integers["site-0"])
    public = fed.public
    round_ = checks.read_plan(attempt.plan_message, public["coordinator"])

    def add(message):
        fed.new_aggregator(attempt).add(message, upload.chunks)

    def add_opening(message):
        attempt.aggregator.add_opening(message)

    def sum_manifest(message):
        fed.decryptor.release(
            attempt.cohort,
            opening_list,
            message,
            total.chunks,
            plan_message=attempt.plan_message,
        )
        # A repeat returns the stored release whatever the manifest: look at the parser itself.
        messages.unseal(message, messages.SumManifest, public["aggregator"], 1 << 20)

    return (
        (attempt.plan_message, lambda m: checks.read_plan(m, public["coordinator"])),
        (attempt.announcement, lambda m: checks.read_announcement(round_, m)),
        (site.ready(), lambda m: checks.read_ready(round_, m)),
        (attempt.cohort, lambda m: checks.read_cohort(round_, m)),
        (upload.manifest, add),
        (opening_list, site.open),
        (site.open(opening_list), add_opening),
        (total.manifest, sum_manifest),
        (release, site.verify),
    )


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data(), which=st.integers(0, 8))
def test_a_mutated_message_is_refused_and_nothing_else(data, which):
    message, act = recorded()[which]
    act(message)
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "splice"]))
    # Early bytes hold the structure; most of a long message is payload.
    position = data.draw(st.integers(0, len(message) - 1) | st.integers(0, 99))
    if kind == "flip":
        bit = 1 << data.draw(st.integers(0, 7))
        mutated = message[:position] + bytes([message[position] ^ bit]) + message[position + 1 :]
    elif kind == "cut":
        mutated = message[:position]
    elif kind == "grow":
        extra = data.draw(st.binary(min_size=1, max_size=9))
        mutated = message[:position] + extra + message[position:]
    else:
        other = recorded()[data.draw(st.integers(0, 8))][0]
        mutated = message[:position] + other[position:]
    if mutated == message:
        return
    with pytest.raises(AggregationError):
        act(mutated)
    act(message)  # state intact


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
FED = Federation(3)


@FAST
@given(
    body=st.sampled_from(BODIES),
    data=st.data(),
)
def test_a_signed_body_of_any_shape_is_refused_or_read(body, data):
    """Correctly signed nonsense: fields of the right names with values of any type."""
    fields = {field: data.draw(json_like) for field in body.__struct_fields__}
    me = FED.identities["coordinator"]
    raw = msgspec.msgpack.encode(fields)
    signature = me.sign(messages._signed(body.KIND, me.public.name, raw))
    message = msgspec.msgpack.encode(
        messages._Envelope(messages.VERSION, body.KIND, me.public.name, raw, signature)
    )
    try:
        read = messages.unseal(message, body, me.public, 1 << 20)
    except AggregationError:
        return
    assert messages.seal(me, read) == message


@FAST
@given(weights=st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=20))
def test_effective_cohort_is_between_one_and_the_count(weights):
    members = [
        Member(PublicIdentity(f"s{i}", i.to_bytes(32, "big")), w) for i, w in enumerate(weights)
    ]
    assert 1 <= cohort_rule.effective_cohort(members) <= len(weights)
