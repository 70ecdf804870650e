"""`headrace init`: a new project, with an example that works."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from engine.cli import codegen
from engine.cli.failures import Exit
from engine.cli.output import note
from engine.cli.project import new_verb, project_at
from engine.cli.template import FILES
from engine.errors import EngineError, UsageError

LOADED_AS: Final = "_new_project"
"""What the application is imported as once: its own name may be taken where `init` runs."""


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "init",
        "make a new project",
        "headrace init chat && cd chat && headrace dev",
        description="Make a folder with an application that works, its tests, and settings.",
    )
    parser.add_argument("name", metavar="NAME", help="of the folder, which must not have files yet")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    root = Path(options.name)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} is there already, and not empty; choose another name")
    for name, text in FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("{{name}}", _distribution(root.resolve().name)), "utf-8")
    write_types(root)
    print(f"Made {root}. Next:\n\n    cd {root}\n    headrace dev\n")
    print("""and in another terminal, in the same folder:

    headrace run messages:send '{"author": "ada", "body": "hello"}'
    headrace run messages:list""")
    return Exit.DONE


def write_types(root: Path) -> None:
    """
    The types of a new project, so that it can be checked before it first runs.

    Where its application cannot be loaded, as when an extra is missing, `dev` writes them later.
    """
    from engine.functions.loader import load, withdraw

    project = project_at(root)
    assert project is not None, "a template says where its application is"
    try:
        application = load(project.required_app(), name=LOADED_AS)
        codegen.write(project, application)
    except EngineError as error:
        note(f"Types are not written yet: {error}")
    else:
        withdraw(application)


def _distribution(name: str) -> str:
    """`name` as the name of a Python distribution may be."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in name).strip("-")
    return kept.lower() or "app"
