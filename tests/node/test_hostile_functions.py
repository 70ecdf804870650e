"""Functions that raise what nobody expects: each fails its own call, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NoReturn

import pytest

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.errors import ConvexError
from engine.functions.log_lines import line_of
from engine.functions.results import Caller
from engine.host import Engine
from engine.model.limits import Limits
from engine.model.values import UNDEFINED

MODULE = __name__.replace(".", "/")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError


RAISED: dict[str, Any] = {
    "cancelled": lambda: asyncio.CancelledError(),
    "interrupt": lambda: KeyboardInterrupt(),
    "exit": lambda: SystemExit(3),
    "group": lambda: BaseExceptionGroup("several", [SystemExit(1)]),
    "generator": lambda: GeneratorExit(),
    "surrogate": lambda: ValueError("\ud800"),
    "unspeakable": lambda: Unspeakable(),
    "data surrogate": lambda: ConvexError({"a": "\ud800"}),
    "data object": lambda: ConvexError(object()),
}


@action
async def act(ctx: ActionCtx, what: str) -> None:
    raise RAISED[what]()


@action
def act_in_a_thread(ctx: Any, what: str) -> None:
    raise RAISED[what]()


@mutation
async def mutate(ctx: MutationCtx, what: str) -> None:
    raise RAISED[what]()


@mutation
async def fine(ctx: MutationCtx) -> str:
    return "fine"


@pytest.mark.parametrize("what", RAISED)
async def test_whatever_is_raised_fails_its_own_call(what: str) -> None:
    functions = [act, act_in_a_thread, mutate, fine]
    async with Engine.open(":memory:", app=functions) as engine:
        calls = engine.node.functions
        caller = Caller(admin=True)
        for name in ("act", "act_in_a_thread"):
            acted = await calls.action(f"{MODULE}:{name}", {"what": what}, caller=caller)
            assert acted.failure is not None
            assert "FunctionNotFound" not in acted.failure.message
            acted.failure.message.encode()
        mutated = await calls.mutation(f"{MODULE}:mutate", {"what": what}, caller=caller)
        assert mutated.failure is not None
        assert "FunctionNotFound" not in mutated.failure.message
        mutated.failure.message.encode()

        assert "fine" == await engine.mutation(fine)


@pytest.mark.parametrize(
    "part", ["\ud800", Unprintable(), {"a": "\udfff"}], ids=["surrogate", "object", "inside"]
)
def test_log_lines_can_always_be_sent(part: object) -> None:
    line = line_of("WARN", [part], bytes_max=1_000)

    assert line.startswith("[WARN] ")
    assert line.encode()


# Code of the application that runs where values are made of its objects, and words of its errors.


def exits() -> NoReturn:
    raise SystemExit(3)


def spins() -> NoReturn:
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


ENDS: dict[str, Callable[[], NoReturn]] = {"exits": exits, "spins": spins}


@dataclass
class Checked:
    how: str

    def __post_init__(self) -> None:
        if self.how in ENDS:
            ENDS[self.how]()


class Items(dict[str, Any]):
    def __init__(self, how: str) -> None:
        super().__init__(how=how)

    def items(self) -> Any:
        ENDS[self["how"]]()

    def __iter__(self) -> Iterator[str]:
        ENDS[self["how"]]()


class Worded(Exception):
    def __str__(self) -> str:
        ENDS[self.args[0]]()


class Noted(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        ENDS[self.args[0]]()


class Represented(BaseException):
    def __repr__(self) -> str:
        ENDS[self.args[0]]()


@query
async def take(ctx: QueryCtx, checked: Checked) -> str:
    return checked.how


@query
async def pass_on(ctx: QueryCtx, how: str) -> Any:
    return await ctx.run_query(f"{MODULE}:take", {"checked": {"how": how}})


@query
async def give(ctx: QueryCtx, how: str) -> Any:
    return Items(how)


@mutation
def give_from_a_def(ctx: MutationCtx, how: str) -> Any:
    return [Items(how)]


@mutation
async def insert_it(ctx: MutationCtx, how: str) -> None:
    await ctx.db.insert("things", {"inside": [Items(how)]})


@mutation
async def patch_it(ctx: MutationCtx, how: str) -> None:
    doc_id = await ctx.db.insert("things", {"a": 1})
    await ctx.db.patch(doc_id, Items(how))


@mutation
async def call_with_it(ctx: MutationCtx, how: str) -> None:
    await ctx.run_query(f"{MODULE}:take", {"checked": Items(how)})


@mutation
async def schedule_it(ctx: MutationCtx, how: str) -> None:
    await ctx.scheduler.run_after(0, f"{MODULE}:take", {"checked": Items(how)})


@mutation
async def say(ctx: MutationCtx, how: str) -> None:
    raise Worded(how)


@query
async def note(ctx: QueryCtx, how: str) -> None:
    raise Noted(how)


@query
async def represent(ctx: QueryCtx, how: str) -> None:
    raise Represented(how)


@mutation
async def tell(ctx: MutationCtx, how: str) -> None:
    raise ConvexError(Items(how))


@action
async def act_on(ctx: ActionCtx, checked: Checked) -> None: ...


@action
async def act_and_give(ctx: ActionCtx, how: str) -> Any:
    return Items(how)


@action
async def act_and_say(ctx: ActionCtx, how: str) -> None:
    raise Worded(how)


CONVERTED = [
    take,
    pass_on,
    give,
    give_from_a_def,
    insert_it,
    patch_it,
    call_with_it,
    schedule_it,
    say,
    note,
    represent,
    tell,
]
CONVERTED_BY_ACTIONS = [act_on, act_and_give, act_and_say]


def _arguments(function: Any, how: str) -> dict[str, Any]:
    return {"checked": {"how": how}} if function in (take, act_on) else {"how": how}


@pytest.mark.parametrize(
    "function", [*CONVERTED, *CONVERTED_BY_ACTIONS], ids=lambda f: f.handler.__name__
)
async def test_a_class_of_the_application_that_exits_ends_its_own_call(function: Any) -> None:
    async with Engine.open(":memory:", app=[function, take, fine]) as engine:
        call = getattr(engine.node.functions, function.kind.value)
        path = f"{MODULE}:{function.name}"

        result = await call(path, _arguments(function, "exits"), caller=Caller(admin=True))

        assert result.failure is not None
        assert any(name in result.failure.message for name in ("SystemExit", "Represented"))
        assert "fine" == await engine.mutation(fine)


@pytest.mark.parametrize("function", CONVERTED, ids=lambda f: f.handler.__name__)
async def test_a_class_of_the_application_that_spins_is_ended_at_the_limit(function: Any) -> None:
    limits = Limits(user_time_s_max=0.2)
    async with Engine.open(":memory:", app=[function, take, fine], limits=limits) as engine:
        call = getattr(engine.node.functions, function.kind.value)
        path = f"{MODULE}:{function.name}"
        began = perf_counter()

        result = await call(path, _arguments(function, "spins"), caller=Caller(admin=True))

        assert result.failure is not None
        assert perf_counter() - began < 0.2 + 0.3 + 0.2
        assert "fine" == await engine.mutation(fine)


# Errors of any size.


@query
async def go_on_and_on(ctx: QueryCtx) -> None:
    raise ValueError("y" * (40 << 20))


@query
async def give_it_all(ctx: QueryCtx) -> None:
    raise ConvexError({"all": "y" * (40 << 20)})


@pytest.mark.parametrize(
    ("function", "said"),
    [(go_on_and_on, "(of 41,943,068 characters)"), (give_it_all, "cannot be sent: 41,943,")],
    ids=["text", "data"],
)
async def test_an_error_of_any_size_is_told_in_few_words(function: Any, said: str) -> None:
    async with Engine.open(":memory:", app=[function]) as engine:
        path = f"{MODULE}:{function.handler.__name__}"

        result = await engine.node.functions.query(path, {}, caller=Caller(admin=True))

        assert result.failure is not None
        assert said in result.failure.message
        assert len(result.failure.message) < 40_000
        assert UNDEFINED is result.failure.data
