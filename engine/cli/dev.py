"""
`headrace dev`: serve the application of this folder, and push it whenever a file is saved.

    push      at the start and after every change; what cannot be loaded or pushed is shown with
              its line, and the version before serves on
    types     written after each push, as `headrace codegen` does
    calls     a line each, their log lines, and errors with the application's frames

Data is kept in .headrace/ beside pyproject.toml.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from engine.cli import codegen
from engine.cli.calls import lines_of
from engine.cli.deadline import STUCK_S, end_in
from engine.cli.failures import Exit, only, told
from engine.cli.front_ends import front_ends
from engine.cli.links import kept_in
from engine.cli.output import progress_of_steps
from engine.cli.project import Project, add_app, find_project, new_verb, port_number
from engine.cli.watch import changed, look
from engine.errors import EngineError, UsageError

if TYPE_CHECKING:
    from engine.serving import Served

PORT: Final = 3210
ENV_FILE: Final = ".env.local"


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "dev",
        "serve this application, and push it whenever a file is saved",
        "headrace dev",
        "headrace dev chat.py",
        "headrace dev --port 3211 --data ../chat-data",
        description=(
            "Serve this application to clients on this machine and push it whenever a file is "
            "saved. Clients stay connected and get the results of the new code. What cannot be "
            "loaded is shown, and the version before serves on."
        ),
    )
    add_app(parser)
    parser.add_argument("--port", type=port_number, default=PORT, help=f"{PORT}; 0 is any free one")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1")
    parser.add_argument("--data", metavar="DIR", help="by default the project's .headrace")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    project = find_project(options.app)
    app = Path(project.required_app())
    if not app.exists():
        raise UsageError(f"{app}: there is no such folder or file")
    data = Path(options.data) if options.data else project.data
    bind = f"{options.host}:{options.port}"
    trio.run(
        partial(_dev, project, app.resolve(), data, bind),
        restrict_keyboard_interrupt_to_checkpoints=True,
    )
    return Exit.DONE


async def _dev(project: Project, app: Path, data: Path, bind: str) -> None:
    from engine.serving import serving

    async with (
        serving(data, app=app, bind=bind, dev=True, deferred=True, limits=project.limits) as served,
        trio.open_nursery() as nursery,
    ):
        say(f"Serving {app.name} at {served.url}, data in {data}")
        if served.is_new_key:
            say(f"Admin key: {served.admin_key}")
        for line in write_urls(project.root, served.url):
            say(line)
        pusher = _Pusher(served, project)
        served.deployer.push_when_asked = pusher.push
        nursery.start_soon(_show_calls, served)
        nursery.start_soon(pusher.push_on_change, app)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
        end_in(served.engine.node.limits.drain_s + STUCK_S)
        say("Stopping")
        nursery.cancel_scope.cancel()


class _Pusher:
    """Pushes, and says what came of it, whoever asked for it."""

    def __init__(self, served: Served, project: Project) -> None:
        self._served = served
        self._project = project
        self._known: set[str] = set()
        """The functions that there are."""

    async def push_on_change(self, app: Path) -> None:
        while True:
            seen = await trio.to_thread.run_sync(look, app)
            with suppress(EngineError, OSError):  # it has been told
                await self.push()
            await changed(app, seen)

    async def push(self) -> list[str]:
        began = time.monotonic()
        try:
            with progress_of_steps() as told_how_far:
                changes = await self._served.push(told_how_far)
        except (EngineError, OSError) as error:
            for line in told(only(error)):
                say(line)
            before = "The version before serves on" if self._known else "Nothing is served yet"
            say(f"Not pushed. {before}; save a file to try again.")
            raise
        for line in self._news(changes):
            say(line)
        count = "1 function" if len(self._known) == 1 else f"{len(self._known)} functions"
        say(f"Pushed in {(time.monotonic() - began) * 1000:.0f} ms: {count}")
        await self._write_types()
        return changes

    async def _write_types(self) -> None:
        """Where that cannot be, the push is no worse for it."""
        try:
            lines = await trio.to_thread.run_sync(
                codegen.write, self._project, self._served.deployer.application
            )
        except (EngineError, OSError) as error:
            lines = told(error)
        for line in lines:
            say(line)

    def _news(self, changes: list[str]) -> Iterator[str]:
        from engine.serving.administration import described_functions

        application = self._served.deployer.application
        yield from (f"warning: {warning}" for warning in application.warnings)
        yield from (f"  {change}" for change in changes)
        functions = {_described(each) for each in described_functions(application)}
        yield from _differences(self._known, functions)
        self._known = functions


def _described(function: dict[str, Any]) -> str:
    place = f"{function['component']}/" if function["component"] else ""
    visibility = "" if function["public"] else "internal "
    return f"{place}{function['path']} ({visibility}{function['kind']})"


def _differences(before: set[str], after: set[str]) -> Iterator[str]:
    for gone in sorted(before - after):
        yield f"  - {gone}"
    for new in sorted(after - before):
        yield f"  + {new}"


async def _show_calls(served: Served) -> None:
    executions = served.engine.executions
    async for _, execution in executions.follow():
        for line in lines_of(execution):
            say(line)


# Front ends.


def write_urls(root: Path, url: str) -> Iterator[str]:
    """
    Tell front ends where the server is, by a line in .env.local beside each package.json.

    Yields a line for each file that was changed, or cannot be.
    """
    for each in front_ends(root):
        variable = "NEXT_PUBLIC_CONVEX_URL" if "next" in each.needs else "VITE_CONVEX_URL"
        file = each.folder / ENV_FILE
        try:
            if _set_variable(kept_in(root, file), variable, url):
                yield f"Wrote {variable} to {file}"
        except (UsageError, OSError) as error:
            yield from told(error)


def _set_variable(file: Path, name: str, value: str) -> bool:
    """Whether the file had to be changed for the variable to have this value."""
    line = f"{name}={value}"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    kept = [each for each in lines if each.partition("=")[0].strip() != name]
    if line in lines and len(kept) == len(lines) - 1:
        return False
    file.write_text("\n".join([*kept, line]) + "\n", "utf-8")
    return True


def say(line: str) -> None:
    """A line for the developer; whatever an application says, the terminal obeys nothing."""
    text = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in line)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
