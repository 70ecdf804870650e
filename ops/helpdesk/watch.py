"""As `watch.mjs`, with the official Python client."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from threading import Thread
from typing import Any

from convex import ConvexClient


def main(url: str) -> None:
    client = ConvexClient(url)
    Thread(target=_ask, args=(url,), daemon=True).start()
    shown: list[str] | None = None
    states: Iterator[Any] = client.subscribe("desk:questions", {})
    for rows in states:
        texts = [row["text"] for row in rows]
        if texts != shown:  # this client repeats a value on every transition
            shown = texts
            _say("questions", texts)


def _ask(url: str) -> None:
    client = ConvexClient(url)
    for line in sys.stdin:
        asked = {"author": "check", "text": line.rstrip("\n"), "module": "json"}
        _say("asked", client.mutation("desk:ask", asked))


def _say(kind: str, value: Any) -> None:
    print(json.dumps({"kind": kind, "value": value}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
