"""Functions stay small enough to be read in one look."""

from __future__ import annotations

import ast
from math import ceil

import pytest

from tests.architecture.source_tree import Function, lines_of, modules

LINES_P95_MAX = 45
"""Of twenty functions one may be longer: a pipeline or a state table, its stages named."""


@pytest.mark.parametrize("folder", ["engine", "components", "bench", "ops", "tests"])
def test_most_functions_fit_on_a_screen(folder: str) -> None:
    lengths = [
        (lines_of(function), f"{module.name}.{function.name}")
        for module in modules(folder)
        for function in module.functions()
    ]

    longest = sorted(lengths)[ceil(0.95 * len(lengths)) - 1 :]

    assert [found for found in longest[:1] if found[0] >= LINES_P95_MAX] == [], longest


def test_a_docstring_does_not_make_a_function_longer() -> None:
    source = 'def f() -> None:\n    """\n    One.\n    Two.\n    """\n    return None\n'

    (function,) = ast.parse(source).body

    assert isinstance(function, Function)
    assert lines_of(function) == 2
