"""
Where a project's application and data are.

    [tool.headrace]                in pyproject.toml, found here or in a folder above
    app = "backend"                a folder or a .py file, from there

    [tool.headrace.limits]         where they are not to be the defaults of model/limits.py
    documents_read_max = 64000

    [tool.headrace.codegen]        where types are not to be written to the default places
    javascript = "web/convex/_generated"

A file that is named, as in `headrace dev chat.py`, needs none of that: its folder is the project.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypedDict

from engine.errors import UsageError
from engine.model.limits import Limits, limits_of

DATA_FOLDER: Final = ".headrace"
DATA_VARIABLE: Final = "HEADRACE_DATA"
PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """`app` is `None` where there is none; `root` is the folder that paths are relative to."""

    root: Path
    app: str | None
    limits: Limits = field(default_factory=Limits)
    javascript: tuple[str, ...] | None = None
    """Folders for the types of front ends, if it was said which."""
    python: bool = True
    """Whether types are written for the application itself."""

    @property
    def data(self) -> Path:
        """Where `dev` keeps data, unless told otherwise."""
        return Path(os.environ.get(DATA_VARIABLE) or self.root / DATA_FOLDER)

    def required_app(self) -> str:
        """
        Raises:
            UsageError: there is no application here.
        """
        if self.app is None:
            raise UsageError(
                "there is no application here: name one, as in `headrace dev chat.py`, make one "
                "with `headrace init NAME`, or write [tool.headrace] app = ... in pyproject.toml"
            )
        return self.app


def find_project(app: str | None = None) -> Project:
    """
    The project that the working directory is in.

    Args:
        app: what was named on the command line, which wins.

    Raises:
        UsageError: pyproject.toml cannot be read, or has limits that cannot be.
    """
    here = Path.cwd()
    found = _configured(here)
    if app is not None:
        return replace(found, app=app) if found else Project(root=here, app=app)
    return found or Project(root=here, app=None)


def _configured(here: Path) -> Project | None:
    for folder in (here, *here.parents):
        if (found := project_at(folder)) is not None:
            return found
    return None


def project_at(folder: Path) -> Project | None:
    """
    The project whose pyproject.toml is in `folder`, if one is there that says so.

    Raises:
        UsageError: it cannot be read, or has what cannot be.
    """
    file = folder / "pyproject.toml"
    settings = _settings(file) if file.is_file() else None
    if settings is None:
        return None
    app = settings.get("app")
    if not isinstance(app, str):
        raise UsageError(f"{file}: [tool.headrace] needs app, a folder or a .py file")
    return Project(
        root=folder,
        app=str(folder / app),
        limits=_limits(file, settings),
        **_codegen(file, settings),
    )


def is_project(folder: Path) -> bool:
    """Whether a project's pyproject.toml is in `folder`; one that cannot be read may be one's."""
    file = folder / "pyproject.toml"
    try:
        return file.is_file() and _settings(file) is not None
    except UsageError:
        return True


def _limits(file: Path, settings: Mapping[str, Any]) -> Limits:
    given = settings.get("limits", {})
    if not isinstance(given, dict):
        raise UsageError(f"{file}: [tool.headrace.limits] is a table of names and numbers")
    try:
        return limits_of(given)
    except UsageError as error:
        raise UsageError(f"{file}: [tool.headrace.limits]: {error}") from None


class _Codegen(TypedDict, total=False):
    """Of a `Project`."""

    javascript: tuple[str, ...]
    python: bool


def _codegen(file: Path, settings: Mapping[str, Any]) -> _Codegen:
    given = settings.get("codegen", {})
    where = f"{file}: [tool.headrace.codegen]"
    if not (isinstance(given, dict) and given.keys() <= _Codegen.__annotations__.keys()):
        raise UsageError(f"{where} has javascript and python, and nothing else")
    found = _Codegen()
    match given.get("javascript", None):
        case None:
            pass
        case str(path):
            found["javascript"] = (path,)
        case [*paths] if all(isinstance(path, str) for path in paths):
            found["javascript"] = tuple(paths)
        case _:
            raise UsageError(f"{where}: javascript is a folder, or a list of them")
    if not isinstance(given.get("python", True), bool):
        raise UsageError(f"{where}: python is true or false")
    return {**found, "python": given.get("python", True)}


def _settings(file: Path) -> dict[str, Any] | None:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    settings: dict[str, Any] | None = content.get("tool", {}).get("headrace")
    return settings


def add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "app",
        nargs="?",
        metavar="APP",
        help="a folder, a .py file or a dotted name; by default pyproject.toml's [tool.headrace]",
    )


def port_number(text: str) -> int:
    """The type of `--port`."""
    number = int(text)
    if not 0 <= number <= PORT_MAX:
        raise argparse.ArgumentTypeError(f"a port is 0 to {PORT_MAX}, not {number}")
    return number


def add_count(parser: argparse.ArgumentParser, default: int) -> None:
    """Give a list its `-n`: how many lines at most, one at least."""
    parser.add_argument(
        "-n",
        type=number_from(1),
        default=default,
        metavar="COUNT",
        dest="count",
        help=f"at most so many; {default} unless said",
    )


def number_from(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number, `least` or above."""

    def number(text: str) -> int:
        found = int(text)
        if found < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least} on, not {found}")
        return found

    return number


def examples(*lines: str) -> str:
    """The end of a verb's --help."""
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def new_verb(
    verbs: Any, name: str, summary: str, *usage: str, description: str = ""
) -> argparse.ArgumentParser:
    """A verb's parser, whose help ends with examples."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=description or summary[:1].upper() + summary[1:] + ".",
        epilog=examples(*usage),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser
