"""
The official Python client, unmodified, against this server.

Run by `tests/clients/run python`, with a server in a process of its own, since
the client blocks the thread that calls it.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from convex import ConvexClient, ConvexError, ConvexInt64
from convex.http_client import ConvexHttpClient

from tests.protocol.tokens import AUDIENCE, ISSUER, RSA, data_url, key_set, token

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "test|0123456789"

Client: TypeAlias = Any
"""A client of either kind; what it returns may be anything."""

numbers = itertools.count()


class Server:
    """A served application, which may be killed and started again."""

    def __init__(self, data: Path, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.port = 0
        self.environment = os.environ | (environment or {})

    def start(self) -> Server:
        command = [sys.executable, "-m", "tests.clients.serve", "conformance_app"]
        command += ["--data", str(self.data), "--port", str(self.port), "--admin-key", ADMIN_KEY]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=self.environment
        )
        assert self.process.stdout is not None
        self.url = next(line.strip() for line in self.process.stdout if line.startswith("http"))
        self.port = int(self.url.rpartition(":")[2])
        self._reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self._reader.start()
        return self

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        status = self.process.wait(timeout=20)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data")).start()
    yield server
    assert server.end(signal.SIGTERM) == 0


@pytest.fixture
def client(server: Server) -> Client:
    return ConvexClient(server.url)


@pytest.fixture
def channel() -> str:
    return f"channel-{os.getpid()}-{next(numbers)}"


def send(client: Client, channel: str, body: str, n: float = 0) -> Any:
    return client.mutation("conformance:send", {"channel": channel, "body": body, "n": n})


def bodies(messages: Any) -> list[str]:
    return [message["body"] for message in messages]


VALUES = [
    None,
    True,
    0.0,
    -0.0,
    5.0,
    -1.5,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
    ConvexInt64(0),
    ConvexInt64(-(2**63)),
    ConvexInt64(2**63 - 1),
    "",
    'héllo 😀 \u0000 "q"',
    b"",
    bytes(range(256)),
    [1.0, [None, {"a": ConvexInt64(7)}]],
    {"_a": 1.0, "with space": {}},
]


def is_same(a: object, b: object) -> bool:
    """Equal, with the sign of zero and the type of every number."""
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("<d", a) == struct.pack("<d", b) or (a != a and b != b)
    if isinstance(a, ConvexInt64) and isinstance(b, ConvexInt64):
        return a.value == b.value
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_same(a[name], b[name]) for name in a)
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize("kind", [ConvexClient, ConvexHttpClient])
def test_every_value_comes_back_as_it_was_sent(kind: Any, server: Server) -> None:
    client = kind(server.url)

    echoed = [client.query("conformance:echo", {"value": value}) for value in VALUES]

    assert [
        value for value, back in zip(VALUES, echoed, strict=True) if not is_same(value, back)
    ] == []


def test_documents_are_written_read_and_counted(client: Client, channel: str) -> None:
    document_id = send(client, channel, "hello", 2)

    [message] = client.query("conformance:list", {"channel": channel})

    assert (message["_id"], message["body"], message["n"]) == (document_id, "hello", 2.0)


def test_a_subscription_follows_other_clients_and_itself(
    client: Client, server: Server, channel: str
) -> None:
    results = client.subscribe("conformance:list", {"channel": channel})
    assert next(results) == []

    for count, writer in enumerate([client, ConvexClient(server.url), client], start=1):
        send(writer, channel, f"m{count}")
        while len(messages := next(results)) < count:
            pass
        assert len(messages) == count

    results.unsubscribe()


def test_who_shows_a_search_sees_documents_come_change_rank_and_go(
    client: Client, server: Server, channel: str
) -> None:
    writer = ConvexClient(server.url)
    results = client.subscribe("conformance:search", {"channel": channel, "text": "red fo"})
    seen = [bodies(next(results))]
    first = send(writer, channel, "a fox in the hedge")
    seen.append(bodies(next(results)))
    second = send(writer, channel, "the red fox")
    seen.append(bodies(next(results)))
    send(writer, channel, "nothing of the kind")
    for message, body in ((first, "red, red fox"), (second, "a cat"), (first, None)):
        writer.mutation("conformance:edit", {"message": message, "body": body})
        seen.append(bodies(next(results)))
    results.unsubscribe()

    assert [
        [],
        ["a fox in the hedge"],
        ["the red fox", "a fox in the hedge"],
        ["red, red fox", "the red fox"],
        ["red, red fox"],
        [],
    ] == seen


def test_two_subscriptions_are_never_of_two_states(
    client: Client, server: Server, channel: str
) -> None:
    elsewhere = client.query("conformance:count")
    listed = client.subscribe("conformance:list", {"channel": channel})
    counted = client.subscribe("conformance:count")
    next(listed), next(counted)
    views = client.watch_all()
    writer = ConvexHttpClient(server.url)

    differences = set()
    for i in range(1, 6):
        send(writer, channel, "x")
        while True:
            view = {key: value["value"] for key, value in next(views).items()}
            if {listed.id, counted.id} <= view.keys():
                differences.add(view[counted.id] - len(view[listed.id]))
                if len(view[listed.id]) >= i:
                    break

    assert differences == {elsewhere}


@pytest.mark.parametrize(
    ("kind", "data"), [("convex_string", "just a string"), ("convex_null", None)]
)
def test_data_of_an_application_error_reaches_the_client(
    client: Client, kind: str, data: Any
) -> None:
    with pytest.raises(ConvexError) as failed:
        client.query("conformance:fails", {"kind": kind})

    assert failed.value.data == data


def test_a_failed_mutation_completes_and_leaves_nothing(client: Client, channel: str) -> None:
    with pytest.raises(ConvexError) as failed:
        client.mutation("conformance:fail_after_write", {"channel": channel})

    assert failed.value.data == {"code": "ROLLED_BACK"}
    assert client.query("conformance:list", {"channel": channel}) == []


@pytest.mark.parametrize("name", ["conformance:nope", "conformance:secret"])
def test_what_is_not_public_is_not_found_by_any_call(client: Client, name: str) -> None:
    for call in (client.query, client.mutation, client.action):
        with pytest.raises(Exception, match="Could not find public function"):
            call(name, {})


def test_actions_answer_and_write(client: Client, channel: str) -> None:
    total = client.action("conformance:add", {"a": 1, "b": 2.5})
    client.action("conformance:send_via_action", {"channel": channel, "body": "by action"})

    assert total == 3.5
    assert bodies(client.query("conformance:list", {"channel": channel})) == ["by action"]


def test_an_administrator_sees_internal_functions(server: Server) -> None:
    client = ConvexClient(server.url)
    client.set_admin_auth(ADMIN_KEY)

    assert client.query("conformance:secret", {}) == "secret"


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that trusts the issuer of `token_of`."""
    folder = tmp_path_factory.mktemp("auth")
    provider = {"issuer": ISSUER, "jwks": data_url(key_set(RSA)), "algorithm": "RS256"}
    (folder / "auth.json").write_text(json.dumps({**provider, "applicationID": AUDIENCE}))
    server = Server(folder / "data", {"CONFORMANCE_AUTH": str(folder)}).start()
    yield server
    assert server.end(signal.SIGTERM) == 0


def token_of(name: str, lifetime_s: float = 600) -> str:
    return token(sub=name, exp=time.time() + lifetime_s)


def subject(me: Any) -> str | None:
    return me and str(me["subject"])


@pytest.mark.parametrize("kind", [ConvexClient, ConvexHttpClient])
def test_users_come_and_go(kind: Any, trusting: Server) -> None:
    client = kind(trusting.url)
    seen = []
    for name in ("ada", "bob"):
        client.set_auth(token_of(name))
        seen.append(subject(client.query("conformance:whoami", {})))
    client.clear_auth()
    seen.append(subject(client.query("conformance:whoami", {})))

    assert ["ada", "bob", None] == seen


def test_what_is_shown_follows_the_identity(trusting: Server) -> None:
    client: Client = ConvexClient(trusting.url)
    results = client.subscribe("conformance:whoami", {})
    seen = [subject(next(results))]
    for name in ("ada", "bob"):
        client.set_auth(token_of(name))
        while seen[-1] != name:
            seen.append(subject(next(results)))
    client.clear_auth()
    while seen[-1] is not None:
        seen.append(subject(next(results)))

    assert [None, "ada", "bob", None] == [name for name, _ in itertools.groupby(seen)]


def test_a_token_that_ran_out_opens_nothing(trusting: Server, channel: str) -> None:
    http: Client = ConvexHttpClient(trusting.url)
    http.set_auth(token_of("ada", -1))

    with pytest.raises(Exception, match="Unauthenticated"):
        http.query("conformance:whoami", {})
    with pytest.raises(Exception, match="Unauthenticated"):
        send(http, channel, "as nobody")
    http.clear_auth()
    assert [] == http.query("conformance:list", {"channel": channel})


def test_a_new_token_goes_on_where_one_ran_out(trusting: Server, channel: str) -> None:
    """It is for its program to give it another: of its own it comes back with the one it has."""
    client: Client = ConvexClient(trusting.url)
    client.set_auth(token_of("ada", 2))
    assert "ada" == subject(client.query("conformance:whoami", {}))
    time.sleep(2.2)

    client.set_auth(token_of("ada"))
    send(client, channel, "again")

    assert ["again"] == bodies(client.query("conformance:list", {"channel": channel}))
    assert "ada" == subject(client.query("conformance:whoami", {}))


def test_large_results_arrive_in_one_piece(client: Client) -> None:
    value = ["y" * 500_000] * 13

    assert client.query("conformance:echo", {"value": value}) == value


def test_a_subscription_outlives_the_server(tmp_path: Path, channel: str) -> None:
    server = Server(tmp_path / "data").start()
    client: Client = ConvexClient(server.url)
    results = client.subscribe("conformance:list", {"channel": channel})
    assert next(results) == []
    send(client, channel, "before")

    server.end(signal.SIGKILL)
    server.start()
    send(ConvexHttpClient(server.url), channel, "after")
    while len(messages := next(results)) < 2:
        pass

    assert bodies(messages) == ["before", "after"]
    server.end(signal.SIGKILL)
