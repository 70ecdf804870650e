"""
Folders of files that are ours: what is written there was written by us before, or is new.

A file of ours says so in its first lines.  A bundler that watches the folder
sees whole files only, and none that says what it said before.
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

WRITTEN_BY: Final = "Written by `headrace codegen`, which writes it again:"
HOW_TO_WRITE: Final = "what is changed here is lost."
PYTHON_FOLDER: Final = "_generated"
"""Beside the modules of an application; the loader reads nothing there."""
HEAD_CHARACTERS: Final = 1000
"""How far into a file it says who wrote it."""
SUFFIXES: Final = frozenset({".js", ".ts", ".py", ".pyi"})
"""Of the files that are written, so that no others are looked into."""


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
        if not _is_ours(text):
            raise UsageError(
                f"{file} was not written by headrace; move it away, or say in pyproject.toml "
                "where to write instead: [tool.headrace.codegen]"
            )
        return text

    def _stale(self) -> Iterator[Path]:
        for file in self.path.glob("*"):
            if file.name not in self.texts and file.suffix in SUFFIXES:
                with suppress(OSError, UnicodeError):
                    if _is_ours(file.read_text("utf-8")):
                        yield file


def _is_ours(text: str) -> bool:
    return WRITTEN_BY in text[:HEAD_CHARACTERS]


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
