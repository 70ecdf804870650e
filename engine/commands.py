"""
What verbs are made of that a component, or whoever else, adds to the command line.

    [project.entry-points."headrace.commands"]
    limits = "my_limits.command:main"           # headrace limits ...

`main` is given the arguments after the verb, and returns an exit code or `None`.  What it raises
is told as the errors of other verbs are.

    with connected(options, needs_app=True) as client:
        mount = mount_of(client, "functions:limit", options.component)
        envelope = client.call("functions:limit", {...}, component=mount)
"""

from __future__ import annotations

from typing import Any

from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.jobs import when
from engine.cli.output import json_text, note, print_table, progress
from engine.cli.project import examples
from engine.errors import FunctionFailed, UsageError

__all__ = [
    "AdminClient",
    "Exit",
    "add_connection",
    "connected",
    "examples",
    "json_text",
    "mount_of",
    "note",
    "print_table",
    "progress",
    "value_of",
    "when",
]


def mount_of(client: AdminClient, function: str, named: str | None = None) -> str:
    """
    Where a component is mounted.

    Args:
        function: the path of one that it has and others have not, "functions:limit".
        named: what the user has said; needed where it is mounted several times.

    Raises:
        UsageError: it is not mounted, not there, or mounted several times.
    """
    found = [each["component"] for each in client.get("functions") if each["path"] == function]
    mounts = sorted(place for place in found if place and named in (None, place))
    if len(mounts) == 1:
        return str(mounts[0])
    which = f"mounted as {named!r}" if named else "mounted here"
    if not mounts:
        raise UsageError(f"no component that has {function} is {which}")
    raise UsageError(f"there are several: say --component {' or --component '.join(mounts)}")


def value_of(client: AdminClient, path: str, args: dict[str, Any], *, component: str = "") -> Any:
    """
    What a function returns, called as the administrator; its log lines are told on stderr.

    Raises:
        FunctionFailed: it did.
    """
    envelope = client.call(path, args, component=component)
    for line in envelope.get("logLines", ()):
        note(line)
    if envelope["status"] != "success":
        raise FunctionFailed(envelope["errorMessage"])
    return envelope["value"]
