"""Everything that parses bytes from outside, fed with mutated real messages.

The mutator knows MessagePack: besides flipping and cutting bytes it changes types, lengths and
values inside envelopes and bodies, and signs the result again, so that inputs get past the
signature to the parsers behind it. Whatever comes, the answer is a typed error or a valid message:
no other exception, no hang, no memory beyond the caps, and the state stays as it was.
"""

import functools
import random
import subprocess
import sys
import time
import tracemalloc

import msgspec
import numpy as np
import pytest

from aggregation import AggregationError, Decryptor, MemoryJournal
from aggregation.ckks import residues, suites
from aggregation.crypto import identity, mac, sealed_box, sealed_key
from aggregation.protocol import Vanishing, checks, membership, messages, read_accusation
from aggregation.protocol.accusation import accuse
from aggregation.protocol.exchange import read_exchange, read_handed
from aggregation.roles.decryptor import _Attempt
from aggregation.testing import Federation

Q = 1152921504606830593
SLOWEST_S = 5.0  # for one input, on a busy machine
MEMORY_MIB = 64  # at any time, for all parsers together


@functools.cache
def targets():
    """Each message of a round of either suite, its signer, and the parser it goes to.

    And of one in which sites may vanish, where messages have more in them.
    """
    found = []
    for suite, agreement, custodians, vanishing in (
        ("ckks-pk", "x25519", 0, None),
        ("ckks-collective", "x25519-mlkem768", 1, None),
        ("ckks-collective", "x25519-mlkem768", 1, Vanishing(1, 2)),
    ):
        fed = Federation(
            3, size=50, suite=suite, key_agreement=agreement, custodians=custodians,
            vanishing=vanishing,
        )  # fmt: skip
        attempt = fed.start()
        total = fed.open(attempt).total()
        approvals = fed.approvals(attempt)
        listed = attempt.opening_list
        release = fed.decryptor.release(
            attempt.cohort, listed, total.manifest, total.chunks, approvals=approvals
        )
        public = fed.public
        round_ = checks.read_plan(attempt.plan_message, public["coordinator"])
        cohort = checks.read_cohort(round_, attempt.cohort)
        site = attempt.sites["site-0"]
        upload = site._upload
        found += [
            (fed, "coordinator", attempt.plan_message, reader(checks.read_plan, public)),
            (
                fed,
                "decryptor",
                attempt.announcement,
                functools.partial(checks.read_announcement, round_),
            ),
            (fed, "site-0", site.ready(), functools.partial(checks.read_ready, round_)),
            (fed, "coordinator", attempt.cohort, functools.partial(checks.read_cohort, round_)),
            (
                fed,
                "site-0",
                upload.manifest,
                functools.partial(add, fed, attempt, upload.chunks),
            ),
            (
                fed,
                "decryptor" if suite == "ckks-collective" else "aggregator",
                listed,
                functools.partial(checks.read_opening_list, cohort),
            ),
            (fed, "site-0", site.open(listed), attempt.aggregator.add_opening),
            (fed, "decryptor", release, site.verify),
        ]
        if vanishing is not None:
            key = attempt.sites["site-1"]._secrets.shares.reveal()
            said = accuse(fed.identities["site-1"], cohort, "site-0", key)
            found += [
                (fed, "site-0", attempt.exchanges[0], attempt.aggregator.add_exchange),
                (fed, "site-1", said, functools.partial(accused, cohort, attempt.exchanges)),
            ]
        if suite == "ckks-collective":
            handed = fed.handed(attempt)["site-1"][0]
            found += [
                (
                    fed,
                    "site-0",
                    attempt.exchanges[0],
                    functools.partial(read_exchange, cohort),
                ),
                (fed, "site-0", handed, functools.partial(read_handed, cohort, 1)),
                (
                    fed,
                    "site-0",
                    upload.chunks[-1],
                    functools.partial(confirm, fed, attempt),
                ),
                (
                    fed,
                    "custodian-0",
                    approvals[0],
                    functools.partial(unseal, messages.Approval, public["custodian-0"]),
                ),
            ]
    fed = Federation(3)
    body = membership.MembershipList("test", 1, "", tuple(fed.public[n] for n in fed.names))
    held = membership.sign_membership(fed.identities["coordinator"], body)
    read = functools.partial(membership_read, fed.public["coordinator"])
    found.append((fed, "coordinator", held, read))
    return found


def membership_read(public, message):
    membership.read_membership(message, public)


def accused(cohort, exchanges, message):
    """An honest dealer is accused of: whatever is made of it, that does not hold."""
    guilty = read_accusation(cohort, message, first=None, exchanges=exchanges)
    raise AssertionError(f"honest sites are convicted: {guilty}")


def reader(read, public):
    return lambda message: read(message, public["coordinator"])


def unseal(kind, signer, message):
    messages.unseal(message, kind, signer, 1 << 20)


def add(fed, attempt, chunks, message):
    fed.new_aggregator(attempt).add(message, chunks)


def confirm(fed, attempt, message):
    """A decryptor that gets a site's sealed secret; a new one, so that nothing is kept."""
    other = Decryptor(
        fed.identities["decryptor"],
        MemoryJournal(),
        coordinator=fed.public["coordinator"],
        pinned=fed.public,
    )
    other._attempts = {"x": mock(fed, attempt)}
    other.confirm(attempt.cohort, attempt.aggregator.opening_list(), [message])


def mock(fed, attempt):
    round_ = checks.read_plan(attempt.plan_message, fed.public["coordinator"])
    key = suites.new_key(round_.parameters)
    key.material = checks.read_announcement(round_, attempt.announcement)
    return _Attempt(round=round_, key=key, announcement=attempt.announcement)


BLOBS = (
    ("residues", lambda data: residues.unpack(data, 64, Q)),
    ("split", lambda data: residues.split(data, 64, Q)),
    ("tags", mac.decode_tags),
    ("box", lambda data: BOX.open(data, b"")),
    ("public", lambda data: sealed_box.seal_box(data, b"", b"")),
    ("sealed key", lambda data: sealed_key.unseal(cheap(data), b"", "pass phrase")),
    ("key text", lambda data: identity.PublicIdentity.parse("a", data.decode("latin-1"))),
)
BOX = sealed_box.BoxKey()


def cheap(data):
    """Keep scrypt out of the loop: its cost is capped, and paid only for a right form."""
    return data if not data.startswith(sealed_key.BEGIN) else data[:-1] + b"x"


@functools.cache
def blob_seeds():
    return {
        "residues": residues.pack(np.arange(64, dtype=np.uint64), Q),
        "split": bytes(480),
        "tags": bytes(range(16)),
        "box": sealed_box.seal_box(BOX.public, b"content", b""),
        "public": BOX.public,
        "sealed key": b"\n".join((sealed_key.BEGIN, b"AAAA", sealed_key.END)),
        "key text": b"ed25519:" + b"A" * 43 + b"=",
    }


def scalar(rng):
    return rng.choice(
        [
            None,
            True,
            0,
            -1,
            1,
            2**31,
            2**63 - 1,
            2**64 - 1,
            -(2**63),
            0.0,
            float("nan"),
            float("inf"),
            1e308,
            "",
            "a" * rng.randrange(100),
            "\ud7ff\U0010ffff",
            b"",
            rng.randbytes(rng.choice([1, 31, 32, 33, 64, 1184, 2000])),
            [],
            {},
            [[[[]]]],
        ]
    )


def mutate_bytes(rng, data):
    """Flip, cut, grow, repeat or overwrite; early bytes hold the structure."""
    if not data:
        return rng.randbytes(rng.randrange(1, 20))
    place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 120))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + rng.randbytes(rng.randrange(1, 9)) + data[place:]
    if kind == 3:
        return data[:place] + data[max(0, place - rng.randrange(1, 64)) :]
    if kind == 4:
        # MessagePack heads that promise much: arrays, maps, strings and blobs of 2**32 - 1
        head = rng.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"]) + b"\xff" * 4
        return data[:place] + head + data[place:]
    return data[:place] + rng.randbytes(8) + data[place + 8 :]


def mutate_fields(rng, value, depth=0):
    """Change one thing somewhere inside a decoded value."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(5)
        changed = dict(value)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[str(rng.random())] = scalar(rng)
        elif kind == 2:
            changed = dict(reversed(list(changed.items())))
        else:
            changed[key] = mutate_fields(rng, value[key], depth + 1)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        kind = rng.randrange(4)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return [*value, value[place]]
        if kind == 2:
            return value[::-1]
        return [mutate_fields(rng, v, depth + 1) if i == place else v for i, v in enumerate(value)]
    if isinstance(value, bytes) and rng.random() < 0.8:
        return mutate_bytes(rng, value)
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice([-1, 1, 2**31, -(2**31), 2**60])
    return scalar(rng)


def mutated(rng, fed, signer, message):
    """A message with something changed: its bytes, its envelope, or its body signed again."""
    kind = rng.randrange(4)
    if kind == 0:
        return mutate_bytes(rng, message)
    envelope = msgspec.msgpack.decode(message)
    try:
        if "index" in envelope and rng.random() < 0.5:  # of an exchange message, or a part of it
            index = mutated(rng, fed, signer, envelope["index"])
            return msgspec.msgpack.encode({**envelope, "index": index})
        if kind == 1 or "index" in envelope:
            return msgspec.msgpack.encode(mutate_fields(rng, envelope))
        if kind == 2:
            raw = mutate_bytes(rng, envelope["body"])
        else:
            body = msgspec.msgpack.decode(envelope["body"])
            raw = msgspec.msgpack.encode(mutate_fields(rng, body))
    except (OverflowError, UnicodeEncodeError):
        return b""
    identity_ = fed.identities[signer]
    signature = identity_.sign(messages._signed(envelope["kind"], signer, raw))
    return msgspec.msgpack.encode({**envelope, "body": raw, "signature": signature})


def attack(count, seed):
    rng = random.Random(seed)
    aimed, blobs = targets(), blob_seeds()
    refused = 0
    tracemalloc.start()
    try:
        for number in range(count):
            if rng.random() < 0.2:
                name, parse = rng.choice(BLOBS)
                data = mutate_bytes(rng, blobs[name])
            else:
                fed, signer, message, parse = rng.choice(aimed)
                data = mutated(rng, fed, signer, message)
            started = time.perf_counter()
            try:
                parse(data)
            except AggregationError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"input {number} of seed {seed}: {error!r}") from error
            assert time.perf_counter() - started < SLOWEST_S
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_MIB
    return refused


def test_two_thousand_inputs():
    refused = attack(2_000, seed=1)
    assert refused > 1_800  # nearly all are wrong somewhere; a few mutations give valid values


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_inputs(seed):
    assert attack(10_000, seed=1000 + seed) > 9_000


def test_messages_still_parse_after_all_that():
    """State intact: the true messages are accepted as before."""
    attack(200, seed=5)
    for _, _, message, parse in targets():
        if parse.__class__ is functools.partial and parse.func in {confirm, accused}:
            continue  # a mock key opens no real box, and an honest site is not convicted
        parse(message)


def test_residues_are_parsed_without_any_library():
    code = (
        "import sys; from aggregation.ckks import residues;"
        "residues.unpack(bytes(480), 64, 1152921504606830593);"
        "sys.exit(any(m.split('.')[0] in ('tenseal','google','zstandard','pyarrow')"
        " for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
