"""`headrace data`: the tables, the documents of one, a schema that they have; or drop one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import json_text, note, print_table, progress
from engine.cli.project import new_verb, number_from
from engine.errors import UsageError

CELL_LENGTH_MAX: Final = 60
LIMIT: Final = 100
PAGE: Final = 1_000
"""Documents of one request."""


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "data",
        "list tables, or the documents of one",
        "headrace data",
        "headrace data messages --limit 20 --order desc",
        "headrace data messages --json > messages.jsonl",
        "headrace data --shape > shape.py",
        "headrace data old_messages --drop",
        "headrace data limits/rateLimits",
    )
    parser.add_argument("table", nargs="?", metavar="TABLE", help="one of a component as listed")
    parser.add_argument(
        "--limit", type=number_from(1), help="documents at most; 100, and with --json all"
    )
    parser.add_argument("--order", choices=("asc", "desc"), default="asc", help="by creation")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--component", default="", metavar="PATH", help="whose tables")
    parser.add_argument(
        "--shape",
        action="store_true",
        help="look at all documents, and print a schema of them; what the deployed one says that "
        "documents do not show, references and checks, is named and left out",
    )
    parser.add_argument(
        "--drop", action="store_true", help="remove the table, if the schema has it no more"
    )
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.drop and not options.table:
        raise UsageError("--drop needs the name of a table")
    if options.table and "/" in options.table:
        inside, _, options.table = options.table.rpartition("/")
        options.component = f"{options.component}/{inside}".strip("/")
    with connected(options, needs_app=options.drop) as client:
        if options.drop:
            _drop(client, options)
        elif options.shape:
            print(_schema(client, options), end="")
        elif options.table and options.json:
            for one in _documents(client, options, options.limit):
                print(json_text(one))
        elif options.table:
            _print_documents(_first_documents(client, options))
        elif options.json:
            for table in _tables(client, options):
                print(json_text(table))
        else:
            _print_tables(_tables(client, options))
    return Exit.DONE


def _tables(client: AdminClient, options: argparse.Namespace) -> list[Mapping[str, Any]]:
    """
    Raises:
        UsageError: those of a component are asked for, and it has none.
    """
    found = client.get("tables")
    if not options.component:
        return list(found)
    of_component = [each for each in found if each["component"] == options.component]
    if not of_component:
        others = ", ".join(sorted({each["component"] for each in found} - {""})) or "none"
        raise UsageError(
            f"there are no tables of a component {options.component!r}; of these there are some: "
            f"{others}"
        )
    return of_component


def _drop(client: AdminClient, options: argparse.Namespace) -> None:
    answer = client.post("drop", {"table": options.table, "component": options.component})
    note(f"dropped {options.table} and its documents ({answer['documents']})")


def _schema(client: AdminClient, options: argparse.Namespace) -> str:
    table = {"table": options.table} if options.table else {}
    schema = ""
    with progress("documents") as advance:
        for line in client.lines("shapes", component=options.component, **table):
            advance(line["done"], line["total"])
            schema = line["schema"]
    return schema


def _first_documents(client: AdminClient, options: argparse.Namespace) -> list[dict[str, Any]]:
    limit = LIMIT if options.limit is None else options.limit
    found = list(_documents(client, options, limit + 1))
    if len(found) > limit:
        note(f"there are more than these {limit} documents; --limit shows more of them")
    return found[:limit]


def _documents(
    client: AdminClient, options: argparse.Namespace, limit: int | None
) -> Iterator[dict[str, Any]]:
    """Documents of a table, all of them where there is no limit, read as they are asked for."""
    left = limit
    after: str | None = ""
    while after is not None:
        answer = client.get(
            "documents",
            table=options.table,
            component=options.component,
            limit=PAGE if left is None else max(0, min(left, PAGE)),
            order=options.order,
            after=after,
        )
        yield from answer["documents"]
        after = answer["next"]
        if left is not None:
            left -= len(answer["documents"])
            if left <= 0:
                return


def _print_tables(tables: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            _label(each),
            str(each["documents"]),
            ", ".join(each["indexes"]),
        )
        for each in tables
    ]
    print_table(("table", "documents", "indexes"), rows)


def _label(table: Mapping[str, Any]) -> str:
    name = f"{table['component']}/{table['name']}" if table["component"] else table["name"]
    return name if table["mounted"] else f"{name} (not mounted)"


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
