"""
What a query or mutation may not do, and how it is told.

A query or mutation may run again, run late or be replayed, so it may reach
nothing but its arguments and the database.  Three nets say no, by name, and
say what to do instead: the shims, for what application modules import; the
driver, for what a handler awaits; and an audit hook, for what libraries do
while code of the application runs.  Imports, zone data, sources of tracebacks,
resources of packages and debuggers are never refused.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import zoneinfo
from collections.abc import Callable, Coroutine, Mapping
from types import FrameType
from typing import Any, Final

import trio

from engine.errors import NotAllowed
from engine.functions.slots import Running, active, slot_here
from engine.functions.tracebacks import ENGINE


def refuse(what: str, advice: str = "use an action") -> None:
    """
    Say no to `what` if this thread is running a query or mutation.

    Raises:
        NotAllowed: it is.
    """
    execution = active()
    if execution is not None:
        raise NotAllowed(f"{what} is not allowed in {execution.name}: {advice}")


# What is awaited.


def of_await(coroutine: Coroutine[Any, Any, Any], execution: Running) -> NotAllowed:
    """The refusal of what the handler awaits now, by the name of what its own code called."""
    return NotAllowed(
        f"`await {_awaited(coroutine)}` is not allowed in {execution.name}, "
        "which can only await calls on its ctx: use an action, or `gather` for several calls"
    )


def take_back(trap: object, refusal: NotAllowed) -> bool:
    """Undo what an await has registered with trio; false if the waiting has to be waited out."""
    abort: Callable[[Callable[[], None]], trio.lowlevel.Abort] | None
    abort = getattr(trap, "abort_func", None)
    if abort is None:
        return True

    def raise_refusal() -> None:
        raise refusal

    return abort(raise_refusal) is trio.lowlevel.Abort.SUCCEEDED


def _awaited(coroutine: Any) -> str:
    """The outermost thing on the chain of awaits that is of another package than the handler."""
    awaited: Any = coroutine
    if coroutine.cr_code.co_filename.startswith(ENGINE):
        awaited = _next(coroutine) or coroutine  # what runs a handler is not the handler
    home = _package(awaited)
    while (inner := _next(awaited)) is not None:
        awaited = inner
        if _package(awaited) != home:
            break
    name = getattr(awaited, "__qualname__", None) or type(awaited).__qualname__
    package = _package(awaited)
    return f"{package}.{name}" if package else name


def _next(awaitable: Any) -> Any:
    for attribute in ("cr_await", "gi_yieldfrom", "ag_await"):
        if (inner := getattr(awaitable, attribute, None)) is not None:
            return inner
    return None


def _package(awaitable: Any) -> str:
    for attribute in ("cr_frame", "gi_frame", "ag_frame"):
        if (frame := getattr(awaitable, attribute, None)) is not None:
            return str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return type(awaitable).__module__.partition(".")[0].removeprefix("_")


# What libraries do.

DOORS: Final[Mapping[str, str]] = {
    "builtins.input": "input()",
    "fcntl.flock": "locking a file",
    "fcntl.lockf": "locking a file",
    "glob.glob": "listing a folder",
    "http.client.connect": "an HTTP connection",
    "mmap.__new__": "mapping a file",
    "open": "opening a file",
    "os.chmod": "changing a file",
    "os.chown": "changing a file",
    "os.exec": "a subprocess",
    "os.fork": "a subprocess",
    "os.forkpty": "a subprocess",
    "os.kill": "a signal",
    "os.link": "changing a folder",
    "os.listdir": "listing a folder",
    "os.mkdir": "changing a folder",
    "os.posix_spawn": "a subprocess",
    "os.putenv": "changing the environment",
    "os.remove": "changing a folder",
    "os.rename": "changing a folder",
    "os.rmdir": "changing a folder",
    "os.scandir": "listing a folder",
    "os.spawn": "a subprocess",
    "os.startfile": "a subprocess",
    "os.symlink": "changing a folder",
    "os.system": "a subprocess",
    "os.truncate": "changing a file",
    "os.unsetenv": "changing the environment",
    "os.utime": "changing a file",
    "pty.spawn": "a subprocess",
    "signal.pthread_kill": "a signal",
    "socket.__new__": "a socket",
    "socket.bind": "a socket",
    "socket.connect": "a socket",
    "socket.getaddrinfo": "a socket",
    "socket.gethostbyaddr": "a socket",
    "socket.gethostbyname": "a socket",
    "socket.getnameinfo": "a socket",
    "socket.sendmsg": "a socket",
    "socket.sendto": "a socket",
    "sqlite3.connect": "opening a database",
    "subprocess.Popen": "a subprocess",
    "tempfile.mkdtemp": "a temporary file",
    "tempfile.mkstemp": "a temporary file",
    "time.sleep": "time.sleep",
    "_thread.start_new_thread": "a thread",
    "_thread.start_joinable_thread": "a thread",
    "urllib.Request": "an HTTP request",
    "webbrowser.open": "a subprocess",
}
"""Audit events that are refused, and what they are called. Some exist from later Pythons on."""

ATTACHING: Final = frozenset({"builtins.breakpoint", "sys.settrace"})
"""Audit events of a debugger that somebody attaches within a slice."""

EXEMPT: Final = frozenset(
    {
        *("_frozen_importlib", "_frozen_importlib_external", "importlib", "pkgutil"),
        *("bdb", "cmd", "debugpy", "pdb", "pydevd", "rlcompleter"),
        *("gettext", "linecache", "mimetypes", "tzdata", "zoneinfo"),
        *("logging", "structlog"),
    }
)
"""Packages on whose behalf files are opened, whoever made them do so."""


def _code_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    folders.update(site.getsitepackages())
    folders.update(zoneinfo.TZPATH)
    return tuple(sorted(os.path.abspath(folder) + os.sep for folder in folders))


_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_code: list[str] = [*_code_folders()]
"""Folders of installed code and of applications: what lies there changes with the code only."""


def allow_reading(folder: str) -> None:
    """Let queries and mutations read, never write, the files of an application's folder."""
    folder = os.path.abspath(folder) + os.sep
    if folder not in _code:
        _code.append(folder)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in DOORS and event not in ATTACHING:
        return
    slot = slot_here()
    execution = slot.execution
    if execution is None:
        return
    if event in ATTACHING:
        if not slot.trapped:
            execution.lift_limit()
        return
    if _reads_code(event, args) or _is_exempt(sys._getframe(1)):
        return
    shown = f" ({args[0]!r})" if event == "open" else ""
    raise NotAllowed(f"{DOORS[event]}{shown} is not allowed in {execution.name}: use an action")


def _reads_code(event: str, args: tuple[Any, ...]) -> bool:
    if event not in ("open", "os.listdir", "os.scandir"):
        return False
    if not isinstance(args[0], str | bytes | os.PathLike):
        return False
    if event == "open" and args[2] & _WRITING:
        return False
    return os.path.join(os.path.abspath(os.fsdecode(args[0])), "").startswith(tuple(_code))


def _is_exempt(frame: FrameType | None) -> bool:
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "engine.functions.driver":
            return False
        if name.partition(".")[0] in EXEMPT:
            return True
        frame = frame.f_back
    return False


_installed = False


def install_audit_hook() -> None:
    """Put up the second net, once in a process; it does nothing outside queries and mutations."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_audit)
