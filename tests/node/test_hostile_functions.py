"""Functions that raise what nobody expects: each fails its own call, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.app.contexts import ActionCtx, MutationCtx
from engine.app.decorators import action, mutation
from engine.errors import ConvexError
from engine.functions.log_lines import line_of
from engine.functions.results import Caller
from engine.host import Engine

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
