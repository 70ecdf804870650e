"""
Folders of files that are ours: what is written there was written by us before, or is new.

A file of ours has a name that we write and begins with the comment that we
write, to the letter: one that quotes it is somebody else's.  A bundler that
watches the folder sees whole files only, and none that says what it said before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import UsageError

PYTHON_FOLDER: Final = "_generated"
"""Beside the modules of an application; the loader reads nothing there."""
WRITTEN_BY: Final = (
    "Written by `headrace codegen`, which writes it again: what is changed here is lost."
)
PYTHON_NAMES: Final = frozenset({"__init__.py", "api.py", "api.pyi", "data_model.py"})
NAMES: Final = frozenset({"api.d.ts", "api.js", "dataModel.d.ts"}) | PYTHON_NAMES
"""Of all files that were ever written, so that no others are looked into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The comment that files of one language begin with; each line in it has the `margin`."""

    opening: tuple[str, ...]
    margin: str
    closing: str

    def lines(self, about: str) -> list[str]:
        """Those of a file that is `about` this."""
        said = (about, "", WRITTEN_BY)
        return [*self.opening, *(f"{self.margin}{line}".rstrip() for line in said), self.closing]

    def is_above(self, text: str) -> bool:
        """Whether it is what `text` begins with, whatever that is about."""
        lines = text.split("\n")
        about = "".join(lines[len(self.opening) :][:1]).removeprefix(self.margin)
        expected = self.lines(about)
        return lines[: len(expected)] == expected


PYTHON: Final = Header(opening=("# ruff: noqa", "# fmt: off", '"""'), margin="", closing='"""')
TYPESCRIPT: Final = Header(opening=("/* eslint-disable */", "/**"), margin=" * ", closing=" */")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The files that are to be in `path`, by name; others of ours there are of no more use."""

    path: Path
    texts: Mapping[str, str]

    def changes(self) -> Changes:
        """
        What has to be done for the files to be there.

        Raises:
            UsageError: one is there that somebody else has written.
        """
        assert self.texts.keys() <= NAMES, "a file of ours has a name that is known as ours"
        found = {name: self._read(self.path / name) for name in self.texts}
        return Changes(
            written={
                self.path / name: text for name, text in self.texts.items() if found[name] != text
            },
            removed=tuple(sorted(self._stale())),
        )

    def _read(self, file: Path) -> str | None:
        """
        What a file of ours has, or None if there is none.

        Raises:
            UsageError: it is somebody else's.
        """
        try:
            text = file.read_text("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeError):
            text = ""
        if file.is_symlink() or not _is_ours(file, text):
            raise UsageError(
                f"{file} was not written by headrace; move it away, or say in pyproject.toml "
                "where to write instead: [tool.headrace.codegen]"
            )
        return text

    def _stale(self) -> Iterator[Path]:
        for file in self.path.glob("*"):
            if file.name in NAMES - self.texts.keys() and not file.is_symlink():
                with suppress(OSError, UnicodeError):
                    if _is_ours(file, file.read_text("utf-8")):
                        yield file


def _is_ours(file: Path, text: str) -> bool:
    return (PYTHON if file.name in PYTHON_NAMES else TYPESCRIPT).is_above(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Files to be written, with their texts, and files to be removed."""

    written: Mapping[Path, str]
    removed: tuple[Path, ...]

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.written or self.removed)

    def make(self) -> None:
        """Each file has either what it had or what it is to have, whenever somebody looks."""
        for file, text in self.written.items():
            _write(file, text)
        for file in self.removed:
            file.unlink(missing_ok=True)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.new")
    try:
        new.write_text(text, "utf-8")
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
