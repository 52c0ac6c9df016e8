"""The server's HTTP interface: what sites, decryptor and custodians ask, fetch and send.

Bodies of messages are the protocol's bytes as they are. Answers are JSON of the forms in
`schemas`, and every refusal is a `ProblemBody`. The description is served at `/v1/openapi.json`.

`transports.https.server` builds it for the run's inbox, board and heads, and puts a `Guard` before
it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fmfl_secure._version import __version__
from fmfl_secure.errors import ANY_FAILURE, Problem, is_passing, said
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.runtime.inbox import Inbox, SignedStatement
from fmfl_secure.runtime.task_board import Assignment, Step, TaskBoard
from fmfl_secure.runtime.transport import MOST_INLINE
from fmfl_secure.storage.message_store import MessageKey
from fmfl_secure.transports.https.anchor_routes import head_routes
from fmfl_secure.transports.https.dependencies import Party, SiteParty
from fmfl_secure.transports.https.metrics import ServerMetrics
from fmfl_secure.transports.https.schemas import (
    DocumentBody,
    MembershipBody,
    ParticipationBody,
    ProblemBody,
    ReceiptBody,
    RefusalBody,
    StatementBody,
    TaskBody,
)
from fmfl_secure.transports.https.stop_routes import stop_routes

_LOG = logging.getLogger("fmfl_secure.transports.https.app")

Run = Annotated[str, Path(pattern=r"^[0-9a-f]{8,64}$")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Round = Annotated[int, Path(ge=0, le=2**31 - 1)]  # 0 is of no round: a rehearsal
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Kind = Literal[
    "ready", "exchange", "upload", "chunks", "opening", "projections", "verdict",
    "announcement", "confirmation", "release", "custodian-ready", "approval", "accusation",
    "reveal",
]  # fmt: skip
_MAX_SIZE = 1 << 40
_MAX_WAIT_S = 60.0
_AGAIN_S = 2  # for whom a request was not served


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemBody, "description": text}
    for status, text in {
        400: "malformed",
        401: "no valid certificate",
        403: "another role's, or shut out",
        404: "not here",
        408: "too slow",
        409: "not now",
        411: "no length",
        413: "too large",
        422: "does not hold",
        429: "too often",
        503: "going down",
    }.items()
}
# What a site looks at in a step, and has not fetched in an earlier one.
_ABOUT = {
    Step.JOIN: "call",
    Step.READY: "plan",
    Step.REHEARSE: "plan",
    Step.EXCHANGE: "cohort",
    Step.UPLOAD: "exchanges",
    Step.OPEN: "list",
    Step.PROJECT: "release",
    Step.VERIFY: "release",
    Step.END: "end",
}
_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def build_app(
    *,
    inbox: Inbox,
    board: TaskBoard,
    membership: Callable[[], list[bytes]],
    heads: AnchorRegistry,
    take_stop: Callable[[bytes], None],
    metrics: ServerMetrics,
) -> FastAPI:
    """The application, to be put behind a `Guard`.

    Args:
        inbox: Where messages go.
        board: Where tasks come from.
        membership: The federation's membership lists, from the first.
        heads: What is kept of the sites' ledgers.
        take_stop: Keeps a signed stop of a run, if it holds.
        metrics: Counts.
    """
    app = FastAPI(
        title="FMFL Secure",
        version=__version__,
        description="Carries secure aggregation between a server and its parties.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # pages that would load scripts from elsewhere
        redoc_url=None,
    )
    _answer_errors(app)
    router = APIRouter(prefix="/v1", responses=_PROBLEMS)

    def describe(number: int, task: Assignment, inline: int) -> TaskBody:
        return TaskBody(
            sequence=number,
            step=task.step,
            run=task.run,
            round=task.round,
            attempt=task.attempt,
            documents={
                name: DocumentBody(sha256=d.sha256, size=d.size)
                for name, d in task.documents.items()
            },
            sizes=list(task.sizes),
            membership=len(membership()),
            part_bytes=inbox.part_bytes,
            inline=_inlined(task, inline),
        )

    @router.get("/task")
    async def task(
        peer: Party,
        after: Annotated[int, Query(ge=-1, le=2**60)] = -1,
        wait_s: Annotated[float, Query(ge=0, le=_MAX_WAIT_S)] = 0.0,
        inline: Annotated[int, Query(ge=0, le=MOST_INLINE)] = 0,
    ) -> TaskBody:
        """Tells the party's task; with `wait_s`, once it is another than number `after`.

        With `inline`, what a site fetches next is in the answer, if it has at most so many bytes.
        """
        number, found = await board.wait(peer.name, after, wait_s)
        if board.closed:
            raise Problem(503, "stopping", "the server is going down", retry_after_s=1)
        return describe(number, found, inline if number != after else 0)

    @router.get(
        "/documents/{sha256}",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}},
    )
    async def document(
        peer: Party, sha256: Sha256, offset: Annotated[int, Query(ge=0, le=_MAX_SIZE)] = 0
    ) -> Response:
        """A document of the present task, at most a part of it from `offset`."""
        found = board.document(peer.name, sha256)
        if found is None:
            raise Problem(404, "not-found", "the present task has no such document")
        data = found.slice(offset, inbox.part_bytes)
        return Response(data, media_type="application/octet-stream")

    @router.get("/membership")
    async def lists(_: Party, after: Annotated[int, Query(ge=0, le=2**31)] = 0) -> MembershipBody:
        """Signed membership lists after number `after`."""
        return MembershipBody(
            lists=[base64.b64encode(message).decode() for message in membership()[after:]]
        )

    @router.put("/runs/{run}/participation", status_code=204)
    def participate(peer: SiteParty, run: Run, body: ParticipationBody) -> None:
        """The site takes part in the run, and has reserved what it costs."""
        inbox.join(peer.name, run, body.visibility)

    @router.put("/runs/{run}/refusal", status_code=204)
    def refuse(peer: SiteParty, run: Run, body: RefusalBody) -> None:
        """The site takes no part in what is left of the run."""
        inbox.refuse(peer.name, run, body.code)

    @router.put("/runs/{run}/statement", status_code=204)
    def statement(peer: SiteParty, run: Run, body: StatementBody) -> None:
        """The site states its ledger."""
        stated = SignedStatement(statement=body.statement, signature=body.signature)
        inbox.state(peer.name, run, stated, final=body.final)

    @router.put("/runs/{run}/rounds/{round_number}/attempts/{attempt}/failure", status_code=204)
    def fail(
        peer: Party, run: Run, round_number: Round, attempt: Number, body: RefusalBody
    ) -> None:
        """The party cannot go on with an attempt."""
        inbox.fail(peer.name, run, round_number, attempt, body.code)

    @router.get("/runs/{run}/rounds/{round_number}/attempts/{attempt}/{kind}")
    def receipt(
        peer: Party, run: Run, round_number: Round, attempt: Number, kind: Kind
    ) -> ReceiptBody:
        """How much of a message is here: where to go on with it."""
        key = MessageKey(run, round_number, attempt, peer.name, kind)
        found = inbox.receipt(peer.role, key)
        if found is None:
            return ReceiptBody(received=0, whole=False)
        return ReceiptBody(received=found.received, whole=found.whole)

    @router.put("/runs/{run}/rounds/{round_number}/attempts/{attempt}/{kind}", openapi_extra=_BYTES)
    async def send(
        request: Request,
        peer: Party,
        run: Run,
        round_number: Round,
        attempt: Number,
        kind: Kind,
        sha256: Annotated[str, Query(pattern=r"^[0-9a-f]{64}$")],
        size: Annotated[int, Query(ge=1, le=_MAX_SIZE)],
        offset: Annotated[int, Query(ge=0, le=_MAX_SIZE)] = 0,
    ) -> ReceiptBody:
        """A part of a message. The same part again changes nothing."""
        data = await request.body()
        key = MessageKey(run, round_number, attempt, peer.name, kind)
        found = await run_in_threadpool(
            inbox.part, peer.role, key, sha256=sha256, size=size, offset=offset, data=data
        )
        metrics.received.labels(kind).inc(len(data))
        return ReceiptBody(received=found.received, whole=found.whole)

    app.include_router(router)
    app.include_router(head_routes(heads), prefix="/v1", responses=_PROBLEMS)
    app.include_router(stop_routes(take_stop), prefix="/v1", responses=_PROBLEMS)
    return app


def _inlined(task: Assignment, most_bytes: int) -> dict[str, str]:
    """The document that a step is about, by its SHA-256, where it is small enough."""
    found = task.documents.get(_ABOUT.get(task.step, ""))
    if found is None or found.size > most_bytes:
        return {}
    return {found.sha256: base64.b64encode(found.slice(0, found.size)).decode("ascii")}


def _answer_errors(app: FastAPI) -> None:
    """Give every error an answer of the one form."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    for known in ANY_FAILURE:
        app.add_exception_handler(known, _on_known)
    app.add_exception_handler(Exception, _on_failure)


def _body(problem: Problem) -> JSONResponse:
    headers = {"retry-after": str(problem.retry_after_s)} if problem.retry_after_s else None
    content: dict[str, object] = {"code": problem.reason, "message": str(problem)}
    if problem.received >= 0:
        content["received"] = problem.received
    return JSONResponse(content, status_code=problem.status, headers=headers)


async def _on_problem(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, Problem):
        raise error
    return _body(error)


async def _on_invalid(_: Request, __: Exception) -> JSONResponse:
    # FastAPI's own answer would repeat what was sent.
    return _body(Problem(422, "malformed", "the request does not have the form described"))


async def _on_http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    names = {404: "not-found", 405: "method", 400: "malformed"}
    text = "there is nothing here" if error.status_code == 404 else "this is not served"
    response = _body(Problem(error.status_code, names.get(error.status_code, "refused"), text))
    response.headers.update(error.headers or {})
    return response


async def _on_gone(_: Request, __: Exception) -> JSONResponse:
    """A connection that ended before its body did: it goes on from what the store has, or not."""
    _LOG.info("a connection ended before its message did")
    return _body(Problem(400, "cut-off", "the message ended early"))


async def _on_known(_: Request, error: Exception) -> JSONResponse:
    """A store that cannot be used now: whoever asked asks again. Nothing was acknowledged."""
    if not is_passing(error):
        _LOG.error("request failed: %s", error)
        return _body(Problem(500, "failed", "the server failed"))
    _LOG.warning("request not served: %s", said(error))
    text = "the server cannot use what it needs now"
    return _body(Problem(503, "unavailable", text, retry_after_s=_AGAIN_S))


async def _on_failure(_: Request, error: Exception) -> JSONResponse:
    _LOG.error("request failed", exc_info=error)
    return _body(Problem(500, "failed", "the server failed"))
