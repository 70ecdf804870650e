"""
The functions of an application as `api` has them: by module, folders of modules above them.

A name may be a function and a module at once: `f` of `dir/__init__.py` beside `dir/f.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.app.registered import RegisteredFunction


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A module, a folder, or both."""

    functions: dict[str, RegisteredFunction] = field(default_factory=dict)
    below: dict[str, Node] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All that it has, in the order in which it is written."""
        return sorted({*self.functions, *self.below})


def tree_of(functions: Iterable[RegisteredFunction]) -> Node:
    """The tree of functions that an application has loaded, so that they have a path."""
    root = Node()
    for function in functions:
        assert function.path is not None, "what is loaded has a path"
        module, _, name = function.path.rpartition(":")
        node = root
        for step in module.split("/"):
            node = node.below.setdefault(step, Node())
        node.functions[name] = function
    return root
