"""
`headrace import`: documents of a file into a table.

    .jsonl    a JSON object a line
    .json     an array of JSON objects
    .csv      a header, then a document a line; a cell is a number or a boolean where JSON would
              have it so, left out where it is empty, and else a string

Documents may bring `_id` and `_creationTime`, as `headrace data TABLE --json` writes them; others
are given to them. An empty table takes ids of another directory, and one with documents its own.

Documents may refer to others of their slice; a table comes after those that it refers to.

The file goes in slices, each a transaction.  What is refused ends the import; the slices before
stay, and the message says how many documents that are.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.json_input import read_json
from engine.cli.output import note, progress
from engine.cli.project import new_verb
from engine.errors import EngineError, UsageError

if TYPE_CHECKING:
    from _csv import Reader

SLICE_DOCUMENTS: Final = 256
SLICE_BYTES: Final = 1 << 20
"""Of JSON; one request, one transaction."""
JSON_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "import",
        "insert the documents of a file into a table",
        "headrace import --table messages messages.jsonl",
        "headrace import --table people people.csv",
        "headrace import --table people people.json --url https://example.com",
        description=__doc__.partition("\n\n")[2],
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl|csv|json")
    parser.add_argument("--table", required=True)
    parser.add_argument("--component", default="", metavar="PATH", help="whose table it is")
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    documents = read_documents(options.file)
    done = 0
    with connected(options, needs_app=True) as client, progress(f"into {options.table}") as advance:
        try:
            for documents_of_slice in _slices(documents):
                client.post(
                    "import",
                    {
                        "table": options.table,
                        "component": options.component,
                        "first": done + 1,
                        "documents": documents_of_slice,
                    },
                )
                done += len(documents_of_slice)
                advance(done)
        except (EngineError, OSError):
            note(f"{done} documents were imported before this:")
            raise
    print(f"imported {done} documents into {options.table}")
    return Exit.DONE


def read_documents(file: Path) -> Iterator[dict[str, Any]]:
    """
    The documents of a file, in its order; it is read as they are asked for.

    Raises:
        UsageError: at once if the file is not there or of no known kind; later where it is broken.
    """
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise UsageError(f"{file}: an import is a .jsonl, .json or .csv file")
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file")
    return _explained(file, read(file))


def _explained(file: Path, documents: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from documents
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no UTF-8 text ({error}); convert it first") from None


def _of_jsonl(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _document(f"{file}:{number}", read_json(f"{file}:{number}: this is", line))


def _of_json(file: Path) -> Iterator[dict[str, Any]]:
    found = read_json(f"{file}: this is", file.read_text("utf-8"))
    if not isinstance(found, list):
        raise UsageError(f"{file} has to be an array of objects; for an object a line use .jsonl")
    for number, one in enumerate(found, 1):
        yield _document(f"{file}, item {number}", one)


def _of_csv(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        header = _next_row(file, rows)
        if header is None:
            raise UsageError(f"{file} is empty; its first line has to name the fields")
        for number in count(2):
            row = _next_row(file, rows)
            if row is None:
                return
            if row and len(row) != len(header):
                raise UsageError(
                    f"{file}, row {number}: {len(row)} cells, but the header has {len(header)}"
                )
            if row:
                cells = zip(header, row, strict=True)
                place = f"{file}, row {number}"
                fields = {name: _cell(place, cell) for name, cell in cells if cell != ""}
                yield _document(place, fields)


def _next_row(file: Path, rows: Reader) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        raise UsageError(f"{file}:{rows.line_num}: {error}") from None


_READERS: Final[dict[str, Callable[[Path], Iterator[dict[str, Any]]]]] = {
    ".jsonl": _of_jsonl,
    ".ndjson": _of_jsonl,
    ".json": _of_json,
    ".csv": _of_csv,
}


def _document(place: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UsageError(f"{place}: a document is a JSON object, not {json.dumps(found)[:80]}")
    return found


def _cell(place: str, text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return read_json(f"{place}: this is", text) if JSON_NUMBER.fullmatch(text) else text


def _slices(documents: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    gathered: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        gathered.append(document)
        size += len(json.dumps(document))
        if len(gathered) >= SLICE_DOCUMENTS or size >= SLICE_BYTES:
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered
