"""
`headrace component`: what is installed and mounted; begin one; delete the data of one.

The template of a new one is a folder of `templates/`, as those of `init`.
"""

from __future__ import annotations

import argparse
import keyword
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from engine.app.component import Component
from engine.app.validators import check_identifier
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.init import files_of
from engine.cli.output import json_text, note, print_table
from engine.cli.project import find_project, new_verb
from engine.errors import DeclarationError, UsageError

GROUP: Final = "headrace.components"
TEMPLATE: Final = "component"
NAME: Final = "component_name"
"""In the texts and paths of the template: the name of the package. Two others follow from it."""
CLIENT: Final = "ComponentName"
DISTRIBUTION: Final = "component-name"


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "component",
        "list components, begin one, or delete the data of one",
        "headrace component list",
        "headrace component new mailer",
        "headrace component delete mails",
        description=(
            "List the components that are installed and those that are mounted, make the folder of "
            "a new one, or delete what is kept of one that is mounted no longer."
        ),
    )
    parts = parser.add_subparsers(metavar="list|new|delete", required=True)
    listed = parts.add_parser("list", help="those that are installed, and where they are mounted")
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(listed, with_app=True)
    listed.set_defaults(run=run_list)
    new = parts.add_parser("new", help="a folder with a package that works, and its tests")
    new.add_argument("name", metavar="NAME", help="of the package, as Python imports it")
    new.set_defaults(run=run_new)
    delete = parts.add_parser(
        "delete", help="tables, jobs and crons of one that is not mounted, and of those within it"
    )
    delete.add_argument("path", metavar="PATH", help="under which it was mounted")
    add_connection(delete)
    delete.set_defaults(run=run_delete)


def run_list(options: argparse.Namespace) -> int:
    installed = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    declared = {} if options.url else _declared(options.app)
    try:
        with connected(options) as client:
            there = client.get("components")
    except UsageError as error:
        note(f"Nothing is mounted yet: {error}")
        there = []
    there = _with_declared(there, declared)
    if options.json:
        for one in (*map(_as_json, installed), *there):
            print(json_text(one))
        return Exit.DONE
    rows = [(each.name, each.value, _distribution_of(each)) for each in installed]
    print_table(("installed", "package", "of"), rows)
    if there:
        print()
        headers = ("mounted as", "component", "tables", "documents")
        print_table(headers, [tuple(_cells(one)) for one in there])
    return Exit.DONE


def _declared(app: str | None) -> dict[str, str]:
    """The components that the project's application mounts, by path, if it has one that loads."""
    project = find_project(app)
    if project.app is None:
        return {}
    from engine.functions.loader import load

    try:
        mounts = load(project.app).mounts
    except DeclarationError as error:
        note(f"What the application mounts is not known: {error}")
        return {}
    return {path: part.app.name for path, part in mounts.items() if isinstance(part.app, Component)}


def _with_declared(
    there: Sequence[Mapping[str, Any]], declared: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Those that are there and those that the application mounts, which may not be pushed yet."""
    known = {one["path"]: {**one} for one in there}
    for path, name in declared.items():
        new = {"path": path, "mounted": False, "tables": 0, "documents": 0}
        one = known.setdefault(path, new)
        one["component"] = name
        one["mounted"] = one["mounted"] or None
    return [known[path] for path in sorted(known)]


def run_new(options: argparse.Namespace) -> int:
    name = _package_name(options.name)
    root = Path(name)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} is there already, and not empty; choose another name")
    for path, text in files_of(TEMPLATE):
        file = root / str(path).replace(NAME, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_named(text, name), "utf-8")
    print(f"Made {root}. Next:\n\n    cd {root}\n    pip install -e . pytest\n    pytest")
    return Exit.DONE


def run_delete(options: argparse.Namespace) -> int:
    with connected(options) as client:
        answer = client.post("delete-component", {"component": options.path})
    note(f"deleted {options.path} and its documents ({answer['documents']})")
    return Exit.DONE


def _package_name(name: str) -> str:
    """
    Raises:
        UsageError: no component is called so, or something can be imported by that name already.
    """
    try:
        check_identifier(name, "a component")
    except DeclarationError as error:
        raise UsageError(str(error)) from None
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or find_spec(name) is not None:
        raise UsageError(f"{name!r} means something to Python already; choose another name")
    return name


def _named(text: str, name: str) -> str:
    """A text of the template with the component's names."""
    client = "".join(word.capitalize() for word in name.split("_"))
    found = text.replace(NAME, name).replace(CLIENT, client)
    return found.replace(DISTRIBUTION, name.replace("_", "-").strip("-").lower())


def _as_json(entry: EntryPoint) -> dict[str, Any]:
    return {"installed": entry.name, "package": entry.value, "of": _distribution_of(entry)}


def _distribution_of(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


def _cells(one: Mapping[str, Any]) -> Iterator[str]:
    state = {True: "", False: " (not mounted)", None: " (not pushed yet)"}[one["mounted"]]
    yield f"{one['path']}{state}"
    yield one["component"] or ""
    yield str(one["tables"])
    yield str(one["documents"])
