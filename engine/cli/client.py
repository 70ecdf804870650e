"""A running server, asked over HTTP with the administrator's key."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import httpx

from engine.errors import RequestRefused, Unreachable
from engine.model.json_values import decode_ts, encode_ts
from engine.server.admin_key import authorization_of

CONNECT_S: Final = 5.0
PREFIX: Final = "/api/headrace/"


class AdminClient:
    """
    Args:
        url: of the server, with its prefix if it has one.
        key: the administrator's.
        is_own: whether the server is in this process.

    Raises:
        Unreachable: that is no URL.
    """

    def __init__(self, url: str, key: str, *, is_own: bool = False) -> None:
        self.url = url.rstrip("/")
        self.is_own = is_own
        self._key = key
        # A proxy of the environment has no business between an administrator and a server.
        with self._explained():
            self._http = httpx.Client(
                base_url=self.url, timeout=httpx.Timeout(None, connect=CONNECT_S), trust_env=False
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, name: str, **parameters: str | int) -> Any:
        """
        Ask for what is at a route of operators.

        Raises:
            Unreachable: nobody answers.
            RequestRefused: the server says why.
        """
        with self._explained():
            return _answer(self._http.get(PREFIX + name, params=parameters, headers=self._headers))

    def post(self, name: str, document: Mapping[str, Any]) -> Any:
        """As `get`, with something to be done."""
        with self._explained():
            return _answer(self._post(PREFIX + name, document, self._headers))

    def description(self, *, internal: bool) -> Any:
        """
        The OpenAPI description of what is served.

        Raises:
            Unreachable, RequestRefused: as `get`.
        """
        asked = {"internal": "true"} if internal else {}
        with self._explained():
            return _answer(self._http.get("/api/openapi.json", params=asked, headers=self._headers))

    def lines(self, name: str, **parameters: str) -> Iterator[Any]:
        """As `get`, for a route that answers a line of JSON at a time."""
        with (
            self._explained(),
            self._http.stream(
                "GET", PREFIX + name, params=parameters, headers=self._headers
            ) as response,
        ):
            if response.status_code != httpx.codes.OK:
                response.read()
                _answer(response)
            for line in response.iter_lines():
                yield json.loads(line)

    def call(
        self,
        path: str,
        args: Any,
        *,
        component: str = "",
        identity: Mapping[str, Any] | None = None,
        at: int | None = None,
    ) -> dict[str, Any]:
        """
        Call a function of whatever kind, as the administrator or as a user.

        Args:
            at: of a query: the state to read, nanoseconds.

        Returns:
            The envelope: status, value or errorMessage, logLines.

        Raises:
            Unreachable, RequestRefused: it was not called.
        """
        call: dict[str, Any] = {
            "path": path,
            "args": args,
            "format": "convex_encoded_json",
            "componentPath": component,
        }
        route = f"/api/{self._kind_of(path, component)}" if at is None else "/api/query_at_ts"
        if at is not None:
            call["ts"] = encode_ts(at)
        with self._explained():
            envelope: dict[str, Any] = _answer(self._post(route, call, self._authorized(identity)))
            return envelope

    def newest_ts(self) -> int:
        """
        The timestamp of the newest state, nanoseconds: for several queries `at` one.

        Raises:
            Unreachable, RequestRefused: as `get`.
        """
        with self._explained():
            return decode_ts(_answer(self._post("/api/query_ts", {}, self._headers))["ts"])

    def _post(
        self, route: str, document: Mapping[str, Any], headers: dict[str, str]
    ) -> httpx.Response:
        # In ASCII, as half a surrogate pair is for the server to refuse: it knows whose it is.
        content = json.dumps(document, allow_nan=False)
        headers = {**headers, "content-type": "application/json"}
        return self._http.post(route, content=content, headers=headers)

    def _kind_of(self, path: str, component: str) -> str:
        """What a function is, so that it is called once; for another spelling, "function"."""
        for function in self.get("functions"):
            if (function["path"], function["component"]) == (path, component):
                return str(function["kind"])
        return "function"

    @property
    def _headers(self) -> dict[str, str]:
        return self._authorized(None)

    def _authorized(self, identity: Mapping[str, Any] | None) -> dict[str, str]:
        key = self._key
        if identity is not None:
            key += ":" + base64.b64encode(json.dumps(identity).encode()).decode()
        return {"authorization": authorization_of(key)}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise Unreachable(f"no server answers at {self.url}: {error}") from None
        except httpx.InvalidURL as error:
            raise Unreachable(f"{self.url} is no URL: {error}") from None


def _answer(response: httpx.Response) -> Any:
    if response.status_code == httpx.codes.OK:
        return response.json()
    try:
        refusal = response.json()
        code, message = str(refusal["code"]), str(refusal["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "NotHeadrace", f"{response.url} answered {response.status_code}"
    raise RequestRefused(response.status_code, code, message)
