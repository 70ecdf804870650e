"""What a decorator makes of a handler, and to which module it belongs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from engine.app.contexts import ActionFunction, MutationFunction, QueryFunction
from engine.app.decorators import (
    action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from engine.app.registered import Kind, Loop, RegisteredFunction, Visibility, loading
from engine.app.registry import functions_of, merged
from engine.app.validators import v
from engine.errors import DeclarationError

CTX: Any = object()


def execute(source: str, module: str, **names: object) -> tuple[list[RegisteredFunction], Any]:
    """Run a module as the loader does; what was made, and its attributes."""
    made = ModuleType(module)
    vars(made).update(names)
    with loading(module) as frame:
        exec(compile(source, f"backend/{module}.py", "exec", dont_inherit=True), vars(made))
    return frame.functions, vars(made)


def published(source: str, module: str = "messages", **names: object) -> dict[str, Any]:
    functions, namespace = execute(source, module, **names)
    return functions_of(module, namespace, functions)


@pytest.mark.parametrize(
    ("decorator", "cls", "kind", "visibility"),
    [
        (query, QueryFunction, Kind.QUERY, Visibility.PUBLIC),
        (internal_query, QueryFunction, Kind.QUERY, Visibility.INTERNAL),
        (mutation, MutationFunction, Kind.MUTATION, Visibility.PUBLIC),
        (internal_mutation, MutationFunction, Kind.MUTATION, Visibility.INTERNAL),
        (action, ActionFunction, Kind.ACTION, Visibility.PUBLIC),
        (internal_action, ActionFunction, Kind.ACTION, Visibility.INTERNAL),
    ],
)
def test_each_decorator_makes_its_kind_of_function(
    decorator: Any, cls: type, kind: Kind, visibility: Visibility
) -> None:
    async def handler(ctx: Any, x: Any) -> None:
        """What it is for."""

    bare = decorator(handler)
    with_options = decorator(name="other", args={"x": v.any()})(handler)

    for function in (bare, with_options):
        assert isinstance(function, cls)
        assert isinstance(function, RegisteredFunction)
        assert (function.kind, function.visibility) == (kind, visibility)
        assert function.is_async
        assert function.location[0] == __file__
    assert bare.__doc__ == "What it is for."
    assert (bare.name, with_options.name) == (None, "other")


async def test_calling_a_function_runs_the_plain_handler() -> None:
    @query
    async def waiting(ctx: Any, x: int, *, y: int) -> list[Any]:
        return [ctx, x, y]

    @mutation
    def plain(ctx: Any, x: int) -> list[Any]:
        return [ctx, x]

    @action
    def handing_on(ctx: Any, x: int) -> Coroutine[Any, Any, list[Any]]:
        return plain(ctx, x)

    assert await waiting(CTX, 1.5, y="any") == [CTX, 1.5, "any"]  # type: ignore[arg-type]
    assert await plain(CTX, 2) == [CTX, 2]
    assert await handing_on(CTX, 3) == [CTX, 3]


@pytest.mark.parametrize(
    ("decorator", "asynchronous", "wished", "loop"),
    [
        (query, True, None, "trio"),
        (query, False, None, "trio"),
        (mutation, False, None, "trio"),
        (action, True, None, "trio"),
        (action, False, None, "thread"),
        (action, True, "asyncio", "asyncio"),
        (action, True, "trio", "trio"),
        (action, False, "thread", "thread"),
    ],
)
def test_a_function_knows_where_it_runs(
    decorator: Any, asynchronous: bool, wished: Loop | None, loop: Loop
) -> None:
    async def waits(ctx: Any) -> None: ...
    def does_not(ctx: Any) -> None: ...

    handler = waits if asynchronous else does_not
    function = decorator(handler) if wished is None else decorator(loop=wished)(handler)

    assert loop == function.loop


@pytest.mark.parametrize(("asynchronous", "wished"), [(True, "thread"), (False, "asyncio")])
def test_a_loop_that_a_handler_cannot_run_on_is_refused(asynchronous: bool, wished: Loop) -> None:
    async def waits(ctx: Any) -> None: ...
    def does_not(ctx: Any) -> None: ...

    handler: Any = waits if asynchronous else does_not

    with pytest.raises(DeclarationError, match=f'loop="{wished}"'):
        action(loop=wished)(handler)


def test_only_functions_can_be_registered() -> None:
    decorate: Any = query

    with pytest.raises(DeclarationError, match="decorate a `def`"):
        decorate(dict[str, int])


def test_a_function_belongs_to_the_module_that_made_it() -> None:
    functions = published(
        """
from engine.app.decorators import query, internal_mutation
@query
async def since(ctx): ...
@query(name="list")
async def list_page(ctx): ...
async def helper(ctx): ...
assigned = internal_mutation(helper)
""",
        "dir/messages",
    )

    assert set(functions) == {
        "dir/messages:since",
        "dir/messages:list",
        "dir/messages:assigned",
    }
    assert functions["dir/messages:list"].name == "list"
    assert functions["dir/messages:assigned"].path == "dir/messages:assigned"


def test_importing_a_function_elsewhere_publishes_nothing() -> None:
    _, messages = execute("from engine.app.decorators import *\n@query\nasync def f(ctx): ...", "a")

    assert published("f = imported", "b", imported=messages["f"]) == {}


def test_a_factory_makes_functions_for_the_module_that_calls_it() -> None:
    def make(table: str) -> RegisteredFunction:
        async def count(ctx: Any) -> str:
            return table

        return query(count)

    functions = published("users = make('users')\nposts = make('posts')", "counts", make=make)

    assert set(functions) == {"counts:users", "counts:posts"}


def test_a_name_is_enough_where_no_attribute_holds_the_function() -> None:
    source = """
from engine.app.decorators import query
for name in ("one", "two"):
    @query(name=name)
    async def made(ctx): ...
"""

    assert set(published(source, "m")) == {"m:one", "m:two"}


def test_a_module_that_is_loaded_by_another_keeps_its_functions() -> None:
    inner = "from engine.app.decorators import query\n@query\nasync def f(ctx): ..."
    outcome: dict[str, Any] = {}

    def load_inner() -> None:
        outcome.update(published(inner, "inner"))

    outer = published(
        "load()\nfrom engine.app.decorators import query\n@query\nasync def g(ctx): ...",
        "outer",
        load=load_inner,
    )

    assert (set(outcome), set(outer)) == ({"inner:f"}, {"outer:g"})


def test_two_functions_of_one_name_are_refused_with_both_places() -> None:
    source = """
from engine.app.decorators import query
@query
async def one(ctx): ...
@query(name="one")
async def two(ctx): ...
"""

    with pytest.raises(DeclarationError) as caught:
        published(source, "m")

    assert "backend/m.py:3: one and backend/m.py:5: two" in str(caught.value)


def test_two_modules_of_one_path_are_refused_with_both_places() -> None:
    source = "from engine.app.decorators import query\n@query\nasync def f(ctx): ..."
    module, package = published(source, "m"), published("\n" + source, "m")

    with pytest.raises(DeclarationError, match=r"m\.py:2: f and backend/m\.py:3: f"):
        merged([module, package])
    assert merged([module, published(source, "n")]).keys() == {"m:f", "n:f"}


@pytest.mark.parametrize("name", ["send-message", "2nd", "naïve", "a.b", "", "__"])
def test_a_name_that_no_client_can_write_is_refused(name: str) -> None:
    async def f(ctx: Any) -> None: ...

    with pytest.raises(DeclarationError, match="cannot be the name of a function"):
        query(name=name)(f)


def test_a_function_is_known_by_each_attribute_and_called_by_the_first() -> None:
    functions = published(
        "from engine.app.decorators import query\n@query\nasync def f(ctx): ...\ndefault = f", "m"
    )

    assert set(functions) == {"m:f", "m:default"}
    assert functions["m:default"].path == "m:f"


def test_a_query_called_list_does_not_break_annotations_that_are_postponed() -> None:
    source = """
from __future__ import annotations
from typing import TypedDict
from engine.app.decorators import query
@query
async def list(ctx) -> list[str]: ...
class Doc(TypedDict):
    tags: list[int]
@query
async def other(ctx, doc: Doc, names: list[str]) -> list[Doc]: ...
"""
    functions = published(source)

    assert functions["messages:list"].signature.dump(["a"], lambda _: None) == ["a"]
    raw = {"doc": {"tags": [1]}, "names": ["a"]}
    assert functions["messages:other"].signature.load(raw, lambda _: None) == raw


@pytest.mark.parametrize("annotation", ["list[str]", "list"])
def test_otherwise_the_error_says_what_hides_the_builtin(annotation: str) -> None:
    source = f"""
from engine.app.decorators import query
@query
async def list(ctx): ...
@query
async def other(ctx, names: {annotation}): ...
"""
    with pytest.raises(DeclarationError) as caught:
        published(source)["messages:other"].signature  # noqa: B018 - reads the annotations

    assert 'query(name="' in str(caught.value)


def test_classes_around_a_local_function_are_seen() -> None:
    from typing import TypedDict

    class Local(TypedDict):
        n: float

    @query
    async def bare(ctx: Any, x: Local) -> None: ...
    @query(name="other")
    async def with_options(ctx: Any, x: Local) -> None: ...

    for function in (bare, with_options):
        raw = {"x": {"n": 1}}
        assert function.signature.load(raw, lambda _: None) == {"x": {"n": 1.0}}


def test_annotations_may_name_what_is_defined_below() -> None:
    source = """
from __future__ import annotations
from engine.app.decorators import query
@query
async def f(ctx, x: Later) -> None: ...
from typing import TypedDict
class Later(TypedDict):
    n: float
"""

    signature = published(source, "m")["m:f"].signature

    assert signature.validator == v.object({"x": v.object({"n": v.number()})})


def test_a_decorated_function_says_what_it_is() -> None:
    source = "from engine.app.decorators import query\n@query\nasync def f(ctx): ..."

    (function,) = published(source).values()

    assert repr(function) == "<public query messages:f>"


async def test_an_awaitable_from_a_plain_handler_is_awaited() -> None:
    class Ready:
        def __await__(self) -> Any:
            return "found"
            yield

    @query
    def handler(ctx: Any) -> Awaitable[str]:
        return Ready()

    call: Callable[[Any], Coroutine[Any, Any, object]] = handler

    assert await call(CTX) == "found"
