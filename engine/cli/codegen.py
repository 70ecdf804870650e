"""
`headrace codegen`: write what the application is to type checkers; no server is needed.

    [tool.headrace.codegen]              in pyproject.toml, where it is not to be the default:
    javascript = "web/convex/_generated" the folder for a front end, or a list of such; by default
                                         convex/_generated beside each package.json, here or a
                                         folder below, that needs `convex`, but for
                                         folders that are projects of their own
    python = false                       nothing for the application itself; by default _generated
                                         in its folder, if it is one

`dev` writes the same whenever it pushes, and `init` at first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.cli.failures import Exit
from engine.cli.front_ends import front_ends
from engine.cli.links import kept_in
from engine.cli.project import Project, add_app, find_project, new_verb
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.app.registry import Application
    from engine.codegen.files import Changes, Folder

CLIENT: Final = "convex"
"""The package that a front end needs to be one of ours."""
GENERATED: Final = Path("convex", "_generated")


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "codegen",
        "write the types of the application, for front ends and for itself",
        "headrace codegen",
        "headrace codegen --check",
        description=(
            "Write the types of functions and tables to convex/_generated of each front end and to "
            "_generated of the application, from its files as they are now. No server is needed. "
            "Files that are right already are left alone."
        ),
    )
    add_app(parser)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if anything would change"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from engine.functions.loader import load

    project = find_project(options.app)
    found = _changes(project, load(project.required_app()))
    if options.check:
        for line in _described(found, "would write", "would remove"):
            print(line)
        return Exit.FAILED if any(each.any for each in found) else Exit.DONE
    for line in _made(found):
        print(line)
    return Exit.DONE


def write(project: Project, application: Application) -> list[str]:
    """
    Write the types of `application` where they are others; a line for each file.

    Raises:
        UsageError: a file of somebody else's is where one is to be written, two folders are
            one, or a link leads out of the project; nothing is written.
        OSError: it cannot be written.
    """
    return _made(_changes(project, application))


def _changes(project: Project, application: Application) -> list[Changes]:
    return [folder.changes() for folder in _folders(project, application)]


def _made(found: Sequence[Changes]) -> list[str]:
    for each in found:
        each.make()
    return list(_described(found, "Wrote", "Removed"))


def _described(found: Sequence[Changes], written: str, removed: str) -> Iterator[str]:
    for each in found:
        yield from (f"{written} {_shown(file)}" for file in each.written)
        yield from (f"{removed} {_shown(file)}" for file in each.removed)


def _shown(file: Path) -> Path:
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def _folders(project: Project, application: Application) -> Iterator[Folder]:
    from engine.codegen import python, typescript
    from engine.codegen.files import Folder

    texts = typescript.files_of(application)
    own = _own_place(project, application)
    for path in _places(project):
        if own is not None and path.resolve() == own.resolve():
            raise UsageError(
                f"{path} is to have the types both of a front end and of the application, each "
                "of which would remove the other's; in pyproject.toml, under "
                "[tool.headrace.codegen], name another folder with javascript = ... or write "
                "python = false"
            )
        yield Folder(path=kept_in(project.root, path), texts=texts)
    if own is not None:
        yield Folder(path=own, texts=python.files_of(application))


def _own_place(project: Project, application: Application) -> Path | None:
    """The folder for the application itself, if it has types of its own."""
    from engine.codegen.files import PYTHON_FOLDER

    root = application.root
    if not project.python or root is None or not root.is_dir():
        return None
    return kept_in(root, root / PYTHON_FOLDER)


def _places(project: Project) -> Iterator[Path]:
    """The folders for front ends."""
    if project.javascript is not None:
        yield from (project.root / path for path in project.javascript)
        return
    for each in front_ends(project.root):
        if CLIENT in each.needs:
            yield each.folder / GENERATED
