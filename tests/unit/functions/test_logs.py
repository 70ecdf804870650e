"""What functions print and log becomes lines as the clients show them."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.functions.log_lines import line_of, shown
from engine.functions.logs import Journal, capture_logging, listening, print_line
from engine.functions.shims import builtins_of
from engine.functions.watchdog import Watchdog
from engine.model.limits import Limits
from engine.model.values import Int64
from tests.unit.functions.running import execution, run_plain

LIMITS = Limits(log_lines_max=4, log_line_bytes_max=100)


async def lines_of(act: Callable[[], Any], watchdog: Watchdog) -> list[str]:
    running = execution()
    await run_plain(act, watchdog, within=running)
    return running.log_lines


# How values look.


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hello", "'hello'"),
        ("it's\n\\", r"'it\'s\n\\'"),
        ("\x00\x7f", r"'\x00\x7F'"),
        ("grüße 🌊", "'grüße 🌊'"),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (3.0, "3"),
        (0.1, "0.1"),
        (-0.0, "-0"),
        (1e300, "1e+300"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (Int64(5), "5n"),
        (b"abc", "b'abc'"),
        ([], "[]"),
        (["a", 1], "[ 'a', 1 ]"),
        (("a",), "[ 'a' ]"),
        ({}, "{}"),
        ({"id": 3, "my key": None}, "{ id: 3, 'my key': null }"),
        ({1}, "Set { 1 }"),
        ([[[[[["deep"]]]]]], "[ [ [ [ [ [Array] ] ] ] ] ]"),
        (int, "<class 'int'>"),
    ],
)
def test_a_value_looks_as_in_the_console(value: Any, expected: str) -> None:
    assert expected == shown(value)


def test_a_value_that_cannot_be_shown_does_no_harm() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ValueError

    assert "Broken whose repr raises ValueError>" in shown(Broken())


@given(st.text())
def test_a_line_is_one_line(text: str) -> None:
    line = line_of("LOG", [text], bytes_max=1 << 20)

    assert "\n" not in line
    assert "\r" not in line
    assert line.startswith("[LOG] '")


@given(st.text(min_size=20), st.integers(30, 60))
def test_a_line_is_cut_at_its_limit_between_characters(text: str, bytes_max: int) -> None:
    line = line_of("LOG", [text], bytes_max=bytes_max)

    assert len(line.encode("utf-8", "backslashreplace")) <= bytes_max


def test_a_cut_line_says_so() -> None:
    line = line_of("LOG", ["x" * 200], bytes_max=100)

    assert line.endswith("xxx (truncated due to length)")
    assert 100 == len(line)


# What is captured.


async def test_print_becomes_a_line(watchdog: Watchdog) -> None:
    assert ["[LOG] 'posting' 'hello'"] == await lines_of(
        lambda: print_line("posting", "hello"), watchdog
    )


async def test_print_to_stderr_is_an_error(watchdog: Watchdog) -> None:
    assert ["[ERROR] 'oh'"] == await lines_of(lambda: print_line("oh", file=sys.stderr), watchdog)


async def test_print_to_a_file_goes_there(watchdog: Watchdog) -> None:
    file = io.StringIO()

    assert [] == await lines_of(lambda: print_line("a", 1, file=file, sep="-"), watchdog)
    assert "a-1\n" == file.getvalue()


def test_print_outside_of_functions_prints(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a", 1, sep="-")

    assert "a-1\n" == capsys.readouterr().out


async def test_beyond_the_limit_one_line_says_that_lines_are_missing(watchdog: Watchdog) -> None:
    journal = Journal(LIMITS)

    for number in range(10):
        journal.log("LOG", number)

    overflow = "[ERROR] 'Log overflow (maximum 4). Remaining log lines omitted.'"
    assert ["[LOG] 0", "[LOG] 1", "[LOG] 2", overflow] == journal.lines


class Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def handled() -> Iterator[list[logging.LogRecord]]:
    """What a handler of the host gets."""
    capture_logging()
    handler, root = Collecting(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.records
    root.setLevel(level)
    root.removeHandler(handler)


async def test_logging_becomes_lines_and_goes_on_to_the_host_when_it_is_released(
    watchdog: Watchdog, handled: list[logging.LogRecord]
) -> None:
    log = logging.getLogger("backend.messages")

    def act() -> None:
        log.debug("a")
        log.info("sent %d", 3)
        log.warning("b")
        log.error("c")
        log.critical("d")

    running = execution()
    await run_plain(act, watchdog, within=running)
    before = list(handled)
    for held in running.held or ():
        held.release()

    assert [
        "[DEBUG] 'a'",
        "[INFO] 'sent 3'",
        "[WARN] 'b'",
        "[ERROR] 'c'",
        "[ERROR] 'd'",
    ] == running.log_lines
    assert [] == before
    assert [10, 20, 30, 40, 50] == [record.levelno for record in handled]


async def test_lines_begin_at_info_and_handlers_get_what_the_levels_of_the_host_let_through(
    watchdog: Watchdog, handled: list[logging.LogRecord]
) -> None:
    logging.getLogger().setLevel(logging.WARNING)  # as it comes
    log = logging.getLogger("backend.messages")
    names: dict[str, Any] = {"__builtins__": builtins_of(__import__), "log": log}
    exec('def say():\n    log.debug("a")\n    log.info("sent %d", 3)', names)

    def act() -> None:
        names["say"]()
        log.info("a library's, which may hold anything")
        log.warning("b")

    running = execution()
    await run_plain(act, watchdog, within=running)
    for held in running.held or ():
        held.release()
    log.info("nobody's")

    assert ["[INFO] 'sent 3'", "[WARN] 'b'"] == running.log_lines
    assert ["b"] == [record.getMessage() for record in handled]


@pytest.mark.parametrize("quiet", ["", "library", "library.http"])
async def test_a_level_that_somebody_has_set_holds(
    watchdog: Watchdog, handled: list[logging.LogRecord], quiet: str
) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    logger = logging.getLogger(quiet or None)
    before = logger.level
    logger.setLevel(logging.ERROR)

    lines = await lines_of(lambda: logging.getLogger("library.http").info("GET /"), watchdog)
    logger.setLevel(before)

    assert [] == lines


async def test_what_the_engine_itself_notes_is_no_line_at_any_level(watchdog: Watchdog) -> None:
    capture_logging()

    assert [] == await lines_of(lambda: logging.getLogger("asyncio").info("polling"), watchdog)


async def test_a_message_that_does_not_fit_its_arguments_is_shown_without(
    watchdog: Watchdog,
) -> None:
    log = logging.getLogger("backend.careless")
    log.propagate = False
    log.addHandler(logging.NullHandler())

    assert ["[ERROR] '%d'"] == await lines_of(lambda: log.error("%d", "no number"), watchdog)


async def test_logging_tells_of_the_exception(watchdog: Watchdog) -> None:
    def act() -> None:
        try:
            _ = 1 // 0
        except ZeroDivisionError:
            logging.getLogger("x").exception("failed")

    capture_logging()
    (line,) = await lines_of(act, watchdog)

    assert line.startswith(r"[ERROR] 'failed\nTraceback (most recent call last):\n")
    assert line.endswith("integer division or modulo by zero'")


async def test_logging_is_captured_once_however_often_it_is_asked_for(watchdog: Watchdog) -> None:
    capture_logging()
    capture_logging()

    lines = await lines_of(lambda: logging.getLogger("x").warning("once"), watchdog)

    assert ["[WARN] 'once'"] == lines


async def test_a_logger_that_logging_does_not_know_keeps_its_handlers(watchdog: Watchdog) -> None:
    capture_logging()
    log, handler = logging.Logger("made by hand"), Collecting()
    log.addHandler(handler)
    running = execution()
    await run_plain(lambda: log.info("a"), watchdog, within=running)
    before = list(handler.records)
    for held in running.held or ():
        held.release()

    assert ["[INFO] 'a'"] == running.log_lines
    assert [] == before
    assert ["a"] == [record.getMessage() for record in handler.records]
    assert log.name not in logging.root.manager.loggerDict


async def test_a_record_is_a_line_when_a_logger_gets_it(watchdog: Watchdog) -> None:
    """One that somebody makes and keeps, as a queue of records does, is none."""
    capture_logging()

    def act() -> None:
        record = logging.makeLogRecord({"msg": "a", "levelno": logging.WARNING})
        assert logging.WARNING == record.levelno
        logging.getLogger("x").handle(record)

    assert ["[WARN] 'a'"] == await lines_of(act, watchdog)


async def test_what_others_log_is_nobodys_line(
    watchdog: Watchdog, handled: list[logging.LogRecord]
) -> None:
    lines = await lines_of(lambda: None, watchdog)
    logging.getLogger("host").warning("elsewhere")

    assert [] == lines
    assert ["elsewhere"] == [record.getMessage() for record in handled]


def test_an_action_takes_what_its_threads_print_but_not_what_the_engine_logs() -> None:
    capture_logging()
    journal = Journal(LIMITS)

    async def act() -> None:
        with listening(journal):
            print_line("in the task")
            await trio.to_thread.run_sync(lambda: print_line("in a thread"))
            logging.getLogger("engine.committer").warning("not of the action")
            logging.getLogger("backend").warning("of the action")

    trio.run(act)

    assert ["[LOG] 'in the task'", "[LOG] 'in a thread'", "[WARN] 'of the action'"] == journal.lines
