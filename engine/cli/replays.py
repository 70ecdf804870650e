"""`headrace replay`: run the mutation of a commit again, and compare with what it wrote then."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.log import commit_ts, line_of
from engine.cli.output import json_text, note
from engine.cli.project import new_verb
from engine.errors import UsageError


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "replay",
        "run the mutation of a commit again, and compare",
        "headrace replay 1795636664772681982",
        "headrace replay 1795636664772681982 --debug",
        description=(
            "Run the mutation of a commit again, with the arguments, the dice and the clock of "
            "then, as whoever called it, on the state that it found, and compare with what it "
            "wrote. Nothing is written. A directory that nobody serves is opened with the code of "
            "the application as it is now, which is not pushed: its tables and indexes have to be "
            "those of the last push. What is due there waits. It says whether the code is another "
            "one by the application's own files: not of modules beside them or libraries."
        ),
    )
    parser.add_argument("ts", type=commit_ts, metavar="TS", help="as `headrace log tail` lists it")
    parser.add_argument(
        "--debug", action="store_true", help="stop at its first line, where no server runs"
    )
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options, needs_app=True, looks=True) as client:
        if options.debug and not client.is_own:
            raise UsageError(
                f"the server at {client.url} has another terminal; stop it to debug here, or name "
                "a copy of its directory with --data"
            )
        found = client.post("replay", {"ts": str(options.ts), "debug": options.debug})
    print(line_of(found))
    for line in found["logLines"]:
        note(line)
    if found["code"] != found["codeNow"]:
        print(f"the code is another one: {found['codeNow']} now, {found['code']} then")
    if found["error"]:
        print(f"it fails now: {found['error']}")
    for difference in found["differences"]:
        _print_difference(difference)
    if found["error"] or found["differences"]:
        return Exit.FAILED
    rows = "1 row" if found["compared"] == 1 else f"{found['compared']:g} rows"
    print(f"the same {rows} as then, bit for bit")
    return Exit.DONE


def _print_difference(difference: Mapping[str, Any]) -> None:
    print(f"{difference['table']} {difference['id']}")
    for when, wrote in (("then", difference["wroteThen"]), ("now", difference["writesNow"])):
        image = difference[when]
        shown = "not written" if not wrote else "deleted" if image is None else json_text(image)
        print(f"  {when}: {shown}")
