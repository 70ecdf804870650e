"""What the command line prints on a terminal, with rich and without."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from engine.cli import output

HEADERS = ("table", "documents")
ROWS = [("messages", "12"), ("a", "3")]


def on_a_terminal(patch: pytest.MonkeyPatch, *, with_rich: bool) -> None:
    """From the test itself: its stdout is not yet there when fixtures are made."""
    patch.setattr(sys.stdout, "isatty", lambda: True)
    patch.setattr(sys.stderr, "isatty", lambda: True)
    if not with_rich:
        for name in ("rich", "rich.console", "rich.table", "rich.text", "rich.progress"):
            patch.setitem(sys.modules, name, None)


def test_a_table_without_rich_is_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch, with_rich=False)
    output.print_table(HEADERS, ROWS)

    assert "table     documents\nmessages  12\na         3\n" == capsys.readouterr().out


def test_a_table_with_rich_has_every_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch, with_rich=True)
    output.print_table(HEADERS, ROWS)

    shown = capsys.readouterr().out.splitlines()
    assert [["messages", "12"], ["a", "3"]] == [line.split() for line in shown[1:]]


def test_progress_without_rich_counts_on_one_line_and_leaves_it_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch, with_rich=False)
    with output.progress("verifying") as advance:
        advance(5)
        advance(7, 10)

    shown = capsys.readouterr().err
    assert ["verifying: 5", "verifying: 7 of 10", ""] == shown.split(output.CLEARED)[1:]
    assert "\n" not in shown


def test_nothing_is_drawn_where_nobody_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("verifying") as advance:
        advance(5)
    output.print_table(HEADERS, ROWS)

    shown = capsys.readouterr()
    assert ("", "table\tdocuments\nmessages\t12\na\t3\n") == (shown.err, shown.out)


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0, 1, 6, 6, 7, 12, 12])
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with output.progress_of_steps() as told:
        told("index items.by_n", 100, 900)
        told("index items.by_n", 600, 900)
        told("index items.by_n", 700, 900)
        told("documents of items", 5, None)

    assert "index items.by_n: 600 of 900\ndocuments of items: 5\n" == capsys.readouterr().err


def test_progress_with_rich_is_a_bar_that_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch, with_rich=True)
    monkeypatch.setenv("TERM", "xterm")
    with output.progress_of_steps() as told:
        told("index items.by_n", 600, 900)
        told("documents of items", 5, 10)

    shown = capsys.readouterr().err
    assert "documents of items" in shown
    assert "5/10" in shown
    assert shown.endswith("\x1b[2K")


def test_a_bar_of_nothing_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch, with_rich=True)
    with output.progress_of_steps():
        pass

    assert "" == capsys.readouterr().err
