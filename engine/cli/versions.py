"""`headrace version`: what is installed, for reports of bugs."""

from __future__ import annotations

import argparse
import platform
from typing import Any

from engine.cli.failures import Exit
from engine.cli.project import new_verb


def add(verbs: Any) -> None:
    parser = new_verb(verbs, "version", "say which version this is", "headrace version")
    parser.set_defaults(run=run)


def run(_options: argparse.Namespace) -> int:
    from engine.server.server import installed_version

    print(f"headrace {installed_version()}")
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}")
    return Exit.DONE
