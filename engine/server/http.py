"""
The HTTP API: routes, who is asking, and what is answered when nothing could be done.

A request goes through these stages:

    route       by method and path; `OPTIONS` is answered for browsers
    identify    whom the `Authorization` header names
    handle      a function call (`function_api`), or what operators ask
    allow       browsers of the origin that asked to read it

What was not carried out is answered as `{"code", "message"}` with a status that
says whose fault it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeAlias

from engine.errors import (
    Conflict,
    EngineError,
    FunctionTimeout,
    OutcomeUnknown,
    OutOfRetention,
    Overloaded,
    RequestRefused,
    SnapshotTooOld,
    Stopped,
    StoreFull,
    Unauthenticated,
    Unreachable,
)
from engine.kernel.runtime import Runtime
from engine.kernel.trace import traceback_of, tracer
from engine.model.limits import Limits
from engine.server.identity import Verifier
from engine.server.places import Place, Room
from engine.server.requests import (
    HTML_TYPE,
    Operation,
    Request,
    Response,
    Route,
    error_response,
    json_response,
    text_response,
)

trace = tracer(__name__)

Page: TypeAlias = Callable[[], str]
"""The HTML of the page that developers see at ``/``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether a mutation could be committed now, and if not, how far the engine has come."""

    is_ready: bool
    progress: Mapping[str, object] = field(default_factory=dict)


AskReadiness: TypeAlias = Callable[[], Awaitable[Readiness]]

_JAVASCRIPT: Final = "that is about JavaScript functions, which this server does not run"
UNSUPPORTED: Final[Mapping[str, str]] = {
    "/api/deploy2/*": _JAVASCRIPT,
    "/api/push_config": _JAVASCRIPT,
    "/api/run_test_function": _JAVASCRIPT,
    "/api/list_environment_variables": "variables are those of the process and of .env.local",
    "/api/update_environment_variables": "set variables in the process or in .env.local",
    "/api/export/*": "export documents with `headrace data TABLE --json`",
    "/api/import/*": "import documents with `headrace import`",
    "/api/perform_import": "import documents with `headrace import`",
    "/api/stream_function_logs": "follow logs with `headrace logs --follow`",
}
"""Of the official command line, which would repeat a request that is answered with 404."""

ALIVE: Final = "/healthz"
"""Answered however busy the rest is: who asks restarts a process that does not answer."""

READY: Final = "/readyz"

_METHODS: Final = "GET, POST, OPTIONS, PATCH, DELETE, PUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """What operators and developers ask, besides functions."""

    instance_name: str
    version: str
    readiness: AskReadiness
    page: Page | None = None
    """What developers see at ``/``; `None` is a line of text."""

    def routes(self) -> list[Route]:
        texts = {
            "/version": self.version,
            "/instance_version": self.version,
            "/instance_name": self.instance_name,
            ALIVE: "ok",
        }
        return [
            *(get(path, partial(_text, text), _SAYS[path]) for path, text in texts.items()),
            get("/", self._front, _SAYS["/"]),
            get(READY, self._ready, _SAYS[READY]),
            Route(
                method="POST",
                path="/api/debug_event",
                handler=partial(_text, ""),
                says=_SAYS["/api/debug_event"],
            ),
            *(
                Route(method=method, path=path, handler=partial(_unsupported, instead))
                for path, instead in UNSUPPORTED.items()
                for method in ("GET", "POST")
            ),
        ]

    async def _front(self, _request: Request) -> Response:
        if self.page is None:
            return text_response(f"{self.instance_name} is running.\n")
        return text_response(self.page(), content_type=HTML_TYPE)

    async def _ready(self, _request: Request) -> Response:
        readiness = await self.readiness()
        answer = {"ready": readiness.is_ready, **readiness.progress}
        return json_response(answer, status=200 if readiness.is_ready else 503)


class HttpApi:
    """
    Args:
        routes: the first one that matches answers.
    """

    def __init__(
        self, verifier: Verifier, routes: Sequence[Route], *, limits: Limits, runtime: Runtime
    ) -> None:
        self._verifier = verifier
        self._routes = tuple(routes)
        self._runtime = runtime
        self._room = Room(limits)

    async def handle(self, request: Request) -> Response:
        """Answer `request`; raises nothing of its own."""
        if _is_preflight(request):
            return _preflight(request)
        place = Place(self._room, partial(self._is_of_operators, request))
        try:
            place.work()
            response = await self._routed(replace(request, place=place))
        except Exception as error:
            response = self._refusal(error)
        finally:
            place.leave()
        return _with_cors(request, response)

    def refuse(self, request: Request, error: EngineError) -> Response:
        """The answer to a request that is not even looked at; browsers may read it as any other."""
        if _is_preflight(request):
            return _preflight(request)
        return _with_cors(request, error_response(*blame(error)))

    async def _routed(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        found = [route for route in self._routes if route.matches(request.path)]
        for route in found:
            if route.method == method:
                if route.needs_admin:
                    await self._check_admin(request)
                return await route.handler(request)
        if found:
            return _method_not_allowed(request, found)
        raise RequestRefused(404, "NotFound", f"There is nothing at {request.path}")

    def _is_of_operators(self, request: Request) -> bool:
        """Who has to see to it that there is room again gets some."""
        return request.path in (ALIVE, READY) or self._verifier.has_admin_key(request)

    async def _check_admin(self, request: Request) -> None:
        if not (await self._verifier.from_request(request)).admin:
            raise Unauthenticated(f"{request.path} needs the admin key")

    def _refusal(self, error: Exception) -> Response:
        status, code, message = blame(error)
        if status == 500:
            request_id = self._runtime.random_bytes(8).hex()
            trace.error(
                "http.failed",
                request_id=request_id,
                error=repr(error),
                exception=traceback_of(error),
            )
            message = f"[Request ID: {request_id}] {message}"
        return error_response(status, code, message)


def blame(error: Exception) -> tuple[int, str, str]:
    """Status, code and message for a request that `error` kept from being carried out."""
    match error:
        case RequestRefused():
            return error.status, error.code, str(error)
        case Unauthenticated():
            return 401, error.code, str(error)
        case Conflict():
            return 503, "OptimisticConcurrencyControlFailure", str(error)
        case (
            Overloaded()
            | OutOfRetention()
            | SnapshotTooOld()
            | FunctionTimeout()
            | Stopped()
            | StoreFull()
            | Unreachable()
        ):
            return 503, error.code, str(error)
        case OutcomeUnknown():
            return 500, error.code, str(error)
        case EngineError():
            return 500, error.code, "The engine failed; its trace says more"
    return 500, "InternalServerError", "The server failed; its trace says more"


def get(path: str, handler: Callable[[Request], Awaitable[Response]], says: Operation) -> Route:
    return Route(method="GET", path=path, handler=handler, says=says)


_SAYS: Final = {
    "/": Operation(
        summary="A page for people",
        name="page",
        texts=("text/plain", "text/html"),
    ),
    "/version": Operation(summary="The version of the server"),
    "/instance_version": Operation(summary="The version of the server"),
    "/instance_name": Operation(summary="The name of the deployment"),
    ALIVE: Operation(summary="Whether the process answers", statuses=()),
    READY: Operation(
        summary="Whether a mutation could be committed now, and if not, why",
        answer={"type": "object", "properties": {"ready": {"type": "boolean"}}},
        also={503: "Not now"},
        statuses=(),
    ),
    "/api/debug_event": Operation(summary="Takes what clients tell of themselves, and forgets it"),
}


async def _text(text: str, _request: Request) -> Response:
    return text_response(text)


async def _unsupported(instead: str, request: Request) -> Response:
    raise RequestRefused(501, "Unsupported", f"{request.path} is not served: {instead}")


def _method_not_allowed(request: Request, found: Sequence[Route]) -> Response:
    methods = sorted({route.method for route in found})
    allowed = ", ".join(["GET", "HEAD", *methods[1:]] if methods[0] == "GET" else methods)
    message = f"{request.path} has no {request.method}; it has {allowed}"
    refused = error_response(405, "MethodNotAllowed", message)
    return replace(refused, headers=[("allow", allowed)])


# Browsers of other origins.


def _is_preflight(request: Request) -> bool:
    return request.method == "OPTIONS" and "origin" in request.headers


def _preflight(request: Request) -> Response:
    asked = request.headers.get("access-control-request-headers", "")
    headers = [
        ("access-control-allow-headers", asked),
        ("access-control-allow-methods", _METHODS),
        ("access-control-max-age", "86400"),
    ]
    return _with_cors(request, Response(headers=headers))


def _with_cors(request: Request, response: Response) -> Response:
    """Let a page of the origin that asked read the response; credentials prove who, not where."""
    origin = request.headers.get("origin")
    if origin is None:
        return response
    allowed = [
        ("access-control-allow-origin", origin),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    ]
    return replace(response, headers=[*response.headers, *allowed])
