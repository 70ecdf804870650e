"""Pushes of a changed schema: documents are checked against it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import PushRefused
from tests.node.nodes import application, mutate, serving

Rule = Any

ANYTHING = v.object({"n": v.any()})
NUMBERS = v.object({"n": v.number()})


@mutation
async def add(ctx: MutationCtx, values: list[Any]) -> list[Any]:
    return [await ctx.db.insert("things", {"n": value}) for value in values]


def app(rule: Rule | None, *, validates: bool = True) -> Application:
    """The functions above, with a schema of `things` unless its rule is `None`."""
    functions = (add,)
    if rule is None:
        return application(*functions)
    things = Table(rule)
    return application(*functions, Schema.of({"things": things}, schema_validation=validates))


@pytest.mark.parametrize("lenient", [None, ANYTHING], ids=["no schema", "no validation"])
async def test_documents_are_checked_again_after_a_time_without_rules(
    lenient: Rule | None, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(app(NUMBERS)) as node:
        await node.push(app(None) if lenient is None else app(NUMBERS, validates=False))
        await mutate(node, add, values=["no number"])

        with pytest.raises(PushRefused, match="does not fit the new schema"):
            await node.push(app(NUMBERS))
