"""
Names of `_generated.data_model` as annotations: `message: NewMessage`.

What one stands for follows from the schema, which may be declared after the
module that imports it; so it is asked for when the annotation is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from engine.app.validators import Validator


class Generated(dict[str, Any]):
    """A name; called it makes a dict, as the TypedDict does that type checkers see."""

    validator: ClassVar[Callable[[], Validator | None]]


def generated(name: str, validator: Callable[[], Validator | None]) -> type[Generated]:
    """
    Args:
        validator: what the name stands for, or None if the schema has nothing of that name.
    """
    return type(name, (Generated,), {"validator": staticmethod(validator)})
