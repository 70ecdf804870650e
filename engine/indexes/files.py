"""
Indexes on disk: arrays that are mapped into memory, and a manifest that says which of them count.

    <data>/indexes/<index id>/<name>.arrays     one segment; never changed
    <data>/indexes/<index id>/manifest          replaced by renaming, when its segments are durable

    arrays      b"HRA1", length of the head (4 bytes), CRC-32 of the rest (4), head, arrays.
                The head is CBOR: of each array its name, type, shape and place
    manifest    CRC-32 (4 bytes), CBOR, which has the CRC-32 of each segment: one of another index
                or time that bears its name is none of it

Whatever is missing, cut short or other than it was written is told by the checksum, and the index
is then built from the documents: there is nothing here that they do not have.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import StoreDamaged
from engine.model.codec import decode, encode

SUFFIX: Final = ".arrays"
MANIFEST: Final = "manifest"
_MAGIC: Final = b"HRA1"
_HEAD_AT: Final = len(_MAGIC) + 8
_ALIGNED: Final = 64
_CRC_SLICE_BYTES: Final = 1 << 22

Array = npt.NDArray[Any]


def write_arrays(
    path: Path, arrays: Mapping[str, Array], *, leads: Mapping[str, int] | None = None
) -> None:
    """
    Write arrays to a new file; they are durable when this returns, if its folder is flushed.

    Args:
        leads: bytes at the beginning of an array, by its name; what comes after these is aligned.
    """
    places: list[list[Any]] = []
    body: list[bytes | memoryview] = []
    end = 0
    for name, array in arrays.items():
        lead = (leads or {}).get(name, 0)
        at = _padded(end + lead) - lead
        places.append([name, array.dtype.str, list(array.shape), at])
        # As it lies in memory: to copy it would hold everybody up, and take as much once more.
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        body += [bytes(at - end), data.data]
        end = at + data.nbytes
    head = encode(places)
    start = _padded(_HEAD_AT + len(head))
    parts = [head, bytes(start - _HEAD_AT - len(head)), *body]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    with path.open("wb") as file:
        file.write(_MAGIC + len(head).to_bytes(4, "big") + checksum.to_bytes(4, "big"))
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def read_arrays(path: Path, *, checked: bool = True) -> dict[str, Array]:
    """
    The arrays of a file, mapped: they take memory when they are read, as long as there is some.

    Args:
        checked: read all of it and compare its checksum.

    Raises:
        StoreDamaged: it is not what was written.
        OSError: it is not there, or cannot be read.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < _HEAD_AT:
            raise StoreDamaged(f"{path} is cut short")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    head_bytes = int.from_bytes(data[4:8], "big")
    start = _padded(_HEAD_AT + head_bytes)
    if data[:4] != _MAGIC or start > len(data):
        raise StoreDamaged(f"{path} holds no arrays")
    if checked and _checksum(data) != int.from_bytes(data[8:_HEAD_AT], "big"):
        raise StoreDamaged(f"{path} is not what was written: its checksum is another")
    places = decode(data[_HEAD_AT : _HEAD_AT + head_bytes])
    return {name: _mapped(data, start + at, dtype, shape) for name, dtype, shape, at in places}


def checksum_of(path: Path) -> int:
    """
    The checksum that a file of arrays says it has; `read_arrays` looks whether it does.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    with path.open("rb") as file:
        return int.from_bytes(file.read(_HEAD_AT)[8:], "big")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Put a manifest in the place of the last one; it is durable, and so are its segments."""
    body = encode(dict(manifest))
    new = folder / f"{MANIFEST}.new"
    with new.open("wb") as file:
        file.write(zlib.crc32(body).to_bytes(4, "big") + body)
        file.flush()
        os.fsync(file.fileno())
    _flush(folder)
    new.rename(folder / MANIFEST)
    _flush(folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """
    What was written last; `None` if nothing ever was.

    Raises:
        StoreDamaged: it is not what was written.
        OSError: it cannot be read.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "big"):
        raise StoreDamaged(f"{folder / MANIFEST} is not what was written: its checksum is another")
    manifest: dict[str, Any] = decode(data[4:])
    return manifest


def remove_others(folder: Path, kept: Iterable[str]) -> None:
    """Remove the segments that no manifest names any more; who has mapped one keeps it."""
    names = set(kept)
    for path in folder.glob(f"*{SUFFIX}"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def _checksum(data: mmap.mmap) -> int:
    checksum = 0
    for at in range(_HEAD_AT, len(data), _CRC_SLICE_BYTES):
        checksum = zlib.crc32(data[at : at + _CRC_SLICE_BYTES], checksum)
    return checksum


def _mapped(data: mmap.mmap, at: int, dtype: str, shape: list[int]) -> Array:
    count = int(np.prod(shape))
    if not count:
        return np.zeros(shape, np.dtype(dtype))
    return np.frombuffer(data, np.dtype(dtype), count, at).reshape(shape)


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
