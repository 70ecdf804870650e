"""
Real text: what WordNet says of its 117,000 synsets.

It is Debian's package `wordnet-base`, fetched once and kept outside the repository.  A folder that
`HEADRACE_BENCH_CACHE` names holds what benches keep, else `~/.cache/headrace-bench`.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path
from typing import Final

PARTS: Final = ("noun", "verb", "adj", "adv")
_INSTALLED: Final = Path("/usr/share/wordnet")


def cache() -> Path:
    """Where benches keep what takes long to make."""
    named = os.environ.get("HEADRACE_BENCH_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "headrace-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def glosses(count: int | None = None, seed: int = 1) -> list[tuple[str, str]]:
    """
    Part of speech and gloss of synsets, shuffled; all of them unless `count` says how many.

    Raises:
        OSError, subprocess.CalledProcessError: WordNet is not here and cannot be fetched.
    """
    folder = _folder()
    found = [(part, gloss) for part in PARTS for gloss in _read(folder / f"data.{part}")]
    random.Random(seed).shuffle(found)
    return found[:count]


def _read(path: Path) -> list[str]:
    """Lines of a data file are synsets, but for the licence, which is indented."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.partition("| ")[2].strip() for line in lines if not line.startswith(" ")]


def _folder() -> Path:
    if (_INSTALLED / "data.noun").is_file():
        return _INSTALLED
    unpacked = cache() / "wordnet-base"
    folder = unpacked / "usr" / "share" / "wordnet"
    if not (folder / "data.noun").is_file():
        _run("apt-get", "download", "wordnet-base")
        package = max(cache().glob("wordnet-base_*.deb"))
        _run("dpkg", "-x", str(package), str(unpacked))
    return folder


def _run(*command: str) -> None:
    subprocess.run(command, cwd=cache(), check=True, stdout=subprocess.DEVNULL)
