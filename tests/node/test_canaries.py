"""
A token and an admin key go through everything that is done with them, and are found nowhere.

Not in what the server and its libraries write, at their most talkative, in either of the two ways
in which traces are put; not in an answer; not in the data, except for the file that is the key's.
"""

from __future__ import annotations

import base64
import json
import os
import pty
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from engine.host import Engine
from engine.server.admin_key import KeyFile
from engine.server.identity import AdminKey
from engine.server.messages import decode
from engine.server.requests import Incoming, Request
from engine.server.server import ServerConfig
from tests.node.canary_subject import PLANTED
from tests.node.sockets import TEXT, dialled, exchange, frame, opened, post
from tests.protocol.tokens import AUDIENCE, ISSUER, OTHER_RSA, RSA, custom, signed

WINDOW, STEP = 24, 8
"""Every run of 31 characters has such a window in it."""
ROOT = Path(__file__).parents[2]
APP = """
from engine import ActionCtx, App, ConvexError, CustomJwt, MutationCtx, QueryCtx
from engine import action, internal_mutation, mutation, query

app = App(auth={providers})


@query
async def whoami(ctx: QueryCtx) -> object:
    me = await ctx.auth.get_user_identity()
    print("who", me)
    return me


@mutation
async def note(ctx: MutationCtx) -> object:
    me = await ctx.auth.get_user_identity()
    print("noted", me)
    await ctx.db.insert("notes", {{"author": me and me["subject"]}})
    await ctx.scheduler.run_after(0, later)
    return me


@internal_mutation
async def later(ctx: MutationCtx) -> None:
    assert await ctx.auth.get_user_identity() is None
    await ctx.db.insert("notes", {{"author": "later"}})


@action
async def act(ctx: ActionCtx) -> object:
    print("acting", await ctx.auth.get_user_identity())
    return await ctx.run_mutation(note)


@mutation
async def fail(ctx: MutationCtx) -> None:
    me = await ctx.auth.get_user_identity()
    raise ValueError(f"no, {{me}}")


@query
async def refuse(ctx: QueryCtx) -> None:
    raise ConvexError(await ctx.auth.get_user_identity())
"""
FUNCTIONS = {
    "whoami": "query",
    "note": "mutation",
    "act": "action",
    "fail": "mutation",
    "refuse": "query",
    "later": "mutation",
    "nothing": "query",
}
SILENCE_S = 1.2
WHERE = {
    "traced-token": "stdout and stderr",
    "traced-message": "stdout and stderr",
    "logged-headers": "stdout and stderr",
    "token-in-the-data": "mdb",
    "key-in-a-refusal": "answers",
}
"""In which place each of the planted bugs leaves a canary."""


@dataclass(kw_only=True)
class Canaries:
    """What goes through, and what came out of it."""

    key: str = field(default_factory=lambda: f"canary|{secrets.token_hex(24)}")
    shown: set[str] = field(default_factory=set)
    """Every token that was shown."""
    answers: list[bytes] = field(default_factory=list)

    def token(self, *, head: Mapping[str, Any] | None = None, key: Any = RSA, **claims: Any) -> str:
        now_s = int(time.time())
        given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now_s, "exp": now_s + 600}
        made = signed(
            {"alg": "RS256", "kid": "rsa", **(head or {})},
            {**given, "jti": secrets.token_hex(8), **claims},
            key=key,
        )
        self.shown.add(made)
        return made

    def found_in(self, places: Mapping[str, bytes]) -> list[str]:
        """Where which part of a canary is, in any of the ways to spell it."""
        secret = self.key.partition("|")[2]
        known = {"admin key": _windows(secret.encode())}
        for number, token in enumerate(sorted(self.shown)):
            claims, signature = token.split(".")[1:]
            raw = base64.urlsafe_b64decode(signature + "==")
            spelled = (claims.encode(), signature.encode(), raw, raw.hex().encode())
            known[f"token {number}"] = {each for part in spelled for each in _windows(part)}
        return [
            f"{name} in {place}: {window!r}"
            for place, data in places.items()
            for name, windows in known.items()
            for window in windows
            if window in data
        ]


def _windows(data: bytes) -> set[bytes]:
    """Parts of `data`, as it is and in base64, wherever a group of three begins."""
    forms = [data, *(base64.b64encode(data[at : len(data) - 3])[:-4] for at in range(3))]
    forms += [form.translate(bytes.maketrans(b"+/", b"-_")) for form in forms[1:]]
    return {
        form[at : at + WINDOW] for form in forms for at in range(0, len(form) - WINDOW + 1, STEP)
    }


# What is done with them.


async def _go_through(url: str, canaries: Canaries, *, all_ways: bool) -> None:
    count = None if all_ways else 1
    for authorization in islice(_headers(canaries), count):
        for function, kind in FUNCTIONS.items():
            call = {"path": f"canary_app:{function}", "args": {}}
            await _request(url, canaries, post(f"/api/{kind}", call, authorization))
        for request in _strange_requests(authorization):
            await _request(url, canaries, request)
    for path in (f"/api/query?adminKey={canaries.key}x", f"/nothing?adminKey={canaries.key}"):
        await _request(url, canaries, post(path, {"path": "canary_app:note", "args": {}}))
    async with trio.open_nursery() as nursery:
        for words in islice(_conversations(canaries), count):
            nursery.start_soon(_converse, url, canaries, words)
    await _admin(url, canaries)


def _headers(canaries: Canaries) -> Iterator[str]:
    now_s = int(time.time())
    acting = base64.b64encode(json.dumps({"issuer": "i", "subject": "bob"}).encode()).decode()
    credentials = {
        "Bearer": [
            canaries.token(),
            canaries.token(exp=now_s - 1),
            canaries.token(aud="another"),
            canaries.token(iss="https://another.test"),
            canaries.token(iss="http://127.0.0.1:9"),
            canaries.token(key=OTHER_RSA),
            canaries.token(head={"kid": "unknown"}),
            canaries.token(head={"kid": "broken"}),
            canaries.token(head={"crit": ["x"]}),
            canaries.token(sub=""),
            canaries.token() + "!",
            canaries.token()[:-9],
            canaries.key,
        ],
        "Convex": [
            canaries.key,
            f"prod:{canaries.key}:{acting}",
            f"{canaries.key}:!",
            f"{canaries.key}:e30=",
            f"{canaries.key}0",
            canaries.token(),
        ],
        "Basic": [canaries.token(), canaries.key],
        canaries.token(): [""],
        canaries.key: [""],
    }
    for scheme, shown in credentials.items():
        for each in shown:
            yield f"Authorization: {scheme} {each}\r\n"


def _strange_requests(authorization: str) -> Iterator[bytes]:
    whoami = {"path": "canary_app:whoami", "args": {}}
    yield post("/api/run/canary_app/whoami", {"args": {}}, authorization)
    yield post("/api/function", whoami, authorization)
    yield post("/api/query_batch", {"queries": [whoami, {**whoami, "args": 5}]}, authorization)
    yield post("/api/query_at_ts", {**whoami, "ts": "AAAAAAAAAAA="}, authorization)
    yield post("/api/query", {**whoami, "format": "none"}, authorization)
    yield post("/api/query", [], authorization)
    yield post("/nowhere", whoami, authorization)
    yield post("/api/headrace/nothing", whoami, authorization)
    yield f"GET /api/query?path=x HTTP/1.1\r\nHost: test\r\n{authorization}\r\n".encode()
    yield f"PUT /api/query HTTP/1.1\r\nHost: test\r\n{authorization}\r\n".encode()


def _conversations(canaries: Canaries) -> Iterator[list[dict[str, Any]]]:
    def words(version: int, value: Any, kind: Any = "User", **more: Any) -> dict[str, Any]:
        said = {"type": "Authenticate", "baseVersion": version, "tokenType": kind, "value": value}
        return said | more

    now_s = int(time.time())
    good = canaries.token
    user = {"issuer": "i", "subject": "bob"}
    yield [words(0, good()), *_asked(), words(1, good()), words(2, None, "None")]
    yield [words(0, good(exp=now_s + 1)), *_asked()]
    yield [words(0, canaries.key, "Admin", impersonating=user), *_asked()]
    yield [words(0, canaries.key, "Admin"), *_asked(), words(1, good(aud="another"))]
    yield [words(0, canaries.key, "Admin", impersonating={}), *_asked()]
    for value in (
        good(exp=now_s - 1),
        good(key=OTHER_RSA),
        good(head={"kid": "broken"}),
        canaries.key,
    ):
        yield [words(0, value), *_asked()]
    yield [words(0, good(iss="http://127.0.0.1:9")), *_asked()]
    for value in (f"{canaries.key}0", good()):
        yield [words(0, value, "Admin"), *_asked()]
    # In the wrong place, or at the wrong time.
    yield [words(5, good())]
    yield [words(0, None, good())]
    yield [words(0, "x", canaries.key)]
    yield [words(0, [good()])]
    yield [words(0, {"token": good()}, impersonating=5)]
    yield [{"type": "Authenticate", "value": good()}]


def _asked() -> list[dict[str, Any]]:
    adds = [
        {"type": "Add", "queryId": number, "udfPath": f"canary_app:{name}", "args": [{}]}
        for number, name in enumerate(FUNCTIONS)
    ]
    asked: list[dict[str, Any]] = [
        {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": adds}
    ]
    for number, name in enumerate(FUNCTIONS):
        for kind in ("Mutation", "Action"):
            call = {"type": kind, "requestId": 2 * number + (kind == "Action")}
            asked.append({**call, "udfPath": f"canary_app:{name}", "args": [{}]})
    return asked


async def _request(url: str, canaries: Canaries, request: bytes) -> None:
    async with await dialled(url) as stream:
        status, body = await exchange(stream, request)
    canaries.answers.append(f"{status} ".encode() + body)


async def _converse(url: str, canaries: Canaries, words: list[dict[str, Any]]) -> None:
    """Say all of it, and listen until there is silence."""
    connect = {"type": "Connect", "sessionId": "9c621b88-c88c-4d93-be5f-3236005019b1"}
    said = [{**connect, "connectionCount": 0}, *words]
    async with opened(url) as socket:
        data = b"".join(frame(TEXT, json.dumps(each).encode()) for each in said)
        await socket.stream.send_all(data)
        with trio.move_on_after(SILENCE_S):
            while (message := await socket.hear()) is not None:
                canaries.answers.append(json.dumps(message).encode())
        canaries.answers.append(f"{socket.close_code} {socket.close_reason}".encode())


async def _admin(url: str, canaries: Canaries) -> None:
    """What operators see, and a program that has the key, or almost."""
    for path in ("functions", "executions", "logs", "tables", "statistics", "log"):
        request = f"GET /api/headrace/{path} HTTP/1.1\r\nHost: test\r\n"
        key = f"Authorization: Convex {canaries.key}\r\n\r\n"
        await _request(url, canaries, f"{request}{key}".encode())
    for admin_key in (
        canaries.key,
        f"{canaries.key}0",
        f"{canaries.key}\n",
        f"\u00e9{canaries.key}",
    ):
        try:
            async with Engine.connect(url, admin_key=admin_key) as engine:
                await engine.mutation("canary_app:note")
                await engine.mutation("canary_app:fail")
        except Exception as error:
            canaries.answers.append(repr(error).encode())


# Where they are looked for.


@contextmanager
def _served(
    folder: Path, mode: str, plant: str, said: bytearray, *, terminal: bool
) -> Iterator[str]:
    """A server whose stdout and stderr, a terminal or a pipe, are gathered in `said`."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-X", "dev", "-m", "tests.node.canary_subject"]
    with subprocess.Popen(
        [*command, str(folder), mode, plant],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=ROOT,
    ) as process:
        os.close(theirs)
        reading = threading.Thread(target=_gather, args=(ours, said))
        reading.start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().split()[1]
            process.stdin.close()
            said += process.stdout.read()
            assert 0 == process.wait(60)
        finally:
            process.kill()
            process.wait()
            reading.join()


def _gather(descriptor: int, said: bytearray) -> None:
    with closing(os.fdopen(descriptor, "rb", buffering=0)) as file:
        while True:
            try:
                part = file.read(65536)
            except OSError:  # the terminal is gone
                return
            if not part:
                return
            said += part


def _run(
    folder: Path, mode: str, plant: str, *, terminal: bool, all_ways: bool
) -> tuple[Canaries, dict[str, bytes]]:
    """Let canaries go through a server; they, and every place that they may have got to."""
    canaries, said = Canaries(), bytearray()
    unreachable = custom(issuer="http://127.0.0.1:9", jwks="http://127.0.0.1:9/keys")
    providers = ", ".join(map(repr, (custom(), unreachable)))
    (folder / "canary_app.py").write_text(APP.format(providers=f"[{providers}]"))
    data = folder / "data"
    data.mkdir()
    (data / "admin.key").write_text(canaries.key)
    with _served(folder, mode, plant, said, terminal=terminal) as url:
        trio.run(partial(_go_through, url, canaries, all_ways=all_ways))
        places = {f"{path.name}, open": path.read_bytes() for path in _files(data)}
    places |= {path.name: path.read_bytes() for path in _files(data)}
    places |= {"stdout and stderr": bytes(said), "answers": b"\n".join(canaries.answers)}
    return canaries, places


def _files(data: Path) -> list[Path]:
    return [path for path in data.rglob("*") if path.is_file() and path.name != "admin.key"]


@pytest.mark.parametrize(("mode", "terminal"), [("dev", False), ("production", True)])
def test_no_token_or_admin_key_gets_out(mode: str, terminal: bool, tmp_path: Path) -> None:
    canaries, places = _run(tmp_path, mode, "none", terminal=terminal, all_ways=True)

    assert [] == canaries.found_in(places)
    # Else nothing has happened that could have let one out.
    answers, said = places["answers"], places["stdout and stderr"]
    assert (mode == "production") == (b'Server Error"' in answers)
    for expected in (
        b"InvalidAuthHeader",
        b"NoAuthProvider",
        b"Unreachable",
        b"AuthError",
        b"200 ",
    ):
        assert expected in answers
    for expected in (b"the engine broke", b"session.failed", b"http.failed", b"keys_unavailable"):
        assert expected in said
    assert any(b"ada" in data for place, data in places.items() if "mdb" in place)


@pytest.mark.parametrize("plant", sorted(set(PLANTED) - {"none"}))
def test_one_that_gets_out_is_seen(plant: str, tmp_path: Path) -> None:
    canaries, places = _run(tmp_path, "dev", plant, terminal=False, all_ways=False)

    found = canaries.found_in(places)
    assert [each for each in found if WHERE[plant] in each], found


def test_nothing_that_has_a_secret_shows_it() -> None:
    """Whoever traces one of these, or has it in an error, shows no secret by it."""
    secret = "s" * 40
    headers = {"authorization": f"Convex {secret}"}
    incoming = cast(Incoming, None)
    message = {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": secret}
    holders = [
        AdminKey.parse(f"n|{secret}"),
        KeyFile(key=secret, is_new=True),
        ServerConfig(admin_key=secret),
        Request(
            method="GET", path="/", query={"adminKey": secret}, headers=headers, incoming=incoming
        ),
        decode(json.dumps(message)),
    ]

    assert [] == [repr(each) for each in holders if secret in repr(each)]
