"""Bugs that the search proof has to catch, each planted for as long as its context lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from engine.indexes import keeper
from engine.indexes.keeper import IndexKeeper
from engine.indexes.live import Checkpoint
from engine.indexes.text import index as text_index
from engine.indexes.text.index import OwnTexts, TextIndex
from engine.indexes.text.parts import Compacted, Segment, compacted
from engine.indexes.text.runs import Bound
from engine.indexes.vectors import graph, nearest
from engine.indexes.vectors.graph import Graph
from engine.indexes.vectors.index import OwnVectors, VectorIndex
from engine.indexes.vectors.parts import FOREVER, Part
from engine.indexes.vectors.rows import about

# Those of texts.


@contextmanager
def _overlay_forgets_a_delete() -> Iterator[None]:
    original = OwnTexts.put

    def forgetful(self: OwnTexts, internal: bytes, doc: dict[str, Any] | None) -> None:
        if doc is not None:
            original(self, internal, doc)

    with patch.object(OwnTexts, "put", forgetful):
        yield


@contextmanager
def _a_document_counts_twice() -> Iterator[None]:
    original = TextIndex._grow

    def twice(self: TextIndex, ts: int, by: int) -> None:
        original(self, ts, 2 * by if by > 0 else by)

    with patch.object(TextIndex, "_grow", twice):
        yield


@contextmanager
def _a_fold_loses_what_ended_meanwhile() -> Iterator[None]:
    original = TextIndex.fold

    def early(self: TextIndex, durable_ts: int) -> Any:
        work = original(self, durable_ts)
        if work is None:
            return None
        parts = self.to_compact(durable_ts)
        ended = [part.ended.copy() for part in parts]

        def segment(made: Compacted, _: Any) -> Segment:
            return Segment(made.arrays, made.begun, np.concatenate(ended)[made.origin])

        def compact() -> Any:
            with patch.object(Compacted, "segment", segment):
                install = work()

            def installed() -> None:
                with patch.object(Compacted, "segment", segment):
                    install()

            return installed

        return compact

    with patch.object(TextIndex, "fold", early):
        yield


@contextmanager
def _a_refused_batch_stays() -> Iterator[None]:
    with patch.object(TextIndex, "roll_back", lambda _self, _ts: None):
        yield


@contextmanager
def _folds_forget_what_a_view_sees() -> Iterator[None]:

    def tight(parts: Any, _floor_ts: int) -> Compacted:
        return compacted(parts, max(int(part.ended.max(initial=0)) for part in parts))

    with patch.object(text_index, "compacted", tight):
        yield


@contextmanager
def _the_log_is_not_read_after_a_crash() -> Iterator[None]:
    original = IndexKeeper._read

    async def newest(self: IndexKeeper, info: Any) -> Any:
        index, ts = await original(self, info)
        return index, None if ts is None else self._published.value

    with patch.object(IndexKeeper, "_read", newest):
        yield


@contextmanager
def _a_build_forgets_what_is_written_behind_it() -> Iterator[None]:
    with patch.object(keeper._Walk, "_is_behind", lambda self, _key: self.has_walked):
        yield


@contextmanager
def _heads_are_all_that_there_is() -> Iterator[None]:
    with patch.object(Bound, "rest", 0.0):
        yield


# Those of vectors.


@contextmanager
def _own_vectors_forget_a_delete() -> Iterator[None]:
    original = OwnVectors.put

    def forgetful(self: OwnVectors, internal: bytes, doc: dict[str, Any] | None) -> None:
        if doc is not None:
            original(self, internal, doc)

    with patch.object(OwnVectors, "put", forgetful):
        yield


@contextmanager
def _vectors_of_a_refused_batch_stay() -> Iterator[None]:
    with patch.object(VectorIndex, "roll_back", lambda _self, _ts: None):
        yield


@contextmanager
def _a_fold_of_vectors_loses_what_ended_meanwhile() -> Iterator[None]:
    original = VectorIndex.fold

    def early(self: VectorIndex, durable_ts: int) -> Any:
        work = original(self, durable_ts)
        if work is None:
            return None

        def run() -> Any:
            install = work()

            def installed() -> None:
                install()
                for part in self.folded:
                    part.ends[part.ends > durable_ts] = FOREVER

            return installed

        return run

    with patch.object(VectorIndex, "fold", early):
        yield


@contextmanager
def _folds_of_vectors_forget_what_a_view_sees() -> Iterator[None]:
    original = VectorIndex._folding

    def tight(self: VectorIndex, at: slice, rows: int) -> Any:
        floor_ts, self.floor_ts = self.floor_ts, FOREVER - 1
        try:
            return original(self, at, rows)
        finally:
            self.floor_ts = floor_ts

    with patch.object(VectorIndex, "_folding", tight):
        yield


@contextmanager
def _files_of_vectors_forget_what_ended() -> Iterator[None]:
    original = VectorIndex.checkpoint

    def forgetful(self: VectorIndex, durable_ts: int) -> Any:
        found = original(self, durable_ts)
        kept = {"parts": [[name, b""] for name, _ in found.manifest["parts"]]}
        return found._replace(manifest=kept)

    with patch.object(VectorIndex, "checkpoint", forgetful):
        yield


@contextmanager
def _a_graph_tells_what_has_gone() -> Iterator[None]:
    with patch.object(Part, "is_whole", lambda *_: True):
        yield


@contextmanager
def _a_score_is_that_of_float32() -> Iterator[None]:
    def scores(rows: Any, row: Any) -> Any:
        return about(rows, row).astype(np.float64)

    with patch.object(nearest, "scores", scores):
        yield


PLANTED: Final[Mapping[str, Callable[[], Any]]] = {
    "overlay-forgets-a-delete": _overlay_forgets_a_delete,
    "a-document-counts-twice": _a_document_counts_twice,
    "a-fold-loses-what-ended-meanwhile": _a_fold_loses_what_ended_meanwhile,
    "a-refused-batch-stays": _a_refused_batch_stays,
    "folds-forget-what-a-view-sees": _folds_forget_what_a_view_sees,
    "the-log-is-not-read-after-a-crash": _the_log_is_not_read_after_a_crash,
    "a-build-forgets-what-is-written-behind-it": _a_build_forgets_what_is_written_behind_it,
    "heads-are-all-that-there-is": _heads_are_all_that_there_is,
    "own-vectors-forget-a-delete": _own_vectors_forget_a_delete,
    "vectors-of-a-refused-batch-stay": _vectors_of_a_refused_batch_stay,
    "a-fold-of-vectors-loses-what-ended-meanwhile": _a_fold_of_vectors_loses_what_ended_meanwhile,
    "folds-of-vectors-forget-what-a-view-sees": _folds_of_vectors_forget_what_a_view_sees,
    "files-of-vectors-forget-what-ended": _files_of_vectors_forget_what_ended,
    "a-graph-tells-what-has-gone": _a_graph_tells_what_has_gone,
    "a-score-is-that-of-float32": _a_score_is_that_of_float32,
}


# Those that a process is to meet, which has threads, files and a graph that is really asked.


@contextmanager
def _a_checkpoint_is_ahead_of_its_files() -> Iterator[None]:
    def ahead(original: Callable[..., Checkpoint]) -> Callable[..., Checkpoint]:
        def checkpoint(self: object, durable_ts: int) -> Checkpoint:
            return original(self, durable_ts)._replace(ts=durable_ts)

        return checkpoint

    with (
        patch.object(TextIndex, "checkpoint", ahead(TextIndex.checkpoint)),
        patch.object(VectorIndex, "checkpoint", ahead(VectorIndex.checkpoint)),
    ):
        yield


@contextmanager
def _a_graph_holds_too_few_candidates() -> Iterator[None]:
    original = Graph.nearest

    def few(self: Graph, codes: Any, count: int) -> Any:
        self._index.expansion_search = 1
        return original(self, codes, -(-count // 2))

    with (
        patch.multiple(graph, NEIGHBOURS=8, WIDTH_BUILT=8),
        patch.object(Graph, "nearest", few),
        patch.multiple(nearest, WIDTH=1, _MORE=0),
    ):
        yield


@contextmanager
def _a_graph_is_of_other_rows() -> Iterator[None]:
    original = Graph.of

    def of(rows: Any, known: Graph | None = None) -> Graph:
        return original(np.roll(rows, 1, axis=0), known)

    with patch.object(Graph, "of", staticmethod(of)):
        yield


PLANTED_IN_PROCESSES: Final[Mapping[str, Callable[[], Any]]] = {
    "a-checkpoint-is-ahead-of-its-files": _a_checkpoint_is_ahead_of_its_files,
    "a-graph-holds-too-few-candidates": _a_graph_holds_too_few_candidates,
    "a-graph-is-of-other-rows": _a_graph_is_of_other_rows,
    **{
        bug: PLANTED[bug]
        for bug in (
            "a-fold-loses-what-ended-meanwhile",
            "a-fold-of-vectors-loses-what-ended-meanwhile",
            "the-log-is-not-read-after-a-crash",
            "a-build-forgets-what-is-written-behind-it",
        )
    },
}


def planted(bug: str) -> Any:
    """A context in which a process has a bug; "none" is as it is."""
    return nullcontext() if bug == "none" else PLANTED_IN_PROCESSES[bug]()
