"""
The process that the proof of the HTTP API looks at: a served application.

    python -m tests.proofs.http_api_subject DIRECTORY PLANT

It says `url URL KEY` on a line and serves until it is killed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import trio

from engine.app.validators import Validator
from engine.kernel.trace import trace_to_stderr
from engine.model.json_values import Json
from engine.server import description
from engine.server.requests import Operation, Request, Response, Route, json_response
from engine.serving import serving

APP = """
from typing import Any, Literal, TypedDict

from headrace import (
    ActionCtx, ConvexError, Document, Id, Int64, MutationCtx, QueryCtx, Schema, Table,
    action, internal_query, mutation, query,
)


class Item(Document):
    name: str
    price: float
    count: Int64
    picture: bytes | None


class Address(TypedDict, total=False):
    street: str
    numbers: list[int]


schema = Schema(items=Table(Item).index("by_name", ["name"]))


@query
async def numbers(ctx: QueryCtx, some: list[float], flags: dict[str, bool]) -> list[float]:
    return some


@query
async def whole(ctx: QueryCtx, number: int, big: Int64, data: bytes) -> list[Any]:
    return [number, big, data]


@query
async def anything(ctx: QueryCtx, value: Any) -> Any:
    return value


@query
async def nested(ctx: QueryCtx, address: Address, more: Address | None = None) -> Address:
    return address


@query
async def every(ctx: QueryCtx) -> list[Item]:
    return await ctx.db.query("items").take(20)


@query
async def may_show(ctx: QueryCtx, item: Id[Item]) -> Item | None:
    return await ctx.db.get(item)


@mutation
async def add(
    ctx: MutationCtx,
    name: str,
    price: float,
    count: Int64,
    kind: Literal["a", "b", 1] = "a",
    picture: bytes | None = None,
) -> Id[Item]:
    item = {"name": name, "price": price, "count": count, "picture": picture}
    return await ctx.db.insert("items", item)


@mutation
async def may_refuse(ctx: MutationCtx, why: str) -> None:
    raise ConvexError({"why": why})


@action
async def act(ctx: ActionCtx, times: float) -> float:
    return times


@internal_query
async def hidden(ctx: QueryCtx) -> None:
    pass
"""


async def main(directory: str, plant: str) -> None:
    folder = Path(directory)
    app = folder / "shop.py"
    app.write_text(APP)
    if plant == "says-nothing-of-arguments":
        setattr(description, "taken", _anything)  # noqa: B010 - a function is not assigned to
    async with serving(folder / "data", app=app, bind="127.0.0.1:0", dev=True) as served:
        if plant in PLANTED_ROUTES:
            served.engine.server.install(routes=[_planted(plant)])
        os.write(1, f"url {served.url} {served.admin_key}\n".encode())
        await trio.sleep_forever()


# What goes wrong on purpose.


async def _fails(_request: Request) -> Response:
    raise RuntimeError("planted")


async def _is_not_described(_request: Request) -> Response:
    return json_response({"is": "a teapot"}, status=418)


async def _does_not_fit(_request: Request) -> Response:
    return json_response({"count": "many"})


PLANTED_ROUTES = {
    "fails": _fails,
    "undescribed-status": _is_not_described,
    "body-that-does-not-fit": _does_not_fit,
}


def _planted(plant: str) -> Route:
    counted = {"type": "object", "properties": {"count": {"type": "integer"}}}
    # A failure is one also where it is described.
    says = Operation(summary="planted", answer=counted, statuses=(500, 503))
    return Route(method="GET", path="/api/planted", handler=PLANTED_ROUTES[plant], says=says)


def _anything(_validator: Validator) -> Json:
    nothing: dict[str, Any] = {"type": "object"}
    return nothing


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    trio.run(main, sys.argv[1], sys.argv[2])
