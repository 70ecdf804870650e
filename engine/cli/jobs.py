"""`headrace jobs`: the scheduled functions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import json_text, note, print_table
from engine.cli.project import add_count, new_verb

STATES: Final = ("pending", "inProgress", "success", "failed", "canceled")
LIMIT: Final = 20


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "jobs",
        "list scheduled functions, show or cancel one",
        "headrace jobs list",
        "headrace jobs list --state failed --function mail:send",
        "headrace jobs show kc2b...",
        "headrace jobs cancel kc2b...",
        description=(
            "List functions that are scheduled, run or have ended within the last week, show one "
            "whole, or cancel some. The ticks of crons are in `headrace crons`."
        ),
    )
    parts = parser.add_subparsers(metavar="list|show|cancel", required=True)
    listed = parts.add_parser("list", help="a line for each job of a state")
    listed.add_argument("--state", choices=STATES, default=STATES[0], help="pending")
    listed.add_argument("--function", metavar="PATH", default="", help="only those that run it")
    add_count(listed, LIMIT)
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(listed)
    listed.set_defaults(run=run_list)
    show = parts.add_parser("show", help="everything about one, as JSON")
    show.add_argument("id", metavar="ID")
    add_connection(show)
    show.set_defaults(run=run_show)
    cancel = parts.add_parser("cancel", help="do not run them; an action that runs goes on")
    cancel.add_argument("ids", metavar="ID", nargs="+")
    add_connection(cancel)
    cancel.set_defaults(run=run_cancel)


def run_list(options: argparse.Namespace) -> int:
    count = options.count
    asked = {"state": options.state, "function": options.function, "limit": count + 1}
    with connected(options) as client:
        answer = client.get("jobs", **asked)
    found = answer["jobs"]
    if options.json:
        for job in found[:count]:
            print(json_text(job))
    else:
        print_table(("id", "function", "due", "state"), [_row(job) for job in found[:count]])
    if len(found) > count:
        note(f"there are more than these {count}; -n shows more of them")
    elif not answer["isWhole"]:
        note(
            f"looked at {answer['lookedAt']:,.0f} that are {options.state} and not at all there "
            "are: there may be more of these"
        )
    return Exit.DONE


def run_show(options: argparse.Namespace) -> int:
    with connected(options) as client:
        print(json_text(client.get("job", id=options.id), indent=2))
    return Exit.DONE


def run_cancel(options: argparse.Namespace) -> int:
    with connected(options) as client:
        for job_id in options.ids:
            is_news = client.post("cancel", {"id": job_id})["canceled"]
            note(f"canceled {job_id}" if is_news else f"{job_id} had ended already")
    return Exit.DONE


def _row(job: Mapping[str, Any]) -> tuple[str, ...]:
    place = f"{job['component']}: " if job["component"] else ""
    due_ms = job.get("due", job["scheduledTime"])
    return job["_id"], f"{place}{job['name']}", when(due_ms), outcome(job["state"])


def when(unix_ms: float) -> str:
    """A time as the clock of this machine shows it."""
    return datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")


def outcome(state: Mapping[str, Any]) -> str:
    """A state in a line, with the first one of its error."""
    error = state.get("error", "").partition("\n")[0]
    return f"{state['kind']}: {error}" if error else str(state["kind"])
