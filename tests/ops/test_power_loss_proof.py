"""How the power-loss proof reads a trace, and which disks it makes of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.proofs import power_loss, reopening, write_trace
from tests.proofs.disk import SECTOR_BYTES, Disk
from tests.proofs.proof import Plan
from tests.proofs.write_trace import (
    Event,
    Flush,
    Make,
    Remove,
    Rename,
    Resize,
    Say,
    What,
    Write,
    events,
)

FOLDER = Path("/d")
FILE = FOLDER / "f"
SEEDS = 200


def sectors(letters: str) -> bytes:
    return b"".join(letter.encode() * SECTOR_BYTES for letter in letters)


def write(letters: str, *, at: int = 0, synchronous: bool = False) -> Write:
    data = sectors(letters)
    return Write(path=FILE, offset=at * SECTOR_BYTES, data=data, synchronous=synchronous)


def disk(done: Iterable[What], begun: What | None = None) -> Disk:
    """A folder with the file `f`, and what has been done to it since."""
    made = Disk(FOLDER)
    for what in [Make(path=FILE, is_folder=False), Flush(path=FOLDER), *done]:
        made.begin(what)
        made.end(what)
    if begun is not None:
        made.begin(begun)
    return made


def found(of: Disk) -> set[str]:
    """What the file may hold after the power fails, a letter a sector, a dot where it is zero."""
    images = (of.image(random.Random(seed)).files[Path("f")] for seed in range(SEEDS))
    return {image[::SECTOR_BYTES].decode().replace("\0", ".") for image in images}


def names(of: Disk) -> set[frozenset[str]]:
    images = (of.image(random.Random(seed)) for seed in range(SEEDS))
    return {frozenset(map(str, [*image.folders, *image.files])) for image in images}


def test_what_was_flushed_is_there_whatever_happens() -> None:
    assert {"ab"} == found(disk([write("ab"), Flush(path=FILE)]))


def test_of_what_was_not_flushed_any_sector_may_be_missing() -> None:
    assert {"ab", "a", ".b", "", "..", "a."} == found(disk([write("ab")]))


def test_later_writes_may_be_there_before_earlier_ones_but_not_beneath_them() -> None:
    twice: list[What] = [write("ab"), Flush(path=FILE), write("A"), write("B", at=1), write("C")]

    assert {"ab", "Ab", "aB", "AB", "Cb", "CB"} == found(disk(twice))


def test_a_flush_says_nothing_of_what_is_written_while_it_goes_on() -> None:
    flushing = disk([write("a")], Flush(path=FILE))
    flushing.begin(write("b"))
    flushing.end(Flush(path=FILE))

    assert {"a", "b"} == found(flushing)


def test_a_synchronous_write_is_durable_once_it_has_ended() -> None:
    meta = write("m", synchronous=True)

    assert {"m.", "mp", "m"} == found(disk([write("p", at=1), meta]))
    assert {"m", ""} <= found(disk([], meta))


def test_a_name_is_durable_once_its_folder_is_flushed() -> None:
    new, old = FOLDER / "new", FOLDER / "old"
    renaming: list[What] = [Make(path=new, is_folder=True), Rename(path=new, to=old)]

    assert {frozenset("f"), frozenset({"f", "new"}), frozenset({"f", "old"})} == names(
        disk(renaming)
    )
    assert {frozenset({"f", "old"})} == names(disk([*renaming, Flush(path=FOLDER)]))
    assert {frozenset("f"), frozenset()} == names(disk([Remove(path=FILE)]))


def test_the_length_of_a_file_is_set_at_once() -> None:
    longer = Resize(path=FILE, size_bytes=2 * SECTOR_BYTES, grows=True)
    shorter = Resize(path=FILE, size_bytes=SECTOR_BYTES, grows=False)

    assert {"a."} == found(disk([write("a"), longer]))
    assert {"a"} == found(disk([write("ab"), shorter]))


# Traces.


def shown(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return "".join(f"\\x{byte:02x}" for byte in data)


PLACE = f"<{shown('/d/f')}>"
PARTS = f'[{{iov_base="{shown("ab")}", iov_len=2}}, {{iov_base="{shown("c")}", iov_len=1}}]'
TRACE = f"""\
7 openat(AT_FDCWD</>, "{shown("/d/f")}", O_RDWR|O_CREAT, 0600) = 4{PLACE}
7 openat(AT_FDCWD</>, "{shown("/d/f")}", O_WRONLY|O_DSYNC) = 5{PLACE}
7 openat(AT_FDCWD</>, "{shown("/d/none")}", O_RDONLY) = -1 ENOENT (No such file or directory)
7 clone3({{flags=CLONE_VM|CLONE_THREAD}}, 88) = 8
8 lseek(4{PLACE}, 512, SEEK_SET) = 512
8 writev(4{PLACE}, {PARTS}, 2 <unfinished ...>
7 write(1<{shown("pipe:[3]")}>, "{shown("ack")}", 3) = 3
8 <... writev resumed>) = 3
8 pwrite64(5{PLACE}, "{shown("m")}", 1, 40) = 1
8 fdatasync(4{PLACE}) = 0
7 write(6<{shown("/elsewhere")}>, "{shown("x")}", 1) = 1
7 rename("{shown("/d/f")}", "{shown("/d/g")}") = 0
7 fdatasync(4{PLACE} <unfinished ...>
7 +++ killed by SIGKILL +++
"""


def test_a_trace_becomes_what_was_done_and_when(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(TRACE)

    happened = events(tmp_path / "trace", FOLDER)

    data = Write(path=FILE, offset=512, data=b"abc", synchronous=False)
    meta = Write(path=FILE, offset=40, data=b"m", synchronous=True)
    assert [
        Event(0, 1, Make(path=FILE, is_folder=False)),
        Event(10, 15, data),
        Event(12, 13, Say(text="ack")),
        Event(16, 17, meta),
        Event(18, 19, Flush(path=FILE)),
        Event(22, 23, Rename(path=FILE, to=FOLDER / "g")),
        Event(24, None, Flush(path=FILE)),
    ] == happened


@pytest.mark.parametrize(("there", "reached"), [("xabc", "abc"), ("xaby", "ab"), ("x", "")])
def test_a_write_that_was_cut_off_counts_as_far_as_it_came(
    there: str, reached: str, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    file.write_text(there)
    begun = Write(path=file, offset=1, data=b"abc", synchronous=True)

    _, end, left = power_loss._as_left(Event(10, None, begun))

    assert Write(path=file, offset=1, data=reached.encode(), synchronous=False) == left
    assert end is not None


# Verdicts.


def test_without_strace_nothing_is_proved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(write_trace, "STRACE", None)

    verdict = power_loss.prove(Plan(rounds=1, seed=0, planted=False, directory=tmp_path))

    assert not verdict.held
    assert "nothing was tried: strace is missing" in verdict.figure


@pytest.mark.parametrize(
    ("numbers", "is_answered", "differences"),
    [
        ([0, 1], False, []),
        ([0, 1, 2], False, []),
        ([0, 1, 2], True, []),
        ([0, 1], True, ["[2] were acknowledged and lost"]),
        ([0, 2], False, ["[1] were acknowledged and lost"]),
        ([0, 1, 3], False, ["[3] were never sent"]),
        ([0, 1, 1], False, ["[1] are there twice"]),
    ],
)
def test_a_ledger_is_held_against_what_was_acknowledged(
    numbers: list[int], is_answered: bool, differences: list[str]
) -> None:
    assert differences == list(reopening._differences(numbers, 2, is_answered=is_answered))
