"""Functions that are called as what the types of functions are made of."""

from __future__ import annotations

from typing import Any

from headrace import QueryCtx, query

from .schema import Message

NAMES = (
    "ActionReference",
    "Any",
    "Literal",
    "MutationReference",
    "QueryReference",
    "overload",
    "list",
    "class",
    "import",
)


@query
async def anything(ctx: QueryCtx, x: Any) -> Any:
    return x


@query
async def several(ctx: QueryCtx) -> Message | list[Message]:
    return []


for name in NAMES:
    globals()[f"called_{name}"] = query(name=name)(lambda _ctx: None)
