"""`headrace aggregate`: what is counted, whether the trees are whole, and what is queued."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from engine.commands import (
    AdminClient,
    Exit,
    add_count,
    json_text,
    note,
    print_table,
    progress,
    run_part,
    value_of,
    verb_parser,
    when,
)

MARK: Final = "functions:index_of"
"""A function by which an aggregate is known among components."""
PAGE_SIZE: Final = 100
LIMIT: Final = 20
LETTERS: Final = 1_000
"""As many as are kept."""


def main(arguments: list[str]) -> int:
    parser = verb_parser(
        "headrace aggregate",
        "List the namespaces of an aggregate, look at all of its trees, or see to its queue.",
        "headrace aggregate list",
        "headrace aggregate verify",
        "headrace aggregate queue",
        "headrace aggregate dead-letters",
        "headrace aggregate retry kc2b...",
    )
    metavar = "list|verify|queue|dead-letters|retry|discard|drain"
    parts = parser.add_subparsers(metavar=metavar, required=True)
    listed = parts.add_parser("list", help="namespaces, with how many items and their sum")
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    listed.set_defaults(run=_list)
    verify = parts.add_parser("verify", help="whether all trees are as they have to be")
    verify.set_defaults(run=_verify)
    queue = parts.add_parser("queue", help="what is queued, and what became of the rest")
    queue.add_argument("--json", action="store_true", help="a JSON object")
    queue.set_defaults(run=_queue)
    letters = parts.add_parser("dead-letters", help="what could not be applied, newest first")
    add_count(letters, LIMIT)
    letters.add_argument("--json", action="store_true", help="a JSON object a line")
    letters.set_defaults(run=_dead_letters)
    retry = parts.add_parser("retry", help="queue dead letters again, behind what is queued")
    retry.set_defaults(run=_see_to, function="queue:retry", done="is queued again")
    discard = parts.add_parser("discard", help="forget dead letters")
    discard.set_defaults(run=_see_to, function="queue:discard", done="is forgotten")
    for part in (retry, discard):
        which = part.add_mutually_exclusive_group(required=True)
        which.add_argument("ids", metavar="ID", nargs="*", default=[])
        which.add_argument("--all", action="store_true", help="all that there are now")
    drain = parts.add_parser("drain", help="apply what is queued now")
    drain.set_defaults(run=_drain)
    return run_part(parser, parts, arguments, MARK)


def _list(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    rows = []
    for names in _namespaces(client, mount):
        counts, sums = (
            value_of(
                client,
                "functions:totals",
                {"queries": names, "what": what, "stale": True},
                component=mount,
            )
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
    """All of it at one timestamp, as trees may change meanwhile."""
    trees, items, ts = 0, 0, client.newest_ts()
    with progress("items") as advance:
        for names in _namespaces(client, mount, ts):
            for name in names:
                for seen in _verified(client, mount, name, ts):
                    items += seen
                    advance(items)
                trees += 1
    note(f"{trees} trees with {items:,} items are as they have to be")
    return Exit.DONE


def _verified(client: AdminClient, mount: str, name: dict[str, Any], ts: int) -> Iterator[int]:
    """Look at all nodes of a tree; how many items were in some of them, again and again."""
    asked: dict[str, Any] = {"which": name}
    seen = 0
    while True:
        walk = value_of(client, "functions:verify", asked, component=mount, at=ts)
        yield int(walk["count"]) - seen
        if not walk["left"]:
            return
        seen, asked = int(walk["count"]), {"which": name, "walk": walk}


def _queue(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    found: dict[str, Any] = value_of(client, "queue:pending", {}, component=mount)
    if options.json:
        print(json_text(found))
        return Exit.DONE
    oldest = found.pop("oldestAt")
    rows = [(name, f"{n:g}") for name, n in found.items()]
    rows.append(("oldestAt", "" if oldest is None else when(oldest)))
    print_table(("what", "how many"), rows)
    return Exit.DONE


def _dead_letters(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    found = _letters(client, mount, options.count)
    if options.json:
        for letter in found:
            print(json_text(letter))
        return Exit.DONE
    rows = [
        (one["id"], json_text(one["operation"]), when(one["queuedAt"]), one["error"])
        for one in found
    ]
    print_table(("id", "operation", "queued", "error"), rows)
    return Exit.DONE


def _see_to(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    """Oldest first, so that what is queued again is in the order in which it was."""
    ids = options.ids
    if options.all:
        ids = [one["id"] for one in reversed(_letters(client, mount, LETTERS))]
    if not ids:
        note(f"{mount} has no dead letters")
    code = Exit.DONE
    for letter_id in ids:
        if value_of(client, options.function, {"letter_id": letter_id}, component=mount):
            note(f"{letter_id} {options.done}")
        else:
            note(f"{letter_id} is not among the dead letters of {mount}")
            code = Exit.FAILED
    return code


def _drain(client: AdminClient, mount: str, _: argparse.Namespace) -> int:
    drained = 0
    while taken := value_of(client, "queue:drain", {}, component=mount):
        drained += int(taken)
    note(f"{drained:,} operations were taken from the queue")
    return Exit.DONE


def _letters(client: AdminClient, mount: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = value_of(
        client, "queue:letters", {"limit": limit}, component=mount
    )
    return found


def _namespaces(
    client: AdminClient, mount: str, ts: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    cursor: str | None = None
    while cursor != "":
        asked = {"page_size": PAGE_SIZE, **({} if cursor is None else {"cursor": cursor})}
        found = value_of(client, "functions:namespaces", asked, component=mount, at=ts)
        yield found["page"]
        cursor = found["cursor"]


def _shown(name: dict[str, Any]) -> str:
    return json_text(name["namespace"]) if "namespace" in name else "(none)"
