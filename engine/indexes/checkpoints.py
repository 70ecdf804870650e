"""
Checkpoints: text and vector indexes in files, each as of a place in the log.

A checkpoint says of which history it is, by a record that was durable when it was written: files
beside a store that was restored from a backup, or put there from elsewhere, are told by it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.errors import StoreDamaged
from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.live import Checkpoint, Install, LiveIndex

if TYPE_CHECKING:
    from engine.indexes.text.index import TextIndex
    from engine.indexes.vectors.index import VectorIndex

FOLDER: Final = "indexes"
_FORMAT: Final = 3


class Place(NamedTuple):
    """A record of the log."""

    ts: int
    record_hash: bytes


class Manifest(NamedTuple):
    """What a checkpoint says of itself."""

    ts: int
    """It has all that was written up to here."""
    durable: Place
    fields: dict[str, Any]


class Checkpoints:
    """
    Those of one store; all of it is for a thread.

    Args:
        data: the directory of the store.
    """

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER

    def find(self, info: IndexInfo) -> Manifest | None:
        """
        What was written last of this index, and no other that had its number.

        Raises:
            StoreDamaged, OSError: it is not what was written.
        """
        from engine.indexes.files import read_manifest

        manifest = read_manifest(self._of(info))
        if manifest is None or manifest["format"] != _FORMAT or manifest["row"] != info.row:
            return None
        return Manifest(manifest["ts"], Place(*manifest["durable"]), manifest)

    def read(self, info: IndexInfo, manifest: Manifest) -> LiveIndex | None:
        """
        The index of a checkpoint; `None` where what it needs is not installed.

        Raises:
            StoreDamaged, OSError: its files are not what was written.
        """
        from engine.indexes.files import checksum_of

        folder = self._of(info)
        for name, checksum in manifest.fields["checksums"].items():
            if checksum_of(folder / name) != checksum:
                raise StoreDamaged(f"{folder / name} is another file than was written")
        return _read_index(info, manifest.ts, manifest.fields, folder)

    def write(self, info: IndexInfo, checkpoint: Checkpoint, durable: Place) -> Install:
        """
        Write a checkpoint, durably.

        Raises:
            OSError: there is no room; the last one stays.
        """
        from engine.indexes.files import checksum_of, remove_others, write_manifest

        folder = self._of(info)
        folder.mkdir(parents=True, exist_ok=True)
        install = checkpoint.write(folder)
        common = {
            "format": _FORMAT,
            "row": info.row,
            "ts": checkpoint.ts,
            "durable": list(durable),
            "checksums": {name: checksum_of(folder / name) for name in checkpoint.names},
        }
        write_manifest(folder, checkpoint.manifest | common)
        remove_others(folder, checkpoint.names)
        return install

    def remove(self, info: IndexInfo) -> None:
        """Remove the files of an index, if there are some."""
        _remove(self._of(info))

    def remove_others(self, kept: Collection[int]) -> None:
        """Remove the files of all indexes but these."""
        if not self._folder.is_dir():
            _remove(self._folder)
        names = {str(index_id) for index_id in kept}
        for folder in self._folder.glob("*"):
            if folder.name not in names:
                _remove(folder)

    def _of(self, info: IndexInfo) -> Path:
        return self._folder / str(info.index_id)


def _remove(folder: Path) -> None:
    """Remove a folder, or what stands in the place of one, if something does."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_file():
        with suppress(OSError):
            folder.unlink()


def new_index(info: IndexInfo, ts: int) -> LiveIndex | None:
    """An index without documents; `None` where what it needs is not installed."""
    kind = _class_of(info)
    return None if kind is None else kind(info, ts)


def _class_of(info: IndexInfo) -> type[TextIndex | VectorIndex] | None:
    """What indexes of that kind are made of; `None` where what it needs is not installed."""
    try:
        if info.kind is IndexKind.VECTOR:
            from engine.indexes.vectors.index import VectorIndex

            return VectorIndex
        from engine.indexes.text.index import TextIndex
    except ImportError:
        return None
    return TextIndex


def _read_index(
    info: IndexInfo, ts: int, manifest: dict[str, Any], folder: Path
) -> LiveIndex | None:
    """
    The index that `Checkpoint.write` wrote; `None` where what it needs is not installed.

    Raises:
        StoreDamaged, OSError: its files are not what was written.
    """
    kind = _class_of(info)
    try:
        return None if kind is None else kind.read(info, ts, manifest, folder)
    except (LookupError, TypeError, ValueError) as error:
        raise StoreDamaged(f"the files in {folder} are of a shape that is not known") from error
