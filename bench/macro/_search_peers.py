"""What text search is measured beside: libraries alone, without an engine around them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from bench.harness import progress

Docs: TypeAlias = Sequence[tuple[str, str]]
"""Part of speech and gloss."""
Search: TypeAlias = Callable[[str, str | None], list[dict[str, Any]]]
"""The best for a text, and of one part of speech if one is given."""
WANTED = 20


class Peer(NamedTuple):
    name: str
    fill: Callable[[Path, Docs], Search]
    again: Callable[[Path], Search] | None
    """Open what was filled, if it is in files."""
    filters: bool


class Filled(NamedTuple):
    name: str
    search: Search
    seconds: float
    """That filling it took."""
    filters: bool


def filled(directory: Path, docs: Docs) -> Iterator[Filled]:
    """Each peer that is installed, with the documents in it."""
    for label, peer in installed():
        folder = directory / peer.name
        folder.mkdir()
        began = time.perf_counter()
        search = peer.fill(folder, docs)
        yield Filled(label, search, time.perf_counter() - began, peer.filters)


def installed() -> Iterator[tuple[str, Peer]]:
    """Each peer that is, by its name with its version."""
    for package, peer in PEERS:
        label = peer.name
        try:
            if package:
                label += f" {version(package)}"
        except PackageNotFoundError:
            progress(f"{peer.name} is skipped: pip install {package}")
            continue
        yield label, peer


def _tantivy(folder: Path, docs: Docs) -> Search:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("part", stored=True, tokenizer_name="raw")
    builder.add_text_field("text", stored=True)
    schema = builder.build()
    index = tantivy.Index(schema, path=str(folder))
    writer = index.writer(heap_size=128 << 20, num_threads=1)
    for part, text in docs:
        writer.add_document(tantivy.Document(part=part, text=text))
    writer.commit()
    writer.wait_merging_threads()
    return _tantivy_again(folder)


def _tantivy_again(folder: Path) -> Search:
    import tantivy

    index = tantivy.Index.open(str(folder))
    searcher = index.searcher()
    occur = tantivy.Occur

    def search(text: str, part: str | None) -> list[dict[str, Any]]:
        query = index.parse_query(text, ["text"])
        if part is not None:
            of_part = tantivy.Query.term_query(index.schema, "part", part)
            query = tantivy.Query.boolean_query([(occur.Must, query), (occur.Must, of_part)])
        found = searcher.search(query, WANTED).hits
        return [searcher.doc(address).to_dict() | {"score": score} for score, address in found]

    return search


def _fts5(folder: Path, docs: Docs) -> Search:
    database = sqlite3.connect(folder / "notes")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE VIRTUAL TABLE notes USING fts5(part UNINDEXED, text)")
    with database:
        database.executemany("INSERT INTO notes VALUES (?, ?)", docs)
    with database:
        database.execute("INSERT INTO notes(notes) VALUES ('optimize')")
    return _fts5_again(folder)


def _fts5_again(folder: Path) -> Search:
    database = sqlite3.connect(folder / "notes")
    database.row_factory = sqlite3.Row
    plain = "SELECT part, text, rank FROM notes WHERE notes MATCH ? ORDER BY rank LIMIT 20"
    of_part = plain.replace("ORDER", "AND part = ? ORDER")

    def search(text: str, part: str | None) -> list[dict[str, Any]]:
        either = " OR ".join(f'"{word}"' for word in text.split())
        rows = (
            database.execute(plain, (either,))
            if part is None
            else database.execute(of_part, (either, part))
        )
        return [dict(row) for row in rows]

    return search


def _bm25s(_folder: Path, docs: Docs) -> Search:
    import bm25s

    corpus = [{"part": part, "text": text} for part, text in docs]
    texts = [text for _, text in docs]
    tokens = bm25s.tokenize(texts, stopwords=None, show_progress=False)
    retriever = bm25s.BM25(corpus=corpus)
    retriever.index(tokens, show_progress=False)

    def search(text: str, _part: str | None) -> list[dict[str, Any]]:
        asked = bm25s.tokenize(text, stopwords=None, show_progress=False)
        found, scores = retriever.retrieve(asked, k=WANTED, show_progress=False)
        return [dict(doc, score=float(s)) for doc, s in zip(found[0], scores[0], strict=True)]

    return search


PEERS = (
    ("tantivy", Peer("tantivy", _tantivy, _tantivy_again, filters=True)),
    ("", Peer("SQLite FTS5", _fts5, _fts5_again, filters=True)),
    ("bm25s", Peer("bm25s", _bm25s, None, filters=False)),
)
