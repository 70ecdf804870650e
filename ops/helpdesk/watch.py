"""
As `watch.mjs`, with the official Python client.

That one keeps the whole interpreter while it waits for a result, other threads included, so what
asks is a process of its own: this file again, with `ask` behind the URL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from convex import ConvexClient


def follow(url: str) -> None:
    """Say the questions whenever they change, while another process asks what it is told to."""
    with subprocess.Popen([sys.executable, __file__, url, "ask"]):  # ends with our stdin
        shown: list[str] | None = None
        states: Iterator[Any] = ConvexClient(url).subscribe("desk:questions", {})
        for rows in states:
            texts = [row["text"] for row in rows]
            if texts != shown:  # this client repeats a value on every transition
                shown = texts
                say("questions", texts)


def ask(url: str) -> None:
    client = ConvexClient(url)
    for line in sys.stdin:
        asked = {"author": "check", "text": line.rstrip("\n"), "module": "json"}
        say("asked", client.mutation("desk:ask", asked))


def say(kind: str, value: Any) -> None:
    # In one piece, because two processes say something: `print` may write the end by itself.
    os.write(1, (json.dumps({"kind": kind, "value": value}) + "\n").encode())


if __name__ == "__main__":
    (ask if "ask" in sys.argv else follow)(sys.argv[1])
