"""Windows: the official JavaScript client in processes of its own, shown a query each."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import Process, running
from tests.architecture.source_tree import ROOT

HERE = Path(__file__).parent
HOMES = [ROOT / "tests" / "clients", ROOT / "ops" / "helpdesk"]
NODE = shutil.which("node")
CLIENT = next((home for home in HOMES if (home / "node_modules" / "convex").is_dir()), None)

CLIENT_MISSING = "the official JavaScript client is not here: npm ci --prefix tests/clients"


def skipped_unless(is_here: bool, reason: str) -> pytest.MarkDecorator:
    """Skips what needs Node where that is missing; with CI=true it runs, and fails."""
    return pytest.mark.skipif(not is_here and os.environ.get("CI") != "true", reason=reason)


needs_node = skipped_unless(NODE is not None, "Node is not here, and pyright runs on it")
needs_client = skipped_unless(NODE is not None and CLIENT is not None, CLIENT_MISSING)


class Window:
    """One client that shows one query."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.process.lines) if line.startswith("{")]

    @property
    def shown(self) -> list[Any]:
        """Every state so far, in order."""
        return [each["shown"] for each in self.said if "shown" in each]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Of its mutations, in the order of their arrival."""
        return [each for each in self.said if "answered" in each]

    @property
    def connections(self) -> int:
        """How many WebSockets it has opened so far."""
        return max((int(each["connections"]) for each in self.said), default=0)

    def tell(self, number: int, path: str, /, **args: Any) -> None:
        """Have it run a mutation; it does not wait for those before."""
        self.process.write(json.dumps({"number": number, "path": path, "args": args}))

    def wait_shown(self, condition: Callable[[Any], bool], *, seconds: float = 10.0) -> Any:
        """The first state that fulfils `condition`."""
        return self._wait(lambda: next(filter(condition, self.shown), None), seconds)

    def wait_answers(self, count: int, *, seconds: float = 10.0) -> list[dict[str, Any]]:
        found = self._wait(lambda: self.answers if len(self.answers) >= count else None, seconds)
        assert isinstance(found, list)
        return found

    def _wait(self, look: Callable[[], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            if time.monotonic() > deadline:
                last = "\n".join(line[:300] for line in self.process.lines[-10:])
                raise AssertionError(f"waited {seconds:g} s; it last said:\n{last}")
            time.sleep(0.005)
        return found


@contextmanager
def window(url: str, query: str, /, **args: Any) -> Iterator[Window]:
    """A window at `url` for the length of the block."""
    assert NODE is not None, CLIENT_MISSING
    assert CLIENT is not None, CLIENT_MISSING
    command = [NODE, HERE / "window.mjs", CLIENT, url, query, json.dumps(args)]
    with running(command) as process:
        yield Window(process)
