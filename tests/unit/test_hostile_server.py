"""A server that answers what it likes: a party refuses it by a typed error, in bounded memory."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import itertools
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext, suppress

import msgspec
import pytest
from absurd import absurd
from hostile_server import HostileServer, answer, say

from fmfl_secure.errors import BadAnswer, Rejected, ServiceError, Unreachable
from fmfl_secure.runtime.transport import DocumentRef, Work
from fmfl_secure.settings.service import Upstream
from fmfl_secure.transports.https.answers import decode_answer
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.metrics import ClientMetrics

MIB = 1 << 20
MOST_MEMORY = 24 * MIB  # beside what TLS and HTTP take
WORK = {
    "sequence": 7,
    "step": "upload",
    "run": "cafe0123",
    "round": 1,
    "attempt": 1,
    "documents": {"plan": {"sha256": "0" * 64, "size": 10}},
    "sizes": [3, 4],
    "membership": 1,
    "part_bytes": 4096,
}


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    server = HostileServer(tmp_path_factory.mktemp("hostile"))
    yield server
    server.close()


@pytest.fixture
def hostile(kits: HostileServer) -> HostileServer:
    kits.asked.clear()
    return kits


@pytest.fixture
def transport(hostile: HostileServer) -> Iterator[HttpsTransport]:
    upstream = Upstream(
        url=hostile.url, poll_s=0.1, retry_s=0.01, timeout_s=5, document_bytes=4 * MIB
    )
    stopping = threading.Event()
    stopping.set()  # one try of what is worth another
    with HttpsTransport(
        upstream, hostile.party, metrics=ClientMetrics(), stopping=stopping
    ) as opened:
        yield opened


def test_a_connection_that_is_reset_before_tls_begins_is_no_answer(
    transport: HttpsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, reset = socket.create_connection, struct.pack("ii", 1, 0)

    def resetting(address: object, *rest: object, **named: object) -> socket.socket:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = connect(server.getsockname())
            theirs, _ = server.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        theirs.close()
        with suppress(OSError):  # until it is no more
            while ours.getpeername():
                pass
        return ours

    monkeypatch.setattr(socket, "create_connection", resetting)
    with pytest.raises(Unreachable, match="does not answer"):
        transport.work(-1)


def a_work(**changes) -> Work:
    return msgspec.convert(WORK | changes, Work)


@functools.cache
def zeros(size_bytes: int) -> bytes:
    """Compressed."""
    return gzip.compress(bytes(size_bytes))


ENDLESS = 64 * MIB  # what an endless answer would come to before it gives up


def endless() -> Iterator[bytes]:
    return itertools.repeat(b"0" * (1 << 16), ENDLESS >> 16)


ANSWERS = {
    "gzip-garbage": lambda: answer(b"\x1f\x8b nonsense", more="content-encoding: gzip\r\n"),
    "gzip-bomb": lambda: answer(zeros(64 * MIB), more="content-encoding: gzip\r\n"),
    "two-encodings": lambda: answer(b"{}", more="content-encoding: gzip, identity\r\n"),
    "brotli": lambda: answer(b"{}", more="content-encoding: br\r\n"),
    "endless": lambda: answer(endless()),
    "announced": lambda: answer(b"{}", length=1 << 50),
    "no-length": lambda: answer(b"{}", more="content-length: 99999999999999999999999\r\n"),
    "chunks-of-nothing": lambda: answer(
        itertools.chain([b"5\r\n"], endless()), more="transfer-encoding: chunked\r\n"
    ),
    "nested": lambda: answer(b"[" * 500_000),
    "nested-within": lambda: answer(b'{"lists":' + b"[" * 500_000),
    "not-text": lambda: answer(b"\xff\xfe{}"),
    "empty": lambda: answer(b""),
    "another-form": lambda: say([1, 2]),
    "no-http": lambda: iter([b"SSH-2.0-OpenSSH\r\ncontent-length: 0\r\n\r\n"]),
    "endless-head": lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], endless()),
    "another-place": lambda: answer(b"", status=302, more="location: https://example.org/\r\n"),
    "long-problem": lambda: say({"code": "x" * 1000, "message": "y" * 10_000}, status=409),
    "endless-problem": lambda: answer(endless(), status=500),
    "absurd-problem": lambda: say({"code": "gap", "received": 1e308}, status=409),
}
CALLS = {
    "work": lambda t: t.work(-1),
    "membership": lambda t: t.membership(0),
    "heads": lambda t: t.heads(known=True, since=""),
    "fetch": lambda t: t.fetch(DocumentRef("0" * 64, 100)),
    "send": lambda t: t.send(a_work(), "chunks", bytes(10_000)),
    "give": lambda t: t.give_head("head"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ANSWERS)
def test_any_answer_ends_in_a_typed_error_and_bounded_memory(
    hostile: HostileServer, transport: HttpsTransport, kind: str, call: str
) -> None:
    hostile.script = lambda *_: ANSWERS[kind]()
    if call in {"heads", "membership"} and kind in {"endless", "chunks-of-nothing"}:
        pytest.skip("what they may come to is tested below")
    ANSWERS[kind]()  # made before memory is counted
    tracemalloc.start()
    try:
        # Whoever asks for nothing reads nothing of an answer but that it is one.
        is_one = kind in {"nested", "nested-within", "not-text", "empty", "another-form"}
        with nullcontext() if call == "give" and is_one else pytest.raises(ServiceError) as refused:
            CALLS[call](transport)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert refused is None or len(str(refused.value)) < 2000
    assert peak < MOST_MEMORY, f"{peak / MIB:.0f} MiB"


def test_nothing_compressed_is_asked_for(hostile: HostileServer, transport: HttpsTransport) -> None:
    hostile.script = lambda *_: say(WORK)
    transport.work(-1)
    assert {encoding for _, _, encoding in hostile.asked} == {b"identity"}


def test_an_absurd_figure_in_an_assignment_is_refused_or_means_something(
    hostile: HostileServer, transport: HttpsTransport
) -> None:
    tried = refused = 0
    for where, value, form in absurd(WORK):
        tried += 1
        try:
            found = decode_answer(b"".join(say(form)).partition(b"\r\n\r\n")[2], Work)
        except BadAnswer:
            refused += 1
        else:
            assert 4096 <= found.part_bytes <= 64 * MIB, (where, value)
            assert all(size >= 0 for size in found.sizes), (where, value)
    assert tried / 2 < refused < tried
    for size in (0, -1, 1, 1 << 40):
        hostile.script = lambda *_, size=size: say(WORK | {"part_bytes": size})
        with pytest.raises(BadAnswer, match="part_bytes"):
            transport.work(-1)


@pytest.mark.parametrize("name", ["call", "plan", "cohort", "end"])
def test_a_small_document_is_not_announced_large(name: str) -> None:
    form = WORK | {"documents": {name: {"sha256": "0" * 64, "size": 1 << 30}}}
    with pytest.raises(BadAnswer, match=name):
        decode_answer(b"".join(say(form)).partition(b"\r\n\r\n")[2], Work)


RECEIPTS = {
    "negative": {"received": -1, "whole": False},
    "beyond": {"received": 1 << 60, "whole": False},
    "nothing": {"received": 0, "whole": False},
    "all-but-not-whole": {"received": 10_000, "whole": False},
    "no-number": {"received": float("nan"), "whole": False},
    "no-flag": {"received": 4096, "whole": 1},
}


@pytest.mark.parametrize("kind", RECEIPTS)
def test_a_receipt_that_cannot_be_ends_the_sending(
    hostile: HostileServer, transport: HttpsTransport, kind: str
) -> None:
    hostile.script = lambda *_: say(RECEIPTS[kind])
    with pytest.raises(BadAnswer):
        transport.send(a_work(), "chunks", bytes(10_000))
    assert len(hostile.asked) < 40


@pytest.mark.parametrize("received", [0, 4096, 1 << 40, -1, -5])
def test_a_server_that_always_lacks_a_part_is_left(
    hostile: HostileServer, transport: HttpsTransport, received: int
) -> None:
    def script(method: str, _path: str):
        if method == "GET":
            return say({"received": 0, "whole": False})
        return say({"code": "gap", "message": "", "received": received}, status=409)

    hostile.script = script
    with pytest.raises((BadAnswer, Rejected)):
        transport.send(a_work(), "chunks", bytes(10_000))
    assert len(hostile.asked) < 40


def test_a_document_that_came_with_the_work_is_fetched_no_more_and_is_no_other(
    hostile: HostileServer, transport: HttpsTransport
) -> None:
    named = DocumentRef(hashlib.sha256(b"expected").hexdigest(), 8)
    for body in (b"expected", b"otherwis", b"expected and more"):
        inline = {named.sha256: base64.b64encode(body).decode()}
        hostile.script = lambda *_, inline=inline: say(WORK | {"inline": inline})
        transport.work(-1)
        hostile.asked.clear()
        if body == b"expected":
            assert transport.fetch(named) == body
        else:
            with pytest.raises(ServiceError, match="digest"):
                transport.fetch(named)
        assert hostile.asked == []
    for wrong in ({"x": "eHg="}, {named.sha256: "%"}, {named.sha256: 7}):
        hostile.script = lambda *_, wrong=wrong: say(WORK | {"inline": wrong})
        with pytest.raises(BadAnswer):
            transport.work(-1)


def test_a_document_of_other_bytes_or_another_length_is_refused(
    hostile: HostileServer, transport: HttpsTransport
) -> None:
    digest = hashlib.sha256(b"expected").hexdigest()
    for body in (b"", b"x", b"unexpect"):
        hostile.script = lambda *_, body=body: answer(body)
        with pytest.raises(ServiceError, match="digest"):
            transport.fetch(DocumentRef(digest, 8))
    hostile.script = lambda *_: answer(b"expected and more")
    with pytest.raises(BadAnswer, match="more than 8 bytes"):
        transport.fetch(DocumentRef(digest, 8))
    with pytest.raises(ServiceError, match="at most 4194304 are") as refusal:
        transport.fetch(DocumentRef(digest, 5 * MIB))
    assert "document_bytes" in refusal.value.hint
    assert not isinstance(refusal.value, Unreachable)


def test_heads_without_an_end_are_cut_off(
    hostile: HostileServer, transport: HttpsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmfl_secure.transports.https.client._MOST_HISTORY", 2 * MIB)
    hostile.script = lambda *_: answer(endless())
    for call in (CALLS["heads"], CALLS["membership"]):
        with pytest.raises(BadAnswer, match="more than 2097152 bytes"):
            call(transport)


def test_a_bad_answer_is_not_asked_for_again(hostile: HostileServer) -> None:
    upstream = Upstream(url=hostile.url, poll_s=0.1, retry_s=0.01, timeout_s=5)
    hostile.script = lambda *_: answer(b"x", more="content-encoding: gzip\r\n")
    with (
        HttpsTransport(
            upstream, hostile.party, metrics=ClientMetrics(), stopping=threading.Event()
        ) as transport,
        pytest.raises(BadAnswer),
    ):
        transport.work(-1)
    assert len(hostile.asked) == 1
