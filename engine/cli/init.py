"""`headrace init`: a new project, with an example that works."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.cli.failures import Exit
from engine.cli.project import new_verb
from engine.cli.template import FILES
from engine.errors import UsageError


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
    print(f"Made {root}. Next:\n\n    cd {root}\n    headrace dev\n")
    print("""and in another terminal, in the same folder:

    headrace run messages:send '{"author": "ada", "body": "hello"}'
    headrace run messages:list""")
    return Exit.DONE


def _distribution(name: str) -> str:
    """`name` as the name of a Python distribution may be."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in name).strip("-")
    return kept.lower() or "app"
