"""Calls of an engine that runs elsewhere, each of them one request of its HTTP API."""

from __future__ import annotations

from typing import Final

from engine.errors import RequestRefused, Stopped, Unreachable
from engine.interface import Answer, Results, Target
from engine.kernel.process import current_pid
from engine.model.json_values import Json, decode_ts, encode_ts, from_wire, to_wire
from engine.remote.failures import failure_of
from engine.remote.requests import ACTION_S_MAX, READ_S_MAX, Requests
from engine.remote.subscriptions import RemoteSubscriptions

FORMAT: Final = "convex_encoded_json"
"""The one that loses nothing."""

NOBODY: Final = Target("", "_system:_nobody", {})
"""No function has this name."""


class RemoteCallee:
    """The way to an engine elsewhere."""

    def __init__(self, requests: Requests, subscriptions: RemoteSubscriptions) -> None:
        self._requests = requests
        self._subscriptions = subscriptions
        self._pid = current_pid()
        self._heard_ts = 0

    async def greet(self) -> None:
        """
        Find out whether there is an engine, and whether it takes the key.

        Raises:
            Unreachable: there is none.
            Unauthenticated: it does not.
        """
        try:
            await self._published()
        except RequestRefused as error:
            raise Unreachable(str(error)) from error
        await self._requests.post("/api/query", _call(NOBODY))

    @property
    def now_ts(self) -> int:
        return max(self._heard_ts, self._subscriptions.heard_ts)

    def refuse_if_forked(self) -> None:
        if current_pid() != self._pid:
            raise Stopped(
                f"this process was forked from {self._pid}, which is connected; connect here again"
            )

    async def query(self, target: Target, ts: int | None) -> Answer:
        if ts is None:
            return await self._ask("/api/query", target)
        return await self._ask("/api/query_at_ts", target, {"ts": encode_ts(ts)})

    async def mutation(self, target: Target) -> Answer:
        return await self._ask("/api/mutation", target, {"wantsTs": True})

    async def action(self, target: Target) -> Answer:
        return await self._ask("/api/action", target, read_s=ACTION_S_MAX)

    async def follow(self, target: Target) -> Results[object]:
        self.refuse_if_forked()
        return self._subscriptions.add(target)

    async def _ask(
        self,
        path: str,
        target: Target,
        more: dict[str, Json] | None = None,
        *,
        read_s: float = READ_S_MAX,
    ) -> Answer:
        self.refuse_if_forked()
        document = {**_call(target), **(more or {})}
        may_change = "query" not in path
        answer = await self._requests.post(path, document, may_change=may_change, read_s=read_s)
        if answer.get("status") != "success":
            return Answer(error=failure_of(target.path, answer))
        ts = decode_ts(answer["ts"]) if "ts" in answer else 0
        self._heard_ts = max(self._heard_ts, ts)
        return Answer(from_wire(answer["value"]), ts)

    async def _published(self) -> int:
        """The newest timestamp that queries there read."""
        answer = await self._requests.post("/api/query_ts", {})
        self._heard_ts = max(self._heard_ts, ts := decode_ts(answer.get("ts")))
        return ts


def _call(target: Target) -> dict[str, Json]:
    return {
        "path": target.path,
        "componentPath": target.component,
        "args": to_wire(dict(target.args)),
        "format": FORMAT,
    }
