"""An HTTP request and its response, whatever server they came in by."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import msgspec
import trio

from engine.errors import RequestRefused
from engine.model.json_values import Json
from engine.model.text import speakable
from engine.server.json_text import TOO_DEEP, parse, parse_leniently
from engine.server.large_text import LARGE_BYTES_MIN
from engine.server.places import Place

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
HTML_TYPE: Final = "text/html; charset=utf-8"


class Incoming:
    """
    The body of a request, as its host hands it over.

    Args:
        deadline: until when it is waited for.
    """

    def __init__(self, receive: Receive, *, is_over: bool, deadline: float = inf) -> None:
        self._receive = receive
        self.deadline: Final = deadline
        self.is_over = is_over
        """Whether the host has nothing more of it."""

    async def next(self) -> dict[str, Any]:
        event = await self._receive()
        self.is_over = not event.get("more_body", False)
        return event


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    Args:
        path: decoded, below the prefix that the engine is mounted at.
        prefix: that, without a slash at its end.
        query: the query string's parameters; of several with one name the last.
        headers: by lower-case name; of several with one name the last.
        incoming: the body; it can be read once.
        place: in the room that the HTTP API has.
        can_close: whether a response may say that the connection ends, as HTTP/1 does.
    """

    method: str
    path: str
    prefix: str = ""
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    incoming: Incoming = field(repr=False)
    place: Place = field(default_factory=Place.alone, repr=False)
    can_close: bool = False

    @classmethod
    def of_asgi(cls, scope: Mapping[str, Any], receive: Receive, *, body_s_max: float) -> Request:
        """The request of `scope`; its body is waited for from now on."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        return cls(
            method=scope["method"],
            path=path_of(scope),
            prefix=prefix_of(scope),
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
            headers=headers,
            incoming=Incoming(
                receive, is_over=not has_body, deadline=trio.current_time() + body_s_max
            ),
            can_close=str(scope.get("http_version", "")).startswith("1"),
        )

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """
        The body, as it comes in.

        Raises:
            RequestRefused: the client went away, or took too long.
        """
        is_over = False
        while not is_over:
            with trio.move_on_at(self.incoming.deadline) as patience:
                event = await self.incoming.next()
            if patience.cancelled_caught:
                message = "The body took too long to arrive (http_body_s_max)"
                raise RequestRefused(408, "RequestTimeout", message)
            if event["type"] == "http.disconnect":
                raise RequestRefused(408, "ClientDisconnect", "The client went away")
            is_over = not event.get("more_body", False)
            if part := event.get("body"):
                yield bytes(part)

    async def body(self, bytes_max: int) -> bytes:
        """
        The whole body.

        Raises:
            RequestRefused: it is larger than `bytes_max`, or did not arrive.
            Overloaded: there is no room for it.
        """
        self._check_size(self._announced_bytes(), bytes_max)
        body = bytearray()
        self.place.read(0)
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                body += part
                self._check_size(len(body), bytes_max)
                self.place.read(len(body))
        self.place.work()
        return bytes(body)

    async def skip(self, bytes_max: int) -> None:
        """
        Take the rest of the body, up to `bytes_max` and its deadline, and forget it.

        A client that is still sending when it is answered and hung up on may
        never see the answer.
        """
        seen = 0
        with trio.move_on_at(self.incoming.deadline):
            while not self.incoming.is_over and seen <= bytes_max:
                seen += len((await self.incoming.next()).get("body", b""))

    async def json_object(self, bytes_max: int, *, kept: str = "") -> dict[str, Json]:
        """
        The body, which has to be a JSON object and say that it is JSON.

        Args:
            kept: a field that stays as text, a `Raw`, if it is large.

        Raises:
            RequestRefused: it is not, or `body` says no.
        """
        content_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != JSON_TYPE:
            raise bad_json("Expected request with `Content-Type: application/json`")
        body = await self.body(bytes_max)
        try:
            document = _parsed_but(kept, body) if kept else parse(body)
        except ValueError as error:
            raise bad_json(f"Failed to parse the request body as JSON: {error}") from None
        if isinstance(document, dict):
            return document
        raise bad_json("The request body has to be a JSON object")

    def _announced_bytes(self) -> int:
        length = self.headers.get("content-length", "0")
        # Of what more digits say, none would fit either, and Python reads no more than 4,300.
        return int(length[:20]) if length.isdecimal() else 0

    def _check_size(self, size: int, bytes_max: int) -> None:
        if size > bytes_max:
            raise RequestRefused(
                413, "RequestTooLarge", f"The body is over the limit of {bytes_max} bytes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int = 200
    body: bytes | AsyncGenerator[bytes, None] = b""
    content_type: str = JSON_TYPE
    headers: Sequence[tuple[str, str]] = ()


class Access(enum.Enum):
    """For whom something is: it asks for nobody's name, may be told one, or needs the admin key."""

    ANYBODY = enum.auto()
    CALLER = enum.auto()
    ADMINISTRATOR = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """
    What a route is described as to programs; its schemas are JSON Schema.

    Args:
        body: of the request, if it has one.
        answer: of the JSON with status 200; `None` is text.
        texts: then, of which media types.
        also: statuses with an answer like that, and when.
        statuses: with which it is refused.
        name: unique; by default made of the path.
    """

    summary: str
    body: Json = None
    parameters: Sequence[Json] = ()
    answer: Json = None
    texts: Sequence[str] = ("text/plain",)
    also: Mapping[int, str] = field(default_factory=dict)
    statuses: Sequence[int] = (503,)
    access: Access = Access.ANYBODY
    name: str = ""
    tag: str = ""


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """
    Args:
        method: ``"GET"`` answers HEAD as well.
        path: exact, or with ``/*`` at its end everything below.
        needs_admin: refuse whoever has not the administrator's key.
        says: what it is described as; `None` is in no description.
    """

    method: str
    path: str
    handler: Handler
    needs_admin: bool = False
    says: Operation | None = None

    def matches(self, path: str) -> bool:
        if self.path.endswith("/*"):
            return path.startswith(self.path[:-1])
        return path == self.path


def json_response(document: object, *, status: int = 200) -> Response:
    return Response(status=status, body=msgspec.json.encode(document))


def text_response(text: str, *, content_type: str = TEXT_TYPE) -> Response:
    return Response(body=speakable(text).encode(), content_type=content_type)


def error_response(status: int, code: str, message: str) -> Response:
    """What a request is answered with that was not carried out."""
    return json_response({"code": code, "message": speakable(message)}, status=status)


def bad_json(message: str) -> RequestRefused:
    return RequestRefused(400, "BadJsonBody", message)


def path_of(scope: Mapping[str, Any]) -> str:
    """The path of an ASGI scope below the prefix that the application is mounted at."""
    path = str(scope["path"])
    root = prefix_of(scope)
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path or "/"


def prefix_of(scope: Mapping[str, Any]) -> str:
    """The prefix that the application is mounted at, without a slash at its end."""
    return str(scope.get("root_path") or "").rstrip("/")


def _parsed_but(name: str, body: bytes) -> Json:
    """
    The JSON document `body`, of whose fields a large one of that name stays as text.

    Raises:
        ValueError: as `parse` and `parse_leniently`.
    """
    if len(body) < LARGE_BYTES_MIN:
        return parse(body)
    try:
        fields = _fields.decode(body)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except msgspec.DecodeError:
        return parse_leniently(body)
    return {
        field: text if field == name and len(text) >= LARGE_BYTES_MIN else parse(bytes(text))
        for field, text in fields.items()
    }
