"""The HTTP API on real connections: several requests on one, bodies that are not what they say."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded

from engine.model.limits import Limits
from tests.node.certificates import certificate
from tests.node.sockets import SESSION, TEXT, dialled, exchange, frame, post
from tests.node.test_server import Served, served

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")

HEAD = "POST /api/query HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"


def echo(house: Served, value: Any, headers: str = "") -> bytes:
    return post("/api/query", {"path": house.path("echo"), "args": {"value": value}}, headers)


def chunked(body: bytes, size: int = 1000) -> bytes:
    """A request whose body comes in chunks, and whose size is not said."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + data + b"0\r\n\r\n"


async def all_of(stream: trio.abc.Stream, data: bytes) -> bytes:
    """What the server says until it hangs up."""
    said = b""
    with trio.fail_after(10):
        await stream.send_all(data)
        while part := await stream.receive_some(65536):
            said += part
    return said


async def answers(house: Served) -> bool:
    return bool(await house.post("query", "echo", value=1) == 1)


async def test_requests_that_are_sent_at_once_are_answered_in_turn() -> None:
    async with served() as house, await dialled(house.url) as stream:
        last = echo(house, 3, "Connection: close\r\n")
        said = await all_of(stream, echo(house, 1) + echo(house, "x" * 100_000) + last)
    values = [json.loads(part.split(b"\r\n\r\n", 1)[1])["value"] for part in responses(said)]

    assert values == [1, "x" * 100_000, 3]


async def test_a_body_in_chunks_is_taken_and_one_over_the_limit_refused() -> None:
    async with served(limits=Limits(http_body_bytes_max=20_000)) as house:
        statuses = []
        for size in (15_000, 25_000, 200_000):
            body = {"path": house.path("echo"), "args": {"value": "x" * size}}
            async with await dialled(house.url) as stream:
                status, answer = await exchange(stream, chunked(json.dumps(body).encode()))
                statuses.append((status, json.loads(answer).get("code")))
        await house.until_connections(0)

        assert statuses == [(200, None), (413, "RequestTooLarge"), (413, "RequestTooLarge")]
        assert await answers(house)


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ],
)
async def test_a_body_whose_end_cannot_be_told_is_refused(headers: str) -> None:
    async with served() as house:
        async with await dialled(house.url) as stream:
            said = await all_of(stream, f"{HEAD}{headers}\r\n{{}}".encode())
        await house.until_connections(0)

        assert said.split()[1] in (b"400", b"501")
        assert await answers(house)


async def test_a_client_that_promised_more_than_it_sent_is_not_answered() -> None:
    async with served() as house:
        async with await dialled(house.url) as stream:
            body = json.dumps({"path": house.path("write"), "args": {"body": "half"}})
            promise = f"Content-Length: {len(body) + 10}\r\n\r\n"
            head = HEAD.replace("/query", "/mutation")
            await stream.send_all(f"{head}{promise}{body}".encode())
            await trio.sleep(0.05)
        await house.until_connections(0)

        assert await house.post("query", "bodies") == []


async def test_what_follows_the_promised_body_is_another_request() -> None:
    async with served() as house:
        async with await dialled(house.url) as stream:
            body = json.dumps({"path": house.path("echo"), "args": {"value": 1}})
            request = f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}and more\r\n\r\n"
            said = await all_of(stream, request.encode())

        assert [part.split()[1] for part in responses(said)] == [b"200", b"400"]
        assert await answers(house)


async def test_a_head_is_answered_without_a_body_and_the_connection_goes_on() -> None:
    async with served() as house, await dialled(house.url) as stream:
        head = b"HEAD /version HTTP/1.1\r\nHost: test\r\n\r\n"
        said = await all_of(stream, head + echo(house, 1, "Connection: close\r\n"))
    first, second = responses(said)

    assert first.split()[1] == b"200"
    assert first.endswith(b"\r\n\r\n")
    assert json.loads(second.split(b"\r\n\r\n", 1)[1])["value"] == 1


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    async with served() as house, await dialled(house.url) as stream:
        head, _, body = echo(house, 1, "Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        with trio.fail_after(5):
            leave = await stream.receive_some(65536)
        status, _ = await exchange(stream, body)

    assert (leave.split()[1], status) == (b"100", 200)


async def test_a_path_to_run_is_decoded() -> None:
    async with served() as house, httpx.AsyncClient(trust_env=False) as client:
        path = house.path("echo").replace(":", "/")
        spelled = "".join(letter if letter == "/" else f"%{ord(letter):02x}" for letter in path)
        response = await client.post(f"{house.url}/api/run/{spelled}", json={"args": {"value": 1}})

    assert response.json() == {"status": "success", "value": 1}


async def test_many_requests_share_a_connection_of_http_2(tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(cert_file))
    async with served(certfile=str(cert_file), keyfile=str(key_file)) as house:
        url = house.url.replace("127.0.0.1", "localhost")
        found: dict[int, tuple[str, Any]] = {}
        async with httpx.AsyncClient(http2=True, verify=trusting, trust_env=False) as client:

            async def ask(number: int) -> None:
                value = str(number) * 20_000
                call = {"path": house.path("echo"), "args": {"value": value}}
                response = await client.post(f"{url}/api/query", json=call)
                is_same = response.json().get("value") == value
                found[number] = (response.http_version, is_same)

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask, number)
            connections = house.listener.statistics().connections

    assert found == dict.fromkeys(range(20), ("HTTP/2", True))
    assert connections == 1


async def test_one_that_is_refused_while_it_sends_ends_no_other_of_its_connection(
    tmp_path: Path,
) -> None:
    cert_file, key_file = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(cert_file))
    limits = Limits(http_body_bytes_max=100_000)
    async with served(certfile=str(cert_file), keyfile=str(key_file), limits=limits) as house:
        url = house.url.replace("127.0.0.1", "localhost")
        async with httpx.AsyncClient(http2=True, verify=trusting, trust_env=False) as client:
            refused = await client.post(f"{url}/api/query", content=b"x" * 3_000_000)
            call = {"path": house.path("write"), "args": {"body": "after"}}
            after = await client.post(f"{url}/api/mutation", json=call)
            connections = house.listener.statistics().connections

    assert (refused.status_code, refused.json()["code"]) == (400, "BadJsonBody")
    assert (after.status_code, after.http_version, connections) == (200, "HTTP/2", 1)


async def test_an_address_that_is_not_ascii_ends_no_other_request_of_its_connection() -> None:
    async with served() as house, await dialled(house.url) as stream:
        client = H2Connection(H2Configuration(validate_outbound_headers=False))
        client.initiate_connection()
        statuses: dict[int, str] = {}
        body = json.dumps({"path": house.path("echo"), "args": {"value": 1}}).encode()
        common = [(":scheme", "http"), (":authority", "x"), ("content-type", "application/json")]
        client.send_headers(1, [(":method", "POST"), (":path", "/api/query"), *common])
        client.send_headers(3, [(":method", "POST"), (":path", "/é"), *common])
        client.send_data(3, b"more", end_stream=True)
        client.send_data(1, body, end_stream=True)
        await stream.send_all(client.data_to_send())
        with trio.fail_after(5):
            while len(statuses) < 2 and (said := await stream.receive_some(65536)):
                for event in client.receive_data(said):
                    if isinstance(event, ResponseReceived):
                        statuses[event.stream_id] = dict(event.headers)[b":status"].decode()

    assert statuses == {1: "200", 3: "400"}


@pytest.mark.parametrize(
    ("wrong", "code"), [(frame(TEXT, b"\xff"), 1007), (frame(TEXT, b" " * 12_000), 1009)]
)
async def test_a_websocket_with_a_fault_ends_no_other_of_its_connection(
    wrong: bytes, code: int
) -> None:
    hello = json.dumps({"type": "Connect", "sessionId": SESSION}).encode()
    event = json.dumps({"type": "Nothing"}).encode()
    heard = {1: b"", 3: b""}
    limits = Limits(message_bytes_max=10_000)
    async with served(limits=limits) as house, await dialled(house.url) as stream:
        client = H2Connection(H2Configuration(validate_outbound_headers=False))
        client.initiate_connection()
        place = [(":scheme", "http"), (":path", "/api/1.48.0/sync"), (":authority", "x")]
        asked = [(":method", "CONNECT"), (":protocol", "websocket"), *place]
        for number in heard:
            client.send_headers(number, [*asked, ("sec-websocket-version", "13")])
        with trio.fail_after(5):
            while not heard[3]:
                await stream.send_all(client.data_to_send())
                for told in client.receive_data(await stream.receive_some(65536)):
                    if isinstance(told, ResponseReceived):
                        client.send_data(told.stream_id, frame(TEXT, hello))
                        client.send_data(told.stream_id, wrong if told.stream_id == 1 else b"")
                    if isinstance(told, DataReceived):
                        heard[told.stream_id] += told.data
                    if isinstance(told, StreamEnded):  # of the first, and now the other is asked
                        client.send_data(3, frame(TEXT, event))

    assert heard[1][2:4] == code.to_bytes(2, "big")
    assert b"FatalError" in heard[3]


async def test_a_websocket_that_is_refused_keeps_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.server.listener.IDLE_S_MAX", 0.5)
    statuses: dict[int, str] = {}
    async with served() as house, await dialled(house.url) as stream:
        client = H2Connection(H2Configuration(validate_outbound_headers=False))
        client.initiate_connection()
        place = [(":scheme", "http"), (":authority", "x")]
        asked = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/api/sync")]
        client.send_headers(1, [*asked, *place, ("sec-websocket-version", "12")])
        client.send_headers(3, [(":method", "GET"), (":path", "/version"), *place], end_stream=True)
        await stream.send_all(client.data_to_send())
        with trio.fail_after(10):
            while said := await stream.receive_some(65536):
                for event in client.receive_data(said):
                    if isinstance(event, ResponseReceived):
                        statuses[event.stream_id] = dict(event.headers)[b":status"].decode()
        await house.until_connections(0)

    assert statuses == {1: "400", 3: "200"}


def responses(said: bytes) -> list[bytes]:
    return [b"HTTP/1.1 " + part for part in said.split(b"HTTP/1.1 ")[1:]]
