"""The README's table of errors and the tree in `engine.errors` have every class there is."""

from __future__ import annotations

import re

import pytest

import engine
from engine import errors
from tests.architecture.source_tree import ROOT

ROW = re.compile(r'(?m)^\| <a id="(\w+)"></a>`(\w+)` \| (.+) \| (.+) \|$')
BRANCH = re.compile(r"(?m)^    ([│├└─ ]*)([A-Z]\w+)")
STEP = len("├── ")
CLASSES: list[type[Exception]] = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, Exception) and cls.__module__ == errors.__name__
]
NAMES = [cls.__name__ for cls in CLASSES]


def table() -> list[tuple[str, ...]]:
    section = (ROOT / "README.md").read_text().split("\n## Errors\n")[1].split("\n## ")[0]
    return [row.groups() for row in ROW.finditer(section)]


def test_the_table_has_every_class_in_order_each_with_its_anchor() -> None:
    assert [(name.lower(), name) for name in NAMES] == [
        (anchor, name) for anchor, name, *_ in table()
    ]


def test_the_tree_has_every_class_in_order_below_its_base() -> None:
    drawn = [
        (name, len(branches) // STEP) for branches, name in BRANCH.findall(errors.__doc__ or "")
    ]

    assert [(cls.__name__, depth(cls)) for cls in CLASSES] == drawn


def depth(cls: type[Exception]) -> int:
    """How many classes of the tree are above it."""
    return len([base for base in cls.__mro__[1:] if base in CLASSES])


@pytest.mark.parametrize("cls", CLASSES, ids=NAMES)
def test_a_class_is_exported_and_its_name_is_its_code(cls: type[Exception]) -> None:
    error = cls.__new__(cls)

    assert getattr(engine, cls.__name__) is cls
    if isinstance(error, errors.EngineError) and not isinstance(error, errors.RequestRefused):
        assert cls.__name__ == error.code
