"""`headrace aggregate`: what is counted, and whether the trees are whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from engine.commands import (
    AdminClient,
    Exit,
    json_text,
    note,
    print_table,
    run_part,
    value_of,
    verb_parser,
)

MARK: Final = "functions:index_of"
"""A function by which an aggregate is known among components."""
PAGE_SIZE: Final = 100


def main(arguments: list[str]) -> int:
    parser = verb_parser(
        "headrace aggregate",
        "List the namespaces of an aggregate, or look at every node of its trees.",
        "headrace aggregate list",
        "headrace aggregate verify",
    )
    parts = parser.add_subparsers(metavar="list|verify", required=True)
    listed = parts.add_parser("list", help="namespaces, with how many items and their sum")
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    listed.set_defaults(run=_list)
    verify = parts.add_parser("verify", help="whether all trees are as they have to be")
    verify.set_defaults(run=_verify)
    return run_part(parser, parts, arguments, MARK)


def _list(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    rows = []
    for names in _namespaces(client, mount):
        counts, sums = (
            value_of(client, "functions:totals", {"queries": names, "what": what}, component=mount)
            for what in ("count", "sum")
        )
        for name, count, total in zip(names, counts, sums, strict=True):
            if options.json:
                print(json_text({**name, "count": count, "sum": total}))
            rows.append((_shown(name), f"{count:g}", f"{total:g}"))
    if not options.json:
        print_table(("namespace", "count", "sum"), rows)
    return Exit.DONE


def _verify(client: AdminClient, mount: str, _: argparse.Namespace) -> int:
    trees, items = 0, 0
    for names in _namespaces(client, mount):
        for name in names:
            found = value_of(client, "functions:verify", {"which": name}, component=mount)
            trees, items = trees + 1, items + int(found["count"])
    note(f"{trees} trees with {items:,} items are as they have to be")
    return Exit.DONE


def _namespaces(client: AdminClient, mount: str) -> Iterator[list[dict[str, Any]]]:
    cursor: str | None = None
    while cursor != "":
        asked = {"page_size": PAGE_SIZE, **({} if cursor is None else {"cursor": cursor})}
        found = value_of(client, "functions:namespaces", asked, component=mount)
        yield found["page"]
        cursor = found["cursor"]


def _shown(name: dict[str, Any]) -> str:
    return json_text(name["namespace"]) if "namespace" in name else "(none)"
