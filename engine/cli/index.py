"""`headrace index`: the text and vector indexes that are kept in memory and in files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import json_text, note, print_table
from engine.cli.project import new_verb


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "index",
        "list text and vector indexes, show or rebuild one",
        "headrace index list",
        "headrace index show notes.by_text",
        "headrace index rebuild notes.by_text",
        description=(
            "List the text and vector indexes of a server, show one, or build one anew from its "
            "documents. Indexes of other kinds are in the store; `headrace data` lists them."
        ),
    )
    parts = parser.add_subparsers(metavar="list|show|rebuild", required=True)
    listed = parts.add_parser("list", help="a line for each")
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(listed)
    listed.set_defaults(run=run_list)
    show = parts.add_parser("show", help="everything about one, as JSON")
    show.add_argument("index", metavar="TABLE.INDEX", help="of a component: PATH/TABLE.INDEX")
    add_connection(show)
    show.set_defaults(run=run_show)
    rebuild = parts.add_parser("rebuild", help="build it anew, while it answers")
    rebuild.add_argument("index", metavar="TABLE.INDEX")
    add_connection(rebuild)
    rebuild.set_defaults(run=run_rebuild)


def run_list(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = client.get("indexes")
    if options.json:
        for one in found:
            print(json_text(one))
    else:
        columns = ("index", "kind", "state", "documents", "parts", "memory", "to fold")
        print_table(columns, [_row(one) for one in found])
    return Exit.DONE


def run_show(options: argparse.Namespace) -> int:
    with connected(options) as client:
        print(json_text(client.get("index", index=options.index), indent=2))
    return Exit.DONE


def run_rebuild(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = client.post("rebuild", {"name": options.index})
    note(f"rebuilt {options.index}: {found['documents']:,} documents")
    return Exit.DONE


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    state = one["state"] if one["answers"] else f"{one['state']}, does not answer yet"
    return (
        one["name"],
        one["kind"],
        state,
        f"{one['documents']:,}",
        str(one["parts"]),
        f"{one['bytes'] / 1e6:,.1f} MB",
        f"{one['unfoldedBytes'] / 1e6:,.1f} MB",
    )
