"""`headrace push`: deploy the application as its files are now."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any, Final

from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import Told, note, progress_of_steps
from engine.cli.project import new_verb
from engine.errors import RequestRefused, Unreachable

ASK_EVERY_S: Final = 0.2


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "push",
        "deploy the application as its files are now",
        "headrace push",
        "headrace push --url https://example.com --admin-key 'headrace|...'",
        description=(
            "Let a running server read the files of its application again and deploy them, while "
            "the version before serves; or deploy to a directory that nobody has open. A push "
            "that is refused changes nothing."
        ),
    )
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with (
        connected(options, needs_app=True, deploys=False) as client,
        progress_of_steps() as told,
        _watched(client, told),
    ):
        answer = client.post("push", {})
    for warning in answer["warnings"]:
        note(f"warning: {warning}")
    for change in answer["changes"]:
        print(change)
    note("pushed")
    return Exit.DONE


@contextmanager
def _watched(client: AdminClient, told: Told) -> Iterator[None]:
    """Ask the server now and then how far it is, for as long as the block takes."""
    is_over = Event()

    def watch() -> None:
        while not is_over.wait(ASK_EVERY_S):
            with suppress(Unreachable, RequestRefused):
                now = client.get("push")
                if now.get("done"):
                    told(now["doing"], now["done"], now["total"])

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
