"""The README's table of names: what it promises is there."""

from __future__ import annotations

import builtins
import re
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import components.aggregate
import components.migrations
import components.rate_limiter
import components.workpool
import engine

README = Path(__file__).parents[2] / "README.md"
CELL = re.compile(r"`([^`]+)`")
IDENTIFIER = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_]*)")
PLACES: tuple[Any, ...] = (
    engine,
    engine.v,
    engine.Table,
    engine.Schema,
    engine.Crons,
    engine.App,
    engine.Mount,
    engine.Auth,
    engine.Meta,
    engine.Scheduler,
    engine.DatabaseReader,
    engine.DatabaseWriter,
    engine.Vars,
    engine.TableQuery,
    engine.Query,
    engine.OrderedQuery,
    engine.Range,
    engine.Search,
    engine.Filter,
    engine.QueryCtx,
    engine.MutationCtx,
    engine.ActionCtx,
    engine.TriggerCtx,
    builtins,
    engine.v.any(),
    engine.v.object({}),
    engine.v.array(engine.v.any()),
    engine.v.union(),
    engine.v.literal(1),
    engine.v.id("messages"),
    components.aggregate.DirectAggregate,
    components.aggregate.TableAggregate,
    components.workpool,
    components.workpool.Workpool,
    components.migrations,
    components.migrations.Migrations,
    components.rate_limiter,
    components.rate_limiter.RateLimiter,
)


def promised() -> list[tuple[str, str]]:
    """Convex's spelling and each of ours, from the tables of the section on names."""
    section = README.read_text().split("## Convex's names and ours")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [(row[0], name) for row in rows for name in CELL.findall(row[-1]) if is_name(name)]


def is_name(text: str) -> bool:
    """A name or a method, not an example of how to write something."""
    return bool(re.fullmatch(r"(?:v|db|db\.vars|ctx|ctx\.\w+)?\.?[a-z_][a-z0-9_]*(?:\(\))?", text))


@pytest.mark.parametrize(("theirs", "ours"), promised())
def test_every_name_of_the_table_is_there(theirs: str, ours: str) -> None:
    last = ours.removesuffix("()").split(".")[-1]

    assert any(has(place, last) for place in PLACES), f"{theirs}: nothing has {ours}"


def has(place: Any, name: str) -> bool:
    return hasattr(place, name) or name in PARAMETERS


def parameters() -> set[str]:
    """The names of everything that the public classes and functions take."""
    found: set[str] = set()
    for place in PLACES[1:]:
        methods = [getattr(place, name) for name in dir(place) if not name.startswith("__")]
        for method in [*methods, engine.define_schema]:
            if callable(method):
                with suppress(ValueError):
                    found |= set(signature(method).parameters)
    return found


PARAMETERS = parameters()


def test_the_table_was_read() -> None:
    assert len(promised()) > 60
