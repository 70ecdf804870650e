"""Components that cannot be loaded: what is wrong is said, and where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.errors import DeclarationError
from engine.functions.loader import load
from tests.components.packages import importable, write

APP = """\
from engine import App
from broken_one import component
app = App()
app.use(component, name="one")
"""
ONE = """\
from engine import Component
component = Component("one")
"""
OTHER = """\
from engine import Component
import broken_one
component = Component("other")
component.use(broken_one.component, name="back")
"""


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"__init__.py": "import nothing_here"}, "No module named 'nothing_here'"),
        (
            {"__init__.py": ONE, "functions.py": "import nothing_here"},
            "broken_one/functions.py:1: .*No module named 'nothing_here'",
        ),
        ({"__init__.py": ONE, "functions.py": "def f(:"}, "broken_one/functions.py"),
        (
            {"__init__.py": ONE, "functions.py": "raise LookupError('no')"},
            "broken_one/functions.py:1: LookupError: no",
        ),
        (
            {
                "__init__.py": ONE,
                "schema.py": (
                    "from engine import Document, Schema, Table\n"
                    "class A(Document):\n    x: int\n"
                    "schema = Schema(a=Table(A).index('by_y', ['y']))\n"
                ),
            },
            "broken_one/schema.py:4: index 'by_y': no document has a field `y`",
        ),
        (
            {"__init__.py": ONE + "component.use(component, name='inner')\n"},
            "broken_one/__init__.py:3: <component one> mounts itself, by way of 'one'",
        ),
        (
            {
                "__init__.py": ONE + "import broken_other\n"
                "component.use(broken_other.component, name='there')\n",
                "../broken_other/__init__.py": OTHER,
            },
            "broken_other/__init__.py:4: <component one> mounts itself, by way of",
        ),
        (
            {"__init__.py": ONE + "again = Component('again')\n"},
            "__init__.py:2 and .*__init__.py:3; a component's package has one",
        ),
        (
            {"__init__.py": ONE.replace(")", ", config=5)")},
            "broken_one/__init__.py:2: config of the component 'one' is 5",
        ),
    ],
    ids=[
        "import",
        "import in a module",
        "syntax",
        "raises",
        "schema",
        "within itself",
        "within another",
        "two",
        "config",
    ],
)
def test_what_is_broken_is_named_with_its_place(
    tmp_path: Path, files: Mapping[str, str], why: str
) -> None:
    write(tmp_path, {f"broken_one/{name}": text for name, text in files.items()})
    write(tmp_path, {"app.py": APP})

    with (
        importable(tmp_path, "broken_"),
        pytest.raises(DeclarationError, match=why) as refused,
    ):
        load(tmp_path / "app.py")

    assert str(tmp_path) in str(refused.value)
