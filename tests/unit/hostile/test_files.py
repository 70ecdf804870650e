"""Files that people import: whatever is in them is documents, or refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.imports import read_documents
from engine.errors import UsageError
from tests.unit.hostile.mutants import JSON_PIECES, mutants
from tests.unit.hostile.test_decoders import refused

DOCUMENTS = [{"name": "ada", "n": 1.5, "tags": ["a", {"b": None}]}, {"name": "bo, b", "n": 2}]
FILES = {
    ".json": json.dumps(DOCUMENTS),
    ".jsonl": "\n".join(map(json.dumps, DOCUMENTS)),
    ".csv": 'name,n,on\nada,1.5,true\n"bo, ""b""",2,\n',
}
PIECES = [*JSON_PIECES, b'"', b'"\n', b"\r", b",", b"\n,", b"x" * 140_000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imported")


@pytest.mark.parametrize("suffix", FILES)
@given(seed=st.integers(0, 2**32))
def test_a_file_is_documents_or_refused_in_words(folder: Path, suffix: str, seed: int) -> None:
    file = folder / f"documents{suffix}"

    for data in mutants(FILES[suffix].encode(), seed, PIECES):
        file.write_bytes(data)
        if not refused(lambda f: list(read_documents(f)), file, UsageError):
            assert all(isinstance(document, dict) for document in read_documents(file))
