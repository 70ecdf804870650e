"""A function for each kind of value."""

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from headrace import ActionCtx, Id, Int64, QueryCtx, action, query, v

from .schema import Cat, Channel, Dog


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: float
    y: float
    label: str | None = None


@query
async def numbers(ctx: QueryCtx, n: int, x: float, big: Int64, few: Annotated[int, Ge(0)]) -> Int64:
    return big


@query
async def data(ctx: QueryCtx, blob: bytes) -> bytes:
    return blob


@query
async def choice(ctx: QueryCtx, one: Literal["a", 1, True], colour: Colour) -> Colour | None:
    return colour


@query
async def nested(ctx: QueryCtx, points: list[Point], by_name: dict[str, list[Point]]) -> Point:
    return points[0]


@query(args={"scores": v.record(v.id("channels"), v.number())}, returns=v.null())
async def records(ctx: QueryCtx, scores: dict[str, float]) -> None: ...


@query(args={"exactly": v.literal(Int64(5))}, returns=v.array(v.union()))
async def literals(ctx: QueryCtx, exactly: Int64) -> list[Any]:
    return []


@query
async def pet(ctx: QueryCtx) -> Cat | Dog | None: ...


@query
async def odd(ctx: QueryCtx, /, **names: float) -> None: ...


@query(returns=v.object({"not-a-name": v.string(), "class": v.optional(v.boolean())}))
async def odd_names(ctx: QueryCtx) -> Any: ...


@query(args={"user": v.id("users")}, returns=v.any())
async def elsewhere(ctx: QueryCtx, user: Id[Any]) -> Any: ...


@action
async def anything(ctx: ActionCtx, /, **args: Any) -> Any: ...


@action
async def work(ctx: ActionCtx, channel: Id[Channel], seconds: float = 1.0) -> str:
    return ""
