"""The web site of an identity provider, on a port of this machine."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from engine.app.component import CustomJwt, Oidc
from tests.protocol.tokens import AUDIENCE, custom, key_set, token

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is answered; a body without end is an iterable that has none."""

    status: int = 200
    headers: tuple[str, ...] = ()
    body: Iterable[bytes] = ()


def json_page(document: object) -> Page:
    return Page(body=[json.dumps(document).encode()])


def redirect(url: str) -> Page:
    return Page(status=302, headers=(f"Location: {url}",))


class Site:
    """
    Args:
        keys: whose public halves are at `KEYS`.
        pages: what is elsewhere, or there instead.
    """

    def __init__(self, url: str, keys: tuple[Any, ...]) -> None:
        self.url = url
        self.keys = keys
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []
        """The paths, in the order in which they were asked for."""
        self.is_quick = trio.Event()
        """While it is not set, nothing is answered."""
        self.is_quick.set()
        self.hung_up = trio.Event()
        """Set when a client leaves before the end of a page."""

    def oidc(self) -> Oidc:
        return Oidc(domain=self.url, application_id=AUDIENCE)

    def custom(self) -> CustomJwt:
        return custom(issuer=self.url, jwks=f"{self.url}{KEYS}")

    def token(self, **fields: Any) -> str:
        return token(iss=self.url, **fields)

    async def serve(self, stream: trio.abc.Stream) -> None:
        try:
            async with stream:
                await self._serve(stream)
        except (trio.BrokenResourceError, ssl.SSLError):
            self.hung_up.set()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = await stream.receive_some(65536)
            if not part:
                return
            head += part
        path = head.split()[1].decode()
        self.asked.append(path)
        await self.is_quick.wait()
        page = self._page(path)
        lines = (f"HTTP/1.1 {page.status} Page", "Connection: close", *page.headers)
        await stream.send_all("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        for part in page.body:
            await stream.send_all(part)

    def _page(self, path: str) -> Page:
        if path in self.pages:
            return self.pages[path]
        match path:
            case "/.well-known/openid-configuration":
                return json_page({"issuer": self.url, "jwks_uri": f"{self.url}{KEYS}"})
            case "/keys":
                return json_page(key_set(*self.keys))
        return Page(status=404)


@asynccontextmanager
async def site(
    *keys: Any, certificate: tuple[Path, Path] | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Site]:
    """A site for the length of the block; by https if it has a certificate."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        scheme = "http" if certificate is None else "https"
        served = Site(f"{scheme}://{host}:{port}", keys)
        listening: trio.abc.Listener[Any] = listener
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*certificate)
            listening = trio.SSLListener(listener, context, https_compatible=True)
        nursery.start_soon(trio.serve_listeners, served.serve, [listening])
        yield served
        nursery.cancel_scope.cancel()
