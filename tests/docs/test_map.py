"""The README of the tests maps every behaviour to the tests that show it, and names no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.architecture.source_tree import ROOT

HEADING = "\n## What each behaviour is shown by\n"
ROW = re.compile(r"(?m)^\| (?P<keys>[^|]+) \| (?P<what>[^|]+) \| (?P<shown>.+) \|$")
TEST = re.compile(r"`([\w./]+\.(?:py|mjs))::([^`]+)`")
REASON = re.compile(r"\bnot(?: yet)?: \S")

NUMBERED = [
    *[f"1.{n}" for n in range(1, 13)],
    *[f"2.{n}" for n in range(1, 6)],
    *[f"3.{n}" for n in range(1, 13)],
    *[f"4.{n}" for n in range(1, 10)],
    *[f"5.{n}" for n in range(1, 8)],
    *[f"6.{n}" for n in range(1, 12)],
    *[f"7.{n}" for n in range(1, 8)],
    "8.1",
    *[f"9.{n}" for n in range(1, 8)],
    *[f"12.{n}" for n in range(1, 5)],
    *[f"I{n}" for n in range(1, 59)],
    *[f"K{n}" for n in range(1, 4)],
    *[f"R{n}" for n in range(1, 22)],
    *[f"S{n}" for n in range(1, 11)],
    "H",
    *[f"M{n}" for n in range(1, 16)],
    *[f"N{n}" for n in range(1, 11)],
]
INVARIANTS = [
    "rising timestamps",
    "order of publication",
    "durable, then told",
    "nothing pending is read",
    "nothing is no commit",
    "a prefix after a crash",
    "no guessing",
    "whole read sets",
    "conflicts are found",
    "no other conflicts",
    "serializability",
    "forgotten is not passed",
    "children",
    "indexes are right",
    "backfills are whole",
    "enabled is ready",
    "pages cover",
    "pages stay",
    "keys are in order",
    "trimming is announced",
    "trimming spares the present",
    "no lost update",
    "active means valid",
    "one switch",
    "determinism",
    "fresh retries",
    "exactly once, later",
    "at most once, later",
    "neither early nor canceled",
    "one tick at a time",
    "only what has ended is forgotten",
]
PROTOCOL = [
    "endpoint",
    "numbers of values",
    "numbers of the protocol",
    "what is unknown",
    "log lines",
    "data of errors",
    "connect comes first",
    "clocks",
    "resumption",
    "a server that is behind",
    "versions follow",
    "first transition",
    "next transition",
    "one snapshot",
    "one identity",
    "added and removed",
    "claims",
    "no way back",
    "nothing twice",
    "parts",
    "between parts",
    "order",
    "as whom",
    "response",
    "response, then transition",
    "covered",
    "followed",
    "sent again",
    "sent again too early",
    "remembered with the commit",
    "records without end",
    "actions",
    "journals",
    "cursors of others",
    "identity confirmed",
    "identity refused",
    "identity expired",
    "silence",
    "silence of a client",
    "fatal",
    "closing",
    "not found",
    "back-pressure, out",
    "back-pressure, in",
    "bounds",
    "bounds of connections",
    "status",
]
PITFALLS = [
    "a view without a version",
    "a refused batch that was seen",
    "a past that is nowhere",
    "readers that stay",
    "forks",
    "a flush that is not there",
    "validation that nothing tries",
    "one that fails for all",
    "which failure is which",
    "interruptions gone astray",
    "entries beside the log",
    "many versions of a row",
    "a loop that is held",
    "staging without end",
    "one edition of the catalog",
    "determinism that leaks",
    "a trimmed log that is checked",
    "uniqueness at the wrong time",
    "a delete that follows later",
    "session records without end",
    "publishing what is staged",
    "a label of another state",
    "one flush counted for two",
    "long keys",
    "ids all over the tree",
    "numbers that need a walk",
    "lines before the answer",
    "errors that end everything",
    "an end that never comes",
    "a jump that is kept for ever",
    "other carriers, other processes",
]
COMPONENTS = [
    "reads that do not bind",
    "pages of components",
    "timestamps of commits",
    "handles",
    "function metadata",
    "mounts",
    "what it is told",
    "the boundary",
    "order, clock, failure",
    "isolation",
    "unmounted",
    "deleted",
    "of others",
    "limits",
    "migrations",
    "aggregates",
    "queues of aggregates",
    "batch workers",
    "pools",
]
DECISIONS = [
    "text search in a transaction",
    "counts and children",
    "a child's result",
    "what a child that failed used",
    "who asks, in components",
    "an action that cancels a job",
    "state of a vector search",
    "order of a text search",
    "pages of a search",
    "a search index that is replaced",
    "dice and the cache",
    "a job that cancels itself",
    "tables as reads",
    "conflicts with what may fail",
    "`_creationTime`",
    "`lt`",
    "fields of an index",
    "filters of a vector search",
    "a document written often",
    "time limits",
    "what nobody has any more",
    "actions that are sent again",
    "mutations over HTTP that are sent again",
    "a push of many function handles",
    "a schema without validation",
    "ids in documents",
    "how rare a word is",
    "scheduled actions after an error of the engine",
]

WORDED = {
    "Invariants": INVARIANTS,
    "What clients of the sync protocol rely on": PROTOCOL,
    "Pitfalls": PITFALLS,
    "Components": COMPONENTS,
    "Decided otherwise, or on purpose": DECISIONS,
}
"""Sections whose keys are words."""

NOT_YET = [
    "1.1",
    "6.8",
    "I23, I30",
    "I25",
    "other carriers, other processes",
]
"""What is still to come, so that whoever brings it finds the row that says it is not there."""


@cache
def sections() -> dict[str, list[dict[str, str]]]:
    """The rows of each table of the map, by its heading."""
    text = (ROOT / "tests/README.md").read_text().split(HEADING)[1].split("\n## ")[0]
    parts = re.split(r"(?m)^### (.+)$", text)[1:]
    return {
        title: [row.groupdict() for row in ROW.finditer(body)][2:]
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def keys(title: str) -> list[str]:
    return [row["keys"] for row in sections()[title]]


def numbered_rows() -> Iterator[dict[str, str]]:
    for title, rows in sections().items():
        if title not in WORDED:
            yield from rows


def all_rows() -> list[dict[str, str]]:
    return [row for rows in sections().values() for row in rows]


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests of a file: functions, also in classes, or titles of a client's."""
    text = (ROOT / "tests" / path).read_text()
    if path.endswith(".mjs"):
        return frozenset(re.findall(r'(?m)^\s*test\("([^"]+)"', text))
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(
        node.name for node in ast.walk(ast.parse(text)) if isinstance(node, named)
    ) | frozenset(re.findall(r"(?m)^(Test\w+) = .*TestCase\b", text))


def test_every_numbered_behaviour_has_one_row() -> None:
    assert sorted(NUMBERED) == sorted(
        key for row in numbered_rows() for key in row["keys"].split(", ")
    )


@pytest.mark.parametrize(("title", "expected"), WORDED.items(), ids=WORDED)
def test_every_other_one_has_one_row(title: str, expected: list[str]) -> None:
    assert expected == keys(title)


def test_every_row_has_a_test_or_a_reason() -> None:
    bare = [
        row["keys"]
        for row in all_rows()
        if not TEST.search(row["shown"]) and not REASON.search(row["shown"])
    ]

    assert [] == bare


def test_what_is_still_to_come_is_known() -> None:
    assert NOT_YET == [row["keys"] for row in all_rows() if "not yet" in row["shown"].lower()]


def test_every_invariant_has_one_test() -> None:
    named = [TEST.findall(row["shown"]) for row in sections()["Invariants"]]

    assert [1] * len(INVARIANTS) == [len(tests) for tests in named]
    assert len(INVARIANTS) == len({test for (test,) in named})


def test_every_test_that_is_named_is_there() -> None:
    named = {test for row in all_rows() for test in TEST.findall(row["shown"])}

    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not (ROOT / "tests" / path).is_file() or name not in names_in(path)
    ]

    assert [] == missing
    assert len(named) > 100
