"""`headrace crons`: what runs again and again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.jobs import outcome, when
from engine.cli.output import json_text, note, print_table
from engine.cli.project import new_verb
from engine.errors import UsageError

NAMED_MAX: Final = 20
NAME: Final = "of the cron; one that begins with - comes last, behind --"


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "crons",
        "list crons, show the last runs of one, or remove one",
        "headrace crons list",
        "headrace crons logs nightly",
        "headrace crons remove 'remind ada'",
        description=(
            "List the crons that there are, with when they are due and how often they skipped a "
            "time, or the last runs of one, or remove one that a function has registered."
        ),
    )
    parts = parser.add_subparsers(metavar="list|logs|remove", required=True)
    listed = parts.add_parser("list", help="a line for each")
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(listed)
    listed.set_defaults(run=run_list)
    logs = parts.add_parser("logs", help="the last runs of one, newest last")
    logs.add_argument("name", metavar="NAME", help=NAME)
    logs.add_argument("--component", default="", metavar="PATH", help="whose cron it is")
    logs.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(logs)
    logs.set_defaults(run=run_logs)
    remove = parts.add_parser("remove", help="one that was registered with ctx.crons")
    remove.add_argument("name", metavar="NAME", help=NAME)
    remove.add_argument("--component", default="", metavar="PATH", help="whose cron it is")
    add_connection(remove)
    remove.set_defaults(run=run_remove)


def run_list(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = client.get("crons")
    if options.json:
        for cron in found:
            print(json_text(cron))
    else:
        headers = ("cron", "function", "schedule", "next", "skipped")
        print_table(headers, [_row(cron) for cron in found])
    return Exit.DONE


def run_logs(options: argparse.Namespace) -> int:
    with connected(options) as client:
        found = client.get("crons")
    wanted = (options.component, options.name)
    cron = next((one for one in found if (one["component"], one["cron"]) == wanted), None)
    if cron is None:
        raise UsageError(f"there is no cron {options.name!r}; {_there_are(found)}")
    runs = cron.get("runs", ())
    if options.json:
        for run in runs:
            print(json_text(run))
    else:
        headers = ("due", "began", "ended", "skipped then", "state")
        print_table(headers, [_run_row(run) for run in runs])
    return Exit.DONE


def run_remove(options: argparse.Namespace) -> int:
    with connected(options) as client:
        asked = {"cron": options.name, "component": options.component}
        is_news = client.post("forget", asked)["removed"]
    if not is_news:
        raise UsageError(f"there is no cron {options.name!r}; `headrace crons list` tells which")
    note(f"removed {options.name}")
    return Exit.DONE


def _row(cron: Mapping[str, Any]) -> tuple[str, ...]:
    due = when(cron["nextTime"]) if "nextTime" in cron else "never"
    return _name(cron), cron["name"], _schedule(cron["schedule"]), due, f"{cron['skipped']:g}"


def _there_are(crons: Sequence[Mapping[str, Any]]) -> str:
    if not crons:
        return "there are none"
    others = len(crons) - NAMED_MAX
    more = f" and {others} more" if others > 0 else ""
    return f"there are {', '.join(map(_name, crons[:NAMED_MAX]))}{more}"


def _name(cron: Mapping[str, Any]) -> str:
    return f"{cron['component']}/{cron['cron']}" if cron["component"] else str(cron["cron"])


def _schedule(schedule: Mapping[str, Any]) -> str:
    fields = (
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in schedule.items()
        if name != "type"
    )
    return " ".join((schedule["type"], *fields))


def _run_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    began = when(run["startedTime"]) if "startedTime" in run else ""
    due, ended = when(run["scheduledTime"]), when(run["completedTime"])
    return due, began, ended, f"{run['skipped']:g}", outcome(run["state"])
