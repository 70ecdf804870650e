"""
Stubs for the requests that actions make with httpx: no network in tests.

httpx's own transports are wrapped once, for the whole process.  The wrapper
looks whether the code that asks belongs to a test's engine, by a context
variable, and otherwise does what httpx would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import httpx

from engine.errors import NotAllowed, UsageError
from engine.functions.slots import active
from engine.model.values import UNDEFINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """An answer to requests with this method whose URL matches; `*` is any text."""

    method: str
    url: str
    status: int = 200
    json: Any = UNDEFINED
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def matches(self, request: httpx.Request) -> bool:
        pattern = ".*".join(map(re.escape, self.url.split("*")))
        return request.method == self.method.upper() and bool(
            re.fullmatch(pattern, str(request.url), re.DOTALL)
        )

    def respond(self) -> httpx.Response:
        if self.json is not UNDEFINED:
            return httpx.Response(self.status, json=self.json, headers=self.headers)
        return httpx.Response(self.status, text=self.text or "", headers=self.headers)


class Stubs:
    """The stubs of one test; of several that match, the one added last answers."""

    def __init__(self) -> None:
        self._stubs: list[Stub] = []

    def add(self, stub: Stub) -> None:
        self._stubs.append(stub)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """
        Raises:
            UsageError: no stub matches.
            NotAllowed: a query or mutation asks.
        """
        if active() is not None:
            raise NotAllowed(
                f"{request.method} {request.url}: queries and mutations cannot use the network; "
                "use an action"
            )
        for stub in reversed(self._stubs):
            if stub.matches(request):
                return stub.respond()
        known = ", ".join(f"{stub.method} {stub.url}" for stub in self._stubs) or "none"
        raise UsageError(
            f"{request.method} {request.url} has no stub, and tests do not reach the network; "
            f't.http("{request.method}", "{request.url}", json=...) answers it. '
            f"Stubs there are: {known}."
        )


_current: Final[ContextVar[Stubs | None]] = ContextVar("stubs of a test", default=None)


@contextmanager
def stubbing(stubs: Stubs) -> Iterator[None]:
    """In the block, and in tasks and threads begun there, requests are answered by `stubs`."""
    _wrap_transports()
    token = _current.set(stubs)
    try:
        yield
    finally:
        _current.reset(token)


@cache
def _wrap_transports() -> None:
    send = httpx.HTTPTransport.handle_request
    send_async = httpx.AsyncHTTPTransport.handle_async_request

    def handle_request(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        stubs = _current.get()
        if stubs is None:
            return send(self, request)
        request.read()
        return stubs.answer(request)

    async def handle_async_request(
        self: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> httpx.Response:
        stubs = _current.get()
        if stubs is None:
            return await send_async(self, request)
        await request.aread()
        return stubs.answer(request)

    httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = (  # type: ignore[method-assign]
        handle_async_request
    )
