"""`headrace workpool`: how pools are doing, and what operators may do about it."""

from __future__ import annotations

import argparse
from typing import Any, Final

from components.workpool.rules import check_parallelism
from engine import UsageError
from engine.commands import (
    AdminClient,
    Exit,
    add_count,
    json_text,
    note,
    number_from,
    print_table,
    run_part,
    value_of,
    verb_parser,
    when,
)

LIMIT: Final = 20
MARK: Final = "functions:retry_failure"
"""A function by which a pool is known among components."""
PAGE_SIZE: Final = 64


def main(arguments: list[str]) -> int:
    parser = verb_parser(
        "headrace workpool",
        "Look at a pool, change or pause it, cancel works, or do failed ones again.",
        "headrace workpool report",
        "headrace workpool failures",
        "headrace workpool retry kc2b...",
        "headrace workpool configure --max-parallelism 0",
        "headrace workpool cancel --all",
    )
    parts = parser.add_subparsers(metavar="report|failures|retry|cancel|configure", required=True)
    report = parts.add_parser("report", help="what runs, what waits, and what became of the rest")
    report.add_argument("--json", action="store_true", help="a JSON object")
    report.set_defaults(run=_report)
    failures = parts.add_parser("failures", help="works that have failed for good, newest first")
    add_count(failures, LIMIT)
    failures.add_argument("--json", action="store_true", help="a JSON object a line")
    failures.set_defaults(run=_failures)
    retry = parts.add_parser("retry", help="enqueue failed works again")
    retry.add_argument("ids", metavar="ID", nargs="+")
    retry.set_defaults(run=_retry)
    cancel = parts.add_parser("cancel", help="do not begin works; what runs goes on")
    which = cancel.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", nargs="*", default=[])
    which.add_argument("--all", action="store_true", help="all that there are now")
    cancel.set_defaults(run=_cancel)
    configure = parts.add_parser("configure", help="change it while it runs")
    configure.add_argument(
        "--max-parallelism",
        type=number_from(0),
        metavar="COUNT",
        required=True,
        help="0 is a pause",
    )
    configure.set_defaults(run=_configure)
    return run_part(parser, parts, arguments, MARK)


def _report(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    found: dict[str, Any] = value_of(client, "functions:report", {}, component=mount)
    if options.json:
        print(json_text(found))
    elif not found:
        note(f"nothing was enqueued in {mount} yet")
    else:
        print_table(("what", "how many"), [(name, f"{n:g}") for name, n in found.items()])
    return Exit.DONE


def _failures(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    asked = {"limit": options.count}
    found = value_of(client, "functions:failures", asked, component=mount)
    if options.json:
        for failure in found:
            print(json_text(failure))
        return Exit.DONE
    headers = ("id", "name", "attempts", "at", "error")
    print_table(headers, [_cells(failure) for failure in found])
    return Exit.DONE


def _cells(failure: dict[str, Any]) -> tuple[str, ...]:
    error = str(failure["error"]).partition("\n")[0]
    attempts, at = f"{failure['attempts']:g}", when(failure["at"])
    return failure["workId"], failure["name"], attempts, at, error


def _retry(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    code = Exit.DONE
    for work_id in options.ids:
        again = value_of(client, MARK, {"work_id": work_id}, component=mount)
        if again:
            note(f"{work_id} is {again} now")
        else:
            note(f"{work_id} is not among the failures of {mount}: headrace workpool failures")
            code = Exit.FAILED
    return code


def _cancel(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    if options.all:
        value_of(client, "functions:cancel_all", {"page_size": PAGE_SIZE}, component=mount)
        note("all works that there were are canceled, a page at a time")
        return Exit.DONE
    asked = {"work_ids": options.ids}
    states = value_of(client, "functions:statuses", asked, component=mount)
    code = Exit.DONE
    for work_id, found in zip(options.ids, states, strict=True):
        if found["state"] == "finished":
            note(f"{work_id} had ended before, or is no work of {mount}")
            code = Exit.FAILED
            continue
        value_of(client, "functions:cancel", {"work_id": work_id}, component=mount)
        note(f"canceled {work_id}, which was {found['state']}")
    return code


def _configure(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    try:
        check_parallelism(options.max_parallelism)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not value_of(client, "functions:report", {}, component=mount):
        raise UsageError(f"nothing was enqueued in {mount} yet; its code says how it begins")
    changes = {"max_parallelism": options.max_parallelism}
    value_of(client, "functions:reconfigure", {"changes": changes}, component=mount)
    note(f"{options.max_parallelism} at a time, until the code says another number")
    return Exit.DONE
