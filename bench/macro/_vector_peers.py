"""What vector search is measured beside: libraries alone, without an engine around them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.harness import progress
from engine.indexes.vectors.graph import NEIGHBOURS, WIDTH, WIDTH_BUILT

Floats: TypeAlias = NDArray[np.float32]
Search: TypeAlias = Callable[[Sequence[float], int], list[dict[str, Any]]]
"""The best for a vector, as lists of floats come; and of one document in so many, or all for 1."""
WANTED: Final = 10


class Peer(NamedTuple):
    """
    A library with the rows in it.

    Args:
        set_width: has it search with so many candidates; `None` if it looks at all.
        seconds: that filling it took.
        filters: whether it can look at one row in so many alone.
    """

    name: str
    search: Search
    seconds: float
    size_mb: float
    set_width: Callable[[int], None] | None = None
    filters: bool = False


def filled(rows: Floats) -> Iterator[Peer]:
    """Each peer that is installed, but for the library that is in ours."""
    for fill, packages in (
        (_numpy, ["numpy"]),
        (_sqlite, SQLITE),
        (_lance, ["lancedb"]),
    ):
        try:
            label = " ".join([packages[-1], version(packages[-1])])
            for package in packages:
                version(package)
        except PackageNotFoundError as missing:
            progress(f"{packages[-1]} is skipped: pip install {missing.name}")
            continue
        yield fill(label, rows)


FIELDS: Final = {10: "tenth", 100: "hundredth", 1000: "thousandth"}
"""Those that one row in so many has a 0 in."""
SQLITE: Final = ["apsw", "sqlite-vec"]
"""Python's own module may have been built without extensions."""


def hits(ids: Sequence[int], scores: Sequence[float]) -> list[dict[str, Any]]:
    return [{"_id": one, "_score": score} for one, score in zip(ids, scores, strict=True)]


def _numpy(name: str, rows: Floats) -> Peer:
    places = np.arange(len(rows))

    def search(vector: Sequence[float], one_in: int) -> list[dict[str, Any]]:
        row = np.array(vector, np.float32)
        chosen = places if one_in == 1 else np.flatnonzero(places % one_in == 0)
        scores = (rows if one_in == 1 else rows[chosen]) @ row
        count = min(WANTED, len(chosen))
        best = np.argpartition(scores, -count)[-count:]
        best = best[np.argsort(-scores[best])]
        return hits(chosen[best].tolist(), scores[best].tolist())

    return Peer(name, search, 0.0, rows.nbytes / 1e6, filters=True)


def usearch_alone(rows: Floats) -> Peer:
    """The library that is in ours, by itself."""
    from usearch.index import Index

    name = f"usearch {version('usearch')}"
    began = time.perf_counter()
    index = Index(
        ndim=rows.shape[1],
        metric="ip",
        dtype="f16",
        connectivity=NEIGHBOURS,
        expansion_add=WIDTH_BUILT,
        expansion_search=WIDTH,
    )
    index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=1)

    def search(vector: Sequence[float], _one_in: int) -> list[dict[str, Any]]:
        found = index.search(np.array(vector, np.float32), WANTED, threads=1)
        return hits(found.keys.tolist(), (1 - found.distances).tolist())

    def set_width(width: int) -> None:
        index.expansion_search = width  # type: ignore[misc]  # it can be set

    size = index.memory_usage / 1e6
    return Peer(name, search, time.perf_counter() - began, size, set_width)


def _sqlite(name: str, rows: Floats) -> Peer:
    import apsw
    import sqlite_vec  # type: ignore[import-untyped,import-not-found,unused-ignore]

    began = time.perf_counter()
    database = apsw.Connection(":memory:")
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    database.execute(
        f"CREATE VIRTUAL TABLE rows USING vec0(id INTEGER PRIMARY KEY, "
        f"row float[{rows.shape[1]}] distance_metric=cosine, "
        "tenth INTEGER, hundredth INTEGER, thousandth INTEGER)"
    )
    with database:
        database.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?)",
            ((n, row.tobytes(), n % 10, n % 100, n % 1000) for n, row in enumerate(rows)),
        )

    def search(vector: Sequence[float], one_in: int) -> list[dict[str, Any]]:
        condition = f" AND {FIELDS[one_in]} = 0" if one_in > 1 else ""
        found = list(
            database.execute(
                f"SELECT id, distance FROM rows WHERE row MATCH ? AND k = {WANTED}{condition}",
                (np.array(vector, np.float32).tobytes(),),
            )
        )
        return hits([int(row[0]) for row in found], [1 - float(row[1]) for row in found])

    return Peer(name, search, time.perf_counter() - began, rows.nbytes / 1e6, filters=True)


def _lance(name: str, rows: Floats) -> Peer:
    """Its rows are on disk, in a byte a number beside a graph; what is found is scored again."""
    import lancedb  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import pyarrow  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from lancedb.index import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        BTree,
    )

    began = time.perf_counter()
    folder = tempfile.TemporaryDirectory()
    numbers, dimensions = np.arange(len(rows)), rows.shape[1]
    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), dimensions)
    columns = {name: numbers % one_in for one_in, name in FIELDS.items()}
    data = pyarrow.table({"id": numbers, "row": vectors, **columns})
    table = lancedb.connect(folder.name).create_table("rows", data)
    table.create_index(
        metric="cosine",
        vector_column_name="row",
        index_type="IVF_HNSW_SQ",
        num_partitions=1,
        m=NEIGHBOURS,
        ef_construction=WIDTH_BUILT,
    )
    for column in columns:
        table.create_index(column, config=BTree())
    seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in Path(folder.name).rglob("*") if path.is_file())
    held = WIDTH

    def search(vector: Sequence[float], one_in: int) -> list[dict[str, Any]]:
        asked = table.search(vector, vector_column_name="row").distance_type("cosine")
        asked = asked.limit(WANTED).refine_factor(_REFINED).ef(held).select(["id", "_distance"])
        if one_in > 1:
            asked = asked.where(f"{FIELDS[one_in]} = 0", prefilter=True)
        found = asked.to_list()
        return hits([hit["id"] for hit in found], [1 - hit["_distance"] for hit in found])

    def set_width(width: int) -> None:
        nonlocal held
        assert folder.name, "it is there for as long"
        held = max(width, WANTED * _REFINED)

    return Peer(name, search, seconds, size / 1e6, set_width, filters=True)


_REFINED: Final = 2
"""Twice as many as are wanted are scored again: without, its recall is 0.98."""
