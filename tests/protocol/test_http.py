"""The HTTP API, request by request."""

from __future__ import annotations

import base64
import json
from itertools import chain, repeat
from typing import Any

import pytest
import trio
import trio.testing

from engine.errors import (
    Conflict,
    ConvexError,
    OutcomeUnknown,
    OutOfRetention,
    Overloaded,
    Stopped,
)
from engine.functions.results import Caller
from engine.model.json_values import encode_ts
from engine.model.limits import Limits
from engine.server.http import Readiness
from engine.server.json_text import LENIENT_BYTES_MAX
from engine.server.requests import Request, Response, Route, text_response
from engine.server.server import ServerConfig
from tests.protocol.cells import START_TS, Cells, Ctx
from tests.protocol.tokens import custom, token
from tests.protocol.wires import ADMIN_KEY, House, Reply, Turns, serving


def echo(ctx: Ctx, value: Any = None) -> Any:
    return value


def show(ctx: Ctx, cell: str = "cell") -> Any:
    return ctx.get(cell)


def put(ctx: Ctx, value: Any) -> None:
    ctx.put("cell", value)


def fails(ctx: Ctx, data: Any = "none") -> None:
    ctx.log_lines.append("[LOG] 'about to fail'")
    if data == "plain":
        raise ValueError("no")
    raise ConvexError(data)


def whoami(ctx: Ctx) -> str | None:
    return ctx.subject


async def add(_cells: Cells, _caller: Caller, a: float, b: float) -> float:
    return a + b


def application() -> Cells:
    return Cells(
        queries={
            "m:echo": echo,
            "m:show": show,
            "m:fails": fails,
            "m:whoami": whoami,
            "dir/m:echo": echo,
        },
        mutations={"m:put": put},
        actions={"m:add": add},
    )


def call(path: str, args: Any = None, **fields: Any) -> dict[str, Any]:
    return {"path": path, "args": {} if args is None else args, **fields}


# The envelope.


@pytest.mark.parametrize("args", [{"value": 5}, [{"value": 5}]])
async def test_a_query_is_answered_in_an_envelope(args: Any) -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", call("m:echo", args))

    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {"status": "success", "value": 5}
    assert b"5.0" in reply.body


NUMBERS = [[1] * 8_000] * 40
"""Each row is more than is read in one step."""


@pytest.mark.parametrize("wrap", [dict, lambda args: [args]], ids=["bare", "in an array"])
async def test_others_get_their_turns_while_large_arguments_are_read(wrap: Any) -> None:
    turns = Turns()
    async with serving(application()) as house:
        house.nursery.start_soon(turns.take)
        large = call("m:echo", wrap({"value": NUMBERS}))
        reply = await house.http("POST", "/api/query", large)

    assert reply.json["value"] == NUMBERS
    assert turns.count >= len(NUMBERS) // 2


async def test_arguments_that_become_too_large_fail_their_call() -> None:
    async with serving(application(), limits=Limits(args_bytes_max=1 << 20)) as house:
        reply = await house.http("POST", "/api/query", call("m:echo", {"value": NUMBERS}))

    assert (reply.status, reply.json["status"]) == (200, "error")
    assert "over 1,048,576 bytes" in reply.json["errorMessage"]


async def test_half_a_character_is_looked_for_in_no_large_text() -> None:
    """Around it is parsed what would be left as text otherwise."""
    text = json.dumps(call("m:echo", {"value": "\ud800" + "x" * LENIENT_BYTES_MAX}))
    async with serving(application()) as house:
        reply = await house.http(
            "POST", "/api/query", text, headers={"content-type": "application/json"}
        )

    assert (reply.status, reply.json["code"]) == (400, "BadJsonBody")


async def test_mutations_and_actions_are_answered_likewise() -> None:
    async with serving(application()) as house:
        put = await house.http("POST", "/api/mutation", call("m:put", {"value": "x"}))
        shown = await house.http("POST", "/api/query", call("m:show"))
        added = await house.http("POST", "/api/action", call("m:add", {"a": 1, "b": 2}))

    assert put.json == {"status": "success", "value": None}
    assert (shown.json["value"], added.json["value"]) == ("x", 3)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (None, ["5", "AQID", 1.5]),
        ("json", ["5", "AQID", 1.5]),
        ("convex_clean_json", ["5", "AQID", 1.5]),
        ("convex_encoded_json", [{"$integer": "BQAAAAAAAAA="}, {"$bytes": "AQID"}, 1.5]),
        ("convex_json", [{"$integer": "BQAAAAAAAAA="}, {"$bytes": "AQID"}, 1.5]),
        ("export_json", [5, {"$bytes": "AQID"}, 1.5]),
    ],
)
async def test_the_request_chooses_the_format_of_the_answer(form: Any, expected: Any) -> None:
    value = [{"$integer": "BQAAAAAAAAA="}, {"$bytes": "AQID"}, 1.5]
    async with serving(application()) as house:
        body = call("m:echo", {"value": value}, **({"format": form} if form else {}))
        reply = await house.http("POST", "/api/query", body)

    assert reply.json["value"] == expected


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("npm-1.48.0", "5"),
        ("npm-1.4.1", "5"),
        ("npm-1.4.0", {"$integer": "BQAAAAAAAAA="}),
        ("npm-0.19.3-alpha.1", {"$integer": "BQAAAAAAAAA="}),
        ("npm-cli-1.2.0", "5"),
        ("python-0.5.0", "5"),
        ("python-0.4.9", {"$integer": "BQAAAAAAAAA="}),
        ("another-one", "5"),
    ],
)
async def test_clients_that_could_name_no_format_are_answered_in_the_lossless_one(
    client: str, expected: Any
) -> None:
    body = call("m:echo", {"value": {"$integer": "BQAAAAAAAAA="}})
    headers = {"convex-client": client}
    async with serving(application()) as house:
        silent = await house.http("POST", "/api/query", body, headers=headers)
        named = await house.http("POST", "/api/query", {**body, "format": "json"}, headers=headers)

    assert (silent.json["value"], named.json["value"]) == (expected, "5")


@pytest.mark.parametrize("endpoint", ["query", "mutation", "action", "run/m/echo", "query_at_ts"])
async def test_a_client_without_a_version_is_refused(endpoint: str) -> None:
    body = call("m:echo", ts=encode_ts(START_TS))
    async with serving(application()) as house:
        reply = await house.http(
            "POST", f"/api/{endpoint}", body, headers={"convex-client": "nonsense"}
        )

    assert (reply.status, reply.json["code"]) == (400, "BadConvexClientHeader")


async def test_a_function_that_failed_is_answered_with_200() -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", call("m:fails", {"data": "plain"}))

    assert reply.status == 200
    assert reply.json["status"] == "error"
    assert reply.json["errorMessage"].startswith("[Request ID: ")
    assert reply.json["logLines"] == ["[LOG] 'about to fail'"]
    assert "errorData" not in reply.json


@pytest.mark.parametrize("data", [None, "text"])
async def test_error_data_is_there_even_when_it_is_null(data: Any) -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", call("m:fails", {"data": data}))

    assert reply.json["errorData"] == data


async def test_error_data_is_in_the_format_of_the_answer() -> None:
    data = {"big": {"$integer": "BwAAAAAAAAA="}}
    async with serving(application()) as house:
        clean = await house.http("POST", "/api/query", call("m:fails", {"data": data}))
        wire = await house.http(
            "POST", "/api/query", call("m:fails", {"data": data}, format="convex_encoded_json")
        )

    assert clean.json["errorData"] == {"big": "7"}
    assert wire.json["errorData"] == data


async def test_production_tells_clients_little_and_administrators_all() -> None:
    config = ServerConfig(redact=True, admin_key=ADMIN_KEY)
    async with serving(application(), config=config) as house:
        body = call("m:fails", {"data": {"code": "X"}})
        client = await house.http("POST", "/api/query", body)
        admin = await house.http(
            "POST", "/api/query", body, headers={"authorization": f"Convex {ADMIN_KEY}"}
        )

    assert client.json["errorMessage"].splitlines()[1:] == []
    assert client.json["errorData"] == {"code": "X"}
    assert "logLines" not in client.json
    assert "Uncaught ConvexError" in admin.json["errorMessage"]


@pytest.mark.parametrize("endpoint", ["query", "mutation", "action"])
async def test_an_unknown_function_is_a_function_error(endpoint: str) -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", f"/api/{endpoint}", call("m:nope"))

    assert reply.status == 200
    assert "Could not find public function for 'm:nope'." in reply.json["errorMessage"]


async def test_a_function_called_as_another_kind_does_not_run() -> None:
    cells = application()
    async with serving(cells) as house:
        reply = await house.http("POST", "/api/query", call("m:put", {"value": 1}))

    assert "defined as Mutation" in reply.json["errorMessage"]
    assert cells.published.value == START_TS


@pytest.mark.parametrize(
    "args",
    ["5", "[1]", "[{},{}]", '[{"a":{"$integer":"x"}}]', '[{"a":"\\ud800"}]', '{"$integer":"x"}'],
)
async def test_malformed_arguments_are_a_function_error(args: str) -> None:
    async with serving(application()) as house:
        reply = await house.http(
            "POST",
            "/api/query",
            f'{{"path":"m:echo","args":{args}}}',
            headers={"content-type": "application/json; charset=utf-8"},
        )

    assert (reply.status, reply.json["status"]) == (200, "error")
    assert "Invalid arguments for m:echo" in reply.json["errorMessage"]


async def test_absent_arguments_are_none() -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", {"path": "m:echo"})

    assert reply.json == {"status": "success", "value": None}


async def test_nothing_that_a_query_read_is_held_after_its_answer() -> None:
    cells = application()
    async with serving(cells) as house:
        await house.http("POST", "/api/query", call("m:show"))
        await house.http("POST", "/api/query", call("m:fails"))

    assert cells.subscriptions.statistics().lives == 0


# Requests that are none.


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        ("{not json", {}, "BadJsonBody"),
        ("", {}, "BadJsonBody"),
        ("[]", {}, "BadJsonBody"),
        ("null", {}, "BadJsonBody"),
        ('"\\ud800"', {}, "BadJsonBody"),
        ("[" * 5000, {}, "BadJsonBody"),
        ('{"args":{}}', {}, "BadJsonBody"),
        ('{"path":5}', {}, "BadJsonBody"),
        ('{"path":"m:echo","componentPath":5}', {}, "BadJsonBody"),
        ('{"path":"m:echo","args":null}', {}, "BadJsonBody"),
        ('{"path":"m:echo","args":{},"wantsTs":1}', {}, "BadJsonBody"),
        ('{"path":"m:echo","args":{}}', {"content-type": "text/plain"}, "BadJsonBody"),
        ('{"path":"m:echo","args":{},"format":"bogus"}', {}, "BadFormat"),
        ('{"path":"m:echo","args":{},"format":5}', {}, "BadFormat"),
    ],
)
async def test_a_request_that_is_none_is_answered_with_400(
    body: str, headers: dict[str, str], code: str
) -> None:
    headers = {"content-type": "application/json", **headers}
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", body, headers=headers)

    assert (reply.status, reply.json["code"]) == (400, code)
    assert reply.json["message"]


@pytest.mark.parametrize(
    ("fields", "headers"), [({"format": ADMIN_KEY}, {}), ({}, {"convex-client": ADMIN_KEY})]
)
async def test_what_stands_in_the_place_of_a_name_is_not_said_back(
    fields: dict[str, str], headers: dict[str, str]
) -> None:
    async with serving(application()) as house:
        body = call("m:echo", **fields)
        reply = await house.http("POST", "/api/query", body, headers=headers)

    assert reply.status == 400
    assert ADMIN_KEY not in reply.json["message"]


@pytest.mark.parametrize(
    "announced",
    [{}, {"content-length": "2000"}, {"content-length": "9" * 5_000}],
    ids=["nothing", "its-size", "what-is-no-number-of-bytes"],
)
async def test_a_body_over_the_limit_is_refused(announced: dict[str, str]) -> None:
    body = json.dumps(call("m:echo", {"value": "x" * 2000}))
    headers = {"content-type": "application/json", **announced}
    async with serving(application(), limits=Limits(http_body_bytes_max=1500)) as house:
        reply = await house.http("POST", "/api/query", body, headers=headers)

    assert (reply.status, reply.json["code"]) == (413, "RequestTooLarge")


@pytest.mark.parametrize(("size", "is_taken"), [(5_000, True), (20_000, False)])
async def test_the_rest_of_a_refused_body_is_taken_within_reason(size: int, is_taken: bool) -> None:
    parts = [{"type": "http.request", "body": b"x" * 1000, "more_body": True}] * (size // 1000)
    parts.append({"type": "http.request", "body": b"", "more_body": False})
    left: list[int] = []

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def send(event: dict[str, Any]) -> None:
        left.append(len(parts))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/query",
        "query_string": b"",
        "headers": [(b"content-length", str(size).encode()), (b"authorization", b"Bearer x")],
    }
    async with serving(application(), limits=Limits(http_body_bytes_max=10_000)) as house:
        await house.server(scope, receive, send)

    assert (left[0] == 0) is is_taken


async def test_a_body_that_does_not_arrive_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/query",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    async with serving(application()) as house:
        await house.server(scope, receive, send)

    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nothing", 404),
        ("GET", "/elsewhere", 404),
        ("PUT", "/api/query", 405),
        ("GET", "/api/mutation", 405),
        ("POST", "/api/run_test_function", 501),
        ("POST", "/api/deploy2/start_push", 501),
        ("POST", "/api/update_environment_variables", 501),
        ("POST", "/api/export/request/zip", 501),
        ("GET", "/api/stream_function_logs", 501),
    ],
)
async def test_what_is_not_there_is_said_in_json(method: str, path: str, status: int) -> None:
    async with serving(application()) as house:
        reply = await house.http(method, path)

    assert reply.status == status
    assert set(reply.json) == {"code", "message"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/api/query", "GET, HEAD, POST"), ("/api/mutation", "POST"), ("/version", "GET, HEAD")],
)
async def test_a_method_that_is_not_there_is_answered_with_those_that_are(
    path: str, allowed: str
) -> None:
    async with serving(application()) as house:
        reply = await house.http("DELETE", path)

    assert (reply.status, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Overloaded("the committer", 5), 503, "Overloaded"),
        (Conflict("x"), 503, "OptimisticConcurrencyControlFailure"),
        (Stopped("the engine"), 503, "Stopped"),
        (OutcomeUnknown("the disk failed"), 500, "OutcomeUnknown"),
        (RuntimeError("a bug"), 500, "InternalServerError"),
    ],
)
async def test_what_kept_a_function_from_running_is_said_with_a_status(
    error: Exception, status: int, code: str
) -> None:
    cells = application()
    cells.errors["m:put"] = [error]
    async with serving(cells) as house:
        reply = await house.http("POST", "/api/mutation", call("m:put", {"value": 1}))

    assert (reply.status, reply.json["code"]) == (status, code)
    assert "a bug" not in reply.json["message"]


async def test_an_action_that_there_is_no_room_for_is_said_with_a_status() -> None:
    cells = application()
    cells.errors["m:add"] = [Overloaded("the places for actions", 10)]
    async with serving(cells) as house:
        reply = await house.http("POST", "/api/action", call("m:add", {"a": 1, "b": 2}))

    assert (reply.status, reply.json["code"]) == (503, "Overloaded")


async def test_more_requests_than_fit_are_refused() -> None:
    cells = application()
    cells.gates["m:show"] = trio.Event()
    async with serving(cells, limits=Limits(http_requests_max=1)) as house:
        house.nursery.start_soon(house.http, "POST", "/api/query", call("m:show"))
        await trio.testing.wait_all_tasks_blocked()
        reply = await house.http("POST", "/api/query", call("m:show"))
        wrong = {"authorization": "Convex test|9876543210"}
        stranger = await house.http("POST", "/api/query", call("m:echo"), headers=wrong)
        operator = await house.http("POST", "/api/query", call("m:echo"), headers=OPERATOR)
        asked = [(await house.http("GET", path)).status for path in ("/healthz", "/readyz")]

    assert [reply.status, stranger.status, operator.status, *asked] == [503, 503, 200, 200, 200]


class Trickle:
    """Requests with a body of which a byte comes every few seconds, and their answers."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.statuses: list[int] = []

    async def run(self, body: bytes = b"{") -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/query",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"9000")],
        }
        parts = chain([body], repeat(b" "))

        async def receive() -> dict[str, Any]:
            await trio.sleep(5)
            return {"type": "http.request", "body": next(parts), "more_body": True}

        async def send(event: dict[str, Any]) -> None:
            self.statuses += [event["status"]] if "status" in event else []

        await self._house.server(scope, receive, send)


OPERATOR = {"authorization": f"Convex {ADMIN_KEY}"}


async def test_a_body_that_trickles_takes_no_place_and_ends_at_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = Limits(http_requests_max=2, http_body_s_max=60)
    async with serving(application(), limits=limits) as house:
        slow = Trickle(house)
        for _ in range(10):
            house.nursery.start_soon(slow.run)
        await trio.sleep(59)
        meanwhile = await house.http("POST", "/api/query", call("m:echo"))
        before = list(slow.statuses)
        await trio.sleep(2)

        assert (meanwhile.status, before, slow.statuses) == (200, [], [408] * 10)


async def test_more_of_bodies_than_fits_is_refused_and_operators_are_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = Limits(http_body_bytes_max=50_000, http_bodies_bytes_max=50_000)
    async with serving(application(), limits=limits) as house:
        slow = Trickle(house)
        for body in (b"x" * 20_000, b"x" * 20_000, b"x" * 20_000):
            house.nursery.start_soon(slow.run, body)
        await trio.sleep(30)
        refused = await house.http("POST", "/api/query", call("m:echo"))
        without_body = await house.http("GET", "/api/query?path=m:echo")
        operators = await house.http("POST", "/api/query", call("m:echo"), headers=OPERATOR)
        await trio.sleep(300)
        after = await house.http("POST", "/api/query", call("m:echo"))

        assert (refused.status, refused.json["code"]) == (503, "Overloaded")
        assert "http_bodies_bytes_max" in refused.json["message"]
        assert [without_body.status, operators.status, after.status] == [200, 200, 200]
        assert sorted(slow.statuses) == [408, 408, 503]


async def test_the_server_answers_on_after_any_garbage() -> None:
    async with serving(application()) as house:
        for body in ["", "[]", "null", '"\\ud800"', "{}", "[" * 5000]:
            await house.http("POST", "/api/query", body)
        reply = await house.http("POST", "/api/query", call("m:echo"))

    assert reply.status == 200


# Tokens.


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("query", call("m:whoami")),
        ("mutation", call("m:put", {"value": "x"})),
        ("mutation", call("m:nothing", 5)),
        ("action", call("m:add", {"a": 1, "b": 2})),
        ("run/m/put", {"args": {"value": "x"}}),
        ("query_at_ts", call("m:whoami", ts=encode_ts(START_TS))),
        ("query_batch", {"queries": [call("m:whoami")]}),
    ],
)
async def test_a_token_that_runs_out_before_the_body_is_there_is_refused_as_one_that_had(
    endpoint: str, body: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    cells = application()
    async with serving(cells, providers=[custom()]) as house:
        late = Late(house, f"/api/{endpoint}", body)
        in_time = await late.post(waiting_s=1)
        ran = list(cells.runs)
        meanwhile = await late.post(waiting_s=10)
        from_the_start = await late.post(waiting_s=0)

    assert in_time.status == 200
    assert cells.runs == ran
    assert [meanwhile.status, meanwhile.json] == [from_the_start.status, from_the_start.json]
    assert (meanwhile.status, meanwhile.json["code"]) == (401, "Unauthenticated")


async def test_a_token_that_runs_out_between_two_queries_of_a_batch_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells, providers=[custom()]) as house:
        gate = cells.gates["m:whoami"] = trio.Event()
        late = Late(house, "/api/query_batch", {"queries": [call("m:whoami"), call("m:show")]})

        async def open_late() -> None:
            await trio.sleep(10)
            gate.set()

        house.nursery.start_soon(open_late)
        reply = await late.post(waiting_s=1)

    assert (reply.status, cells.runs) == (401, ["m:whoami"])


class Late:
    """A client whose token is good for ten seconds more, and who sends the body when it likes."""

    def __init__(self, house: House, path: str, body: dict[str, Any]) -> None:
        self._house = house
        self._path = path
        self._body = json.dumps(body).encode()
        self._token = token(lifetime_s=10)

    async def post(self, *, waiting_s: float) -> Reply:
        scope = {
            "type": "http",
            "method": "POST",
            "path": self._path,
            "query_string": b"",
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(self._body)).encode()),
                (b"authorization", f"Bearer {self._token}".encode()),
            ],
        }

        async def receive() -> dict[str, Any]:
            await trio.sleep(waiting_s)
            return {"type": "http.request", "body": self._body}

        reply = Reply()
        await self._house.server(scope, receive, reply.take)
        return reply


# Other ways to call.


async def test_a_query_can_be_got() -> None:
    async with serving(application()) as house:
        reply = await house.http("GET", "/api/query?path=m:echo&args=%7B%22value%22:%22a%22%7D")

    assert reply.json == {"status": "success", "value": "a"}


async def test_arguments_in_a_url_have_to_be_json() -> None:
    async with serving(application()) as house:
        reply = await house.http("GET", "/api/query?path=m:echo&args=%7B")

    assert (reply.status, reply.json["code"]) == (400, "BadJsonBody")


@pytest.mark.parametrize(
    ("path", "args", "value"),
    [
        ("m/echo", {"value": "a"}, "a"),
        ("dir/m/echo", {"value": "a"}, "a"),
        ("m/put", {"value": "a"}, None),
        ("m/add", {"a": 1, "b": 2}, 3),
    ],
)
async def test_any_function_can_be_run_by_its_path(path: str, args: Any, value: Any) -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", f"/api/run/{path}", {"args": args})

    assert reply.json == {"status": "success", "value": value}


@pytest.mark.parametrize("path", ["echo", "/echo", "m/"])
async def test_a_path_to_run_names_a_module_and_a_function(path: str) -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", f"/api/run/{path}", {"args": {}})

    assert (reply.status, reply.json["code"]) == (400, "BadPath")


@pytest.mark.parametrize("path", ["m:echo", "m:put", "m:add", "m:nothing"])
async def test_to_run_any_function_only_its_kind_is_called(path: str) -> None:
    cells = application()
    async with serving(cells) as house:
        await house.http("POST", f"/api/run/{path.replace(':', '/')}", {"args": {}})
        await house.http("POST", "/api/function", {"path": path, "args": {}}, headers=OPERATOR)

    assert cells.runs == [path, path]


async def test_queries_at_a_timestamp_see_the_state_as_it_was() -> None:
    cells = application()
    async with serving(cells) as house:
        cells.write(cell="before")
        ts = (await house.http("POST", "/api/query_ts")).json["ts"]
        cells.write(cell="after")
        reply = await house.http("POST", "/api/query_at_ts", call("m:show", ts=ts))

    assert reply.json["value"] == "before"


@pytest.mark.parametrize("ts", [None, 5, "x", encode_ts(5)[:-2]])
async def test_a_timestamp_that_is_none_is_refused(ts: Any) -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query_at_ts", call("m:show", ts=ts))

    assert (reply.status, reply.json["code"]) == (400, "BadTimestamp")


async def test_a_timestamp_that_is_no_longer_kept_is_said_so() -> None:
    cells = application()
    cells.errors["m:show"] = [OutOfRetention("too old")]
    async with serving(cells) as house:
        reply = await house.http("POST", "/api/query_at_ts", call("m:show", ts=encode_ts(1)))

    assert (reply.status, reply.json["code"]) == (404, "OutOfRetention")


async def test_a_batch_is_answered_at_one_timestamp() -> None:
    cells = application()

    def show_and_write(ctx: Ctx) -> Any:
        value = ctx.get("cell")
        cells.write(cell="written between the two")
        return value

    cells._functions["Query"] = {"m:show": show_and_write}
    async with serving(cells) as house:
        queries = [call("m:show"), call("m:nope"), call("m:show")]
        reply = await house.http("POST", "/api/query_batch", {"queries": queries})

    assert [each["status"] for each in reply.json["results"]] == ["success", "error", "success"]
    assert [each.get("value") for each in reply.json["results"]] == [None] * 3


@pytest.mark.parametrize("queries", [None, {}, [5], [{}]])
async def test_a_batch_that_is_none_is_refused(queries: Any) -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query_batch", {"queries": queries})

    assert (reply.status, reply.json["code"]) == (400, "BadJsonBody")


async def test_a_batch_of_too_many_queries_is_refused() -> None:
    cells = application()
    async with serving(cells, limits=Limits(queries_batched_max=2)) as house:
        replies = [
            await house.http("POST", "/api/query_batch", {"queries": [call("m:echo")] * count})
            for count in (2, 3)
        ]

    assert (len(replies[0].json["results"]), replies[1].status) == (2, 400)
    assert replies[1].json["code"] == "TooManyQueries"
    assert "queries_batched_max" in replies[1].json["message"]
    assert cells.runs == ["m:echo"] * 2


async def test_a_batch_whose_results_are_too_large_ends_early() -> None:
    cells = application()
    async with serving(cells, limits=Limits(message_bytes_max=2_000)) as house:
        queries = [call("m:echo", {"value": "x" * 900})] * 5
        reply = await house.http("POST", "/api/query_batch", {"queries": queries})

    assert (reply.status, reply.json["code"]) == (400, "ResponseTooLarge")
    assert cells.runs == ["m:echo"] * 3


async def test_an_action_runs_on_when_its_client_hangs_up() -> None:
    cells = application()
    cells.gates["m:add"] = trio.Event()
    body = call("m:add", {"a": 1, "b": 2})
    async with serving(cells) as house:
        async with trio.open_nursery() as client:
            client.start_soon(house.http, "POST", "/api/action", body)
            await trio.testing.wait_all_tasks_blocked()
            client.cancel_scope.cancel()
        still_open = house.server._home is not None and len(house.server._home.child_tasks)
        cells.gates["m:add"].set()
        await trio.testing.wait_all_tasks_blocked()

    assert still_open == 1


# Administrators.


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Convex {ADMIN_KEY}", 200),
        (f"convex prod:{ADMIN_KEY}", 200),
        ("Convex wrong|key", 401),
        ("Convex ", 401),
        ("Basic dTpw", 401),
        (None, 401),
    ],
)
async def test_only_administrators_call_any_function(
    authorization: str | None, status: int
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with serving(application()) as house:
        reply = await house.http(
            "POST", "/api/function", call("m:add", {"a": 1, "b": 2}), headers=headers
        )

    assert reply.status == status
    assert reply.json.get("value") == (3 if status == 200 else None)


async def test_the_admin_key_may_be_in_the_url() -> None:
    async with serving(application()) as house:
        reply = await house.http(
            "POST", f"/api/function?adminKey={ADMIN_KEY}", call("m:echo", {"value": 1})
        )

    assert reply.status == 200


async def test_no_admin_key_lets_nobody_be_administrator() -> None:
    async with serving(application(), config=ServerConfig(admin_key=None)) as house:
        reply = await house.http(
            "POST", "/api/function", call("m:echo"), headers={"authorization": "Convex |"}
        )

    assert reply.status == 401


async def test_the_command_line_is_told_that_a_function_is_not_there() -> None:
    headers = {"authorization": f"Convex {ADMIN_KEY}"}
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/function", call("m:nope"), headers=headers)

    assert "Could not find function for 'm:nope'" in reply.json["errorMessage"]


async def test_an_administrator_acts_as_a_user() -> None:
    user = base64.b64encode(json.dumps({"issuer": "i", "subject": "ada"}).encode()).decode()
    headers = {"authorization": f"Convex {ADMIN_KEY}:{user}"}
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", call("m:whoami"), headers=headers)

    assert reply.json["value"] == "ada"


@pytest.mark.parametrize("user", ["!", "e30=", base64.b64encode(b"[1]").decode()])
async def test_a_user_that_is_none_cannot_be_acted_as(user: str) -> None:
    headers = {"authorization": f"Convex {ADMIN_KEY}:{user}"}
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", call("m:whoami"), headers=headers)

    assert (reply.status, reply.json["code"]) == (401, "InvalidAuthHeader")


async def test_components_are_the_administrators() -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", call("m:echo", componentPath="inner"))

    assert "Could not find public function for 'm:echo' in 'inner'." in reply.json["errorMessage"]


# Browsers.


async def test_a_preflight_allows_what_was_asked() -> None:
    headers = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,convex-client",
    }
    async with serving(application()) as house:
        reply = await house.http("OPTIONS", "/api/query", headers=headers)

    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert reply.headers["access-control-allow-headers"] == "content-type,convex-client"
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-max-age"] == "86400"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/query", call("m:echo"), 200),
        ("POST", "/api/query", call("m:nope"), 200),
        ("POST", "/api/query", {"path": 5}, 400),
        ("POST", "/api/function", call("m:echo"), 401),
        ("POST", "/api/nothing", None, 404),
        ("PUT", "/api/query", None, 405),
        ("POST", "/api/query", call("m:echo", {"value": "x" * 2000}), 413),
        ("POST", "/api/mutation", call("m:put", {"value": 1}), 500),
        ("POST", "/api/export/start", None, 501),
        ("POST", "/api/action", call("m:add", {"a": 1, "b": 2}), 503),
        ("GET", "/version", None, 200),
        ("GET", "/", None, 200),
    ],
)
async def test_pages_may_read_answers_and_errors(
    method: str, path: str, body: Any, status: int
) -> None:
    cells = application()
    cells.errors = {"m:put": [RuntimeError("a bug")], "m:add": [Overloaded("places", 1)]}
    headers = {"origin": "https://app.example"}
    async with serving(cells, limits=Limits(http_body_bytes_max=1500)) as house:
        reply = await house.http(method, path, body, headers=headers)

    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert reply.headers["vary"] == "Origin"


async def test_pages_are_told_also_by_a_server_that_goes_away() -> None:
    headers = {"origin": "https://app.example"}
    async with serving(application()) as house:
        house.server.drain()
        preflight = await house.http("OPTIONS", "/api/query", headers=headers)
        reply = await house.http("POST", "/api/query", call("m:echo"), headers=headers)

    assert (preflight.status, reply.status) == (200, 503)
    assert reply.headers["access-control-allow-origin"] == "https://app.example"


async def test_others_are_told_nothing_of_origins() -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/query", call("m:echo"))

    assert not [name for name in reply.headers if name.startswith("access-control")]


# Operators.


@pytest.mark.parametrize(
    "path", ["/version", "/instance_name", "/instance_version", "/", "/healthz"]
)
async def test_operators_are_answered_in_plain_text(path: str) -> None:
    async with serving(application()) as house:
        reply = await house.http("GET", path)

    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert reply.text


async def test_events_of_clients_are_taken() -> None:
    async with serving(application()) as house:
        reply = await house.http("POST", "/api/debug_event", {"event": "x"})

    assert reply.status == 200


async def test_readiness_is_asked_and_its_progress_told() -> None:
    answers = [
        Readiness(is_ready=False, progress={"what": "backfilling messages.by_n", "done": 5}),
        Readiness(is_ready=True),
    ]

    async def readiness() -> Readiness:
        return answers.pop(0)

    async with serving(application(), readiness=readiness) as house:
        replies = [await house.http("GET", "/readyz") for _ in range(2)]

    assert [(reply.status, reply.json) for reply in replies] == [
        (503, {"ready": False, "what": "backfilling messages.by_n", "done": 5}),
        (200, {"ready": True}),
    ]


async def test_developers_see_a_page() -> None:
    async with serving(application(), page=lambda: "<h1>tables</h1>") as house:
        reply = await house.http("GET", "/")

    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.text == "<h1>tables</h1>"


async def test_a_draining_server_lives_but_takes_nothing() -> None:
    async with serving(application()) as house:
        house.server.drain()
        query = await house.http("POST", "/api/query", call("m:echo"))
        health = await house.http("GET", "/healthz")

    assert (query.status, query.json["code"], health.status) == (503, "Stopped", 200)


async def test_others_add_routes_and_may_stream() -> None:
    async def numbers(request: Request) -> Response:
        received = [part async for part in request.parts()]

        async def parts() -> Any:
            for part in received:
                yield part.upper()

        return Response(body=parts(), content_type="text/plain")

    async def mine(_request: Request) -> Response:
        return text_response("mine")

    routes = [
        Route(method="POST", path="/api/storage/*", handler=numbers),
        Route(method="GET", path="/version", handler=mine),
        Route(method="GET", path="/secret", handler=mine, needs_admin=True),
    ]
    async with serving(application(), routes=routes) as house:
        streamed = await house.http("POST", "/api/storage/upload", "a" * 1500)
        version = await house.http("GET", "/version")
        secret = await house.http("GET", "/secret")

    assert (streamed.body, version.text, secret.status) == (b"A" * 1500, "mine", 401)


async def test_everything_is_below_the_prefix() -> None:
    async with serving(application()) as house:
        full = await house.http("GET", "/engine/version", root_path="/engine")
        stripped = await house.http("GET", "/version", root_path="/engine")
        similar = await house.http("GET", "/engines/version", root_path="/engine")

    assert (full.status, stripped.status, similar.status) == (200, 200, 404)


async def test_a_host_is_told_that_we_start_and_stop() -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: dict[str, Any]) -> None:
        sent.append(event["type"])

    async with serving(application()) as house:
        await house.server({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
