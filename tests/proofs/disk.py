"""
What a disk may hold after a power cut: all that was made durable, and anything of the rest.

    disk = Disk(folder)
    disk.begin(event.what), disk.end(event.what), ...    as they were seen to begin and to end
    disk.image(dice).write(to)                           one of the states that it may be in now

Bytes reach the disk by sectors of 512, each as the cache had it at some moment since it was last
made durable, and in any order. Names reach it by folder: each folder is as it was at some moment
since it was last flushed. A file that is cut is cut at once, so its images are milder; only files
that say who has locked what are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from tests.proofs.write_trace import Flush, Make, Remove, Rename, Resize, Say, What, Write

SECTOR_BYTES: Final = 512
PAGE_SECTORS: Final = 8
_ALL: Final = 1 << 62


class Piece(NamedTuple):
    """What one write does to one sector. number: of the write, in its file."""

    number: int
    offset: int
    data: bytes


Upto: TypeAlias = Callable[[int, list[Piece]], int]
"""For a sector and what is pending for it: the number of the last write that reached it."""


@dataclass(slots=True, eq=False)
class File:
    """Bytes: those that are durable, those that readers see, and what lies between."""

    durable: bytearray = field(default_factory=bytearray)
    cached: bytearray = field(default_factory=bytearray)
    pending: dict[int, list[Piece]] = field(default_factory=dict)
    """By sector, oldest first."""
    written: int = 0
    flushing_upto: int = 0
    in_flight: int = 0

    def begin_write(self, write: Write) -> None:
        self.written += 1
        self.in_flight += 1
        _put(self.cached, write.offset, write.data)
        for sector, piece in _pieces(self.written, write):
            self.pending.setdefault(sector, []).append(piece)

    def end_write(self, write: Write) -> None:
        self.in_flight -= 1
        if write.synchronous:
            for sector, _ in _pieces(0, write):
                self._settle(sector, _ALL)

    def begin_flush(self) -> None:
        assert not self.in_flight, "a flush says nothing of a write beside it"
        self.flushing_upto = self.written

    def end_flush(self) -> None:
        for sector in list(self.pending):
            self._settle(sector, self.flushing_upto)

    def resize(self, size_bytes: int, *, grows: bool) -> None:
        if grows:
            size_bytes = max(size_bytes, len(self.cached))
        self.end_flush_of_all()
        for data in (self.durable, self.cached):
            data.extend(bytes(max(0, size_bytes - len(data))))
            del data[size_bytes:]

    def end_flush_of_all(self) -> None:
        for sector in list(self.pending):
            self._settle(sector, _ALL)

    def after_power_loss(self, dice: random.Random) -> bytes:
        data = bytearray(self.durable)
        if self.pending:
            upto = _choice(dice, self.pending)
            for sector, pieces in self.pending.items():
                last = upto(sector, pieces)
                for piece in pieces:
                    if piece.number <= last:
                        _put(data, piece.offset, piece.data)
            if dice.random() < 0.25:  # the length is durable, and some of what belongs there is not
                data.extend(bytes(max(0, len(self.cached) - len(data))))
        return bytes(data)

    def _settle(self, sector: int, upto: int) -> None:
        pieces = self.pending.pop(sector, [])
        for piece in pieces:
            if piece.number <= upto:
                _put(self.durable, piece.offset, piece.data)
        if later := [piece for piece in pieces if piece.number > upto]:
            self.pending[sector] = later


Names: TypeAlias = "dict[str, File | Folder]"


@dataclass(slots=True, eq=False)
class Folder:
    """Names: those that are durable, and one state more for every change since."""

    durable: Names = field(default_factory=dict)
    later: list[Names] = field(default_factory=list)
    flushing_upto: int = 0

    @property
    def cached(self) -> Names:
        return self.later[-1] if self.later else self.durable

    def change(self, names: Mapping[str, File | Folder | None]) -> None:
        """Give each name to a node, or, with None, take it away, all at once."""
        changed = {**self.cached, **names}
        self.later.append({name: node for name, node in changed.items() if node is not None})

    def begin_flush(self) -> None:
        self.flushing_upto = len(self.later)

    def end_flush(self) -> None:
        if self.flushing_upto:
            self.durable = self.later[self.flushing_upto - 1]
            del self.later[: self.flushing_upto]
            self.flushing_upto = 0

    def after_power_loss(self, dice: random.Random) -> Names:
        return dice.choice([self.durable, *self.later])


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Folders and files with their bytes, by their path below the folder that was watched."""

    folders: list[Path]
    files: dict[Path, bytes]

    def write(self, to: Path) -> None:
        """Make it in the folder `to`, which is empty."""
        for folder in self.folders:
            (to / folder).mkdir()
        for path, data in self.files.items():
            (to / path).write_bytes(data)


class Disk:
    """A folder, durable and empty at first, and what becomes of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = Folder()

    def begin(self, what: What) -> None:
        """From here on some of it may be on the disk."""
        match what:
            case Write():
                self._file(what.path).begin_write(what)
            case Resize():
                self._file(what.path).resize(what.size_bytes, grows=what.grows)
            case Flush():
                self._find(what.path).begin_flush()
            case Make():
                parent = self._parent(what.path)
                if what.path.name not in parent.cached:
                    parent.change({what.path.name: Folder() if what.is_folder else File()})
            case Rename():
                parent = self._parent(what.path)
                assert parent is self._parent(what.to), "only within a folder"
                parent.change({what.to.name: parent.cached[what.path.name], what.path.name: None})
            case Remove():
                self._parent(what.path).change({what.path.name: None})
            case Say():
                pass

    def end(self, what: What) -> None:
        """It has succeeded, and is durable if that is what it promises."""
        match what:
            case Write():
                self._file(what.path).end_write(what)
            case Flush():
                self._find(what.path).end_flush()
            case _:
                pass

    def image(self, dice: random.Random) -> Image:
        """One of the states in which the folder may be found, if the power fails now."""
        folders: list[Path] = []
        files: dict[Path, bytes] = {}

        def add(folder: Folder, at: Path) -> None:
            for name, node in folder.after_power_loss(dice).items():
                if isinstance(node, Folder):
                    folders.append(at / name)
                    add(node, at / name)
                else:
                    files[at / name] = node.after_power_loss(dice)

        add(self._root, Path())
        return Image(folders=folders, files=files)

    def cached(self, path: Path) -> bytes:
        """What readers of a file see."""
        return bytes(self._file(path).cached)

    def _file(self, path: Path) -> File:
        node = self._find(path)
        assert isinstance(node, File), f"{path} is a folder"
        return node

    def _parent(self, path: Path) -> Folder:
        node = self._find(path.parent)
        assert isinstance(node, Folder), f"{path.parent} is a file"
        return node

    def _find(self, path: Path) -> File | Folder:
        node: File | Folder = self._root
        for name in path.relative_to(self._folder).parts:
            assert isinstance(node, Folder), f"{path} is in a file"
            node = node.cached[name]
        return node


def _put(data: bytearray, offset: int, new: bytes) -> None:
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(new)] = new


def _pieces(number: int, write: Write) -> Iterator[tuple[int, Piece]]:
    offset, end = write.offset, write.offset + len(write.data)
    while offset < end:
        sector = offset // SECTOR_BYTES
        upto = min(end, (sector + 1) * SECTOR_BYTES)
        data = write.data[offset - write.offset : upto - write.offset]
        yield sector, Piece(number, offset, data)
        offset = upto


def _choice(dice: random.Random, pending: dict[int, list[Piece]]) -> Upto:
    """
    Which of the pending writes reach the disk.

    Most subsets that bring a bug to light have almost nothing in them, or almost everything, so
    these are as likely as those in which every sector is decided by itself.
    """
    number = dice.choice(sorted({p.number for pieces in pending.values() for p in pieces}))
    one = dice.choice(list(pending))
    share = dice.choice((0.1, 0.5, 0.9))
    page = dice.getrandbits(32)

    def touches(pieces: list[Piece]) -> bool:
        return any(piece.number == number for piece in pieces)

    def scattered(_: int, pieces: list[Piece]) -> int:
        return _ALL if dice.random() < share else dice.choice([0, dice.choice(pieces).number])

    choices: list[Upto] = [
        lambda _, __: 0,
        lambda _, __: _ALL,
        lambda _, __: number,
        lambda _, __: number - dice.getrandbits(1),
        lambda _, pieces: number - 1 if touches(pieces) else _ALL,
        lambda _, pieces: number if touches(pieces) else 0,
        lambda sector, _: 0 if sector == one else _ALL,
        lambda sector, _: _ALL if sector == one else 0,
        lambda sector, _: _ALL * (random.Random(page + sector // PAGE_SECTORS).random() < share),
        scattered,
        scattered,
    ]
    return dice.choice(choices)
