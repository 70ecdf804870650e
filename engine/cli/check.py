"""`headrace check`: load the application and say what is wrong with it; nothing is served."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.failures import Exit, told
from engine.cli.output import note, print_table
from engine.cli.project import add_app, find_project, new_verb
from engine.errors import DeclarationError


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "check",
        "load the application and say what is wrong with it",
        "headrace check",
        "headrace check chat.py",
        description=(
            "Load the application, read every handler's types, the schema, the crons and the "
            "components, and look for handlers that change globals. Exits with 1 if it cannot "
            "be loaded; warnings alone are no failure unless --strict."
        ),
    )
    add_app(parser)
    parser.add_argument("--strict", action="store_true", help="exit with 1 also after warnings")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from engine.functions.loader import load
    from engine.serving.administration import described_functions

    try:
        application = load(find_project(options.app).required_app())
    except DeclarationError as error:
        for line in told(error):
            note(line)
        return Exit.FAILED
    for warning in application.warnings:
        note(f"warning: {warning}")
    functions = described_functions(application)
    rows = [
        (
            f"{each['component']}/{each['path']}" if each["component"] else each["path"],
            each["kind"] if each["public"] else f"internal {each['kind']}",
            each["where"],
        )
        for each in functions
    ]
    print_table(("function", "kind", "declared"), rows)
    return Exit.FAILED if options.strict and application.warnings else Exit.DONE
