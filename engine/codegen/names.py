"""Names in a Python file."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from typing import Final

WORD: Final = re.compile(r"[A-Za-z_]\w*")
OWN: Final = re.compile(r"_\w+")
"""A name that a file defines for itself."""
ATTRIBUTE: Final = re.compile(r"^    \w+:")
"""What stands before the type of one; its name imports nothing."""


class Names:
    """Those that a file has defined."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def take(self, name: str) -> str:
        """`name`, or one like it where there is that already."""
        unused, number = name, 1
        while unused in self._taken:
            number += 1
            unused = f"{name}{number}"
        self._taken.add(unused)
        return unused


def is_name(text: str) -> bool:
    """Whether it can stand where Python wants a name, and stays what it is in a class."""
    return text.isidentifier() and not keyword.iskeyword(text) and not text.startswith("__")


def camel(text: str) -> str:
    """`read_messages` as a part of the name of a class: `ReadMessages`."""
    return "".join(step[:1].upper() + step[1:] for step in re.split(r"[^A-Za-z0-9]+", text))
