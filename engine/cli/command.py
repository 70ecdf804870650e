"""
The command line: `headrace VERB ...`.

Each verb is a module that says what it takes (`add`) and does it (`run`), one of them
after what comes before anything is traced (`begin`).  Other distributions add verbs
of other names by the entry-point group `headrace.commands`: a name, and a function
that is given the arguments after it and returns an exit code or `None`.

What it ends with is in `EXIT_CODES`, which its help tells too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from engine.app.environment import DEV_VARIABLE
from engine.cli.failures import Exit, explain
from engine.errors import DeclarationError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

VERBS: Final = {
    "init": "init",
    "dev": "dev",
    "serve": "serve",
    "push": "push",
    "run": "run",
    "data": "data",
    "logs": "logs",
    "log": "log",
    "replay": "replays",
    "import": "imports",
    "shell": "shell",
    "jobs": "jobs",
    "crons": "crons",
    "index": "index",
    "stats": "stats",
    "component": "component",
    "pause": "pause",
    "resume": "resume",
    "check": "check",
    "codegen": "codegen",
    "function-spec": "function_spec",
    "verify": "verification",
    "openapi": "openapi",
    "version": "versions",
}
"""
Each verb and its module here, which is imported when the verb is asked for: together they would
take longer than any of them, and `serve` starts twice.
"""
GROUP: Final = "headrace.commands"
EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 a function failed or something is wrong with what was looked at, "
    "2 usage, 3 nobody answers, 4 refused by a lock, a push or a limit."
)
TRACE_VARIABLE: Final = "HEADRACE_TRACE"
TRACE_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Do what the arguments say, `sys.argv`'s by default.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in VERBS:
            parser = _parser(given[:1])
        else:
            added = _added_verbs()
            if given and given[0] in added:
                return _run_added(added[given[0]], given[1:])
            parser = _parser(VERBS, added.values())
        options = parser.parse_args(given)
        os.environ.setdefault(DEV_VARIABLE, "1")  # which `serve` takes back
        if "begin" in options:
            options.begin(options)
        _trace()
        return int(options.run(options))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read has had enough. Nothing more can be said, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except Exception as error:
        return explain(error)


def _added_verbs() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {each.name: each for each in entry_points(group=GROUP)}


def _parser(names: Iterable[str], added: Iterable[EntryPoint] = ()) -> argparse.ArgumentParser:
    epilog = (
        f"{EXIT_CODES} {TRACE_VARIABLE}={'|'.join(TRACE_LEVELS)}: what is traced on stderr; "
        "by default warning."
    )
    if added:
        epilog = f"{_more(added)} {epilog}"
    parser = argparse.ArgumentParser(
        prog="headrace",
        description="A reactive, durable backend engine that runs inside one Python process.",
        epilog=epilog,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="the same as the verb")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name in names:
        import_module(f"{__package__}.{VERBS[name]}").add(verbs)
    return parser


def _more(added: Iterable[EntryPoint]) -> str:
    """What is installed besides, and what of that is never reached."""
    others = ", ".join(sorted(each.name for each in added if each.name not in VERBS))
    hidden = ", ".join(f"{each.name} ({each.value})" for each in added if each.name in VERBS)
    told = f"More verbs, of what is installed: {others or 'none'}."
    return f"{told} Left out, as headrace has verbs of these names: {hidden}." if hidden else told


def _trace() -> None:
    level = os.environ.get(TRACE_VARIABLE, "warning")
    if level not in TRACE_LEVELS:
        raise UsageError(f"{TRACE_VARIABLE} is {', '.join(TRACE_LEVELS)}, not {level!r}")
    from engine.kernel.trace import trace_to_stderr

    trace_to_stderr(level=level)


def _run_added(entry: EntryPoint, arguments: list[str]) -> int:
    _trace()
    return int(_loaded(entry)(arguments) or Exit.DONE)


def _loaded(entry: EntryPoint) -> Callable[[list[str]], int | None]:
    """
    Raises:
        DeclarationError: what is installed under this name is no verb.
    """
    of = f"the verb {entry.name!r}, {entry.value!r} of {entry.dist.name if entry.dist else '?'}"
    try:
        found: Callable[[list[str]], int | None] = entry.load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise DeclarationError(f"{of}, cannot be loaded: {why}; mend or remove it") from error
    if not callable(found):
        raise DeclarationError(f"{of}, is {found!r}; it has to be a function of arguments")
    return found


class _Version(argparse.Action):
    """Says the version; what knows it takes long to import and is imported only here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from engine.server.server import installed_version

        parser.exit(message=f"headrace {installed_version()}\n")
