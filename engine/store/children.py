"""How a module of the engine is run as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

_BOOT: Final = """
import importlib, sys, types
module, argument, package, *sys.path[:] = sys.argv[1:]
engine = types.ModuleType("engine")
engine.__path__ = [package]
sys.modules["engine"] = engine
sys.exit(importlib.import_module(module).main(argument))
"""
"""
Starts from where this engine was imported, be it installed or a checkout, and without what
`engine/__init__.py` imports: trio and a web server are of no use to such a process.
"""


def command_of(module: str, argument: str) -> list[str]:
    """The command that calls the `main` of a module with `argument`, and exits with its code."""
    package = str(Path(__file__).parents[1])
    paths = [path for path in sys.path if path]
    return [sys.executable, "-I", "-S", "-c", _BOOT, module, argument, package, *paths]
