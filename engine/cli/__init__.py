"""The command line: `main` does what its arguments say."""

from __future__ import annotations

from engine.cli.command import main

__all__ = ["main"]
