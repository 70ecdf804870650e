"""Who asks, all the way down: to the functions that are called, and not to what is scheduled."""

from __future__ import annotations

import base64
import json
import re
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from engine.app.component import App
from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import (
    action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from engine.functions.results import Caller
from engine.host import Engine
from engine.model.identity import Identity
from engine.server.admin_key import keep_admin_key
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig
from tests.node.nodes import mutate, serving
from tests.node.sockets import SESSION, dialled, exchange, opened, post
from tests.protocol.tokens import custom, token

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")

MODULE = __name__.replace(".", "/")
ADMIN_KEY = "test|0123456789"
ADA = Caller(identity=Identity(issuer="i", subject="ada", token_identifier="i|ada"))


async def subject_of(ctx: QueryCtx | MutationCtx | ActionCtx) -> str | None:
    who = await ctx.auth.get_user_identity()
    return who["subject"] if who else None


# Down.


@internal_query
async def asks(ctx: QueryCtx) -> str | None:
    return await subject_of(ctx)


@internal_mutation
async def writes(ctx: MutationCtx, what: str) -> str | None:
    subject = await subject_of(ctx)
    await ctx.db.insert("seen", {"what": what, "subject": subject})
    return subject


@internal_action
async def acts(ctx: ActionCtx, what: str) -> str | None:
    subject = await subject_of(ctx)
    assert subject == await ctx.run_mutation(writes, what)
    return subject


@query
async def queries(ctx: QueryCtx) -> list[str | None]:
    return [await subject_of(ctx), await ctx.run_query(asks)]


@mutation
async def mutates(ctx: MutationCtx) -> list[str | None]:
    await ctx.scheduler.run_after(0, writes, "after a mutation")
    await ctx.scheduler.run_after(0, acts, "an action after a mutation")
    await ctx.crons.register("beat", writes, {"what": "a cron"}, hours=1)
    return [await subject_of(ctx), await ctx.run_query(asks), await ctx.run_mutation(writes, "now")]


@action
async def all_of_it(ctx: ActionCtx) -> list[str | None]:
    await ctx.scheduler.run_after(0, writes, "after an action")
    await ctx.scheduler.run_after(0, acts, "an action after an action")
    inner = [await ctx.run_query(asks), await ctx.run_action(acts, "in an action")]
    return [await subject_of(ctx), *inner, *(await ctx.run_mutation(mutates))]


@query
async def seen(ctx: QueryCtx) -> dict[str, str | None]:
    return {row["what"]: row["subject"] async for row in ctx.db.query("seen")}


FLOW = [asks, writes, acts, queries, mutates, all_of_it, seen]


async def test_an_identity_goes_along_with_calls_and_not_with_what_is_scheduled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(FLOW) as node:
        functions = node.functions
        asked = await functions.query(f"{MODULE}:queries", {}, caller=ADA)
        asked.live.release()
        acted = await functions.action(f"{MODULE}:all_of_it", {}, caller=ADA)
        await trio.sleep(10)
        found = await functions.query(f"{MODULE}:seen", {}, caller=Caller())
        found.live.release()

    assert ["ada"] * 2 == asked.value
    assert ["ada"] * 6 == acted.value
    assert {
        "now": "ada",
        "in an action": "ada",
        "after a mutation": None,
        "an action after a mutation": None,
        "after an action": None,
        "an action after an action": None,
        "a cron": None,
    } == found.value


@mutation
async def claims_more(ctx: MutationCtx) -> list[str]:
    """What no function should do to what it is given."""
    who = await ctx.auth.get_user_identity()
    assert who is not None
    roles: list[str] = dict(who)["roles"]  # type: ignore[assignment]
    roles.append("admin")
    return roles


async def test_what_a_function_does_to_an_identity_is_seen_by_no_other() -> None:
    claims = {"roles": ["reader"]}
    ada = Caller(
        identity=Identity(issuer="i", subject="ada", token_identifier="i|ada", claims=claims)
    )
    async with serving([claims_more]) as node:
        for _ in range(3):
            done = await node.functions.mutation(f"{MODULE}:claims_more", {}, caller=ada)
            assert ["reader", "admin"] == done.value


# What is internal.


@internal_query
async def hidden(ctx: QueryCtx) -> str:
    return "a secret"


@internal_mutation
async def hidden_write(ctx: MutationCtx) -> str:
    await ctx.db.insert("seen", {"what": "hidden"})
    return "a secret"


@internal_action
async def hidden_act(ctx: ActionCtx) -> str:
    return "a secret"


@query
async def subject(ctx: QueryCtx) -> str | None:
    return await subject_of(ctx)


@asynccontextmanager
async def served(*, redact: bool = False) -> AsyncIterator[tuple[Engine, str]]:
    app = App(auth=[custom()])
    config = ServerConfig(admin_key=ADMIN_KEY, redact=redact)
    functions = [app, hidden, hidden_write, hidden_act, subject]
    async with (
        Engine.open(":memory:", app=functions, server=config) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
    ):
        yield engine, urls[0]


def good_token() -> str:
    return token(exp=int(time.time()) + 600)


async def http(url: str, path: str, body: object, headers: str = "") -> tuple[int, bytes]:
    async with await dialled(url) as stream:
        return await exchange(stream, post(path, body, headers))


async def told_over_http(url: str, name: str, headers: str) -> list[tuple[int, bytes]]:
    """What is said of a function by every way there is to call one."""
    call = {"path": f"{MODULE}:{name}", "args": {}}
    told = [
        await http(url, f"/api/{kind}", call, headers) for kind in ("query", "mutation", "action")
    ]
    told.append(await http(url, f"/api/run/{MODULE}/{name}", {"args": {}}, headers))
    told.append(await http(url, "/api/query_batch", {"queries": [call, call]}, headers))
    _, newest = await http(url, "/api/query_ts", {})
    at = {**call, "ts": json.loads(newest)["ts"]}
    told.append(await http(url, "/api/query_at_ts", at, headers))
    told.append(await http(url, "/api/query", {**call, "args": {"no": "such"}}, headers))
    told.append(await http(url, "/api/query", {**call, "args": 5}, headers))
    get = f"GET /api/query?path={MODULE}:{name}&args=%7B%7D HTTP/1.1\r\nHost: t\r\n{headers}\r\n"
    async with await dialled(url) as stream:
        told.append(await exchange(stream, get.encode()))
    return told


async def told_over_websocket(url: str, name: str, auth: str | None) -> list[dict[str, Any]]:
    async with opened(url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        if auth is not None:
            words = {"baseVersion": 0, "tokenType": "User", "value": auth}
            await socket.say(type="Authenticate", **words)
        call = {"udfPath": f"{MODULE}:{name}", "args": [{}]}
        adds = [{"type": "Add", "queryId": number, **call} for number in range(2)]
        words = {"baseVersion": 0, "newVersion": 1, "modifications": adds}
        await socket.say(type="ModifyQuerySet", **words)
        heard: list[dict[str, Any]] = []
        while len(heard) < len(adds):  # whether the identity is confirmed before does not matter
            heard += (await socket.hear_until("Transition"))["modifications"]
        for number, kind in enumerate(("Mutation", "Action")):
            await socket.say(type=kind, requestId=number, **call)
            heard.append(await socket.hear_until(f"{kind}Response"))
    return heard


VARYING = re.compile(
    rb'Request ID: \w+|"(serverTs|ts|clientClockSkew)": ?("[^"]*"|-?\d+|null)|(hidden|absent)\w*'
)
NAMES = [
    (name, name.replace("hidden", "absent")) for name in ("hidden", "hidden_write", "hidden_act")
]


def without_names(told: object) -> bytes:
    """What was told, but for what is different each time, and of the same length."""
    return VARYING.sub(b"", json.dumps(told, default=repr).encode())


@pytest.mark.parametrize("redact", [False, True], ids=["development", "production"])
@pytest.mark.parametrize("is_known", [False, True], ids=["nobody", "a user"])
async def test_what_is_internal_is_told_as_what_is_not_there(is_known: bool, redact: bool) -> None:
    async with served(redact=redact) as (engine, url):
        auth = good_token() if is_known else None
        headers = f"Authorization: Bearer {auth}\r\n" if auth else ""
        for pair in NAMES:
            told, traced, recorded = [], [], []
            for name in pair:
                before = len(list(engine.executions.after(0)))
                with capture_logs() as traces:
                    answers = [
                        await told_over_http(url, name, headers),
                        await told_over_websocket(url, name, auth),
                    ]
                records = [record for _, record in engine.executions.after(0)][before:]
                told.append(without_names(answers))
                traced.append([(each["event"], each["log_level"]) for each in traces])
                recorded.append([(record.kind, record.error is None) for record in records])

            assert told[0] == told[1]
            assert traced[0] == traced[1]
            assert recorded[0] == recorded[1]
            assert b"a secret" not in told[0]
            assert redact == (b"Could not find public function" not in told[0])


async def test_a_length_tells_no_more_than_the_name() -> None:
    async with served() as (_, url):
        lengths = [
            [len(body) for _, body in await told_over_http(url, name, "")]
            for name in ("hidden_act", "absent_act")
        ]

    assert lengths[0] == lengths[1]


async def test_an_administrator_reaches_what_is_internal_also_as_somebody() -> None:
    acting = base64.b64encode(json.dumps({"issuer": "i", "subject": "bob"}).encode()).decode()
    async with served() as (_, url):
        for key in (ADMIN_KEY, f"{ADMIN_KEY}:{acting}"):
            headers = f"Authorization: Convex {key}\r\n"
            _, body = await http(
                url, "/api/query", {"path": f"{MODULE}:hidden", "args": {}}, headers
            )
            assert "a secret" == json.loads(body)["value"]
            _, body = await http(
                url, "/api/query", {"path": f"{MODULE}:subject", "args": {}}, headers
            )
            assert ("bob" if ":" in key else None) == json.loads(body)["value"]
        # What an administrator was given is nobody else's.
        _, body = await http(url, "/api/query", {"path": f"{MODULE}:hidden", "args": {}})
        assert b"Could not find public function" in body


def test_a_key_is_shown_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    made = keep_admin_key(tmp_path)
    file = tmp_path / "admin.key"
    modes = [file.stat().st_mode & 0o777]
    file.chmod(0o644)  # as a restored one may be
    kept = keep_admin_key(tmp_path)
    modes.append(file.stat().st_mode & 0o777)

    assert [0o600, 0o600] == modes
    assert [(made.key, True), (made.key, False)] == [
        (each.key, each.is_new) for each in (made, kept)
    ]
    file.write_text("")  # a disk was full
    assert keep_admin_key(tmp_path).is_new


@pytest.mark.parametrize("shown", [{"impersonating": {"issuer": "i", "subject": "bob"}}, {}])
async def test_an_administrator_shows_what_is_internal_over_a_websocket(shown: Any) -> None:
    async with served() as (_, url), opened(url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        words = {"baseVersion": 0, "tokenType": "Admin", "value": ADMIN_KEY, **shown}
        await socket.say(type="Authenticate", **words)
        adds = [
            {"type": "Add", "queryId": number, "udfPath": f"{MODULE}:{name}", "args": [{}]}
            for number, name in enumerate(("hidden", "subject"))
        ]
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=adds)
        heard: dict[int, Any] = {}
        while len(heard) < 2:
            transition = await socket.hear_until("Transition")
            heard |= {each["queryId"]: each["value"] for each in transition["modifications"]}
        await socket.say(type="Mutation", requestId=0, udfPath=f"{MODULE}:hidden_write", args=[{}])
        answer = await socket.hear_until("MutationResponse")

    assert {0: "a secret", 1: "bob" if shown else None} == heard
    assert "a secret" == answer["result"]


async def test_what_is_internal_takes_no_longer_to_refuse() -> None:
    """Half of the calls of one in turns with the other, so that a busy machine delays both."""
    took: dict[str, list[float]] = {"hidden_write": [], "absent_write": []}
    async with serving([hidden_write]) as node:
        for _ in range(300):
            for name, times in took.items():
                began = time.perf_counter()
                await node.functions.mutation(f"{MODULE}:{name}", {}, caller=Caller())
                times.append(time.perf_counter() - began)
        assert "a secret" == await mutate(node, hidden_write)
    hidden_s, missing_s = (statistics.median(times) for times in took.values())

    assert 1 / 3 < hidden_s / missing_s < 3
