"""`headrace log`: the commits, as they are in the log."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import json_text
from engine.cli.project import new_verb, number_from
from engine.model.text import brief
from engine.model.values import INT64_MAX

WAIT_S: Final = 20


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "log",
        "list the last commits, or show one",
        "headrace log tail",
        "headrace log tail -n 100 --follow",
        "headrace log show 1795636664772681982",
        description=(
            "List the last commits, or show one whole: who wrote it, with which arguments, and "
            "each row before and after. `headrace replay` runs one again."
        ),
    )
    parts = parser.add_subparsers(metavar="tail|show", required=True)
    tail = parts.add_parser("tail", help="a line for each of the last commits")
    tail.add_argument(
        "-n", type=number_from(0), default=20, metavar="COUNT", dest="count", help="20"
    )
    tail.add_argument("--follow", "-f", action="store_true", help="go on as more are made")
    tail.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(tail)
    tail.set_defaults(run=run_tail)
    show = parts.add_parser("show", help="everything that one of them holds, as JSON")
    show.add_argument("ts", type=commit_ts, metavar="TS")
    add_connection(show)
    show.set_defaults(run=run_show)


def commit_ts(text: str) -> int:
    """A `ts` on the command line, for `argparse`."""
    if not text.isdecimal() or int(text) > INT64_MAX:
        raise argparse.ArgumentTypeError(
            f"{brief(text)!r} is no ts of a commit; `headrace log tail` lists the last"
        )
    return int(text)


def run_tail(options: argparse.Namespace) -> int:
    with connected(options) as client:
        # One at least, to know after which the others come.
        found = client.get("log", last=max(1, options.count))["records"]
        after = int(found[-1]["ts"]) if found else 0
        _print(found if options.count > 0 else [], after, options)
        while options.follow:
            answer = client.get("log", after=after, wait=WAIT_S)
            after = _print(answer["records"], after, options)
    return Exit.DONE


def run_show(options: argparse.Namespace) -> int:
    with connected(options) as client:
        print(json_text(client.get("record", ts=options.ts), indent=2))
    return Exit.DONE


def _print(records: Iterable[Mapping[str, Any]], after: int, options: argparse.Namespace) -> int:
    """Print them; return the ts of the last."""
    for record in records:
        print(json_text(record) if options.json else line_of(record), flush=True)
        after = int(record["ts"])
    return after


def line_of(record: Mapping[str, Any]) -> str:
    """When, which commit, by whom, and what it wrote."""
    at = datetime.fromtimestamp(int(record["ts"]) / 1e9).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    wrote = ", ".join(
        what if count == 1 else f"{what} x{count:g}" for what, count in record["writes"].items()
    )
    kind = "" if record["kind"] == "writes" else f" ({record['kind']})"
    place = f"{record['component']}/" if record["component"] else ""
    return f"{at}  {record['ts']}  {place}{record['path']}{kind}  {wrote or 'nothing'}"
