"""
The source files of an application, read once: what is executed is what was read.

    backend/messages.py          module "messages"
    backend/dir/messages.py      module "dir/messages"
    backend/dir/__init__.py      module "dir"
    chat.py, given alone         module "chat"

Modules whose name begins with `_`, `.` or `test_`, and `conftest.py`, publish
nothing: they are executed only if another module imports them.  The folder
`_generated` beside them is not read at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from engine.codegen.files import PYTHON_FOLDER
from engine.errors import DeclarationError

NAME: Final = re.compile(r"[A-Za-z0-9_]+")
"""What clients can spell: the names of modules and functions."""
DIGEST_BYTES: Final = 16
_IGNORED: Final = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One module: `name` is what Python imports, `path` what the module is called in paths."""

    name: str
    path: str
    file: Path
    text: bytes
    is_package: bool
    is_published: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """
    The modules of one application or component.

    Args:
        name: what Python imports it as.
        root: its folder, or its only file.
        modules: by what Python imports them as.
        folders: packages, some without `__init__.py`, by the same names.
    """

    name: str
    root: Path
    modules: Mapping[str, Source]
    folders: Mapping[str, Path]

    def owns(self, name: str) -> bool:
        """Whether a module that Python imports as `name` would be one of these."""
        if not self.folders:
            return name == self.name
        return name == self.name or name.startswith(self.name + ".")

    def published(self) -> Iterator[Source]:
        """The modules that are executed and publish what they have."""
        return (self.modules[name] for name in sorted(self.modules) if self._publishes(name))

    def _publishes(self, name: str) -> bool:
        return self.modules[name].is_published

    @property
    def digest(self) -> str:
        """Of names and texts; what these modules import from elsewhere is not in it."""
        digest = blake2b(digest_size=DIGEST_BYTES)
        for name in sorted(self.modules):
            source = self.modules[name]
            if not _is_test(source.file.stem):
                digest.update(f"{source.path} {len(source.text)}\n".encode())
                digest.update(source.text)
        return digest.hexdigest()


def read_file(file: Path, name: str) -> Sources:
    """An application that is a single file."""
    check_name(file.stem, file)
    source = Source(
        name=name,
        path=name.rpartition(".")[2],
        file=file,
        text=file.read_bytes(),
        is_package=False,
        is_published=True,
    )
    return Sources(name=name, root=file, modules={name: source}, folders={})


def read_folder(root: Path, name: str) -> Sources:
    """
    An application that is a folder.

    Raises:
        DeclarationError: names that clients cannot spell, or two modules of one name.
    """
    modules: dict[str, Source] = {}
    folders: dict[str, Path] = {}
    for folder, steps in _folders(root, ()):
        folders[".".join((name, *steps))] = folder
        for file in sorted(folder.glob("*.py")):
            source = _source(file, name, steps)
            modules[source.name] = source
    return Sources(name=name, root=root, modules=modules, folders=folders)


def _folders(folder: Path, steps: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """`folder` and those below it that hold modules, with their names."""
    yield folder, steps
    for below in sorted(folder.iterdir()):
        if below.name in _IGNORED or (below.name == PYTHON_FOLDER and not steps):
            continue
        if below.name.startswith(".") or not below.is_dir():
            continue
        if next(below.rglob("*.py"), None) is None:
            continue
        if _is_public((*steps, below.name)):
            check_name(below.name, below)
            if (twin := folder / f"{below.name}.py").exists():
                path = "/".join((*steps, below.name))
                raise DeclarationError(
                    f"{twin} and {below} would both be the module {path}; rename one of them"
                )
        yield from _folders(below, (*steps, below.name))


def _source(file: Path, name: str, folder_steps: tuple[str, ...]) -> Source:
    is_package = file.stem == "__init__"
    steps = folder_steps if is_package else (*folder_steps, file.stem)
    is_published = _is_public(steps)
    if is_published and not is_package:
        check_name(file.stem, file)
    return Source(
        name=".".join((name, *steps)),
        path="/".join(steps) or name.rpartition(".")[2],
        file=file,
        text=file.read_bytes(),
        is_package=is_package,
        is_published=is_published,
    )


def _is_public(steps: tuple[str, ...]) -> bool:
    return not any(step.startswith(("_", ".")) or _is_test(step) for step in steps)


def _is_test(stem: str) -> bool:
    return stem.startswith("test_") or stem == "conftest"


def check_name(name: str, place: Path) -> None:
    """
    Raises:
        DeclarationError: clients cannot spell `name`.
    """
    if not NAME.fullmatch(name):
        raise DeclarationError(
            f"{place}: {name!r} can be no part of a function's path; "
            "rename it to letters, digits and underscores"
        )
