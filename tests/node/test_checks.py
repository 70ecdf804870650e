"""Checks: predicates hold of all documents, and cost nobody but who writes against them."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import trio
from annotated_types import Ge, Predicate

from engine.app.bounds import bounded
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.types import Document
from engine.app.validators import v
from engine.errors import FunctionTimeout, PushRefused, RequestRefused, SchemaViolation
from engine.functions.loader import load
from engine.kernel.runtime import VirtualRuntime
from engine.model.ids import encode_id
from engine.model.limits import Limits
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import application, ask, mutate, serving
from tests.node.test_operators import asked

QUICK = replace(Limits(), user_time_s_max=0.1)


@mutation
async def add(ctx: MutationCtx, doc: dict[str, Any]) -> str:
    return await ctx.db.insert("accounts", doc)


@mutation
async def put(ctx: MutationCtx, one: Any, doc: dict[str, Any]) -> None:
    await ctx.db.patch(one, doc)


@mutation
async def try_to_add(ctx: MutationCtx, doc: dict[str, Any]) -> str:
    try:
        return await ctx.db.insert("accounts", doc)
    except SchemaViolation as error:
        return str(error)


@query
async def amounts(ctx: QueryCtx) -> list[Any]:
    return [doc["amount"] for doc in await ctx.db.query("accounts").collect()]


FUNCTIONS = (add, put, try_to_add, amounts)


def app(holds: Any = None, *, fields: Any = None) -> list[Any]:
    table = Table({"amount": v.any()} if fields is None else fields)
    if holds is not None:
        table = table.check("covered", holds)
    return [*FUNCTIONS, Schema(accounts=table)]


def positive(doc: Any) -> bool:
    return bool(doc["amount"] > 0)


def endless(doc: Any) -> bool:
    return all(n >= 0 for n in itertools.count())


def endless_from_ten(doc: Any) -> bool:
    return endless(doc) if doc["amount"] >= 10 else True


class Endless(Document):
    amount: Annotated[float, Predicate(endless)]


async def test_a_check_holds_of_what_is_written(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(app(positive)) as node:
        one = await mutate(node, add, doc={"amount": 5})

        with pytest.raises(SchemaViolation, match=r"a document of 'accounts' .* 'covered' does no"):
            await mutate(node, add, doc={"amount": -1})
        with pytest.raises(SchemaViolation, match=rf"document {one} of .* \{{'amount': -2\}}"):
            await mutate(node, put, one=one, doc={"amount": -2})
        said = await mutate(node, try_to_add, doc={"amount": "much"})

        assert "the check 'covered' raised TypeError: '>' not supported" in said
        assert said.endswith("for {'amount': 'much'}")
        assert [5] == await ask(node, amounts)


def reads_a_file(doc: Any) -> bool:
    return bool(open(__file__).read())


async def test_a_check_is_code_of_the_function_that_writes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(app(endless_from_ten), limits=QUICK) as node:
        with pytest.raises(FunctionTimeout, match="test_checks:add ran its own code"):
            await mutate(node, add, doc={"amount": 10})
        await mutate(node, add, doc={"amount": 9})

    async with serving(app(reads_a_file)) as node:
        with pytest.raises(SchemaViolation, match="'covered' raised NotAllowed"):
            await mutate(node, add, doc={"amount": 1})


async def test_a_predicate_beside_a_type_is_code_of_the_function_that_writes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(app(fields=Endless), limits=QUICK) as node:
        with pytest.raises(FunctionTimeout):
            await mutate(node, add, doc={"amount": 1.5})


# A push.


async def test_a_push_of_a_check_names_the_document_of_which_it_does_not_hold(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(app()) as node:
        await mutate(node, add, doc={"amount": 1})
        bad = await mutate(node, add, doc={"amount": -1})

        with pytest.raises(PushRefused, match=f"{bad} of 'accounts' .* 'covered' does not hold"):
            await node.push(application(*app(positive)))
        await mutate(node, put, one=bad, doc={"amount": 2})
        lines = await node.push(application(*app(positive)))

        assert ["changed table accounts"] == lines
        with pytest.raises(SchemaViolation):
            await mutate(node, put, one=bad, doc={"amount": -1})


async def test_a_check_under_an_old_name_is_asked_again_when_code_changes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(app(positive)) as node:
        await mutate(node, add, doc={"amount": 7})

        assert [] == await node.push(application(*app(lambda doc: doc["amount"] > 1)))
        with pytest.raises(PushRefused, match=r"'covered' does not hold for \{'amount': 7"):
            await node.push(application(*app(lambda doc: doc["amount"] > 7)))


def at_most(limit: float) -> dict[str, list[Any]]:
    """The same declarations in the same code, by what they are declared with."""

    def holds(amount: float) -> bool:
        return amount <= limit

    within = {"amount": bounded(v.number(), [Predicate(holds)])}
    return {"check": app(lambda doc: holds(doc["amount"])), "predicate": app(fields=within)}


@pytest.mark.parametrize("declared", ["check", "predicate"])
async def test_a_predicate_whose_text_is_the_same_is_asked_again(
    declared: str, autojump_clock: trio.testing.MockClock
) -> None:
    loose, tight = (application(*at_most(limit)[declared]) for limit in (10, 3))
    assert loose.digest == tight.digest, "as it would be with a changed library"
    async with serving(loose) as node:
        one = await mutate(node, add, doc={"amount": 5})

        with pytest.raises(PushRefused, match=f"document {one} of 'accounts'"):
            await node.push(tight)
        assert [] == await node.push(loose)


@pytest.mark.parametrize("declared", ["check", "predicate"])
async def test_a_predicate_whose_text_is_the_same_is_asked_again_after_a_restart(
    declared: str, autojump_clock: trio.testing.MockClock
) -> None:
    store = MemoryStore()
    loose, tight = (application(*at_most(limit)[declared]) for limit in (10, 3))
    async with serving(loose, store=store) as node:
        one = await mutate(node, add, doc={"amount": 5})

    async with serving(None, store=store, runtime=VirtualRuntime(2)) as node:
        with pytest.raises(PushRefused, match=f"document {one} of 'accounts'"):
            await node.push(tight)
        await node.push(loose)
        assert [5] == await ask(node, amounts)


async def test_a_module_beside_the_application_changes_what_a_check_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "checked_app.py").write_text(CHECKED_APP)

    def with_limit(limit: int) -> Application:
        (tmp_path / "checked_limits.py").write_text(f"def holds(doc): return doc['n'] < {limit:4}")
        sys.modules.pop("checked_limits", None)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return load(tmp_path / "checked_app.py")

    async with serving(with_limit(10)) as node:
        await node.functions.turns.write(lambda turn: turn.insert("", "things", {"n": 5}))

        with pytest.raises(PushRefused, match=r"the check 'few' does not hold for \{'n': 5\}"):
            await node.push(with_limit(3))


CHECKED_APP = """
import checked_limits
from headrace import Schema, Table, v

schema = Schema(things=Table({"n": v.number()}).check("few", checked_limits.holds))
"""


async def test_bounds_that_become_tighter_are_held_by_what_is_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Loose(Document):
        amount: Annotated[float, Ge(0)]

    class Tight(Document):
        amount: Annotated[float, Ge(1)]

    class Whole(Document):
        amount: int

    async with serving(app(fields=Loose)) as node:
        one = await mutate(node, add, doc={"amount": 0.5})

        for declared in (Tight, Whole):
            with pytest.raises(PushRefused, match=f"document {one} of 'accounts'"):
                await node.push(application(*app(fields=declared)))


@pytest.mark.parametrize("declared", ["check", "predicate"])
async def test_a_predicate_that_does_not_end_ends_the_push_and_nothing_else(
    declared: str, autojump_clock: trio.testing.MockClock
) -> None:
    hanging = app(endless) if declared == "check" else app(fields=Endless)
    async with serving(app(), limits=QUICK) as node:
        one = await mutate(node, add, doc={"amount": 1.5})
        began = time.perf_counter()

        with pytest.raises(PushRefused, match=f"document {one} of 'accounts', ran its own code"):
            await node.push(application(*hanging))

        assert time.perf_counter() - began < 5
        await node.push(application(*app()))
        assert [1.5] == await ask(node, amounts)


def leaves(doc: Any) -> bool:
    raise SystemExit


async def test_a_check_that_exits_refuses_the_push(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(app()) as node:
        await mutate(node, add, doc={"amount": 1})

        with pytest.raises(PushRefused, match="SystemExit"):
            await node.push(application(*app(leaves)))


async def test_a_document_that_stops_passing_behind_the_walk_fails_the_push(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runtime = VirtualRuntime()
    async with serving(app(), runtime=runtime) as node:
        one = await mutate(node, add, doc={"amount": 1})
        hold = runtime.hold("push.switch")
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                with pytest.raises(PushRefused, match=f"document {one} of 'accounts'"):
                    await node.push(application(*app(positive)))

            nursery.start_soon(push)
            await hold.wait_reached()
            await mutate(node, put, one=one, doc={"amount": -1})
            hold.release()


# An import.


async def bring_in(node: Node, table: str, *documents: dict[str, Any]) -> Any:
    return await asked(node, "import", body={"table": table, "documents": list(documents)})


async def test_an_import_is_checked(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(app(positive)) as node:
        with pytest.raises(RequestRefused, match="document 2: a document of 'accounts' does not"):
            await bring_in(node, "accounts", {"amount": 1}, {"amount": -1})

    async with serving(app(endless_from_ten), limits=QUICK) as node:
        with pytest.raises(FunctionTimeout, match="the check of a document of 'accounts' ran its"):
            await bring_in(node, "accounts", {"amount": 10})
        await bring_in(node, "accounts", {"amount": 1})


async def test_documents_of_an_import_may_refer_to_each_other_and_to_nobody_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links = Table({"to": v.id("links")}).index("by_to", ["to"]).reference("to", on_delete="cascade")
    ids = [encode_id(10_777, bytes(15) + bytes([n])) for n in range(4)]

    async with serving([*FUNCTIONS, Schema(links=links)]) as node:
        ring = [{"_id": ids[n], "to": ids[(n + 1) % 3]} for n in range(3)]
        assert {"imported": 3} == await bring_in(node, "links", *ring)

        with pytest.raises(
            RequestRefused, match=f"document 1: .* with `to` to {ids[3]} of 'links'"
        ):
            await bring_in(node, "links", {"to": ids[3]})
