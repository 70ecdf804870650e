"""`headrace migrations`: how they stand, and starting, watching and stopping them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from engine import FunctionFailed, UsageError
from engine.commands import (
    AdminClient,
    Exit,
    json_text,
    note,
    number_from,
    print_table,
    progress,
    run_part,
    value_of,
    verb_parser,
    when,
)

MARK: Final = "functions:advance"
"""A function by which migrations are known among components."""
LOOK_S: Final = 0.2
"""Between looks at one that goes on."""
STARTING_S: Final = 5.0
"""For which a series may have none in progress, between one and the next."""


def main(arguments: list[str]) -> int:
    parser = verb_parser(
        "headrace migrations",
        "List migrations, run one, stop one, or show how one stands.",
        "headrace migrations run users:set_theme --dry-run",
        "headrace migrations run users:set_theme users:drop_old_flag",
        "headrace migrations list",
        "headrace migrations status users:set_theme --watch",
        "headrace migrations cancel users:set_theme",
    )
    parts = parser.add_subparsers(metavar="list|run|cancel|status", required=True)
    listed = parts.add_parser("list", help="a line for each that was started")
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    listed.set_defaults(run=_list)
    run = parts.add_parser("run", help="start one, or go on with it, and wait for its end")
    run.add_argument("names", nargs="+", metavar="MODULE:FUNCTION", help="one after another")
    run.add_argument(
        "--batch-size", type=number_from(1), metavar="N", help="documents of a transaction"
    )
    run.add_argument("--dry-run", action="store_true", help="show what a batch would change")
    run.add_argument("--reset", action="store_true", help="begin at the beginning")
    run.add_argument("--skip-errors", action="store_true", help="leave out documents that fail")
    run.add_argument(
        "--detach", action="store_true", help="do not wait; where a server runs, it goes on there"
    )
    run.set_defaults(run=_run)
    cancel = parts.add_parser("cancel", help="stop after the batch that is under way")
    which = cancel.add_mutually_exclusive_group(required=True)
    which.add_argument("names", nargs="*", default=[], metavar="MODULE:FUNCTION")
    which.add_argument("--all", action="store_true", help="that are in progress")
    cancel.set_defaults(run=_cancel)
    status = parts.add_parser("status", help="everything about one")
    status.add_argument("name", metavar="MODULE:FUNCTION")
    status.add_argument("--watch", action="store_true", help="until its end, with what follows it")
    status.set_defaults(run=_show)
    return run_part(parser, parts, arguments, MARK)


def _list(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    found = value_of(client, "functions:get_status", {}, component=mount)
    if options.json:
        for status in found:
            print(json_text(status))
    else:
        headers = ("name", "state", "documents", "started", "ended", "error")
        print_table(headers, [_cells(status) for status in found])
    return Exit.DONE


def _run(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    _refuse_what_is_not_there(client, options.names)
    first, *others = options.names
    asked: dict[str, Any] = {
        "component": mount,
        "reset": options.reset,
        "skipErrors": options.skip_errors,
    }
    if options.batch_size is not None:
        asked["batchSize"] = options.batch_size
    if options.dry_run:
        found = _called(client, first, {**asked, "dryRun": True})
        for change in found["changes"]:
            print(json_text(change))
        return Exit.DONE
    status = _called(client, first, {**asked, "next": others})
    return Exit.DONE if options.detach else _watch(client, mount, [status["name"], *options.names])


def _cancel(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    if options.all:
        stopped = value_of(client, "functions:cancel_all", {}, component=mount)
    else:
        for name in options.names:
            if "latestStart" not in _status(client, mount, name):
                raise UsageError(
                    f"{name} was never started in {mount}; headrace migrations list shows those "
                    "that were"
                )
        stopped = [
            value_of(client, "functions:cancel", {"name": name}, component=mount)
            for name in options.names
        ]
    for status in stopped:
        note(_line(status))
    return Exit.DONE


def _show(client: AdminClient, mount: str, options: argparse.Namespace) -> int:
    status = _status(client, mount, options.name)
    if options.watch:
        return _watch(client, mount, [options.name, *status["next"]])
    print(json_text(status, indent=2))
    return Exit.FAILED if status["state"] == "failed" else Exit.DONE


def _called(client: AdminClient, name: str, asked: dict[str, Any]) -> Any:
    """
    Raises:
        UsageError: it takes something else than migrations and their runners do.
        FunctionFailed: it did.
    """
    try:
        return value_of(client, name, asked)
    except FunctionFailed as error:
        if "ArgumentValidationError" not in str(error):
            raise
        raise UsageError(
            f"{name} is no migration: run what `migrations.define` or `runner` has made"
        ) from None


def _refuse_what_is_not_there(client: AdminClient, names: list[str]) -> None:
    """
    Raises:
        UsageError: a name is none of a function that could be a migration.
    """
    known = [each["path"] for each in client.get("functions") if not each["component"]]
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "it is named as MODULE:FUNCTION"
            raise UsageError(f"the application has no function {name}; {hint}")


def _watch(client: AdminClient, mount: str, names: list[str]) -> int:
    """One after another until its end, with how far it has come; whether all succeeded."""
    for name in dict.fromkeys(names):
        status = _watch_one(client, mount, name)
        note(_line(status))
        for failure in status["failures"]:
            note(f"  skipped {failure['document']}: {failure['error']}")
        if status["state"] != "success":
            return Exit.FAILED
    return Exit.DONE


def _watch_one(client: AdminClient, mount: str, name: str) -> Mapping[str, Any]:
    began = time.monotonic()
    with progress(name) as advance:
        while True:
            status = _status(client, mount, name)
            advance(int(status["processed"]), _total(status))
            is_starting = status["state"] == "unknown" and time.monotonic() - began < STARTING_S
            if status["state"] != "inProgress" and not is_starting:
                return status
            time.sleep(LOOK_S)


def _total(status: Mapping[str, Any]) -> int | None:
    """As many as there were when it began, or those that it has visited, if that is more."""
    return max(int(status["total"]), int(status["processed"])) if "total" in status else None


def _status(client: AdminClient, mount: str, name: str) -> Mapping[str, Any]:
    found = value_of(client, "functions:get_status", {"names": [name]}, component=mount)
    status: Mapping[str, Any] = found[0]
    return status


def _line(status: Mapping[str, Any]) -> str:
    skipped = f", {status['skipped']:g} of them skipped" if status["skipped"] else ""
    error = f": {status['error']}" if "error" in status else ""
    return f"{status['name']}: {status['state']}, {_documents(status)} documents{skipped}{error}"


def _documents(status: Mapping[str, Any]) -> str:
    total = _total(status)
    return f"{status['processed']:g}" + ("" if total is None else f" of {total}")


def _cells(status: Mapping[str, Any]) -> tuple[str, ...]:
    times = [when(status[key]) if key in status else "" for key in ("latestStart", "latestEnd")]
    error = str(status.get("error", "")).partition("\n")[0]
    return status["name"], status["state"], _documents(status), *times, error
