"""What someone with the ledger's file, and not the site's key, can do to it: nothing unnoticed."""

import dataclasses
import json
import random
import shutil
import sqlite3
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import (
    Budget,
    Ledger,
    LedgerDamaged,
    LedgerError,
    LedgerLocked,
    PoissonSampledGaussian,
    rdp_cost,
)
from privacy.ledger.chain import GENESIS, canonical_json, new_record, parse_line, verify_chain

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
EVENT = PoissonSampledGaussian(0.1, 2.0, 1)


def create(place, signer=SIGNER):
    return Ledger.create(
        place,
        population="p",
        unit="record",
        signer=signer,
        public_key=signer.public_key().public_bytes_raw(),
    )


@pytest.fixture
def path(tmp_path):
    """A ledger of a grant, two runs with three commits, and a refund."""
    ledger = create(tmp_path / "ledger.sqlite")
    ledger.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    ledger.reserve(run="a", event=EVENT, rounds=4, plan="p")
    ledger.commit(run="a", round=1)
    ledger.commit(run="a", round=2)
    ledger.refund(run="a", evidence="e")
    ledger.reserve(run="b", event=EVENT, rounds=2, plan="p")
    ledger.commit(run="b", round=1)
    return tmp_path / "ledger.sqlite"


def read_lines(path):
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT line FROM records ORDER BY sequence")]


def write_lines(path, lines):
    """Replace all records: the triggers stop nobody who can drop them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for trigger in ("edited", "deleted", "replaced"):
            connection.execute(f"DROP TRIGGER IF EXISTS records_are_not_{trigger}")
        connection.execute("DELETE FROM records")
        connection.executemany("INSERT INTO records VALUES (?, ?)", enumerate(lines, start=1))


def refused(place, match=None):
    """Every way to open and to use the ledger is refused, and says that it is damaged."""
    with pytest.raises(LedgerDamaged, match=match):
        Ledger(place)
    with pytest.raises(LedgerDamaged, match=match):
        Ledger(place, signer=SIGNER)


def edit(line, **changes):
    return canonical_json(json.loads(line) | changes)


def sign_again(lines, signer, start=0, bodies=None):
    """The chain continued from `start` with the same kinds, digested and signed anew."""
    bodies = bodies or {}
    records = [parse_line(line) for line in lines[:start]]
    for index, line in list(enumerate(lines))[start:]:
        old = parse_line(line)
        kind, body = bodies.get(index, (old.kind, old.body))
        records.append(
            new_record(
                previous=records[-1] if records else None, kind=kind, body=body, signer=signer
            )
        )
    return [record.to_line() for record in records]


def test_writing_back_what_was_read_is_fine(path):
    lines = read_lines(path)
    assert len(lines) == 8
    write_lines(path, lines)
    assert len(Ledger(path).records()) == 8


def test_tampering_is_detected_in_every_store(places):
    place = places.new()
    ledger = create(place)
    ledger.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    ledger.reserve(run="a", event=EVENT, rounds=4, plan="p")
    ledger.commit(run="a", round=1)
    anchor = ledger.anchor()
    lines = places.lines(place)
    places.replace(place, lines)
    assert Ledger(place, signer=SIGNER).hold_to([anchor]) == 1
    for index, line in enumerate(lines):
        before, after = lines[:index], lines[index + 1 :]
        changed = [
            [*before, edit(line, at="2020-01-01T00:00:00+00:00"), *after],
            [*before, line, line, *after],
            [*before, *after[:1], line, *after[1:]],  # the last one's is as it was
            [*before, *after],
        ]
        for tampered in changed[: None if after else 2]:
            places.replace(place, tampered)
            refused(place)
        places.replace(place, before)
        if before:  # its end cut off it verifies, and an anchor tells
            with pytest.raises(LedgerLocked, match="truncated or rolled back"):
                Ledger(place, signer=SIGNER).hold_to([anchor])
        else:
            refused(place, "no records")
    places.replace(place, lines[:3])
    with pytest.raises(LedgerLocked):  # this object knows that it wrote more
        ledger.commit(run="a", round=2)
    places.replace(place, lines)
    ledger.commit(run="a", round=2)


def test_tampering_behind_an_open_ledger_is_detected(path):
    """What was verified once is not verified again, byte for byte: one byte is enough to tell."""
    ledger = Ledger(path, signer=SIGNER)
    lines = read_lines(path)
    assert len(ledger.records()) == len(lines)
    for index, line in enumerate(lines):
        before, after = lines[:index], lines[index + 1 :]
        altered = line[:-3] + ("0" if line[-3] != "0" else "1") + line[-2:]
        for tampered in ([*before, altered, *after], [*before, line, line, *after]):
            write_lines(path, tampered)
            for use in (ledger.records, ledger.budget, ledger.anchor, lambda: charge(ledger)):
                with pytest.raises(LedgerDamaged):
                    use()
        write_lines(path, lines)
        assert ledger.budget().sequence == len(lines)
    # A signed past of another kind is no damage; what is added up is what is there now.
    other = sign_again(lines, SIGNER, start=3)
    write_lines(path, other)
    assert [record.to_line() for record in ledger.records()] == other
    assert ledger.state()[1].digest == parse_line(other[-1]).digest
    assert ledger.anchor().digest == parse_line(other[-1]).digest


def charge(ledger):
    ledger.commit(run="b", round=2)


def test_a_state_read_earlier_stays_as_it_was(path):
    """The next one goes on from it, and must not change it."""
    ledger = Ledger(path, signer=SIGNER)
    before = ledger.budget()
    (spent,) = [status.epsilon_charged for status in before.status()]
    trained = len(before.reservations["b"].commits)
    other = Ledger(path, signer=SIGNER)
    other.commit(run="b", round=2)
    other.refund(run="b", evidence="e")
    after = ledger.budget()
    assert len(before.reservations["b"].commits) == trained == 1
    assert before.reservations["b"].open
    assert len(after.reservations["b"].commits) == 2
    assert not after.reservations["b"].open
    assert [status.epsilon_charged for status in before.status()] == [spent]
    fresh = Ledger(path).budget()
    assert after.history == fresh.history
    assert after.status() == fresh.status()


@pytest.mark.parametrize(
    "changes",
    [
        {"at": "2020-01-01T00:00:00+00:00"},
        {"kind": "refund"},
        {"salt": "0" * 64},
        {"previous": GENESIS[:-1] + "1"},
        {"digest": "0" * 64},
        {"signature": "0" * 128},
        {"signature": "not hexadecimal"},
        {"sequence": 99},
        {"body": {}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_editing_a_record_is_detected(path, changes):
    lines = read_lines(path)
    for index, line in enumerate(lines):
        edited = edit(line, **changes)
        if edited != line:  # one record is a refund already
            write_lines(path, [*lines[:index], edited, *lines[index + 1 :]])
            refused(path)


def test_editing_a_body_is_detected_even_with_its_digest_made_to_match(path):
    """A fresh digest needs a fresh signature, and only the site can make one."""
    lines = read_lines(path)
    record = parse_line(lines[1])
    body = record.body | {"epsilon": (9.0).hex()}
    forged = sign_again(lines[:2], STRANGER, start=1, bodies={1: ("grant", body)})
    signed_by_site = edit(forged[1], signature=record.signature)
    for second in (forged[1], signed_by_site):
        write_lines(path, [lines[0], second, *lines[2:]])
        refused(path)


def test_deleting_a_record_is_detected(path):
    lines = read_lines(path)
    for index in range(7):
        write_lines(path, lines[:index] + lines[index + 1 :])
        refused(path)


def test_deleting_everything_is_detected(path):
    write_lines(path, [])
    refused(path, "no records")


def test_reordering_is_detected(path):
    lines = read_lines(path)
    for index in range(7):
        swapped = [lines[index + 1], lines[index]]
        write_lines(path, [*lines[:index], *swapped, *lines[index + 2 :]])
        refused(path)


def test_duplicating_is_detected(path):
    lines = read_lines(path)
    for index, line in enumerate(lines):
        write_lines(path, [*lines[: index + 1], line, *lines[index + 1 :]])
        refused(path)
        write_lines(path, [*lines, line])
        refused(path)


def test_records_of_two_forks_cannot_be_joined():
    """Both are signed by the site and in sequence; the second was written after another first."""
    one, other = signed(OPEN, GRANT, RESERVE), signed(OPEN, GRANT, RESERVE)
    spliced = [one[0].to_line(), one[1].to_line(), other[2].to_line()]
    with pytest.raises(LedgerDamaged, match="record 3 does not continue"):
        list(verify_chain(spliced, PUBLIC_KEY))


def test_a_sequence_with_a_gap_is_refused():
    first = signed(OPEN)[0]
    skipping = new_record(
        previous=dataclasses.replace(first, sequence=2), kind="grant", body={}, signer=SIGNER
    )
    with pytest.raises(LedgerDamaged, match="record 2 carries sequence 3: one is missing"):
        list(verify_chain([first.to_line(), skipping.to_line()], PUBLIC_KEY))


@pytest.mark.parametrize("start", range(1, 8))
def test_signing_the_end_anew_with_another_key_is_detected(path, start):
    write_lines(path, sign_again(read_lines(path), STRANGER, start=start))
    refused(path, "not signed by this site")


def test_a_whole_ledger_signed_anew_is_caught_by_an_anchor_and_by_the_site(path):
    """It is sound in itself: its first record names the key. Others know the old head."""
    ledger = Ledger(path, signer=SIGNER)
    anchor = "{}:{}".format(*ledger.head())
    lines = read_lines(path)
    opened = parse_line(lines[0]).body
    theirs = STRANGER.public_key().public_bytes_raw().hex()
    body = opened | {"public_key": theirs}
    write_lines(path, sign_again(lines, STRANGER, bodies={0: ("open", body)}))
    forged = Ledger(path, signer=SIGNER)
    with pytest.raises(LedgerDamaged, match="forked"):
        forged.budget().require_heads([anchor])
    assert forged.budget().public_key != PUBLIC_KEY
    with pytest.raises(LedgerError, match="unchanged"):  # nor can the site go on with it
        forged.commit(run="b", round=2)


@pytest.mark.parametrize("kept", range(1, 8))
def test_truncation_is_caught_by_an_anchor(path, kept):
    ledger = Ledger(path)
    anchor = "{}:{}".format(*ledger.head())
    ledger.budget().require_heads([anchor])
    write_lines(path, read_lines(path)[:kept])
    shorter = Ledger(path)  # a chain cut at its end is a chain: this is why heads are kept
    with pytest.raises(LedgerDamaged, match="truncated or rolled back"):
        shorter.budget().require_heads([anchor])


def test_a_rollback_that_grew_again_is_caught_by_an_anchor(path, tmp_path):
    ledger = Ledger(path, signer=SIGNER)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = tmp_path / "backup"
    shutil.copy(path, backup)
    ledger.commit(run="b", round=2)
    anchor = "{}:{}".format(*ledger.head())
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copy(backup, path)
    restored = Ledger(path, signer=SIGNER)
    with pytest.raises(LedgerDamaged, match="rolled back"):
        restored.budget().require_heads([anchor])
    restored.commit(run="b", round=3)
    restored.grant(epsilon=1.0, delta=1e-5, population_size=1000)
    with pytest.raises(LedgerDamaged, match="forked"):
        restored.budget().require_heads([anchor])


# What the site's key signed must add up too: the arithmetic does not trust the writer.


def signed(*bodies):
    records = []
    for kind, body in bodies:
        records.append(
            new_record(
                previous=records[-1] if records else None, kind=kind, body=body, signer=SIGNER
            )
        )
    return records


OPEN = (
    "open",
    {
        "population": "p",
        "unit": "record",
        "relation": "add-or-remove-one-unit",
        "public_key": PUBLIC_KEY.hex(),
    },
)
GRANT = (
    "grant",
    {
        "grant": 1,
        "epsilon": (3.0).hex(),
        "delta": (1e-5).hex(),
        "orders": [6, 7],
        "purpose": "",
    },
)


def reserve_body(**changes):
    body = {
        "run": "r",
        "grant": 1,
        "event": EVENT.canonical(),
        "rounds": 2,
        "cost": costs(EVENT),
        "plan": "p",
        "purpose": "",
    }
    return body | changes


def charge_body(**changes):
    return {"grant": 1, "event": EVENT.canonical(), "rounds": 1, "cost": costs(EVENT)} | changes


def costs(event, scale=1.0):
    return {str(o): int(c * scale) for o, c in rdp_cost(event, (6, 7)).items()}


def with_body(record, **changes):
    return (record[0], {**record[1], **changes})


LOST = f"99:{'a' * 64}"
RESERVE = ("reserve", reserve_body())
COMMIT = ("commit", {"run": "r", "round": 1})
REFUND = ("refund", {"run": "r", "rounds": 1, "evidence": "e"})


def test_the_sound_history_adds_up():
    budget = Budget.replay(signed(OPEN, GRANT, RESERVE, COMMIT, REFUND))
    assert budget.reservations["r"].charged_rounds == 1


def missing(record, name):
    return (record[0], {k: v for k, v in record[1].items() if k != name})


def unsound():
    yield "no open", [GRANT]
    yield "open twice", [OPEN, OPEN]
    yield "other relation", [with_body(OPEN, relation="replace-one")]
    yield "unknown kind", [OPEN, GRANT, ("forgive", {"run": "r"})]
    yield "grant out of order", [OPEN, with_body(GRANT, grant=2)]
    yield "grant repeated", [OPEN, GRANT, GRANT]
    for orders in (
        [],
        [1],
        [0, 6],
        [-6, 7],
        [7, 6],
        [6, 6],
        [6, 257],
        [6.0, 7.5],
        ["6"],
        [True, 2],
    ):
        yield f"orders {orders}", [OPEN, with_body(GRANT, orders=orders)]
    yield "orders of no list", [OPEN, with_body(GRANT, orders=7)]
    for value in ("nan", "inf", "-0x1p+0", "0x0p+0", "0x1p+99999", "x", 3.0, None):
        yield f"epsilon {value}", [OPEN, with_body(GRANT, epsilon=value)]
    yield "delta 1", [OPEN, with_body(GRANT, delta=(1.0).hex())]
    yield "too much", [OPEN, GRANT, ("reserve", reserve_body(rounds=10**6))]
    for rounds in (0, -1, -(10**6), 1.5, "2", None, True):
        yield f"rounds {rounds!r}", [OPEN, GRANT, ("reserve", reserve_body(rounds=rounds))]
    yield "cost too small", [OPEN, GRANT, ("reserve", reserve_body(cost=costs(EVENT, 0.999)))]
    yield "cost too large", [OPEN, GRANT, ("reserve", reserve_body(cost=costs(EVENT, 1.001)))]
    for cost in ({}, [], None, "x", {"6": "a", "7": "b"}, {"6": None, "7": None}):
        yield f"cost {cost!r}", [OPEN, GRANT, ("reserve", reserve_body(cost=cost))]
    yield "no such grant", [OPEN, GRANT, ("reserve", reserve_body(grant=2))]
    yield "grant 0", [OPEN, GRANT, ("reserve", reserve_body(grant=0))]
    yield "reserves twice", [OPEN, GRANT, RESERVE, RESERVE]
    for event in (
        None,
        [],
        {},
        {"kind": "laplace"},
        EVENT.canonical() | {"steps": 0},
        EVENT.canonical() | {"steps": 10**400},
        EVENT.canonical() | {"noise_multiplier": (1e-200).hex()},
        {"kind": "non-private", "reason": "x"},
    ):
        yield f"event {str(event)[:40]}", [OPEN, GRANT, ("reserve", reserve_body(event=event))]
    recover = ("recover", {"heads": [LOST], "charges": [charge_body()], "reason": "r"})
    for heads in ([], None, "x", LOST, ["x"], [5], [LOST, LOST + "0"], [f"0:{'a' * 64}"]):
        yield f"heads {heads}", [OPEN, GRANT, with_body(recover, heads=heads)]
    for charge in (
        None,
        {},
        charge_body(rounds=0),
        charge_body(rounds=-5),
        charge_body(grant=2),
        charge_body(cost=costs(EVENT, 0.999)),
        charge_body(cost={"6": None, "7": None}),
        charge_body(event={"kind": "non-private", "reason": "x"}),
        charge_body(event={"kind": "forgiven"}),
    ):
        yield f"charge {charge}", [OPEN, GRANT, with_body(recover, charges=[charge])]
    yield "charges of no list", [OPEN, GRANT, with_body(recover, charges=charge_body())]
    yield "commit of nothing", [OPEN, GRANT, COMMIT]
    yield "commit beyond", [OPEN, GRANT, RESERVE, COMMIT, COMMIT, COMMIT]
    yield "commit after refund", [OPEN, GRANT, RESERVE, COMMIT, REFUND, COMMIT]
    yield "round of text", [OPEN, GRANT, RESERVE, with_body(COMMIT, round="1")]
    yield "refund of nothing", [OPEN, GRANT, REFUND]
    yield "refund of more", [OPEN, GRANT, RESERVE, COMMIT, with_body(REFUND, rounds=2)]
    yield "refund of less", [OPEN, GRANT, RESERVE, COMMIT, with_body(REFUND, rounds=0)]
    yield "refund twice", [OPEN, GRANT, RESERVE, COMMIT, REFUND, with_body(REFUND, rounds=0)]
    yield (
        "commit after non-private",
        [OPEN, GRANT, RESERVE, ("non-private", {"run": "x", "reason": ""}), COMMIT],
    )
    history = [OPEN, GRANT, RESERVE, COMMIT, REFUND, recover]
    for index, record in enumerate(history):
        for name in record[1]:
            yield f"{record[0]} without {name}", [*history[:index], missing(record, name)]


@pytest.mark.parametrize(("name", "bodies"), list(unsound()), ids=[n for n, _ in unsound()])
def test_unsound_histories_are_refused_though_signed(name, bodies):
    with pytest.raises(LedgerDamaged):
        Budget.replay(signed(*bodies))


# Lines.


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "null",
        "true",
        "1",
        '"text"',
        "[]",
        "{}",
        "{",
        "NaN",
        '{"a":1}',
        "\x00",
        "\ud800",
        "[" * 100_000,
        "9" * 10_000,
        '{"sequence":' + "9" * 5000 + "}",
        "x" * (1 << 20) + "x",
    ],
    ids=lambda line: repr(line[:12]),
)
def test_what_is_not_a_record_is_refused(line):
    with pytest.raises(LedgerDamaged):
        parse_line(line)


def variants(line):
    """Lines that say the same, or nearly, in another form."""
    fields = json.loads(line)
    yield line + "\n"
    yield " " + line
    yield line.replace(":", ": ", 1)
    yield json.dumps(fields)
    yield json.dumps(dict(reversed(fields.items())), separators=(",", ":"))
    yield line[:-1] + ',"zzz":1}'
    yield line[:-1] + f',"signature":"{fields["signature"]}"}}'
    yield line.replace('"sequence":1', '"sequence":1.0')
    yield line.replace('"sequence":1', '"sequence":"1"')
    yield line.replace('"sequence":1', '"sequence":1e0')
    yield line.replace('"kind":"open"', '"kind":"\\u006fpen"')
    yield line.replace('"kind":"open"', '"kind":null')
    yield line.replace('"unit":"record"', '"unit":NaN')
    for name in fields:
        yield canonical_json({k: v for k, v in fields.items() if k != name})
        yield canonical_json(fields | {name: None})
        yield canonical_json(fields | {name: [1]})


def test_records_have_one_form():
    line = signed(OPEN)[0].to_line()
    assert parse_line(line).to_line() == line
    for variant in variants(line):
        assert variant != line
        with pytest.raises(LedgerDamaged):
            list(verify_chain([variant], PUBLIC_KEY))


@pytest.mark.parametrize(
    "public_key", [None, 5, "", "00", " " * 64, "zz" * 32, "AB" * 32, "0" * 63 + " ", "0" * 64]
)
def test_a_first_record_without_a_key_is_refused(path, public_key):
    lines = read_lines(path)
    body = parse_line(lines[0]).body | {"public_key": public_key}
    write_lines(path, [edit(lines[0], body=body), *lines[1:]])
    refused(path)


def flips(data, rng):
    kind = rng.randrange(4)
    place = rng.randrange(len(data))
    if kind == 0:
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + rng.randbytes(rng.randrange(1, 20)) + data[place:]
    return data[:place] + data[place + rng.randrange(1, 20) :]


def fuzz_lines(count, seed):
    rng = random.Random(seed)
    lines = [record.to_line() for record in signed(OPEN, GRANT, RESERVE, COMMIT, REFUND)]
    for _ in range(count):
        index = rng.randrange(len(lines))
        data = lines[index].encode()
        for _ in range(rng.randrange(1, 4)):
            data = flips(data, rng) or b"{"
        changed = data.decode("utf-8", "surrogateescape")
        if changed == lines[index]:
            continue
        with pytest.raises(LedgerDamaged):
            Budget.replay(verify_chain([*lines[:index], changed, *lines[index + 1 :]], PUBLIC_KEY))


def test_fuzzed_lines_are_refused_as_damage_and_nothing_else():
    fuzz_lines(1500, 1)


@pytest.mark.slow
def test_many_fuzzed_lines_are_refused_as_damage_and_nothing_else():
    fuzz_lines(50_000, 2)


def fuzz_files(path, count, seed):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    whole, sound = path.read_bytes(), Ledger(path).records()
    rng = random.Random(seed)
    target = path.with_name("damaged.sqlite")
    detected = 0
    for _ in range(count):
        data = whole
        for _ in range(rng.randrange(1, 4)):
            place, size = rng.randrange(len(data)), rng.randrange(1, 200)
            kind = rng.randrange(3)
            if kind == 0:
                data = data[:place] + rng.randbytes(size) + data[place + size :]
            elif kind == 1:
                data = data[: max(1, place)]
            else:
                data = data[:place] + bytes(size) + data[place + size :]
        for suffix in ("", "-wal", "-shm", "-journal"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        target.write_bytes(data)
        try:
            records = Ledger(target, signer=SIGNER).records()
        except LedgerError:  # LedgerDamaged, or the header claims a form that needs more files
            detected += 1
        else:
            # Damage to unused space changes nothing; a lost end is for anchors to find.
            assert records == sound[: len(records)]
    return detected


def test_a_damaged_file_is_refused_or_reads_as_it_was(path):
    assert fuzz_files(path, 60, 3) > 20


@pytest.mark.slow
def test_many_damaged_files_are_refused_or_read_as_they_were(path):
    assert fuzz_files(path, 3000, 4) > 1000


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage" * 1000, b"SQLite format 3\x00" + bytes(84)],
    ids=["empty", "garbage", "header only"],
)
def test_a_file_that_is_no_ledger_is_refused(tmp_path, content):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    refused(path)
    assert path.read_bytes() == content


def test_another_application_s_database_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE records (sequence INTEGER PRIMARY KEY, line)")
        connection.executemany("INSERT INTO records VALUES (?, ?)", [(1, None), (2, 5)])
        connection.commit()
    refused(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET line = x'00ff'")
        connection.commit()
    refused(path)


# What records tell those who hold only their digests.


def test_digests_reveal_nothing_of_the_body():
    """Equal bodies, kinds, times and places: still other digests, by 32 random bytes each."""
    records = [new_record(previous=None, kind=OPEN[0], body=OPEN[1], signer=SIGNER)]
    records += [
        new_record(previous=None, kind=OPEN[0], body=OPEN[1], signer=SIGNER) for _ in range(20)
    ]
    assert len({record.salt for record in records}) == len(records)
    assert len({record.digest for record in records}) == len(records)
    assert len({record.signature for record in records}) == len(records)
    assert all(len(bytes.fromhex(record.salt)) == 32 for record in records)


def test_salts_cannot_be_exchanged(path):
    lines = read_lines(path)
    first, second = json.loads(lines[3]), json.loads(lines[4])
    lines[3], lines[4] = (
        edit(lines[3], salt=second["salt"]),
        edit(lines[4], salt=first["salt"]),
    )
    write_lines(path, lines)
    refused(path, "altered")
