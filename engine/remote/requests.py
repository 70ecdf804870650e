"""Requests of the HTTP API, and what becomes of those that are not answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx

from engine.errors import OutcomeUnknown, RequestRefused, Unreachable
from engine.model.json_values import Json
from engine.remote.failures import refusal_of
from engine.server.admin_key import authorization_of

CONNECT_S_MAX: Final = 10.0
READ_S_MAX: Final = 120.0
"""For an answer; longer than a mutation can wait and run."""
ACTION_S_MAX: Final = 1800.0
"""For the answer of an action, whose own limit is the other side's."""

_NOTHING_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol)


class Requests:
    """Asks one server. Made by `open_requests`."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def post(
        self,
        path: str,
        document: Mapping[str, Json],
        *,
        may_change: bool = False,
        read_s: float = READ_S_MAX,
    ) -> dict[str, Json]:
        """
        The JSON object that answers a request.

        Args:
            may_change: whether it matters if the request was carried out without an answer.
            read_s: how long to wait for the answer.

        Raises:
            Unreachable: nobody answered; nothing was changed.
            OutcomeUnknown: nobody answered, and something may have been changed.
            EngineError: the server refused the request, and why.
        """
        timeout = httpx.Timeout(read_s, connect=CONNECT_S_MAX, pool=None)
        try:
            response = await self._client.post(self._url + path, json=document, timeout=timeout)
        except _NOTHING_SENT as error:
            raise Unreachable(f"{self._url} does not answer: {error!r}") from error
        except httpx.HTTPError as error:
            message = f"{self._url} was asked and did not answer: {error!r}"
            if may_change:
                raise OutcomeUnknown(f"{message}; it may or may not be done") from error
            raise Unreachable(message) from error
        answer = _object_in(response)
        if response.status_code == 200 and answer is not None:
            return answer
        if answer is not None and "code" in answer:
            raise refusal_of(response.status_code, answer)
        raise RequestRefused(
            response.status_code,
            "NotAnEngine",
            f"{self._url} answers {response.status_code} to {path}, as no engine does; is the "
            "address right, with the prefix that the engine is mounted at?",
        )


@asynccontextmanager
async def open_requests(url: str, admin_key: str | None) -> AsyncIterator[Requests]:
    """Ask the server at `url` inside the block, over connections that are kept open."""
    headers = {} if admin_key is None else {"Authorization": authorization_of(admin_key)}
    async with httpx.AsyncClient(headers=headers) as client:
        yield Requests(client, url.rstrip("/"))


def _object_in(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = json.loads(response.content)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
