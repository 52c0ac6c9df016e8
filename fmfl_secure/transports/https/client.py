"""A party's way to the server: outbound only, patient, and it sends the same bytes never twice.

Everything may be repeated: a question, a fetch, a part of a message. So whatever breaks in between
is tried again, with growing pauses, until the server answers or says no.

`transports.https.processes.site` and other parties' processes ask for `work` with it, fetch what
an assignment names, and `send`.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import random
import ssl
import threading
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlencode

import httpx
import msgspec
from typing_extensions import override

from fmfl_secure.errors import BadAnswer, Rejected, ServiceError, Unavailable, Unreachable
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.runtime.anchor_registry import AnchorsForSite
from fmfl_secure.runtime.transport import MOST_INLINE, DocumentRef, ServerTransport, Work
from fmfl_secure.settings.service import Upstream
from fmfl_secure.transports.https.answers import AS_IT_IS, decode_answer, read_answer
from fmfl_secure.transports.https.metrics import ClientMetrics
from fmfl_secure.transports.https.tls import client_context

_LOG = logging.getLogger("fmfl_secure.transports.https.client")
_FIRST_PAUSE_S: Final = 0.1
_MOST_ANSWER: Final = 1 << 20  # bytes of an answer that does not grow with the federation's age
_MOST_HISTORY: Final = 64 << 20  # of heads, of membership lists
_MOST_PART: Final = 64 << 20  # of a document, as `Limits.part_bytes` may be
_MOST_RESENT: Final = 16  # parts of a message that the server may ask for again

_Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class _Problem(msgspec.Struct, frozen=True):
    code: Annotated[str, msgspec.Meta(max_length=64)] = "unknown"
    message: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    received: Annotated[int, msgspec.Meta(ge=-1, le=1 << 40)] = -1


class _Receipt(msgspec.Struct, frozen=True):
    received: _Bytes
    whole: bool


class _Lists(msgspec.Struct, frozen=True):
    lists: list[str]


class HttpsTransport(ServerTransport):
    """A party's way to the server. Calls come from one thread, but for `heartbeat`.

    Args:
        upstream: Where the server is.
        tls: Folder with `ca.pem`, `certificate.pem` and `key.pem`; read again when they change.
        metrics: Counts.
        stopping: Looked at while waiting.
    """

    def __init__(
        self,
        upstream: Upstream,
        tls: Path,
        *,
        metrics: ClientMetrics,
        stopping: threading.Event,
    ) -> None:
        self._upstream = upstream
        self._tls = tls
        self._metrics = metrics
        self._stopping = stopping
        # Without a client around it: what that adds (cookies, redirects, credentials, each URL
        # read three times) took a third of a site's CPU beside its training, and none is wanted.
        self._pool: httpx.HTTPTransport | None = None
        self._url = httpx.URL(upstream.url)
        self._path = self._url.raw_path.rstrip(b"/").decode("ascii")
        self._timeout = httpx.Timeout(upstream.timeout_s, read=upstream.timeout_s + upstream.poll_s)
        self._certified = 0
        self._inline: dict[str, bytes] = {}  # what came with the work under way
        self.connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that are open."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    @override
    def work(self, after: int) -> Work:
        wait_s = self._upstream.poll_s if after >= 0 else 0.0
        query = {"after": after, "wait_s": wait_s, "inline": MOST_INLINE}
        work = decode_answer(self._request("GET", "/v1/task", params=query), Work)
        self._inline = work.inline
        return work

    def membership(self, after: int) -> list[str]:
        """Signed membership lists after number `after`, base64."""
        query = {"after": after}
        answer = self._request("GET", "/v1/membership", most_bytes=_MOST_HISTORY, params=query)
        return decode_answer(answer, _Lists).lists

    def fetch(self, document: DocumentRef) -> bytes:
        """A document, whole, its digest checked.

        Raises:
            ServiceError: It does not have the digest or the length that was named.
        """
        most_bytes = self._upstream.document_bytes
        if document.size > most_bytes:
            raise ServiceError(
                f"a document of {document.size} bytes is not fetched, at most {most_bytes} are",
                hint="Raise [server] document_bytes in service.toml, if the adapter is that large.",
            )
        data = bytearray(self._inline.get(document.sha256, b""))
        while len(data) < document.size:
            part = self._request(
                "GET",
                f"/v1/documents/{document.sha256}",
                most_bytes=min(document.size - len(data), _MOST_PART),
                params={"offset": len(data)},
            )
            if not part:
                break
            data += part
        if hashlib.sha256(data).hexdigest() != document.sha256:
            raise ServiceError("a document does not have the digest that was named")
        return bytes(data)

    def send(self, work: Work, kind: str, message: bytes) -> None:
        """Send a message of an attempt, in parts; go on where an earlier try broke off.

        Raises:
            Rejected: The server does not want it.
        """
        path = f"{_attempt_path(work)}/{kind}"
        digest, size = hashlib.sha256(message).hexdigest(), len(message)
        start, again = 0, False
        if size > work.part_bytes:  # small ones are sent without asking
            start = decode_answer(self._request("GET", path), _Receipt).received
        for _ in range(2 * (size // work.part_bytes + 1) + _MOST_RESENT):
            # The last part again, where all bytes arrived and the answer to them was lost.
            start = min(start, max(0, size - 1) // work.part_bytes * work.part_bytes)
            part = message[start : start + work.part_bytes]
            query = {"sha256": digest, "size": size, "offset": start}
            try:
                answer = self._request("PUT", path, params=query, content=part)
            except Rejected as rejected:
                if rejected.reason == "gap" and rejected.received >= 0:
                    start = rejected.received
                    continue
                if rejected.reason == "digest" and not again:  # forgotten: from the start
                    start, again = 0, True
                    continue
                raise
            self._metrics.sent.inc(len(part))
            receipt = decode_answer(answer, _Receipt)
            if receipt.whole:
                return
            start = receipt.received
        raise BadAnswer("the server asks for the same parts of a message again and again")

    def join(self, run: str, visibility: Literal["private", "public"]) -> None:
        """Say that this site takes part."""
        self._request("PUT", f"/v1/runs/{run}/participation", json={"visibility": visibility})

    def refuse(self, run: str, code: str) -> None:
        """Say that this site takes no part, by a generic code."""
        self._request("PUT", f"/v1/runs/{run}/refusal", json={"code": code})

    def fail(self, work: Work, code: str) -> None:
        """Say that this party cannot go on with an attempt."""
        self._request("PUT", f"{_attempt_path(work)}/failure", json={"code": code})

    def state(
        self, run: str, statement: SiteStatement | None, signature: str, *, final: bool
    ) -> None:
        """Sends this site's statement of its ledger."""
        body = {"statement": statement, "signature": signature, "final": final}
        self._request("PUT", f"/v1/runs/{run}/statement", content=msgspec.json.encode(body))

    def heads(self, *, known: bool, since: str) -> AnchorsForSite:
        """Fetches the heads kept of this site's ledgers, and the latest of the others'."""
        query = {"known": "true"} if known else {}
        query |= {"since": since} if since else {}
        answer = self._request("GET", "/v1/heads", most_bytes=_MOST_HISTORY, params=query)
        return decode_answer(answer, AnchorsForSite)

    def bring_heads(self, heads: dict[str, list[str]]) -> None:
        """Bring heads that this site kept of others' ledgers, by site."""
        self._request("PUT", "/v1/heads", json={"heads": heads})

    def give_head(self, head: str) -> None:
        """Give the head that this site's ledger has now."""
        self._request("PUT", "/v1/head", json={"head": head})

    def give_stop(self, statement: bytes) -> None:
        """Give a signed stop of the run."""
        body = {"statement": base64.b64encode(statement).decode("ascii")}
        self._request("PUT", "/v1/stop", json=body)

    def heartbeat(self) -> None:
        """Ask for nothing, once, so that the server knows this party lives."""
        try:
            self._once("GET", "/v1/task", params={"after": -1, "wait_s": 0})
        except (ServiceError, Unavailable, OSError):
            _LOG.debug("no heartbeat")

    def _request(
        self, method: str, path: str, *, most_bytes: int = _MOST_ANSWER, **named: Any
    ) -> bytes:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = self._once(method, path, most_bytes=most_bytes, **named)
            except BadAnswer:
                raise
            except Unreachable as error:
                if self._stopping.is_set():
                    raise
                self._note(connected=False, why=str(error))
                # Jittered, so that sites do not come back all at once.
                self._stopping.wait(pause_s * random.uniform(0.5, 1.5))  # noqa: S311
                pause_s = min(2 * pause_s, self._upstream.retry_s)
                continue
            self._note(connected=True)
            return answer

    def _once(
        self,
        method: str,
        path: str,
        *,
        most_bytes: int = _MOST_ANSWER,
        params: dict[str, Any] | None = None,
        content: bytes | None = None,
        json: object = None,
    ) -> bytes:
        pool, headers = self._open(), dict(AS_IT_IS)
        if json is not None:
            content = msgspec.json.encode(json)
        if content is not None:
            is_part = params is not None
            headers["content-type"] = "application/octet-stream" if is_part else "application/json"
        target = f"{self._path}{path}{f'?{urlencode(params)}' if params else ''}"
        request = httpx.Request(
            method,
            self._url,
            headers=headers,
            content=content,
            # A URL with this path would be read anew for each request.
            extensions={"timeout": self._timeout.as_dict(), "target": target.encode("ascii")},
        )
        try:
            with closing(pool.handle_request(request)) as response:
                is_success, status = response.is_success, response.status_code
                body = read_answer(response, most_bytes if is_success else _MOST_ANSWER)
        except (httpx.TransportError, ssl.SSLError) as error:
            self._metrics.requests.labels("unreachable").inc()
            raise Unreachable(f"{self._upstream.url} does not answer: {error}") from error
        if is_success:
            self._metrics.requests.labels("served").inc()
            return body
        self._metrics.requests.labels("refused").inc()
        try:
            problem = decode_answer(body, _Problem)
        except BadAnswer:
            problem = _Problem()  # of whatever stands in front of it
        if problem.code == "expired":
            # It is renewed without a restart; and a server's clock that jumped comes back.
            raise Unreachable("the server says that this party's certificate has expired")
        if status in {408, 429} or status >= 500:
            raise Unreachable(f"the server answered {status} ({problem.code})")
        raise Rejected(status, problem.code, problem.message, received=problem.received)

    def _open(self) -> httpx.HTTPTransport:
        certified = (self._tls / "certificate.pem").stat().st_mtime_ns
        if self._pool is None or certified != self._certified:
            self.close()
            self._pool = httpx.HTTPTransport(verify=client_context(self._tls), trust_env=False)
            self._certified = certified
        return self._pool

    def _note(self, *, connected: bool, why: str = "") -> None:
        if connected != self.connected:
            text = "connected" if connected else why
            _LOG.log(logging.INFO if connected else logging.WARNING, text)
        self.connected = connected
        self._metrics.connected.set(int(connected))


def _attempt_path(work: Work) -> str:
    return f"/v1/runs/{work.run}/rounds/{work.round}/attempts/{work.attempt}"
