"""A loaded application finds its functions, and what does not fit together is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from engine.app.contexts import TriggerCtx
from engine.app.crons import Crons
from engine.app.decorators import internal_mutation, mutation, query
from engine.app.references import internal
from engine.app.registered import RegisteredFunction
from engine.app.registry import Application, only_one, verify
from engine.app.schema import Schema, Table
from engine.app.triggers import Change, Trigger, trigger
from engine.app.types import Document, Id
from engine.app.validators import v
from engine.errors import DeclarationError


def bound(component: str = "", **functions: Any) -> Mapping[str, RegisteredFunction]:
    for name, function in functions.items():
        function.bind("m", name, component)
    return {f"m:{name}": function for name, function in functions.items()}


def a_query() -> RegisteredFunction:
    @query
    async def f(ctx: Any) -> None: ...

    return f


def test_a_function_is_found_by_every_spelling_of_its_path() -> None:
    f, default = a_query(), a_query()
    application = Application(functions=bound(f=f, default=default))

    assert [application.find(path) for path in ("m:f", "m.js:f")] == [f, f]
    assert [application.find(path) for path in ("m", "m:default", "m.js")] == [default] * 3
    assert application.find("m:g") is None


def test_a_function_of_a_component_is_found_by_the_one_path_of_its_mount() -> None:
    outer, inner = a_query(), a_query()
    store = Application(functions=bound("limits/store", f=inner))
    limits = Application(functions=bound("limits", f=outer))
    whole = Application(functions={}, mounts={"limits": limits, "limits/store": store})

    assert whole.find("m:f", "limits") is outer
    assert whole.find("m:f", "limits/store") is inner
    for path in ("nowhere", "store", "limits/", "/limits", "limits//store", "limits/store/", "/"):
        assert whole.find("m:f", path) is None
    assert whole.find("m:f") is None


class Known(Document):
    n: int


class Unknown(Document):
    n: int


def test_a_class_without_a_table_is_found_before_anybody_calls() -> None:
    Schema(known=Table(Known))

    @mutation
    async def good(ctx: Any, known: Id[Known]) -> list[Known]:
        return []

    @mutation
    async def bad(ctx: Any, known: Id[Known]) -> list[Id[Unknown]]:
        return []

    verify(Application(functions=bound(good=good)))
    with pytest.raises(DeclarationError, match=r"bad: Unknown is the class of no table"):
        verify(Application(functions=bound(bad=bad)))


def test_documents_of_an_application_without_a_schema_have_any_id() -> None:
    class Loose(Document):
        n: int

    @query
    async def f(ctx: Any) -> Loose | None:
        return None

    verify(Application(functions=bound(f=f)))
    doc = {"_id": "any", "_creationTime": 1, "n": 1}

    assert f.signature.dump(doc, lambda _: None) == doc


@internal_mutation
async def prune(ctx: Any, days: int) -> None: ...


@pytest.mark.parametrize(
    ("target", "args", "why"),
    [
        ("m:prune", {"days": 1}, None),
        (internal.m.prune, {"days": 1}, None),
        (prune, {"days": 1}, None),
        ("m:gone", {}, "there is no function m:gone"),
        ("m:look", {}, "m:look is a query; use a mutation or an action"),
        ("m:prune", {"day": 1}, "missing the required field `days`"),
        ("m:prune", {"days": "many"}, "Path: .days"),
    ],
)
def test_a_cron_must_fit_its_function(target: Any, args: Any, why: str | None) -> None:
    crons = Crons()
    crons.interval("prune", target, hours=1, args=args)
    application = Application(functions=bound(prune=prune, look=a_query()), crons=crons)

    if why is None:
        verify(application)
    else:
        with pytest.raises(DeclarationError) as caught:
            verify(application)
        assert str(caught.value).startswith(f"{__file__}:")
        assert why in str(caught.value)


def test_a_cron_may_pass_an_id_that_nobody_can_look_at_yet() -> None:
    Schema(known=Table(Known))

    @internal_mutation
    async def drop(ctx: Any, known: Id[Known]) -> None: ...

    crons = Crons()
    crons.interval("drop", drop, hours=1, args={"known": "j57000000000000000000000000000"})

    verify(Application(functions=bound(drop=drop), crons=crons))


def test_a_trigger_follows_a_table_of_the_schema() -> None:
    @trigger(Known)
    async def count(ctx: TriggerCtx, change: Change[Known]) -> None: ...
    @trigger("gone")
    async def lost(ctx: TriggerCtx, change: Change[Any]) -> None: ...

    schema = Schema(known=Table(Known), other=Table(v.any()))

    assert isinstance(count, Trigger)
    assert count.table_name == "known"
    verify(Application(functions={}, schema=schema, triggers=(count,)))
    with pytest.raises(DeclarationError, match="the schema has no table 'gone'"):
        verify(Application(functions={}, schema=schema, triggers=(lost,)))


def test_a_trigger_is_placed_where_it_is_declared_and_not_where_its_handler_was_made() -> None:
    made: dict[str, Any] = {"__name__": "library"}
    exec(compile("async def follow(ctx, change): ...", "/a/library.py", "exec"), made)

    assert trigger("gone")(made["follow"]).where.startswith(f"{__file__}:")
    assert trigger("gone")(made["follow"]).where.endswith(": follow")


async def test_a_trigger_can_be_called_as_the_function_it_is() -> None:
    seen = []

    @trigger(Known)
    async def note(ctx: TriggerCtx, change: Change[Known]) -> None:
        seen.append(change.operation)

    ctx: Any = None
    await note(ctx, Change(operation="insert", id=Id("x"), old=None, new=None))

    assert seen == ["insert"]


def test_an_application_has_one_schema() -> None:
    one, two = Schema(), Schema()

    assert only_one(Schema, []) is None
    assert only_one(Schema, [one, one]) is one
    with pytest.raises(DeclarationError, match="2 objects of Schema") as refused:
        only_one(Schema, [one, two])
    assert f"at {one.where} and {two.where}; an application has one" in str(refused.value)
    assert re.fullmatch(r".*/test_registry\.py:\d+", one.where)
