"""An application that imports its generated types: it loads whatever has been written, or not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from engine.app.registry import Application
from engine.cli.watch import look
from engine.codegen import python
from engine.errors import ArgumentValidationError, DeclarationError
from engine.functions.loader import load, withdraw
from engine.host import Engine
from engine.model.values import Int64

SCHEMA = """
from typing import NotRequired
from headrace import Document, Int64, Schema, Table


class Message(Document):
    author: str
    body: str
    views: Int64
    edited: NotRequired[float]


schema = Schema(messages=Table(Message).index("by_author", ["author"]))
"""
MESSAGES = """
from headrace import Id, Int64, MutationCtx, QueryCtx, internal_mutation, mutation, query

from ._generated.api import api, internal
from ._generated.data_model import MessageIndex, NewMessage, PatchMessage, TableName
from .schema import Message


@query(name="list")
async def newest(ctx: QueryCtx, author: str, index: MessageIndex = "by_author") -> list[Message]:
    return await ctx.db.query(Message).with_index(index, author=author).collect()


@mutation
async def add(ctx: MutationCtx, new: NewMessage) -> list[str]:
    await ctx.db.insert(Message, new)
    copy = NewMessage(author="ada", body="a copy", views=Int64(1))
    await ctx.run_mutation(internal.messages.keep, {"new": copy})
    listed = await ctx.run_query(api.messages.list, {"author": "ada"})
    return [message["body"] for message in listed]


@mutation
async def change(ctx: MutationCtx, message: Id[Message], changes: PatchMessage | None) -> None:
    await ctx.db.patch(message, changes or {})


@internal_mutation
async def keep(ctx: MutationCtx, new: NewMessage) -> None:
    await ctx.db.insert("messages", new)


@query
async def counted(ctx: QueryCtx, tables: list[TableName]) -> list[int]:
    return [await ctx.db.count(table) for table in tables]
"""
MESSAGE = {"author": "ada", "body": "hello", "views": Int64(3)}

_numbers = count()

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a folder of modules, of another name each time."""

    def make(messages: str = MESSAGES, **others: str) -> Path:
        folder = tmp_path / f"generated{next(_numbers)}"
        files = {"__init__": "", "schema": SCHEMA, "messages": messages, **others}
        for name, text in files.items():
            file = folder / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))
        return folder

    return make


@pytest.fixture
def loaded() -> Iterator[Callable[[Path], Application]]:
    applications: list[Application] = []

    def make(folder: Path) -> Application:
        applications.append(load(folder))
        return applications[-1]

    yield make
    for application in applications:
        withdraw(application)


async def test_it_runs_before_anything_is_written(write: Write) -> None:
    async with Engine.open(":memory:", app=write()) as engine:
        said = await engine.mutation("messages:add", {"new": MESSAGE})
        (first, _) = await engine.query("messages:list", {"author": "ada"})
        changes = {"message": first["_id"], "changes": {"body": "changed"}}
        await engine.mutation("messages:change", changes)
        again = await engine.query("messages:list", {"author": "ada", "index": "by_author"})
        counted = await engine.query("messages:counted", {"tables": ["messages"]})

    assert ["hello", "a copy"] == said
    assert ["changed", "a copy"] == [message["body"] for message in again]
    assert [2] == counted


@pytest.mark.parametrize(
    ("path", "args"),
    [
        ("messages:add", {"new": {"author": "ada"}}),
        ("messages:add", {"new": {**MESSAGE, "_id": "x"}}),
        ("messages:counted", {"tables": ["mesages"]}),
        ("messages:list", {"author": "ada", "index": "by_body"}),
    ],
)
async def test_what_the_names_stand_for_is_checked(
    write: Write, path: str, args: dict[str, Any]
) -> None:
    async with Engine.open(":memory:", app=write()) as engine:
        with pytest.raises(ArgumentValidationError):
            await (engine.mutation if path.endswith("add") else engine.query)(path, args)


def test_what_is_written_there_is_not_read_and_changes_no_digest(
    write: Write, loaded: Callable[[Path], Application]
) -> None:
    folder = write()
    first = loaded(folder)
    seen = look(folder)
    (folder / "_generated").mkdir()
    for name in ("__init__", "api", "data_model", "more"):
        (folder / "_generated" / f"{name}.py").write_text("raise Exception('of another day')")

    again = loaded(folder)

    assert first.digest == again.digest
    assert seen == look(folder)
    assert sorted(first.functions) == sorted(again.functions)
    assert python.files_of(first) == python.files_of(again)


def test_a_name_that_no_table_has_is_refused_with_the_line_that_uses_it(
    write: Write, loaded: Callable[[Path], Application]
) -> None:
    folder = write(MESSAGES.replace("NewMessage", "NewMesage"))

    with pytest.raises(DeclarationError) as refused:
        loaded(folder)

    assert "messages.py:" in str(refused.value)
    assert "argument `new`: `NewMesage` of _generated.data_model" in str(refused.value)


def test_what_is_written_can_be_imported_without_the_loader(
    write: Write, loaded: Callable[[Path], Application]
) -> None:
    folder = write()
    written = folder / "_generated"
    written.mkdir()
    for name, text in python.files_of(loaded(folder)).items():
        (written / name).write_text(text)
    names = python.DataModel.of(loaded(folder)).validators
    code = (
        f"from {folder.name}._generated.data_model import {', '.join(names)}\n"
        f"from {folder.name}.messages import api, add\n"
        "from headrace import get_function_name\n"
        "from typing import get_args\n"
        "print(get_args(MessageIndex), NewMessage(author='ada'))\n"
        "print(get_function_name(api.messages.list))"
    )

    said = subprocess.run(
        [sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=True
    )

    indexes = ("by_id", "by_creation_time", "by_author")
    assert f"{indexes} {{'author': 'ada'}}\nmessages:list\n" == said.stdout
