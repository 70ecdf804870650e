"""The administrator's key of a data directory: made once, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.errors import StoreFailed, Unauthenticated

FILE_NAME: Final = "admin.key"
NAME: Final = "headrace"
SECRET_BYTES: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """`key` as it is presented; `is_new` if nobody can have seen it before."""

    key: str = field(repr=False)
    is_new: bool


def keep_admin_key(data: Path) -> KeyFile:
    """
    The key of a data directory, made if it has none.

    Raises:
        StoreFailed: the file cannot be read or written.
    """
    path = data / FILE_NAME
    try:
        data.mkdir(parents=True, exist_ok=True)
        if (found := read_admin_key(data)) is not None:
            _close_to_others(path)
            return KeyFile(key=found, is_new=False)
        key = new_admin_key()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(key + "\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise StoreFailed(f"the admin key {path} cannot be kept: {error}") from error
    return KeyFile(key=key, is_new=True)


def _close_to_others(path: Path) -> None:
    """A directory that was copied or restored may have forgotten whose its key is."""
    found = path.stat()
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        path.chmod(0o600)


def read_admin_key(data: Path) -> str | None:
    """
    The key of a data directory, or `None` if it has none.

    Raises:
        OSError: it is another user's.
    """
    try:
        return (data / FILE_NAME).read_text().strip() or None
    except FileNotFoundError:
        return None


def authorization_of(key: str) -> str:
    """
    The `Authorization` header that presents a key.

    Raises:
        Unauthenticated: no header can hold it; the error does not say it back, as others would.
    """
    if not (key.isascii() and key.isprintable()):
        raise Unauthenticated(
            "the admin key has a character that no key has: the end of a line, or one beyond ASCII"
        )
    return f"Convex {key}"


def new_admin_key() -> str:
    return f"{NAME}|{secrets.token_hex(SECRET_BYTES)}"
