"""The command line of the benches: `python -m bench NAME`."""

from __future__ import annotations

import argparse
import difflib
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from bench.harness import HERE, Bench, Entry, Machine, Result, entries, machine
from engine.kernel.trace import trace_to_stderr

DONE, FAILED, MISUSED = 0, 1, 2
FULL_S = 60.0
QUICK_S = 15.0
QUICK_S_MAX = 45.0
"""Preparing and tidying included; a quick run that needs more is cut short and has failed."""


class TookTooLong(BaseException):
    """A quick run that was not quick. No handler of a bench is meant to catch it."""


def main(arguments: Sequence[str], known: Mapping[str, Entry]) -> int:
    """
    List the benches or run one: the machine first, each figure as it comes, the JSON last.

    Returns:
        0 if it was measured, 1 if not, 2 for a wrong call.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        for entry in known.values():
            print(f"{entry.name}: {entry.question}")
        return DONE
    if options.name is None:
        print("Name a bench, or ask for all of them with --list.", file=sys.stderr)
        return MISUSED
    if options.name not in known:
        return _unknown(options.name, known)
    if options.part is not None and options.part not in (parts := known[options.name].parts()):
        print(f"{options.name} has no part {options.part}; it has {parts}.", file=sys.stderr)
        return MISUSED
    try:
        with _at_most(QUICK_S_MAX if options.quick else None):
            host, results = _measure(known[options.name], options)
    except TookTooLong:
        print(f"{options.name} --quick took more than {QUICK_S_MAX:g} s", file=sys.stderr)
        return FAILED
    if not results:
        print(f"{options.name} measured nothing", file=sys.stderr)
        return FAILED
    if options.json is not None:
        options.json.write_text(_as_json(host, results, arguments))
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures the engine.", allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", help="which bench")
    parser.add_argument("--list", action="store_true", help="every bench, with its question")
    parser.add_argument("--part", help="only this part of a bench that has several")
    parser.add_argument("--quick", action="store_true", help="a look, in under 45 s")
    parser.add_argument("--seconds", type=float, help="how long to measure, instead of the usual")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and results")
    parser.add_argument("--seed", type=int, default=1, help="what all choices derive from")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: here")
    return parser


def _unknown(name: str, known: Mapping[str, Entry]) -> int:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    print(f"There is no bench called {name}.{hint} See python -m bench --list.", file=sys.stderr)
    return MISUSED


def _measure(entry: Entry, options: argparse.Namespace) -> tuple[Machine, list[Result]]:
    budget_s = options.seconds or (QUICK_S if options.quick else FULL_S)
    parent: Path = options.directory or HERE.parent / ".headrace"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as scratch:
        host = machine(Path(scratch))
        _print_machine(host)
        directory = Path(scratch, entry.name)
        directory.mkdir()
        given = Bench(
            directory=directory,
            budget_s=budget_s,
            quick=options.quick,
            seed=options.seed,
            part=options.part,
        )
        return host, list(_printed(entry.load()(given)))


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Cut the block short after `seconds`, if that is a number, by `TookTooLong`."""

    def cut(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, cut)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _print_machine(host: Machine) -> None:
    print(f"{host.cores} cores, {host.cpu}, {host.system}, {host.python}")
    flushes = f"fdatasync {host.fdatasync_ms:.3f} ms, O_DSYNC write {host.dsync_write_ms:.3f} ms"
    print(f"{flushes}, commit {host.commit or 'unknown'}", flush=True)


def _printed(results: Iterable[Result]) -> Iterator[Result]:
    for result in results:
        params = ", ".join(f"{name} {value}" for name, value in result.params.items())
        of = f" of {result.peer}" if result.peer else ""
        figure = f"{result.metric}{of}: {result.value:,.4g} {result.unit}"
        print(f"{result.name} ({params}) {figure}", flush=True)
        yield result


def _as_json(host: Machine, results: Sequence[Result], arguments: Sequence[str]) -> str:
    document = {
        "machine": asdict(host),
        "command": shlex.join(["python", "-m", "bench", *arguments]),
        "results": [asdict(result) for result in results],
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    trace_to_stderr(level="warning")  # on stdout are figures
    raise SystemExit(main(sys.argv[1:], entries()))
