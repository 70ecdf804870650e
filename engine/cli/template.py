"""The files of a new project, by their paths in it."""

from __future__ import annotations

from typing import Final

FILES: Final = {
    "pyproject.toml": """\
[project]
name = "{{name}}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["headrace"]

[dependency-groups]
dev = ["pytest"]

[tool.headrace]
app = "backend"

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
""",
    "backend/__init__.py": '''\
"""The application: every module here is one of functions, and schema.py says what is stored."""
''',
    "backend/schema.py": '''\
"""What is stored."""

from headrace import Document, Schema, Table


class Message(Document):
    author: str
    body: str


schema = Schema(messages=Table(Message).index("by_author", ["author"]))
''',
    "backend/messages.py": '''\
"""Messages: "messages:list" and "messages:send" to clients."""

from headrace import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Message


@query(name="list")
async def list_messages(ctx: QueryCtx) -> list[Message]:
    """The newest messages; clients that show them get every change."""
    return await ctx.db.query(Message).order("desc").take(50)


@mutation
async def send(ctx: MutationCtx, author: str, body: str) -> Id[Message]:
    """Add a message; all of it is written, or nothing."""
    print("a message from", author)
    return await ctx.db.insert(Message, {"author": author, "body": body})
''',
    "tests/test_messages.py": '''\
"""Each test is given `t`: this application on an engine of its own, with nothing in it yet."""

from headrace.testing import Harness

from backend.messages import list_messages, send


async def test_a_message_is_listed(t: Harness) -> None:
    await t.mutation(send, author="ada", body="hello")

    (message,) = await t.query(list_messages)
    assert message["body"] == "hello"
''',
    ".gitignore": """\
.headrace/
.venv/
__pycache__/
.env.local
node_modules/
""",
    ".vscode/settings.json": """\
{
  "python.testing.pytestEnabled": true,
  "python.testing.pytestArgs": ["tests"],
  "files.exclude": { "**/__pycache__": true, ".headrace": true }
}
""",
    ".vscode/extensions.json": """\
{ "recommendations": ["ms-python.python"] }
""",
}
