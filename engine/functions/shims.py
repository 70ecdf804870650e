"""
The modules that application modules get instead of some of the standard library's.

    import time                      # in a module of an application: a shim
    from random import random        # draws from the seeded dice inside a query or mutation
    from threading import Thread     # Thread().start() is refused there, by name

A shim has everything the real module has; what depends on time or chance, or
reaches outside, asks first whether a query or mutation is running here.
Nothing of the process is patched: only the loader hands shims out, and only to
the modules that it loads.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from engine.functions import clocks, dice
from engine.functions.logs import STRUCTLOG_LEVELS, listener, log_event, print_line
from engine.functions.refusals import refuse

GATHER: Final = "use `gather` for several calls on ctx, and an action for anything else"

_TASKS: Final = "sleep sleep_forever sleep_until fail_after fail_at move_on_after move_on_at"

DOORS: Final[Mapping[str, str]] = {
    "time": "sleep",
    "os": (
        "_exit abort chmod chown execl execle execlp execlpe execv execve execvp execvpe fork "
        "forkpty kill killpg link listdir makedirs mkdir open popen posix_spawn posix_spawnp "
        "putenv remove removedirs rename renames replace rmdir scandir spawnl spawnle spawnlp "
        "spawnlpe spawnv spawnve spawnvp spawnvpe symlink system truncate unlink unsetenv utime "
        "walk"
    ),
    "io": "open open_code FileIO",
    "socket": (
        "socket create_connection create_server fromfd getaddrinfo gethostbyaddr gethostbyname "
        "gethostbyname_ex getfqdn getnameinfo socketpair"
    ),
    "subprocess": "Popen call check_call check_output getoutput getstatusoutput run",
    "multiprocessing": (
        "JoinableQueue Manager Pipe Pool Process Queue SimpleQueue get_context active_children"
    ),
    "concurrent.futures": "as_completed wait",
    "_thread": "start_new_thread start_new",
    "asyncio": (
        "Runner TaskGroup as_completed create_subprocess_exec create_subprocess_shell create_task "
        "ensure_future gather get_event_loop new_event_loop open_connection open_unix_connection "
        "run run_coroutine_threadsafe shield sleep start_server start_unix_server timeout "
        "timeout_at to_thread wait wait_for"
    ),
    "trio": (
        f"{_TASKS} CancelScope open_file open_nursery open_ssl_over_tcp_listeners "
        "open_ssl_over_tcp_stream open_tcp_listeners open_tcp_stream open_unix_socket run "
        "run_process serve_listeners serve_ssl_over_tcp serve_tcp"
    ),
    "trio.to_thread": "run_sync",
    "trio.from_thread": "run run_sync",
    "anyio": (
        f"{_TASKS} CancelScope amap as_completed connect_tcp connect_unix create_task_group gather "
        "getaddrinfo open_file open_process run run_process"
    ),
    "anyio.to_thread": "run_sync",
    "anyio.from_thread": "run run_sync start_blocking_portal",
}
"""By module, what is refused inside a query or mutation."""

_CONCURRENT: Final = frozenset({"asyncio", "trio", "anyio"})


def _advice(module: str) -> str:
    return GATHER if module.partition(".")[0] in _CONCURRENT else "use an action"


def _door(module: ModuleType, name: str) -> Any:
    """What stands for `module.name`: refuses inside a query or mutation, else is the real one."""
    original = getattr(module, name)
    label = f"{module.__name__}.{name}".removeprefix("builtins.")
    advice = _advice(module.__name__)
    if inspect.isclass(original):
        return _class_door(original, label, advice)

    @functools.wraps(original)
    def door(*args: Any, **kwargs: Any) -> Any:
        refuse(label, advice)
        return getattr(module, name)(*args, **kwargs)

    return door


def _class_door(original: type, label: str, advice: str) -> type:
    """A class that makes no instances inside a query or mutation, and elsewhere the original's."""

    class DoorClass(type(original)):  # type: ignore[misc]  # a metaclass that is only known here
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            refuse(label, advice)
            make: Any = original if cls is door else super().__call__
            return make(*args, **kwargs)

        def __instancecheck__(cls, instance: object) -> bool:
            if cls is door:
                return isinstance(instance, original)
            return bool(super().__instancecheck__(instance))

        def __subclasscheck__(cls, subclass: type) -> bool:
            if cls is door:
                return issubclass(subclass, original)
            return bool(super().__subclasscheck__(subclass))

    namespace = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    try:
        door = DoorClass(original.__name__, (original,), namespace)
    except TypeError:  # a final class: what stands for it cannot derive from it
        door = DoorClass(original.__name__, (), namespace)
    return door


# Threads are refused when they start: making one, or deriving a class, does nothing yet.


class Thread(threading.Thread):
    """`threading.Thread`, which does not start inside a query or mutation."""

    def start(self) -> None:
        refuse("threading.Thread")
        super().start()


class Timer(threading.Timer):
    """`threading.Timer`, likewise."""

    def start(self) -> None:
        refuse("threading.Timer")
        super().start()


def _executor(original: type) -> type:
    """An executor made elsewhere takes no work from inside a query or mutation."""
    label = f"concurrent.futures.{original.__name__}"

    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        refuse(label)
        return original.submit(self, fn, *args, **kwargs)  # type: ignore[attr-defined]

    return type(original.__name__, (original,), {"submit": submit, "__doc__": original.__doc__})


# Loggers of structlog.


class _Logger:
    """A logger whose events are log lines while a function runs, and go the usual way elsewhere."""

    def __init__(self, original: Any, bound: Mapping[str, Any]) -> None:
        self._original = original
        self._bound = dict(bound)

    def bind(self, **values: Any) -> _Logger:
        return _Logger(self._original.bind(**values), {**self._bound, **values})

    def new(self, **values: Any) -> _Logger:
        return _Logger(self._original.new(**values), values)

    def unbind(self, *names: str) -> _Logger:
        kept = {name: value for name, value in self._bound.items() if name not in names}
        return _Logger(self._original.unbind(*names), kept)

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._original, name)
        method = name.removeprefix("a") if name.startswith("a") else name
        if name not in STRUCTLOG_LEVELS and method not in STRUCTLOG_LEVELS:
            return original

        def emit(event: Any = None, *args: Any, **fields: Any) -> Any:
            to = listener()
            if to is None:
                return original(event, *args, **fields)
            log_event(to, method, event, args, {**self._bound, **fields})
            return None if name in STRUCTLOG_LEVELS else _nothing()

        return emit


async def _nothing() -> None:
    """What awaiting an event comes to that was logged already."""


def _structlog(real: ModuleType) -> dict[str, Any]:
    def get_logger(*args: Any, **values: Any) -> Any:
        return _Logger(real.get_logger(*args, **values), values)

    return {"get_logger": get_logger, "getLogger": get_logger}


# What is replaced, besides the doors.

Replaces = Callable[[ModuleType], Mapping[str, Any]]

REPLACED: Final[Mapping[str, Replaces]] = {
    "time": lambda _: clocks.TIME,
    "datetime": lambda _: clocks.DATETIME,
    "random": lambda _: dice.RANDOM,
    "uuid": lambda _: dice.UUID,
    "secrets": lambda _: dice.SECRETS,
    "os": lambda _: dice.OS,
    "threading": lambda _: {"Thread": Thread, "Timer": Timer},
    "concurrent": lambda _: {"futures": shim_of("concurrent.futures")},
    "concurrent.futures": lambda real: {
        name: _executor(getattr(real, name))
        for name in ("ThreadPoolExecutor", "ProcessPoolExecutor")
    },
    "trio": lambda _: {name: shim_of(f"trio.{name}") for name in ("to_thread", "from_thread")},
    "anyio": lambda _: {name: shim_of(f"anyio.{name}") for name in ("to_thread", "from_thread")},
    "structlog": _structlog,
}

SHIMMED: Final = frozenset({*DOORS, *REPLACED})
"""Names of modules that have a shim."""

_shims: dict[str, ModuleType] = {}


def shim_of(name: str) -> ModuleType:
    """
    The shim of a module in `SHIMMED`, which is imported if it was not.

    Raises:
        ImportError: there is no such module.
    """
    if name not in _shims:
        _shims[name] = _make(importlib.import_module(name))
    return _shims[name]


def _make(real: ModuleType) -> ModuleType:
    name = real.__name__
    shim = ModuleType(name, real.__doc__)
    names = vars(shim)
    names.update(vars(real))
    doors = [door for door in DOORS.get(name, "").split() if hasattr(real, door)]
    names.update({door: _door(real, door) for door in doors})
    if name in REPLACED:
        names.update(REPLACED[name](real))
    names["__getattr__"] = functools.partial(getattr, real)  # what the real module gets later
    names.setdefault("__all__", [public for public in names if not public.startswith("_")])
    return shim


def builtins_of(import_: Callable[..., Any]) -> dict[str, Any]:
    """The builtins of application modules, with the `__import__` given."""
    names = dict(vars(builtins))
    for door in ("open", "input"):
        names[door] = _door(builtins, door)
    names["print"] = print_line
    names["__import__"] = import_
    return names
