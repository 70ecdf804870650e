"""
Tests of an application: a harness for each test, as the pytest fixture `t`.

    async def test_sending(t: Harness) -> None:
        await t.with_identity(name="Ada").mutation(send, channel=channel, body="hello")

The application is the one that pyproject.toml names (`[tool.headrace] app =
"backend"`), in the folder of the test or above it.  A test that is an `async
def` is given a `Harness`, whether it runs on trio or asyncio; any other is
given a `BlockingHarness`.  An `async def` that no plugin takes is run on trio.

This module is a pytest plugin, so it imports the engine only when a test asks
for it.
"""

from __future__ import annotations

import inspect
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

if TYPE_CHECKING:
    from engine.app.registry import Application
    from engine.rehearsal.harness import BlockingHarness, Harness

    AnyHarness: TypeAlias = Harness | BlockingHarness

__all__ = ["BlockingHarness", "Harness"]

_project = pytest.StashKey[ExitStack]()

NOWHERE: Final = (
    'the fixture `t` needs to know the application: add `[tool.headrace]` and `app = "backend"` '
    "to pyproject.toml, with the name of its folder there"
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        from engine.rehearsal import harness

        return getattr(harness, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@pytest.fixture
def t(request: pytest.FixtureRequest) -> Iterator[AnyHarness]:
    """The application under test, on an engine of its own."""
    from engine.rehearsal.harness import BlockingHarness, Harness, open_place

    folder = app_folder(request.path.parent)
    if folder is None:
        raise pytest.UsageError(NOWHERE)
    function = getattr(request, "function", None)
    with open_place(_loaded(folder)) as place:
        yield Harness(place) if inspect.iscoroutinefunction(function) else BlockingHarness(place)


def pytest_configure(config: pytest.Config) -> None:
    """Let tests import the application, also where it needs variables that are not set."""
    folder = app_folder(config.rootpath)
    if folder is None:
        return
    from engine.app.environment import standing_in

    stack = config.stash.setdefault(_project, ExitStack())
    stack.enter_context(standing_in(placeholder))
    parent = str(folder.parent)
    if parent not in sys.path:
        sys.path.append(parent)
        stack.callback(sys.path.remove, parent)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take back what was done to this process."""
    if (stack := config.stash.get(_project, None)) is not None:
        stack.close()


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test that uses `t` on trio, if no plugin has taken it."""
    is_ours = "t" in pyfuncitem.fixturenames and inspect.iscoroutinefunction(pyfuncitem.obj)
    if not is_ours:
        return None
    import trio

    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def run() -> None:
        await pyfuncitem.obj(**arguments)

    trio.run(run)
    return True


def placeholder(name: str) -> str:
    """What a variable is in tests that is not set; a URL, since some must be."""
    return f"https://{name.lower().replace('_', '-')}.is-not-set.invalid"


def app_folder(start: Path) -> Path | None:
    """The application that the nearest pyproject.toml with `[tool.headrace]` names."""
    for folder in (start, *start.parents):
        project = folder / "pyproject.toml"
        if project.is_file():
            named = tomllib.loads(project.read_text("utf-8")).get("tool", {}).get("headrace", {})
            if "app" in named:
                return (folder / str(named["app"])).resolve()
    return None


@cache
def _loaded(folder: Path) -> Application:
    """Loaded once in a process: an application does not change, only what it stores does."""
    from engine.functions.loader import load

    return load(folder)
