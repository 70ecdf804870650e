"""
The server that a verb speaks to: at a URL, the one that has the data open, or one of its own.

A directory that nobody has open is opened for as long as the verb takes, behind a server on a
free port of this machine, so that there is one way in which verbs ask.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.cli.client import AdminClient
from engine.cli.project import Project, find_project
from engine.errors import StoreLocked, Unauthenticated, Unreachable, UsageError
from engine.server.admin_key import read_admin_key
from engine.store.directory_lock import read_lock

KEY_VARIABLE: Final = "HEADRACE_ADMIN_KEY"
URL_VARIABLE: Final = "HEADRACE_URL"
MEMORY: Final = ":memory:"


def add_connection(parser: argparse.ArgumentParser, *, with_app: bool = False) -> None:
    parser.add_argument(
        "--data", metavar="DIR", help="the data directory; by default the project's .headrace"
    )
    parser.add_argument(
        "--url", default=os.environ.get(URL_VARIABLE), help=f"a server; or ${URL_VARIABLE}"
    )
    parser.add_argument(
        "--admin-key", metavar="KEY", help=f"of the server at --url; or ${KEY_VARIABLE}"
    )
    if with_app:
        parser.add_argument(
            "--app", metavar="APP", help="used where no server runs; by default pyproject.toml's"
        )


@contextmanager
def connected(
    options: argparse.Namespace,
    *,
    needs_app: bool = False,
    deploys: bool = True,
    looks: bool = False,
    opens: bool = True,
    without_data: bool = False,
) -> Iterator[AdminClient]:
    """
    A server, for the length of the block.

    Args:
        needs_app: a closed directory is opened with the application; otherwise only its data.
        deploys: with the application deployed; otherwise that is still to be asked for.
        opens: a closed directory is opened at all; otherwise there has to be a server.
        looks: a closed directory is opened with the application, and nothing is deployed there;
            what is due there waits.
        without_data: a closed directory is left alone: the application is enough.

    Raises:
        StoreLocked: a process that does not listen has the directory open.
        UsageError: there is no such directory, or no application.
        Unreachable: nobody has the directory open, and it is not to be opened.
        Unauthenticated: no admin key is known for the server.
    """
    project = find_project(getattr(options, "app", None))
    data = Path(options.data) if options.data else project.data
    if options.url:
        with AdminClient(options.url, _key(options, data)) as client:
            yield client
        return
    holder = read_lock(data) if data.is_dir() else None
    if holder is not None:
        if holder.url is None:
            raise StoreLocked(str(data), holder.pid, None)
        with AdminClient(_reachable(holder.url), _key(options, data)) as client:
            yield client
        return
    if without_data:
        with _opened(MEMORY, project, needs_app=needs_app, deploys=deploys) as client:
            yield client
        return
    if (looks or not needs_app) and not data.is_dir():
        raise UsageError(f"there is no data in {data}; name its directory with --data")
    if not opens:
        raise Unreachable(f"no server has {data} open")
    with _opened(data, project, needs_app=needs_app, deploys=deploys, looks=looks) as client:
        yield client


@contextmanager
def _opened(
    data: Path | str, project: Project, *, needs_app: bool, deploys: bool, looks: bool = False
) -> Iterator[AdminClient]:
    # A verb that finds a server does not wait for one to be imported.
    from engine.serving import serving
    from engine.trio_thread import TrioThread

    app = project.required_app() if needs_app else None
    deferred = app is not None and not deploys
    limits = project.limits
    thread = TrioThread(
        lambda: serving(data, app=app, dev=True, deferred=deferred, looks=looks, limits=limits)
    )
    thread.start()
    served, _ = thread.opened.result()
    try:
        with AdminClient(served.url, served.admin_key, is_own=True) as client:
            yield client
    finally:
        thread.stop()
        thread.ended.result()


def _key(options: argparse.Namespace, data: Path) -> str:
    key: str | None = options.admin_key or os.environ.get(KEY_VARIABLE)
    if key is None and data.is_dir():
        key = read_admin_key(data)
    if key is None:
        raise Unauthenticated(
            f"the server's admin key is not known: give --admin-key or set {KEY_VARIABLE}; it is "
            "in admin.key in the server's data directory"
        )
    return key


def _reachable(url: str) -> str:
    """A URL at which whoever listens everywhere is reached from here."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
