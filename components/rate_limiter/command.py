"""`headrace rate-limits`: what is left of limits, and giving it back."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from engine.commands import (
    AdminClient,
    Exit,
    add_count,
    json_text,
    note,
    print_table,
    run_part,
    value_of,
    verb_parser,
    when,
)

LIMIT: Final = 20
MARK: Final = "functions:limit"
"""A function by which a rate limiter is known among components."""


def main(arguments: list[str]) -> int:
    parser = verb_parser(
        "headrace rate-limits",
        "List what is left of rate limits, or reset some.",
        "headrace rate-limits list",
        "headrace rate-limits list send",
        "headrace rate-limits reset send --key ada",
        "headrace rate-limits reset send --all-keys",
    )
    parts = parser.add_subparsers(metavar="list|reset", required=True)
    listed = parts.add_parser("list", help="a line for each key and shard of which some was taken")
    listed.add_argument("name", nargs="?", metavar="NAME", help="of a limit; all by default")
    add_count(listed, LIMIT)
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    listed.set_defaults(run=_list)
    reset = parts.add_parser("reset", help="as if nobody had taken anything")
    reset.add_argument("name", metavar="NAME", help="of a limit")
    whose = reset.add_mutually_exclusive_group()
    whose.add_argument("--key", metavar="KEY", help="whose; by default what has no key")
    whose.add_argument("--all-keys", action="store_true", help="everybody's, a few at a time")
    reset.set_defaults(run=_reset)
    return run_part(parser, parts, arguments, MARK)


def _list(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    found = list(islice(_rows(client, mount, options.name), options.count + 1))
    if options.json:
        for row in found[: options.count]:
            print(json_text(row))
    else:
        headers = ("name", "key", "shard", "tokens", "at", "full by")
        print_table(headers, [_cells(row) for row in found[: options.count]])
    if len(found) > options.count:
        note(f"there are more than these {options.count}; -n shows more of them")
    return Exit.DONE


def _rows(client: AdminClient, mount: str, name: str | None) -> Iterator[Mapping[str, Any]]:
    cursor: str | None = None
    while True:
        asked = {"name": name, "paginationOpts": {"numItems": 100, "cursor": cursor}}
        page = value_of(client, "functions:stored", asked, component=mount)
        yield from page["page"]
        if page["isDone"]:
            return
        cursor = page["continueCursor"]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    shard, tokens = f"{row['shard']:g}", f"{row['value']:g}"
    return row["name"], row.get("key", ""), shard, tokens, when(row["ts"]), when(row["full_by"])


def _reset(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    if next(_rows(client, mount, options.name), None) is None:
        note(f"{options.name}: nothing was taken of a limit of this name")
        return Exit.DONE
    function = "clear_all" if options.all_keys else "reset"
    asked = {"name": options.name, **({"key": options.key} if options.key is not None else {})}
    value_of(client, f"functions:{function}", asked, component=mount)
    whose = "all keys" if options.all_keys else f"the key {options.key!r}" if options.key else "it"
    note(f"{options.name}: {whose} {'are' if options.all_keys else 'is'} as new")
    return Exit.DONE
