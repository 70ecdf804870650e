"""`headrace data`: the tables, or the documents of one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import json_text, print_table
from engine.cli.project import new_verb

CELL_LENGTH_MAX: Final = 60


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "data",
        "list tables, or the documents of one",
        "headrace data",
        "headrace data messages --limit 20 --order desc",
        "headrace data messages --json > messages.jsonl",
    )
    parser.add_argument("table", nargs="?", metavar="TABLE")
    parser.add_argument("--limit", type=int, default=100, help="documents at most; 100")
    parser.add_argument("--order", choices=("asc", "desc"), default="asc", help="by creation")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--component", default="", metavar="PATH", help="whose table it is")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = _documents(client, options) if options.table else client.get("tables")
    if options.json:
        for one in found:
            print(json_text(one))
    elif options.table:
        _print_documents(found)
    else:
        _print_tables(found)
    return Exit.DONE


def _documents(client: AdminClient, options: argparse.Namespace) -> list[dict[str, Any]]:
    answer = client.get(
        "documents",
        table=options.table,
        component=options.component,
        limit=max(0, options.limit),
        order=options.order,
    )
    documents: list[dict[str, Any]] = answer["documents"]
    return documents


def _print_tables(tables: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            f"{each['component']}/{each['name']}" if each["component"] else each["name"],
            str(each["documents"]),
            ", ".join(each["indexes"]),
        )
        for each in tables
    ]
    print_table(("table", "documents", "indexes"), rows)


def _print_documents(documents: Sequence[Mapping[str, Any]]) -> None:
    system = ["_id", "_creationTime"]
    own = dict.fromkeys(name for each in documents for name in each if name not in system)
    names = ["_id", *own, "_creationTime"]
    print_table(names, [[_cell(each, name) for name in names] for each in documents])


def _cell(document: Mapping[str, Any], name: str) -> str:
    if name not in document:
        return ""
    value = document[name]
    text = value if isinstance(value, str) else json_text(value)
    text = text.replace("\t", " ").replace("\n", " ")
    return text if len(text) <= CELL_LENGTH_MAX else text[: CELL_LENGTH_MAX - 1] + "…"
