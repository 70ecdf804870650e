"""
Function calls over HTTP: one a request, at one snapshot where it is a query.

Whatever the function did, the status is 200 and the body an envelope with
status "success" or "error": one of the official clients cannot read any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from engine.app.registered import Kind
from engine.errors import (
    Conflict,
    FunctionNotFound,
    InvalidValue,
    OutOfRetention,
    RequestRefused,
    UsageError,
)
from engine.functions.results import (
    ActionResult,
    Caller,
    MutationResult,
    PastResult,
    QueryResult,
)
from engine.kernel.runtime import Runtime
from engine.kernel.turns import in_turns
from engine.model.json_values import Json, decode_ts, encode_ts
from engine.model.limits import Limits
from engine.model.text import brief, speakable
from engine.model.values import Value
from engine.server.arguments import arguments_in_steps, call_arguments, refusal_of
from engine.server.backend import Backend
from engine.server.description import (
    CALL_STATUSES,
    ENVELOPE,
    FORMAT,
    IDEMPOTENCY_KEY,
    RUN_PREFIX,
    TIMESTAMP,
    call_schema,
    json_parameter,
)
from engine.server.formats import Error, Format, Success, failed, success
from engine.server.idempotency import HEADER, key_of, session_request
from engine.server.identity import Verifier
from engine.server.json_text import parse
from engine.server.requests import (
    Access,
    Handler,
    Operation,
    Request,
    Response,
    Route,
    bad_json,
    json_response,
)
from engine.server.spelling import Spelling
from engine.server.who import Who

T = TypeVar("T")

Result: TypeAlias = QueryResult | PastResult | MutationResult | ActionResult


class Detach(Protocol):
    """Run `work` to its end even if whoever awaits this is cancelled."""

    async def __call__(self, work: Callable[[], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function call as a request spells it."""

    path: str
    args: Json
    form: Format
    component: str
    ts: int | None = None
    wants_ts: bool = False
    key: str | None = None
    """Of the request that this is, if it may come again: see `idempotency`."""


Run: TypeAlias = Callable[[Call, dict[str, Value], Caller], Awaitable[Result]]


class FunctionApi:
    """
    Args:
        detach: how actions run, so that they outlive a client that hangs up.
    """

    def __init__(
        self,
        backend: Backend,
        verifier: Verifier,
        spelling: Spelling,
        *,
        limits: Limits,
        runtime: Runtime,
        detach: Detach,
    ) -> None:
        self._backend = backend
        self._verifier = verifier
        self._spelling = spelling
        self._limits = limits
        self._runtime = runtime
        self._detach = detach

    def routes(self) -> list[Route]:
        return [
            post("/api/query", partial(self._post, Kind.QUERY), QUERY),
            Route(method="GET", path="/api/query", handler=self._get_query, says=QUERY_BY_URL),
            post("/api/mutation", partial(self._post, Kind.MUTATION), MUTATION),
            post("/api/action", partial(self._post, Kind.ACTION), ACTION),
            post("/api/query_ts", self._query_ts, QUERY_TS),
            post("/api/query_at_ts", self._query_at_ts, QUERY_AT_TS),
            post("/api/query_batch", self._query_batch, QUERY_BATCH),
            # Each function is described by itself.
            post(f"{RUN_PREFIX}*", self._post_run, None),
            Route(
                method="POST",
                path="/api/function",
                handler=self._post_any,
                needs_admin=True,
                says=FUNCTION,
            ),
        ]

    # Requests.

    async def _post(self, kind: Kind, request: Request) -> Response:
        who = await self._verifier.from_request(request)
        call = replace(self._call(request, await self._document(request)), key=key_of(request))
        return json_response(await self._envelope(call, who, self._run_of(kind, call)))

    async def _post_any(self, request: Request) -> Response:
        who = await self._verifier.from_request(request)
        call = replace(self._call(request, await self._document(request)), key=key_of(request))
        run = partial(self._for_admin, self._run_of_any(call, who))
        return json_response(await self._envelope(call, who, run))

    async def _get_query(self, request: Request) -> Response:
        who = await self._verifier.from_request(request)
        document: dict[str, Json] = dict(request.query)
        if "args" in document:
            try:
                document["args"] = parse(request.query["args"])
            except ValueError as error:
                raise bad_json(f"Failed to parse args as JSON: {error}") from None
        return json_response(await self._envelope(self._call(request, document), who, self._ask))

    async def _post_run(self, request: Request) -> Response:
        """``/api/run/{dir}/{module}/{function}``: any public function."""
        who = await self._verifier.from_request(request)
        document = await self._document(request)
        *module, function = request.path.removeprefix(RUN_PREFIX).split("/")
        if not module or not all((*module, function)):
            message = "The path names a module and a function, as in /api/run/messages/list"
            raise RequestRefused(400, "BadPath", message)
        call = self._call(request, {**document, "path": f"{'/'.join(module)}:{function}"})
        call = replace(call, key=key_of(request))
        return json_response(await self._envelope(call, who, self._run_of_any(call, who)))

    async def _query_ts(self, _request: Request) -> Response:
        return json_response({"ts": encode_ts(self._backend.published.value)})

    async def _query_at_ts(self, request: Request) -> Response:
        who = await self._verifier.from_request(request)
        document = await self._document(request)
        try:
            ts = decode_ts(document.get("ts"))
        except InvalidValue as error:
            raise RequestRefused(400, "BadTimestamp", str(error)) from None
        call = replace(self._call(request, document), ts=ts)
        try:
            if who.admin:
                return json_response(await self._envelope(call, who, self._ask_past))
            self._refuse_far_past(ts)
            return json_response(await self._envelope(call, who, self._ask))
        except OutOfRetention as error:  # whoever asks the same again is told the same
            raise RequestRefused(404, error.code, str(error)) from None

    async def _query_batch(self, request: Request) -> Response:
        who = await self._verifier.from_request(request)
        queries = (await self._document(request)).get("queries")
        if not isinstance(queries, list):
            raise bad_json("queries has to be an array")
        if len(queries) > self._limits.queries_batched_max:
            raise RequestRefused(
                400,
                "TooManyQueries",
                f"{len(queries):,} queries in one request, at most "
                f"{self._limits.queries_batched_max:,} are taken (queries_batched_max)",
            )
        calls = [self._call(request, query) for query in queries]
        with self._backend.pin() as ts:
            results = await self._results([replace(call, ts=ts) for call in calls], who)
        return json_response({"results": results})

    async def _results(self, calls: Sequence[Call], who: Who) -> list[Raw]:
        results, size = [], 0
        for call in calls:
            results.append(Raw(msgspec.json.encode(await self._envelope(call, who, self._ask))))
            size += len(bytes(results[-1]))
            if size > self._limits.message_bytes_max:
                raise RequestRefused(
                    400,
                    "ResponseTooLarge",
                    f"The results of {len(results):,} queries are over the limit of "
                    f"{self._limits.message_bytes_max:,} bytes (message_bytes_max); ask fewer at "
                    "a time, with /api/query_at_ts at one ts",
                )
        return results

    def _call(self, request: Request, document: Json) -> Call:
        return call_of(document, Format.of_client(request.headers.get("convex-client")))

    async def _document(self, request: Request) -> dict[str, Json]:
        return await request.json_object(self._limits.http_body_bytes_max, kept="args")

    # Calls.

    def _run_of_any(self, call: Call, who: Who) -> Run:
        """How a function of whatever kind is called; what is not there, as a query is not."""
        caller = Caller(identity=who.identity, admin=who.admin)
        kind = self._backend.kind_of(call.path, caller=caller, component=call.component)
        return self._run_of(kind or Kind.QUERY, call)

    def _run_of(self, kind: Kind, call: Call) -> Run:
        """
        How functions of `kind` are called.

        Raises:
            RequestRefused: none of them takes a key, and `call` has one.
        """
        match kind:
            case Kind.QUERY:
                return self._ask
            case Kind.MUTATION:
                return self._mutate
            case Kind.ACTION if call.key is None:
                return self._act
        raise RequestRefused(
            400,
            "BadIdempotencyKey",
            f"{HEADER} is for mutations: what an action did outside cannot be looked up. Call "
            "a mutation that schedules the action, with the key",
        )

    async def _envelope(self, call: Call, who: Who, run: Run) -> Success | Error:
        """
        Call a function and say what it did.

        Raises:
            Unauthenticated: the token has run out meanwhile; nothing was executed.
        """
        # Since it was verified a body has arrived, or queries before this one were answered.
        self._verifier.check_expiry(who)
        request_id = self._runtime.random_bytes(8).hex()
        spelling = self._spelling.toward(who)
        caller = Caller(
            identity=who.identity, admin=who.admin, request_id=request_id, origin="http"
        )
        try:
            args = await self._arguments(call, who)
        except UsageError as error:
            failure = refusal_of(error)
            self._backend.tell_refused("call", call.path, failure, caller, call.component)
            return failed(failure, spelling.error_message(failure, request_id), (), call.form)
        result = await run(call, args, caller)
        lines = spelling.log_lines(result.log_lines)
        if result.failure is None:
            return success(result, lines, call.form, wants_ts=call.wants_ts)
        message = spelling.error_message(result.failure, request_id)
        return failed(result.failure, message, lines, call.form)

    async def _arguments(self, call: Call, who: Who) -> dict[str, Value]:
        if not isinstance(call.args, Raw):
            return call_arguments(call.path, call.args, component=call.component, who=who)
        bytes_max = self._limits.args_bytes_max
        steps = arguments_in_steps(
            call.path, call.args, component=call.component, who=who, bytes_max=bytes_max
        )
        return await in_turns(steps)

    async def _ask(self, call: Call, args: dict[str, Value], caller: Caller) -> Result:
        try:
            result = await self._backend.query(
                call.path, args, caller=caller, ts=call.ts, component=call.component
            )
        except Conflict:
            if call.ts is None:
                raise
            # Its code was replaced. Who reads several queries at one ts goes on with the new one.
            return await self._ask_past(call, args, caller)
        result.live.release()
        return result

    def _refuse_far_past(self, ts: int) -> None:
        """
        Clients ask for a ts and read at it for a while, and need no more than that.

        Functions say what a caller may see by the data, and what was taken from him since, or
        deleted, is still there in the past.
        """
        if ts < self._backend.oldest_fresh_ts:
            raise OutOfRetention(
                f"ts {ts} has not been the newest state for more than "
                f"{self._limits.client_past_s_max:g} s (client_past_s_max), and clients read "
                "no further back than that; the past is for administrators"
            )

    async def _ask_past(self, call: Call, args: dict[str, Value], caller: Caller) -> PastResult:
        assert call.ts is not None, "what is asked of the past says when"
        return await self._backend.query_at(
            call.path, args, caller=caller, ts=call.ts, component=call.component
        )

    async def _mutate(self, call: Call, args: dict[str, Value], caller: Caller) -> Result:
        request = None
        if call.key is not None:
            request = session_request(call.key, call.path, args, call.component, caller)
        return await self._backend.mutation(
            call.path, args, caller=caller, request=request, component=call.component
        )

    async def _act(self, call: Call, args: dict[str, Value], caller: Caller) -> Result:
        return await self._detach(
            partial(self._backend.action, call.path, args, caller=caller, component=call.component)
        )

    async def _for_admin(
        self, run: Run, call: Call, args: dict[str, Value], caller: Caller
    ) -> Result:
        result = await run(call, args, caller)
        failure = result.failure
        if failure is None or not isinstance(failure.error, FunctionNotFound):
            return result
        # The official command line looks for this text, and then lists what there is.
        _, *near = failure.message.partition(" Did you mean ")
        missing = f"Could not find function for '{brief(call.path)}'. Did you forget to push it?"
        message = "".join([missing, *near])
        return ActionResult(
            value=None, failure=replace(failure, message=message), log_lines=result.log_lines
        )


def call_of(document: Json, default: Format = Format.CLEAN) -> Call:
    """
    The call that a JSON object spells.

    Args:
        default: the format of the answer, if it names none.

    Raises:
        RequestRefused: it spells none.
    """
    if not isinstance(document, dict):
        raise bad_json("A call has to be a JSON object")
    path, component = document.get("path"), document.get("componentPath") or ""
    wants_ts = document.get("wantsTs", False)
    if not isinstance(path, str):
        raise bad_json("path has to be a string")
    if not isinstance(component, str):
        raise bad_json("componentPath has to be a string")
    if "args" in document and document["args"] is None:
        raise bad_json("args has to be an object, or an array of one object")
    if not isinstance(wants_ts, bool):
        raise bad_json("wantsTs has to be true or false")
    return Call(
        path=speakable(path),
        args=document.get("args"),
        form=Format.named(document.get("format"), default),
        component=speakable(component),
        wants_ts=wants_ts,
    )


def post(path: str, handler: Handler, says: Operation | None) -> Route:
    return Route(method="POST", path=path, handler=handler, says=says)


# What the routes are described as.


def _call(summary: str, **more: Any) -> Operation:
    usual = {
        "body": call_schema(),
        "answer": ENVELOPE,
        "statuses": CALL_STATUSES,
        "access": Access.CALLER,
    }
    return Operation(summary=summary, **{**usual, **more})


_WANTS_TS: Final = {"wantsTs": {"type": "boolean", "description": "say `ts`, of the commit"}}
_COMPONENT: Final = {"componentPath": {"type": ["string", "null"]}}

QUERY: Final = _call("Run a query")
QUERY_BY_URL: Final = _call(
    "Run a query",
    name="api.query.get",
    body=None,
    parameters=(
        {"name": "path", "in": "query", "required": True, "schema": {"type": "string"}},
        json_parameter("args", {"$ref": "#/components/schemas/Arguments"}),
        {"name": "format", "in": "query", "schema": FORMAT},
    ),
    statuses=(400, 401, 431, 500, 503),
)
MUTATION: Final = _call(
    "Run a mutation; what it wrote is durable when it is answered",
    body=call_schema(_WANTS_TS),
    parameters=(IDEMPOTENCY_KEY,),
    statuses=(*CALL_STATUSES, 409),
)
ACTION: Final = _call("Run an action")
QUERY_TS: Final = Operation(
    summary="The newest timestamp, for query_at_ts",
    answer={"type": "object", "properties": {"ts": TIMESTAMP}, "required": ["ts"]},
)
QUERY_AT_TS: Final = _call(
    "Run a query as of a timestamp; several at one see one state",
    body=call_schema({"ts": TIMESTAMP}, required=("ts",)),
    statuses=(*CALL_STATUSES, 404),
)
FUNCTION: Final = _call(
    "Run any function, also internal ones and those of components",
    body=call_schema({**_COMPONENT, **_WANTS_TS}),
    parameters=(IDEMPOTENCY_KEY,),
    statuses=(*CALL_STATUSES, 409),
    access=Access.ADMINISTRATOR,
)
QUERY_BATCH: Final = _call(
    "Run several queries as of one timestamp",
    body={
        "type": "object",
        "properties": {"queries": {"type": "array", "items": call_schema()}},
        "required": ["queries"],
    },
    answer={
        "type": "object",
        "properties": {"results": {"type": "array", "items": ENVELOPE}},
        "required": ["results"],
    },
)
