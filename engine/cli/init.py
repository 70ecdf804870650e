"""
`headrace init`: a new project, with an example that works.

    --template python     functions, a schema and a test
    --template react      the same with a page in React, and signing in

A template is a folder of `templates/`, copied with the project's name for `{{name}}` in its files.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.cli import codegen
from engine.cli.failures import Exit
from engine.cli.output import note
from engine.cli.project import new_verb, project_at
from engine.errors import EngineError, UsageError

PLACE: Final = Path(__file__).parent / "templates"
NAME: Final = "{{name}}"
MADE_ELSEWHERE: Final = frozenset({"__pycache__", "node_modules"})
"""Folders that are of no template, also where somebody ran something inside one."""
LOADED_AS: Final = "_new_project"
"""What the application is imported as once: its own name may be taken where `init` runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """
    summary: what it makes, for --help.
    next_steps: what to type then, from inside the new folder.
    """

    summary: str
    next_steps: str


DEFAULT: Final = "python"
TEMPLATES: Final = {
    "python": Template(
        summary="functions, a schema and a test",
        next_steps="""\
    headrace dev

and in another terminal, in the same folder:

    headrace run messages:send '{"author": "ada", "body": "hello"}'
    headrace run messages:list""",
    ),
    "react": Template(
        summary="a chat in the browser, with React; needs Node 20.19 and headrace[auth]",
        next_steps="""\
    pip install 'headrace[auth]'
    headrace dev

and in another terminal, in the same folder:

    npm ci
    npm run dev""",
    ),
}


def add(verbs: Any) -> None:
    listed = "\n".join(f"  {name:8}{each.summary}" for name, each in TEMPLATES.items())
    parser = new_verb(
        verbs,
        "init",
        "make a new project",
        "headrace init chat && cd chat && headrace dev",
        "headrace init chat --template react",
        description=(
            "Make a folder with an application that works, its tests, and settings.\n\n"
            f"templates:\n{listed}"
        ),
    )
    parser.add_argument("name", metavar="NAME", help="of the folder, which must not have files yet")
    parser.add_argument(
        "--template", metavar="TEMPLATE", default=DEFAULT, help=f"{DEFAULT} unless said"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    template = TEMPLATES.get(options.template)
    if template is None:
        raise UsageError(
            f"there is no template {options.template!r}; there are {' and '.join(TEMPLATES)}"
        )
    root = Path(options.name)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} is there already, and not empty; choose another name")
    name = _distribution(root.resolve().name)
    for path, text in files_of(options.template):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(NAME, name), "utf-8")
    write_types(root)
    print(f"Made {root}. Next:\n\n    cd {shlex.quote(str(root))}\n{template.next_steps}")
    return Exit.DONE


def files_of(template: str) -> Iterator[tuple[Path, str]]:
    """The files of a template: their paths in a project, and their texts."""
    place = PLACE / template
    for file in sorted(place.rglob("*")):
        path = file.relative_to(place)
        if file.is_file() and not MADE_ELSEWHERE.intersection(path.parts):
            yield path, file.read_text("utf-8")


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
