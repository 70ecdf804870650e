"""`headrace shell`: Python with the database at hand, each input one transaction."""

from __future__ import annotations

import argparse
import ast
import codeop
import sys
from typing import Any, Final
from uuid import uuid4

from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import note
from engine.cli.project import new_verb

BANNER: Final = """\
db, api, internal and run are there, and `await` at top level; each input is one transaction.
  await db.query("messages").take(3)
  await run(api.messages.send, {"body": "hello"})
exit, or Ctrl-D, to leave."""
LEAVING: Final = frozenset({"exit", "exit()", "quit", "quit()"})


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "shell",
        "evaluate Python with the database at hand",
        "headrace shell",
        """headrace shell -c 'await db.query("messages").take(3)'""",
        description=(
            "Evaluate Python in the server: `db`, `api`, `internal` and `run` are there, `await` "
            "is allowed at top level, and the calls of one input are one transaction. A server "
            "that was started with `serve` evaluates nothing unless it was given --allow-shell."
        ),
    )
    parser.add_argument("-c", dest="command", metavar="CODE", help="evaluate this, and leave")
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    session = uuid4().hex
    with connected(options, needs_app=True) as client:
        if options.command is not None:
            return _evaluate(client, session, options.command)
        if not sys.stdin.isatty():
            return _evaluate(client, session, sys.stdin.read())
        return converse(client, session)


def converse(client: AdminClient, session: str) -> Exit:
    """Read inputs and show what comes of them, until there are no more."""
    try:
        import readline  # noqa: F401 - so that `input` has a history
    except ImportError:
        note("this Python has no readline: no history here")
    note(BANNER)
    complete = codeop.CommandCompiler()
    complete.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    gathered = ""
    while True:
        try:
            gathered += input("... " if gathered else ">>> ")
        except EOFError:
            note("")
            return Exit.DONE
        except KeyboardInterrupt:
            gathered = ""
            note("")
            continue
        if gathered.strip() in LEAVING:
            return Exit.DONE
        if _is_complete(complete, gathered):
            if gathered.strip():
                _evaluate(client, session, gathered)
            gathered = ""
        else:
            gathered += "\n"


def _is_complete(complete: codeop.CommandCompiler, source: str) -> bool:
    """Whether there is nothing more to wait for: it can be run, or never could be."""
    try:
        return complete(source, "<shell>", "single") is not None
    except (SyntaxError, ValueError, OverflowError):
        return True


def _evaluate(client: AdminClient, session: str, source: str) -> Exit:
    answer = client.post("shell", {"session": session, "source": source})
    for line in answer["logLines"]:
        note(line)
    if answer["error"] is not None:
        note(answer["error"])
        return Exit.FAILED
    if answer["shown"] is not None:
        print(answer["shown"])
    return Exit.DONE
