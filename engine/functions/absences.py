"""
What a context does not have, and what to write instead.

Type checkers see no such attributes.  Whoever runs without one, or has the
wrong kind of function in mind, is told at the line that asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from engine.app.registered import Kind
from engine.errors import NotAllowed

T = TypeVar("T")

_READS_ONLY: Final = "a query only reads, so it has no {}: "
_WRITE: Final = (
    _READS_ONLY + "make it a mutation, `@mutation async def ...(ctx: MutationCtx)`, "
    "or leave the writing to whoever calls it"
)
_FROM_OUTSIDE: Final = (
    "write the action so that it calls this {}, `await ctx.run_{}(...)`, or have the client call it"
)

_DATABASE_SEARCHES: Final = (
    "ctx.vector_search is what actions have, which have no database: write "
    "`await ctx.db.vector_search(...)`, which takes the same"
)

CONTEXT: Final[Mapping[Kind, Mapping[str, str]]] = {
    Kind.QUERY: {
        "vector_search": _DATABASE_SEARCHES,
        "run_mutation": _WRITE.format("ctx.run_mutation"),
        "run_snapshot_query": "a query sees one state and changes nothing, so it has no "
        "ctx.run_snapshot_query: `await ctx.run_query(...)`",
        "scheduler": _READS_ONLY.format("ctx.scheduler")
        + "schedule in a mutation, `await ctx.scheduler.run_after(...)`",
        "run_action": "a query reaches nothing but the database, so it has no ctx.run_action: "
        + _FROM_OUTSIDE.format("query", "query"),
        "commit": _WRITE.format("ctx.commit"),
    },
    Kind.MUTATION: {
        "vector_search": _DATABASE_SEARCHES,
        "run_action": "a mutation may run again, so it has no ctx.run_action: have the action run "
        "once this is committed, `await ctx.scheduler.run_after(0, ...)`, or "
        + _FROM_OUTSIDE.format("mutation", "mutation"),
        "commit": "a mutation is committed when it has returned, so it has no ctx.commit: call "
        "others as a part of it, `await ctx.run_mutation(...)`",
    },
}

_WRITES: Final = ("insert", "patch", "replace", "delete")


class Absent(NotAllowed, AttributeError):
    """An attribute that this kind of function does not have; also for `hasattr`."""


class _Missing:
    """
    What stands in the place of an attribute that is absent.

    Not `__getattr__`, which makes the interpreter look up every attribute of such an object the
    long way: a twentieth of the time of a small mutation.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __get__(self, instance: object, _owner: type) -> object:
        if instance is None:
            return self
        raise Absent(self._text)


def lacking(texts: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """Have instances of a class say why they have no such attributes."""

    def put(cls: type[T]) -> type[T]:
        for name, text in texts.items():
            setattr(cls, name, _Missing(text))
        setattr(cls, "__dir__", _dir)  # noqa: B010 - a type checker would have it declared
        return cls

    return put


def _dir(instance: object) -> list[str]:
    """The attributes that are there."""
    kind = type(instance)
    names = object.__dir__(instance)
    return [name for name in names if not isinstance(getattr(kind, name, None), _Missing)]


CRON_READER: Final = {name: _WRITE.format(f"ctx.crons.{name}") for name in ("register", "remove")}
READER: Final = {name: _WRITE.format(f"ctx.db.{name}") for name in _WRITES} | {
    "vars": "a query is not committed, so it has no ctx.db.vars: ask in the mutation that calls "
    "it, `ctx.db.vars.commit_ts`, and hand that on as an argument"
}
SYSTEM: Final = {
    name: f"the engine's own tables are read, so ctx.db.system has no {name}" for name in _WRITES
}


def of_action(name: str, wait: str) -> AttributeError:
    """Why `ctx` of an action has no attribute `name`; `wait` is how its calls are waited for."""
    if name == "db":
        return Absent(
            "an action has no database of its own, so it has no ctx.db; read and write in "
            f"functions that have one, and call them: {wait}ctx.run_query(...) or "
            f"{wait}ctx.run_mutation(...)"
        )
    if name == "crons":
        return Absent(
            "crons are a part of the database, so an action has no ctx.crons: read them in a "
            "query, register in a mutation, and call these: "
            f"{wait}ctx.run_query(...) or {wait}ctx.run_mutation(...)"
        )
    return AttributeError(f"ctx of an action has no {name!r}")
