"""A process's own port for the people who run it: health, readiness, metrics and the live page.

Plain HTTP on a loopback address. Every request carries the token of the kit: as a bearer, or, for
a browser, in a cookie that the sign-in form sets. Requests by another host name than a local one
are refused, so that no page from elsewhere can reach it through a browser.

`run_party` and `fmfl-secure serve` (`cli.service`) open an `OperationsPort` around an
`OperationsApp` for as long as their process works.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from fmfl_secure.parties.reviews import review_notice
from fmfl_secure.settings.service import Operations
from fmfl_secure.transports.https.expiry import CHECKED_EVERY_S, CertificateWatch
from fmfl_secure.transports.https.guard import App, Receive, Scope, Send
from fmfl_secure.transports.https.listener import Listener, loopback_config
from fmfl_secure.transports.https.metrics import exposition

_LOG = logging.getLogger("fmfl_secure.transports.https.processes.operations")
REFRESH_S: Final = 5  # how often a page renews itself
_COOKIE: Final = "fmfl_operations"
_MAX_FORM: Final = 4096  # bytes
_HEADERS: Final = {
    # Nothing is loaded from elsewhere, and no other page can frame this one.
    "content-security-policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PAGES: Final = Path(__file__).parents[1] / "pages"


def notices(stopped: str, due: Sequence[str]) -> list[str]:
    """Collects the notices above everything else on a party's page, not of its process.

    Args:
        stopped: By whom its run was stopped and why; empty where nobody has.
        due: What should have been looked at again.
    """
    return [line for line in (stopped, review_notice(due)) if line]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class _Local:
    """Answers requests that were meant for this machine, and adds the headers above."""

    def __init__(self, app: App, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        if name not in self._hosts:
            refusal = JSONResponse(
                {"code": "host", "message": "this is served to this machine only"}, 421
            )
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


class OperationsApp:
    """The application of the port.

    Args:
        token: What opens it.
        template: File name of the page's template.
        page: Everything the page shows, computed for each request.
        ready: Whether the process can do its work, and why not.
        registry: Its metrics.
        certificate: The party's own certificate, PEM.
        hosts: Host names besides the local ones.
    """

    def __init__(
        self,
        *,
        token: str,
        template: str,
        page: Callable[[], Mapping[str, object]],
        ready: Callable[[], str],
        registry: CollectorRegistry,
        certificate: Path,
        hosts: tuple[str, ...] = (),
    ) -> None:
        self._token = token
        self._template = template
        self._page = page
        self._ready = ready
        self._registry = registry
        self.certificate = CertificateWatch(certificate, registry)
        self._pages = Environment(
            loader=FileSystemLoader(_PAGES),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        local = frozenset({"localhost", "127.0.0.1", "[::1]", *hosts})
        self.app = Starlette(
            routes=[
                Route("/", self._show),
                Route("/sign-in", self._sign_in, methods=["GET", "POST"]),
                Route("/page.css", self._style),
                Route("/health", self._guarded(self._health)),
                Route("/ready", self._guarded(self._readiness)),
                Route("/metrics", self._guarded(self._metrics)),
            ],
            middleware=[Middleware(_Local, hosts=local)],
        )

    def _is_signed_in(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.cookies.get(_COOKIE, "")
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not self._is_signed_in(request):
                body = {"code": "unauthenticated", "message": "the kit's operations.token is asked"}
                return JSONResponse(body, 401, {"www-authenticate": "Bearer"})
            return await endpoint(request)

        return guarded

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _readiness(self, _: Request) -> Response:
        why = await asyncio.to_thread(self._ready)
        status = "ready" if not why else "not ready"
        return JSONResponse({"status": status, "reason": why}, 503 if why else 200)

    async def _metrics(self, _: Request) -> Response:
        return Response(
            exposition(self._registry), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def _style(self, _: Request) -> Response:
        return Response((_PAGES / "page.css").read_bytes(), media_type="text/css")

    async def _show(self, request: Request) -> Response:
        if not self._is_signed_in(request):
            return RedirectResponse("/sign-in", 303)
        values = await asyncio.to_thread(self._page)
        # A page that renews itself interrupts who has it read out, or reads slowly: it can stop.
        values = {
            **values,
            "still": "still" in request.query_params,
            "certificate_warning": self.certificate.warning,
        }
        return HTMLResponse(self._pages.get_template(self._template).render(values))

    async def _sign_in(self, request: Request) -> Response:
        wrong = False
        if request.method == "POST":
            body = b""
            async for part in request.stream():
                body += part
                if len(body) > _MAX_FORM:
                    return JSONResponse({"code": "too-large", "message": "a token is short"}, 413)
            given = parse_qs(body.decode("latin-1")).get("token", [""])[0].strip()
            if hmac.compare_digest(given.encode(), self._token.encode()):
                response = RedirectResponse("/", 303)
                response.set_cookie(_COOKIE, given, httponly=True, samesite="strict")
                return response
            wrong = True
        text = self._pages.get_template("sign_in.html").render(wrong=wrong)
        return HTMLResponse(text, 401 if wrong else 200)


class OperationsPort:
    """Serves an application in a thread of its own, while it is open.

    Args:
        app: The application.
        settings: Address and port.
    """

    def __init__(self, app: OperationsApp, settings: Operations) -> None:
        config = loopback_config(app.app, address=settings.address, port=settings.port)
        self._listener = Listener(config, lambda: None)
        self._thread = threading.Thread(target=self._serve, name="operations", daemon=True)
        self._failed = threading.Event()
        self._certificate = app.certificate
        self._address = settings.address

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._listener.started and not self._failed.wait(0.01):
            pass
        if self._listener.started:
            _LOG.info("operations on port %s", self.port)
            if not _is_loopback(self._address):
                _LOG.warning(
                    "the operations port is open on %s: who is on the way to it reads its token. "
                    "Keep it on 127.0.0.1, or let nothing else reach it",
                    self._address,
                )
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.should_exit = True
        self._thread.join()

    @property
    def port(self) -> int:
        """The port it listens on; 0 where it could not."""
        return self._listener.port if self._listener.started else 0

    async def _serve_and_warn(self) -> None:
        async def warn() -> None:
            while True:
                self._certificate.warn()
                await asyncio.sleep(CHECKED_EVERY_S)

        warning = asyncio.create_task(warn())
        try:
            await self._listener.serve()
        finally:
            warning.cancel()

    def _serve(self) -> None:
        try:
            asyncio.run(self._serve_and_warn())
        except (OSError, SystemExit) as error:
            # The process works without; its people learn it from the log.
            _LOG.warning("the operations port cannot be opened: %s", error)
        finally:
            self._failed.set()
