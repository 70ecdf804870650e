"""`headrace function-spec`: the functions, with their arguments and results, for other programs."""

from __future__ import annotations

import argparse
from typing import Any

from engine.app.registered import RegisteredFunction
from engine.cli.failures import Exit
from engine.cli.output import json_text
from engine.cli.project import add_app, find_project, new_verb


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "function-spec",
        "print the functions with their arguments and results as JSON",
        "headrace function-spec",
        "headrace function-spec chat.py > functions.json",
        description=(
            "Print each function of the application, from its files as they are now, with the "
            "validators of its arguments and its result as clients know them. No server is needed."
        ),
    )
    add_app(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from engine.functions.loader import load

    application = load(find_project(options.app).required_app())
    described = [_described(path, one) for path, one in sorted(application.functions.items())]
    print(json_text({"functions": described}, indent=2))
    return Exit.DONE


def _described(path: str, function: RegisteredFunction) -> dict[str, Any]:
    """As Convex's command of this name does, whose identifiers have the name of a file."""
    module, _, name = path.rpartition(":")
    return {
        "identifier": f"{module}.js:{name}",
        "functionType": function.kind.value.capitalize(),
        "visibility": {"kind": function.visibility.value},
        "args": function.signature.args_json(),
        "returns": function.signature.returns_json(),
    }
