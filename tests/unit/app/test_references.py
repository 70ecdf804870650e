"""A function can be given in several ways, and all of them come down to two paths."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from engine.app.component import App, Component
from engine.app.decorators import query
from engine.app.references import (
    Reference,
    api,
    canonical_path,
    get_function_name,
    internal,
    make_function_reference,
    reference_of,
)
from engine.errors import UsageError

limits = App().use(Component("rate_limiter"), name="limits")


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (api.messages.list, ("", "messages:list")),
        (internal.dir.module.fn, ("", "dir/module:fn")),
        (api.messages["class"], ("", "messages:class")),
        (api.messages, ("", "messages:default")),
        (limits.check, ("limits", "functions:check")),
        (limits.jobs.run, ("limits", "jobs:run")),
        (limits["path"], ("limits", "functions:path")),
        ("messages:list", ("", "messages:list")),
        ("messages.js:list", ("", "messages:list")),
        ("messages", ("", "messages:default")),
    ],
    ids=str,
)
def test_a_reference_is_a_component_and_a_path(given: Any, place: tuple[str, str]) -> None:
    assert place == reference_of(given)


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        ("messages:list", "messages:list"),
        ("messages.js:list", "messages:list"),
        ("dir/messages.js:default", "dir/messages:default"),
        ("dir/messages", "dir/messages:default"),
        ("messages.js", "messages:default"),
        ("a:b:c", "a:b:c"),
    ],
)
def test_every_spelling_of_a_path_is_the_same_path(spelling: str, path: str) -> None:
    assert path == canonical_path(spelling)
    assert path == canonical_path(path)


def test_a_registered_function_stands_for_its_path() -> None:
    @query
    async def f(ctx: Any) -> None: ...

    with pytest.raises(UsageError, match="is not part of the running application"):
        reference_of(f)
    f.bind("dir/m", "f", "limits")

    assert reference_of(f) == ("limits", "dir/m:f")


@pytest.mark.parametrize("nothing", [None, 5, print, api])
def test_what_names_no_function_is_refused(nothing: Any) -> None:
    with pytest.raises(UsageError, match="names no function"):
        reference_of(nothing)


def test_a_reference_can_be_made_of_a_string_and_back() -> None:
    assert make_function_reference("dir/m.js:f") == api.dir.m.f
    assert make_function_reference("m") == api.m.default
    assert get_function_name(api.dir.m.f) == "dir/m:f"


def test_a_reference_follows_its_mount_to_where_that_is_loaded() -> None:
    batches = Component("pool").use(Component("batch_worker"), name="batches")
    early = batches.run

    batches.path = "pool/batches"

    assert reference_of(early) == ("pool/batches", "functions:run")


def test_references_are_values() -> None:
    assert api.a.b == internal.a.b
    assert api.a.b != api.a.c
    assert {api.a.b, api.a.b} == {api.a.b}
    assert copy.deepcopy(api.a.b) == api.a.b
    assert repr(limits.check) == "<reference to 'check' in 'limits'>"
    assert isinstance(api.a, Reference)
