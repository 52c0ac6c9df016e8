import hashlib

import msgspec
import pytest

from aggregation import (
    Identity,
    Member,
    MessageError,
    ParameterError,
    PlanError,
    RoundPlan,
    SignatureError,
)
from aggregation.protocol import messages
from aggregation.protocol.messages import Opening, Ready
from aggregation.testing import Federation

ME = Identity.generate("me")
BODY = Ready(bytes(32), bytes(range(32)))


def envelope(**changes):
    fields = msgspec.msgpack.decode(messages.seal(ME, BODY))
    return msgspec.msgpack.encode(fields | changes)


def test_round_trip_and_determinism():
    message = messages.seal(ME, BODY)
    assert message == messages.seal(ME, BODY)
    assert messages.unseal(message, Ready, ME.public, 1024) == BODY
    assert messages.sender(message, 1024) == "me"


def test_a_signature_serves_one_kind_sender_and_version():
    with pytest.raises(MessageError, match="kind"):
        messages.unseal(messages.seal(ME, BODY), Opening, ME.public, 1024)
    with pytest.raises(SignatureError):
        messages.unseal(envelope(kind="opening"), Opening, ME.public, 1024)
    with pytest.raises(MessageError, match="version"):
        messages.unseal(envelope(version=2), Ready, ME.public, 1024)
    with pytest.raises(SignatureError):
        messages.unseal(envelope(sender="you"), Ready, ME.public, 1024)
    with pytest.raises(SignatureError):
        messages.unseal(messages.seal(ME, BODY), Ready, Identity.generate("me").public, 1024)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc0",
        b"\x91" * 900,
        envelope() + b"\0",
        envelope(extra=1),
        envelope(signature=bytes(63)),
        envelope(version="1"),
        envelope(version=1.0),
        envelope(body="text"),
        None,
        7,
        bytearray(envelope()),
    ],
)
def test_what_is_no_envelope_is_refused(message):
    with pytest.raises(MessageError):
        messages.unseal(message, Ready, ME.public, 1024)


def test_size_is_capped_before_parsing():
    with pytest.raises(MessageError, match="more than 10"):
        messages.unseal(messages.seal(ME, BODY), Ready, ME.public, 10)


def signed(raw):
    """A correctly signed envelope around bytes that are not a canonical body."""
    content = hashlib.sha256(raw).digest()
    signature = ME.sign(messages._signed("ready", "me", content))
    return msgspec.msgpack.encode(messages._Envelope(1, "ready", "me", raw, signature))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        msgspec.msgpack.encode({"plan": bytes(32)}),
        msgspec.msgpack.encode({"plan": bytes(31), "key": bytes(32)}),
        msgspec.msgpack.encode({"plan": bytes(32), "key": bytes(32), "more": 1}),
        msgspec.msgpack.encode({"key": bytes(32), "plan": bytes(32)}),  # another order
        msgspec.msgpack.encode({"plan": bytes(32), "key": "x" * 32}),
        msgspec.msgpack.encode([bytes(32), bytes(32)]),
    ],
)
def test_a_signed_body_must_still_be_canonical(raw):
    with pytest.raises(MessageError):
        messages.unseal(signed(raw), Ready, ME.public, 1024)


def test_the_transcript_separates_its_parts():
    a = messages.transcript_hash(b"ab", b"c", (b"d",))
    for other in (
        messages.transcript_hash(b"a", b"bc", (b"d",)),
        messages.transcript_hash(b"ab", b"c", (b"d", b"")),
        messages.transcript_hash(b"ab", b"c", ()),
    ):
        assert other != a


FEDERATION = Federation(3)


def change(**changes):
    return msgspec.structs.replace(FEDERATION.plan(), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"federation": "a/b"},
        {"run": "xyz"},
        {"run": "AB" * 8},
        {"adapter_digest": "sha256:00"},
        {"layout_digest": "md5:" + "0" * 64},
        {"base_model_digest": "sha256:" + "0" * 64 + "\n"},
        {"training_digest": ""},
        {"min_cohort": 2},
        {"min_cohort": 4},
        {"members": FEDERATION.plan().members[:2]},
        {"members": FEDERATION.plan().members[:1] * 3},
        {"aggregator": FEDERATION.public["decryptor"]},
        {"suite": "ckks-collective"},
    ],
)
def test_a_plan_that_does_not_hold_together_is_refused(changes):
    with pytest.raises(PlanError):
        change(**changes)


def test_a_plan_outside_the_table_is_refused():
    with pytest.raises(ParameterError):
        change(parameter_set="ckks-pk-2048-54")


def test_one_key_under_two_names_and_two_keys_under_one():
    members = FEDERATION.plan().members
    for identity in (
        messages.PublicIdentity("alias", members[0].identity.key),
        messages.PublicIdentity(members[0].identity.name, bytes(32)),
        messages.PublicIdentity("decryptor", bytes(32)),
    ):
        with pytest.raises(PlanError):
            change(members=(*members, Member(identity)))


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.5, float("nan"), float("inf"), 1e-9])
def test_weights(weight):
    with pytest.raises(PlanError):
        Member(FEDERATION.public["site-0"], weight)


def test_counters_are_checked_on_the_wire():
    # A Struct's constructor does not check ranges; decoding does.
    message = messages.seal(FEDERATION.identities["coordinator"], change(round=0))
    with pytest.raises(MessageError):
        messages.unseal(message, RoundPlan, FEDERATION.public["coordinator"])
