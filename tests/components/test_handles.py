"""Function handles: callbacks that an application gives to a component, and whom they let in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import blocking
from engine.errors import FunctionNotFound, WrongFunctionKind
from engine.functions.handles import Handles
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.packages import importable, write

FILES = {
    "ring_application/__init__.py": "",
    "ring_application/app.py": """
        from engine import App
        from ring_component import component
        app = App()
        left = app.use(component, name="left")
        right = app.use(component, name="right")
    """,
    "ring_application/main.py": """
        from engine import ActionCtx, BlockingActionCtx, MutationCtx, QueryCtx, Retry
        from engine import action, internal_action, internal_mutation, internal_query
        from engine import mutation, query
        from engine import make_function_reference as named
        from .app import left, right

        MOUNTS = {"left": left, "right": right}

        @internal_mutation
        async def note(ctx: MutationCtx, text: str) -> str:
            who = await ctx.auth.get_user_identity()
            await ctx.db.insert("notes", {"text": text, "known": who is not None})
            if text == "bad":
                raise LookupError(text)
            return f"noted {text}"

        @internal_query
        async def count(ctx: QueryCtx) -> int:
            return await ctx.db.count("notes")

        @internal_action
        async def act(ctx: ActionCtx, text: str) -> str:
            return await ctx.run_mutation(note, text)

        @internal_mutation
        async def told(ctx: MutationCtx, job: str, result: dict[str, object], context: str) -> None:
            await ctx.db.insert("notes", {"text": f"{context}: {result['kind']}", "known": False})

        @query
        async def notes(ctx: QueryCtx) -> list[str]:
            docs = await ctx.db.query("notes").collect()
            return [doc["text"] + "!" * doc["known"] for doc in docs]

        @mutation
        async def handle_of(ctx: MutationCtx, name: str) -> str:
            return await ctx.create_function_handle(named(f"main:{name}"))

        @query
        async def handle_in_query(ctx: QueryCtx, name: str) -> str:
            return await ctx.create_function_handle(named(f"main:{name}"))

        @action
        async def handle_in_action(ctx: ActionCtx, name: str) -> str:
            return await ctx.create_function_handle(named(f"main:{name}"))

        @action
        def handle_in_thread(ctx: BlockingActionCtx, name: str) -> str:
            handle = ctx.create_function_handle(named(f"main:{name}"))
            assert ctx.meta.get_function_metadata(handle)["name"] == f"main:{name}"
            return handle

        @mutation
        async def have_called(ctx: MutationCtx, mount: str, how: str, handle: str) -> object:
            try:
                return await ctx.run_mutation(MOUNTS[mount][how], {"handle": handle})
            except LookupError as error:
                return f"failed: {error}"

        @action
        async def have_acted(ctx: ActionCtx, handle: str) -> object:
            return await ctx.run_action(left.act, {"handle": handle})

        @mutation
        async def own_handle(ctx: MutationCtx, mount: str) -> str:
            return await ctx.run_mutation(MOUNTS[mount].own_handle)

        @query
        async def kept(ctx: QueryCtx, mount: str) -> int:
            return await ctx.run_query(MOUNTS[mount].kept)

        @mutation
        async def call_it(ctx: MutationCtx, handle: str) -> object:
            return await ctx.run_mutation(handle)

        @query
        async def described(ctx: QueryCtx, handle: str | None = None) -> object:
            return await ctx.meta.get_function_metadata(*([handle] if handle else []))

        @action
        async def described_in_action(ctx: ActionCtx) -> object:
            return await ctx.meta.get_function_metadata()

        @query
        async def described_in_component(ctx: QueryCtx) -> object:
            return await ctx.run_query(left.lib.described)
    """,
    "ring_component/__init__.py": """
        from engine import Component
        from ring_inner import component as inner
        component = Component("ring")
        within = component.use(inner, name="within")
    """,
    "ring_inner/__init__.py": """
        from engine import Component
        component = Component("inner")
    """,
    "ring_inner/functions.py": """
        from engine import MutationCtx, mutation

        @mutation
        async def pass_on(ctx: MutationCtx, handle: str) -> object:
            await ctx.db.insert("notes", {"text": "of its own"})
            return await ctx.run_mutation(handle, {"text": "from within"})
    """,
    "ring_component/functions.py": """
        from engine import ActionCtx, MutationCtx, QueryCtx, Retry
        from engine import action, internal_mutation, mutation, query
        from . import within

        @mutation
        async def call(ctx: MutationCtx, handle: str) -> object:
            await ctx.db.insert("kept", {"handle": handle})
            return await ctx.run_mutation(handle, {"text": "called"})

        @mutation
        async def pass_on(ctx: MutationCtx, handle: str) -> object:
            return await ctx.run_mutation(within.pass_on, {"handle": handle})

        @mutation
        async def call_badly(ctx: MutationCtx, handle: str) -> object:
            await ctx.db.insert("kept", {"handle": handle})
            return await ctx.run_mutation(handle, {"text": "bad"})

        @mutation
        async def look(ctx: MutationCtx, handle: str) -> object:
            return await ctx.run_query(handle)

        @mutation
        async def call_later(ctx: MutationCtx, handle: str) -> str:
            return await ctx.scheduler.run_after(1000, handle, {"text": "later"})

        @mutation
        async def call_by_cron(ctx: MutationCtx, handle: str) -> None:
            await ctx.crons.register("again", handle, {"text": "again"}, hours=1)

        @mutation
        async def be_told(ctx: MutationCtx, handle: str) -> None:
            eager = ctx.scheduler.with_retry(Retry(max_attempts=1), on_complete=handle, context="x")
            await eager.run_after(0, fail)

        @action
        async def fail(ctx: ActionCtx) -> None:
            raise LookupError

        @action
        async def act(ctx: ActionCtx, handle: str) -> object:
            return await ctx.run_action(handle, {"text": "acted"})

        @internal_mutation
        async def keep(ctx: MutationCtx) -> str:
            await ctx.db.insert("kept", {"handle": "of its own"})
            return "kept"

        @mutation
        async def own_handle(ctx: MutationCtx) -> str:
            return await ctx.create_function_handle(keep)

        @query
        async def kept(ctx: QueryCtx) -> int:
            return await ctx.db.count("kept")
    """,
    "ring_component/lib.py": """
        from engine import QueryCtx, query

        @query
        async def described(ctx: QueryCtx) -> object:
            return await ctx.meta.get_function_metadata()
    """,
}


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("rings")
    write(folder, FILES)
    with importable(folder, "ring_"):
        yield load(folder / "ring_application")


@pytest.fixture
def ring(application: Any) -> Iterator[BlockingHarness]:
    with open_place(application) as place:
        yield BlockingHarness(place)


def handle_of(ring: BlockingHarness, name: str) -> str:
    found: str = ring.mutation("main:handle_of", {"name": name})
    return found


def called(ring: BlockingHarness, handle: str, how: str = "call", mount: str = "left") -> object:
    return ring.mutation("main:have_called", {"mount": mount, "how": how, "handle": handle})


def test_a_component_calls_what_it_was_given_as_a_part_of_the_transaction(
    ring: BlockingHarness,
) -> None:
    note = handle_of(ring, "note")

    assert "noted called" == called(ring, note)
    assert "failed: bad" == called(ring, note, "call_badly")
    assert 1 == called(ring, handle_of(ring, "count"), "look")

    assert ["called"] == ring.query("main:notes")
    assert 1 == ring.query("main:kept", {"mount": "left"})


def test_what_is_handed_on_through_components_still_runs_where_it_is_from(
    ring: BlockingHarness,
) -> None:
    note = handle_of(ring, "note")

    assert "noted from within" == called(ring.with_identity(name="Ada"), note, "pass_on")

    assert ["from within"] == ring.query("main:notes")


def test_whom_a_callback_serves_it_is_not_told(ring: BlockingHarness) -> None:
    note = handle_of(ring, "note")

    called(ring.with_identity(name="Ada"), note)

    assert ["called"] == ring.query("main:notes")


@pytest.mark.parametrize(
    ("how", "name", "expected"),
    [
        ("call_later", "note", "later"),
        ("call_by_cron", "note", "again"),
        ("be_told", "told", "x: failed"),
    ],
)
def test_a_component_has_it_called_later(
    ring: BlockingHarness, how: str, name: str, expected: str
) -> None:
    called(ring, handle_of(ring, name), how)
    assert [] == ring.query("main:notes")

    ring.advance(2_000)

    assert [expected] == ring.query("main:notes")


def test_an_action_of_a_component_calls_an_action(ring: BlockingHarness) -> None:
    assert "noted acted" == ring.action("main:have_acted", {"handle": handle_of(ring, "act")})


def test_a_function_has_one_handle_wherever_it_is_made(ring: BlockingHarness) -> None:
    note = handle_of(ring, "note")

    assert note == ring.query("main:handle_in_query", {"name": "note"})
    assert note == ring.action("main:handle_in_action", {"name": "note"})
    assert note == ring.action("main:handle_in_thread", {"name": "note"})
    assert note != handle_of(ring, "count")


def test_a_component_lets_others_call_what_is_internal_by_its_handle(
    ring: BlockingHarness,
) -> None:
    left, right = (ring.mutation("main:own_handle", {"mount": m}) for m in ("left", "right"))

    assert left != right
    assert "kept" == ring.mutation("main:call_it", {"handle": left})
    assert [1, 0] == [ring.query("main:kept", {"mount": m}) for m in ("left", "right")]


def test_what_is_no_handle_of_this_database_calls_nothing(ring: BlockingHarness) -> None:
    note, left = handle_of(ring, "note"), ring.mutation("main:own_handle", {"mount": "left"})
    component, path, proof = left.removeprefix("function://").split(";")
    forged = [
        note[:-1] + ("A" if note[-1] != "A" else "B"),
        note.replace("note", "told"),
        note.replace("main:", "mai:n"),
        note + ";",
        note[:20],
        "function://",
        "function://;main:note",
        "function://;main:note;",
        "function://;main:note;é",
        f"function://right;{path};{proof}",
        f"function://;{path};{proof}",
        f"function://{component}/;{path};{proof}",
        Handles(bytes(32)).of("", "main:note"),
    ]

    for handle in forged:
        for how in ("call", "call_later", "call_by_cron", "be_told"):
            with pytest.raises(FunctionNotFound, match="not made here"):
                called(ring, handle, how)
        with pytest.raises(FunctionNotFound, match="not made here"):
            ring.action("main:have_acted", {"handle": handle})
        with pytest.raises(FunctionNotFound, match="not made here"):
            ring.query("main:described", {"handle": handle})
    assert [] == ring.query("main:notes")


def test_a_handle_is_of_a_function_that_is_there(ring: BlockingHarness) -> None:
    with pytest.raises(FunctionNotFound, match="Did you mean 'main:notes'"):
        handle_of(ring, "notess")
    with pytest.raises(WrongFunctionKind):
        called(ring, handle_of(ring, "count"))


def test_a_handle_is_good_for_as_long_as_the_database_and_for_no_other(
    application: Any, tmp_path: Path
) -> None:
    with blocking.open(tmp_path / "a", app=application) as engine:
        note = engine.mutation("main:handle_of", {"name": "note"})
        engine.push(application)
        assert note == engine.mutation("main:handle_of", {"name": "note"})
    with blocking.open(tmp_path / "a", app=application) as engine:
        assert note == engine.mutation("main:handle_of", {"name": "note"})
    with blocking.open(tmp_path / "b", app=application) as engine:
        assert note != engine.mutation("main:handle_of", {"name": "note"})


def test_it_is_of_no_use_to_who_calls_from_outside(ring: BlockingHarness) -> None:
    note = handle_of(ring, "note")

    with pytest.raises(FunctionNotFound):
        ring.mutation(note, {"text": "x"})


def test_a_function_is_told_which_one_it_is_and_which_others_are(ring: BlockingHarness) -> None:
    note = ring.query("main:described", {"handle": handle_of(ring, "note")})

    assert note == {
        "name": "main:note",
        "component_path": "",
        "kind": "mutation",
        "visibility": "internal",
    }
    own = ring.query("main:described")
    assert ("main:described", "query", "public") == (own["name"], own["kind"], own["visibility"])
    assert "action" == ring.action("main:described_in_action")["kind"]
    inside = ring.query("main:described_in_component")
    assert ("lib:described", "left") == (inside["name"], inside["component_path"])
