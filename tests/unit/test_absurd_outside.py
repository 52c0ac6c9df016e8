"""Absurd figures in what others bring: start files, Flower's frames, ledger records signed again.

Each figure is replaced by each absurd value, and signed by whoever may sign: what answers is a
typed error, or something whose figures are possible.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.numpy
from absurd import ABSURD, absurd, figures
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_start_file import KEY, config_of, start_for

from aggregation import Identity
from fmfl_secure.errors import FrameRefused, ModelError, RunError, StartError
from fmfl_secure.planning.warm_start import line_epsilon
from fmfl_secure.run.end import _DOMAIN, read_end, sign_end
from fmfl_secure.runtime.anchor_registry import AnchorsForSite
from fmfl_secure.transports.flower.frames import (
    Answer,
    HeadsBrought,
    Order,
    Sent,
    _signed,
    open_frame,
    reference,
    seal,
)
from fmfl_secure.transports.flower.order_transport import OrderTransport
from fmfl_secure.vectors.adapter_line import Ancestor, decode_line, encode_line
from fmfl_secure.vectors.start_file import START_FILE, read_start, write_start
from privacy import Ledger, LedgerDamaged, PoissonSampledGaussian
from privacy.ledger.budget import Budget
from privacy.ledger.chain import new_record, verify_lines
from privacy.ledger.export import export_csv, export_json

EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PARTY = Identity.generate("site-1")


# Flower's frames.

ORDER = Order(
    package="p", party="site-1", sequence=7, step="upload", run="cafe0123", round=1, attempt=1,
    documents={"plan": reference(b"plan")}, sizes=[3, 4], membership=1, part_bytes=4096,
    heads=AnchorsForSite(["a"], {"b": "c"}, {"b": ["d"]}), lists=["e"],
)  # fmt: skip
ANSWER = Answer(
    "site-1", "0" * 64, [Sent("ready", reference(b"ready")), HeadsBrought({"site-2": ["f"]})]
)


def _sealed(form: Any, kind: str) -> bytes:
    raw = msgspec.msgpack.encode(form)
    honest = msgspec.msgpack.decode(seal(PARTY, ORDER if kind == "order" else ANSWER))
    made = type("Any", (), {})  # signed as the frame's kind is, whatever it says
    made.__name__ = kind.title()
    return msgspec.msgpack.encode(
        {**honest, "head": raw, "signature": PARTY.sign(_signed(made, raw))}
    )


@pytest.mark.parametrize("kind", [Order, Answer])
def test_a_frame_with_an_absurd_figure_is_refused_or_could_be_meant(kind: type) -> None:
    honest = msgspec.to_builtins(ORDER if kind is Order else ANSWER)
    assert open_frame(_sealed(honest, kind.__name__.lower()), kind, PARTY.public)
    tried = refused = 0
    for where, value, form in absurd(honest):
        try:
            frame = _sealed(form, kind.__name__.lower())
        except (OverflowError, RecursionError):  # MessagePack has no such number
            continue
        tried += 1
        try:
            found, opened = open_frame(frame, kind, PARTY.public)
            work = OrderTransport().take(found, opened) if isinstance(found, Order) else None
        except FrameRefused:
            refused += 1
            continue
        if work is not None:
            assert 4096 <= work.part_bytes <= 64 << 20, (where, value)
            assert all(0 <= each <= 1 << 40 for each in work.sizes), (where, value)
    assert tried / 2 < refused < tried


# A start file.


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    config = config_of(tiny_model)
    path = tmp_path_factory.mktemp("start") / START_FILE
    start = start_for(config)
    write_start(start, path)
    return config, start, path


def test_a_start_file_with_an_absurd_figure_is_refused_or_the_same(started, tmp_path) -> None:
    config, start, path = started
    with safetensors.safe_open(path, framework="numpy") as opened:
        facts = json.loads(opened.metadata()[KEY])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    other = tmp_path / START_FILE
    tried = 0
    for where, value, form in absurd(facts, every=5):
        tried += 1
        other.write_bytes(safetensors.numpy.save(tensors, metadata={KEY: json.dumps(form)}))
        try:
            found = read_start(other, config)
        except StartError:
            continue
        except Exception as error:
            error.add_note(f"at {where}: {value!r}")
            raise
        assert found.layouts == start.layouts, (where, value)
        for grid in found.grids:  # sites compare it with their own
            for segment in grid.segments:
                assert 0 < segment.range < math.inf, (where, value)
    assert tried > 30


# What an adapter continues.


def test_a_line_with_an_absurd_figure_is_refused_or_costs_something() -> None:
    event = json.loads(json.dumps(EVENT.canonical()))
    honest = (Ancestor("cafe0123", "tiny", "s", "a", "record", 1e-5, 3, event),)
    assert line_epsilon(decode_line(encode_line(honest)), 1e-5) > 0
    tried = refused = 0
    for where, value, form in absurd(json.loads(encode_line(honest))):
        tried += 1
        try:
            found = line_epsilon(decode_line(json.dumps(form)), 1e-5)
        except ModelError:
            refused += 1
        except Exception as error:
            error.add_note(f"at {where}: {value!r}")
            raise
        else:
            assert found >= 0, (where, value)
    assert tried / 2 < refused < tried


# A run's end.


def test_an_end_with_an_absurd_figure_is_refused_or_could_be_meant() -> None:
    class Round:
        round, status, release_digest = 1, "released", "sha256:0"

    body = json.loads(sign_end(PARTY, "cafe0123", [Round()])[64:])  # type: ignore[list-item]
    tried = refused = 0
    for _, _, form in absurd(body):
        raw = json.dumps(form).encode()
        tried += 1
        try:
            end = read_end(
                PARTY.sign(_DOMAIN + raw) + raw, coordinator=PARTY.public, run="cafe0123"
            )
        except RunError:
            refused += 1
        else:
            assert 1 <= end.rounds[0][0] <= 2**53
    assert tried / 2 < refused < tried


# Ledger records, signed again by whoever has the key.


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory):
    ledger = Ledger.create(
        tmp_path_factory.mktemp("ledger") / "ledger.sqlite",
        population="cardiology",
        unit="patient_id",
        signer=SIGNER,
        public_key=SIGNER.public_key().public_bytes_raw(),
    )
    ledger.grant(epsilon=3.0, delta=1e-5, population_size=1000, insider_epsilon=6.0)
    ledger.reserve(run="a", event=EVENT, rounds=4, plan="plan-a", population_size=900)
    ledger.commit(run="a", round=1)
    ledger.refund(run="a", evidence="sha256:end-of-a")
    ledger.recover([f"99:{'a' * 64}"], reason="backup", losses=[(1, EVENT, 3)])
    return ledger.records()


def _written(body: dict[str, Any]) -> dict[str, Any]:
    """Where a record writes a figure as hexadecimal text, as the figure."""
    return {
        name: float.fromhex(value) if isinstance(value, str) and value.startswith("0x") else value
        for name, value in body.items()
    }


def _signed_again(records, place: int, body: dict[str, Any]) -> list[str]:
    """The chain with another body at one place, and all after it signed on top."""
    made = list(records[:place])
    for record in [None, *records[place + 1 :]]:
        kind, said = (records[place].kind, body) if record is None else (record.kind, record.body)
        made.append(
            new_record(previous=made[-1] if made else None, kind=kind, body=said, signer=SIGNER)
        )
    return [record.to_line() for record in made]


def _bodies(record) -> list[tuple[str, Any, dict[str, Any]]]:
    honest = _written(record.body)
    hexadecimal = {n for n in honest if honest[n] != record.body[n] and n in record.body}
    found = []
    for where, value, form in absurd(honest):
        for name in hexadecimal:
            if isinstance(form[name], float):
                form[name] = form[name].hex()
        found.append((where, value, form))
    return found


@pytest.mark.parametrize(
    "every", [41, pytest.param(3, marks=pytest.mark.slow)], ids=["sample", "most"]
)
def test_a_ledger_with_an_absurd_figure_signed_again_is_damaged_or_adds_up(chain, every) -> None:
    tried = damaged = 0
    for place, record in enumerate(chain):
        for where, value, body in _bodies(record)[place::every]:
            try:
                lines = _signed_again(chain, place, body)
            except (ValueError, RecursionError):  # canonical JSON has no such number
                continue
            tried += 1
            try:
                records = verify_lines(lines)
                budget = Budget.replay(records)
                for status in budget.status():
                    assert status.epsilon_charged >= 0, (where, value)
                export_json(records)
                export_csv(records)
            except LedgerDamaged:
                damaged += 1
            except Exception as error:
                error.add_note(f"{record.kind} at {where}: {value!r}")
                raise
    assert tried / 2 < damaged < tried


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_record_whose_json_has_no_such_number_is_damaged(chain, text: str) -> None:
    lines = [record.to_line() for record in chain]
    place = next(n for n, record in enumerate(chain) if record.kind == "commit")
    changed = lines[place].replace('"round":1', f'"round":{text}')
    assert changed != lines[place]
    with pytest.raises(LedgerDamaged):
        verify_lines([*lines[:place], changed, *lines[place + 1 :]])


def test_the_values_are_absurd_and_the_documents_have_figures(chain) -> None:
    assert len(ABSURD) > 20
    assert sum(1 for record in chain for _ in figures(record.body)) > 10
