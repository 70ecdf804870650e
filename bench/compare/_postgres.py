"""A PostgreSQL of its own for the length of a block, with its settings as they come."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DEBIAN: Final = "/usr/lib/postgresql"
"""Where its packages put what only its own tools call."""
DATABASE: Final = "bench"


def binaries() -> Path | None:
    """The folder with `initdb` and the others, if there is one."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    versions = sorted(Path(DEBIAN).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextmanager
def cluster(folder: Path, directory: Path) -> Iterator[str]:
    """
    A cluster in `directory` that listens on a socket of its own, where every commit is flushed.

    Args:
        folder: as `binaries` gives it.

    Yields the URL of an empty database.  PostgreSQL refuses to run as root; then it is nobody's.
    """
    is_root = os.geteuid() == 0
    user = pwd.getpwnam("nobody") if is_root else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="pg-") as listening:
        for path in (directory, Path(listening)):
            path.mkdir(exist_ok=True)
            os.chown(path, user.pw_uid, user.pw_gid)
        for path in directory.parents[:4]:
            path.chmod(path.stat().st_mode | stat.S_IXOTH)  # it has to come by there
        data = directory / "data"

        def run(command: Sequence[str | Path]) -> None:
            subprocess.run(
                [folder / command[0], *command[1:]],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=directory,
                user=user.pw_uid if is_root else None,
                group=user.pw_gid if is_root else None,
                extra_groups=[] if is_root else None,
            )

        run(["initdb", "-D", data, "-A", "trust", "-U", "bench"])
        options = f"-c listen_addresses='' -c unix_socket_directories='{listening}'"
        run(["pg_ctl", "-D", data, "-l", directory / "log", "-o", options, "-w", "start"])
        try:
            run(["createdb", "-h", listening, "-U", "bench", DATABASE])
            yield f"postgresql://bench@/{DATABASE}?host={listening}"
        finally:
            run(["pg_ctl", "-D", data, "-m", "immediate", "stop"])
