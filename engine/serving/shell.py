"""
The shell's inputs, each run as one transaction of the deployed application.

    await db.query("messages").take(3)
    for doc in await db.query("messages").collect(): await db.delete(doc["_id"])
    await run(api.messages.send, {"body": "hello"})

An input is what Python takes at top level, and may await.  If it ends with an
expression, its value is shown.  What it assigns is there for the next one of
the same session.
"""

from __future__ import annotations

import ast
import inspect
import pprint
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from types import CodeType
from typing import Any, Final, Protocol

from engine.app.contexts import MutationCtx
from engine.app.decorators import internal_mutation
from engine.app.references import api, internal, reference_of
from engine.app.registered import Kind, RegisteredFunction
from engine.errors import NotAllowed, UsageError
from engine.functions.logs import print_line

MODULE: Final = "_shell"
PATH: Final = f"{MODULE}:evaluate"
FILE: Final = "<shell>"
SESSIONS_KEPT: Final = 16
WIDTH: Final = 100


class FindFunction(Protocol):
    """The deployed function at a path, in a component."""

    def __call__(self, path: str, component: str, /) -> RegisteredFunction | None: ...


class Shell:
    """
    Args:
        find: looks up what `run` is asked for.
    """

    def __init__(self, find: FindFunction) -> None:
        self._find = find
        self._sessions: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def function(self) -> RegisteredFunction:
        """The mutation that evaluates an input, for administrators."""

        @internal_mutation
        async def evaluate(ctx: MutationCtx, session: str, source: str) -> str | None:
            return await self._evaluate(ctx, session, source)

        evaluate.bind(MODULE, "evaluate")
        return evaluate

    async def _evaluate(self, ctx: MutationCtx, session: str, source: str) -> str | None:
        namespace = self._namespace(session)
        namespace.update(ctx=ctx, db=ctx.db, run=self._runner(ctx))
        value = None
        for code in _compiled(source):
            value = eval(code, namespace)
            if inspect.iscoroutine(value):
                value = await value
        if value is None:
            return None
        namespace["_"] = value
        return pprint.pformat(value, width=WIDTH, sort_dicts=False)

    def _namespace(self, session: str) -> dict[str, Any]:
        fresh = {"__name__": MODULE, "api": api, "internal": internal, "print": print_line}
        namespace = self._sessions.setdefault(session, fresh)
        self._sessions.move_to_end(session)
        while len(self._sessions) > SESSIONS_KEPT:
            self._sessions.popitem(last=False)
        return namespace

    def _runner(self, ctx: MutationCtx) -> Any:
        def run(fn: Any, args: Mapping[str, Any] | None = None, /) -> Awaitable[Any]:
            component, path = reference_of(fn)
            function = self._find(path, component or "")
            if function is not None and function.kind is Kind.ACTION:
                raise NotAllowed(
                    f"{path} is an action, which no transaction can hold; use `headrace run {path}`"
                )
            is_query = function is not None and function.kind is Kind.QUERY
            return (ctx.run_query if is_query else ctx.run_mutation)(fn, dict(args or {}))

        return run


def _compiled(source: str) -> list[CodeType]:
    """The statements of an input; if it ends with an expression that by itself, to be shown."""
    try:
        tree = ast.parse(source, FILE)
        parts: list[ast.Module | ast.Expression] = [tree]
        if tree.body and isinstance(last := tree.body[-1], ast.Expr):
            tree.body.pop()
            parts.append(ast.Expression(last.value))
        return [_compiled_part(part) for part in parts]
    except SyntaxError as error:
        raise UsageError(f"line {error.lineno}: {error.msg}") from None


def _compiled_part(part: ast.Module | ast.Expression) -> CodeType:
    mode = "eval" if isinstance(part, ast.Expression) else "exec"
    code = compile(part, FILE, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType), "no tree was asked for"
    return code
