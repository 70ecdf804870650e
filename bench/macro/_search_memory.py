"""
The process whose memory is measured: one engine or library, with the glosses in it.

    python -m bench.macro._search_memory NAME FOLDER DOCUMENTS SEED filled|reopened

It fills FOLDER, or opens what another one has filled, searches, and prints `[metric, value, unit]`
of each figure as JSON.  Memory is what came after the modules and the glosses were there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import trio

from bench.glosses import glosses
from bench.harness import resident_mb
from bench.macro._search_peers import PEERS, Docs
from bench.macro.search import AT_ONCE, FILLED, OURS, Questions, add, look, schema
from engine.host import Engine
from engine.kernel.trace import trace_to_stderr

Figure = tuple[str, float, str]
SEARCHES: Final = 300


def main(name: str, folder: Path, docs: Docs, seed: int, state: str) -> list[Figure]:
    questions = [Questions(docs, words, part=False, seed=seed) for words in (1, 2, 4)]
    asked = [next(questions[number % 3])[0] for number in range(SEARCHES)]
    if name == OURS:
        return trio.run(_ours, folder, docs if state == FILLED else [], asked)
    package, peer = next(one for one in PEERS if one[1].name == name)
    if package:
        import_module(package)
    before = _settled_mb()
    if state == FILLED:
        search = peer.fill(folder, docs)
    elif peer.again is not None:
        search = peer.again(folder)
    else:
        return []
    return [_searched(before, asked, lambda text: search(text, None))]


async def _ours(folder: Path, docs: Docs, asked: list[str]) -> list[Figure]:
    before = _settled_mb()
    async with Engine.open(folder, app=[add, look, schema]) as engine:
        for first in range(0, len(docs), AT_ONCE):
            some = [list(one) for one in docs[first : first + AT_ONCE]]
            await engine.mutation(add, notes=some)
        await trio.sleep(1.0)  # what there is to fold is folded
        for number, text in enumerate(asked):
            await engine.query(look, text=text, part=None, asked_before=number)
        (index,) = engine.node.keeper.statuses()
        assert index.answers, "it is not being built any more"
        return [
            ("anonymous", _settled_mb() - before, "MB"),
            ("arrays", index.size_bytes / index.documents, "bytes a document"),
        ]


def _searched(before: float, asked: list[str], search: Callable[[str], Any]) -> Figure:
    for text in asked:
        search(text)
    return "anonymous", _settled_mb() - before, "MB"


def _settled_mb() -> float:
    """Without what was given back already: else it would hide what is taken next."""
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
    return resident_mb()


_libc: Final = ctypes.CDLL(None)


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    whose, where, count, dice, how = sys.argv[1:]
    print(json.dumps(main(whose, Path(where), glosses(int(count)), int(dice), how)))
